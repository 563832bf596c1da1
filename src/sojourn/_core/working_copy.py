"""WorkingCopy: one request's copy of a session, with the changes that are not committed yet."""

from __future__ import annotations

import enum
from hmac import compare_digest
from typing import Any, Final, Protocol

import msgspec

from sojourn._core.changes import ChangeTracker
from sojourn._core.context import CoreContext
from sojourn._core.late_changes import LateChanges
from sojourn._core.login import Login, Renewal, Rotation
from sojourn._core.operations import OperationLog
from sojourn._core.reserved_keys import GRANT
from sojourn._core.unsettled_commits import Attempt, Claim, Operations, UnsettledCommits
from sojourn._crypto.tickets import Ticket, hash_verifier, mint_id
from sojourn.errors import (
    CommitOutcomeUnknown,
    LimitReached,
    ResponseStarted,
    StoreUnavailable,
)
from sojourn.events import Authenticated, Rotated
from sojourn.record import FOREVER, Contents, Record, UnreadableRecord


class CookieChange(enum.Enum):
    """What the response must do to the visitor's cookie."""

    NONE = "none"
    SEND = "send"
    CLEAR = "clear"


#: A module constant: the look-up of an enum member costs a thousand instructions in Python 3.11.
NO_COOKIE_CHANGE: Final = CookieChange.NONE


class Client(Protocol):
    """The sender of a request; called only when a session is created or checked."""

    def labels(self) -> dict[str, str]:
        """Return short texts such as ``browser`` and ``address``."""
        ...


class WorkingCopy(msgspec.Struct, eq=False):
    """The state of one session during one request, socket or stream.

    ``Session`` is the façade that a handler uses; the engine and the web layer use this object. A
    struct, because every request creates one: Python 3.11 needs 1,500 instructions more to call an
    ``__init__`` written in Python.

    Attributes:
        context: of the engine.
        record: as loaded or last written; None if nothing is stored or the session has ended.
        verifier: 16 bytes, the secret half of the ticket; empty while nothing is stored.
        client: the sender of the request.
        contents: the decoded body of the record; None until it is needed.
        changes: the keys and their operations; None until they are needed.
        accessed: the handler used the session, so the response needs cache headers (law A13).
        cookie_change: what the response must do to the cookie.
        send_cookie_until: the cookie is not sent from this instant on, milliseconds since 1970 UTC.
            A request with a previous ticket receives the present one; a late response could replace
            a newer one in the browser (law A7).
        retired_cookie: the Set-Cookie header that deletes the cookie of another library; empty for
            none.
        destroyed_record: the record that the next commit deletes.
        destroyed_by_visitor: a session was destroyed in this request.
        revoked: another party ended the session; nothing is written any more (law A7).
        unsaved_id: the ID of a session that is not stored; empty until it is needed.
        ended_reason: why the session that the visitor had before ended; None if unknown.
        renewal: a login or rotation that the next commit carries out.
        header_dirty: the record's header must record that the new ticket of a rotation was seen.
        transport_error: raised when the session is used over an insecure transport.
        persistence: whether the cookie outlives the browser from the next commit on; None for no
            change.
        active_at: when the client of a socket last sent a message, milliseconds since 1970 UTC;
            changes that the server makes later are not activity of the client (law W6). 0 for a
            request, which is active when it is committed.
        provisional_offset: of the server's clock when a login or a grant was dated by it while a
            measurement was due, as before the first contact; None otherwise.
        created_in_request: the record did not exist when the request arrived.
        response_started: the headers have been sent, so the cookie cannot be changed.
        state: the object behind ``session.state``.
        store_error: why the session could not be loaded; the request continues without it.
        store_error_raised: ``store_error`` was raised to the application, so an error response of
            its framework means that the store is unavailable.
        unsettled: commits and claims whose outcome is unknown; None if there are none (law A21).
        written: data was saved, so other processes may have an older record with this verifier in
            memory (law N3).
        removal_interrupted: the call that deletes ``destroyed_record`` was interrupted.
        late_changes: reports changes from after the end of the request; None without any.
    """

    context: CoreContext
    record: Record | None = None
    verifier: bytes = b""
    client: Client | None = None
    contents: Contents | None = None
    changes: ChangeTracker | None = None
    accessed: bool = False
    cookie_change: CookieChange = NO_COOKIE_CHANGE
    send_cookie_until: int = FOREVER
    destroyed_record: Record | None = None
    destroyed_by_visitor: bool = False
    revoked: bool = False
    unsaved_id: bytes = b""
    ended_reason: str | None = None
    renewal: Renewal | None = None
    header_dirty: bool = False
    persistence: bool | None = None
    transport_error: Exception | None = None
    active_at: int = 0
    provisional_offset: int | None = None
    created_in_request: bool = False
    response_started: bool = False
    state: Any = None
    store_error: StoreUnavailable | None = None
    store_error_raised: bool = False
    unsettled: UnsettledCommits | None = None
    removal_interrupted: bool = False
    retired_cookie: bytes = b""
    written: bool = False
    late_changes: LateChanges | None = None

    def __repr__(self) -> str:
        """Show the session ID; the verifier is a secret (law A18)."""
        return f"<WorkingCopy of {self.session_id().hex()}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # msgspec's own shows every field
        """Return the session ID."""
        return [("session_id", self.session_id().hex())]

    # Reading

    def access(self) -> ChangeTracker:
        """Mark the session as accessed and return its keys."""
        self.accessed = True
        return self.changes or self.decode()

    def decode(self) -> ChangeTracker:
        """Return the keys, with values still encoded, without marking the session as accessed."""
        if self.changes is not None:
            return self.changes
        if self.transport_error is not None:
            raise self.transport_error
        context, record = self.context, self.record
        data: dict[str, bytes]
        if record is None:
            data = {}
        else:
            try:
                self.contents = contents = context.cipher.decrypt(record, self.verifier)
                data = contents.data
            except UnreadableRecord as error:
                context.report_unreadable(record.id, error)
                self.record = None
                data = {}
        self.changes = changes = ChangeTracker(data, context.merges, context.encoder)
        if context.upgrade is not None:
            changes.use_upgrade(context.upgrade)
        return changes

    def session_id(self) -> bytes:
        """Return the session ID, 16 bytes."""
        if self.record is not None:
            return self.record.id
        if not self.unsaved_id:
            self.unsaved_id = mint_id()
        return self.unsaved_id

    def uncommitted_session_id(self) -> bytes:
        """Return the ID of the session that a commit changes or deletes, 16 bytes."""
        if self.destroyed_record is not None:
            return self.destroyed_record.id
        return self.session_id()

    def ticket(self) -> Ticket:
        """Return the ticket for the visitor's cookie."""
        return Ticket(self.session_id(), self.verifier)

    def has_record(self, session_id: bytes) -> bool:
        """Return whether this is still that session; it may be destroyed while a store is awaited.

        Args:
            session_id: 16 bytes.
        """
        return self.record is not None and self.record.id == session_id

    def modified(self) -> bool:
        """Return whether the handler changed anything that is not committed."""
        changes = self.changes
        if changes is not None and (changes.states or changes.cleared) and changes.modified():
            return True
        return (
            self.destroyed_record is not None
            or self.renewal is not None
            or self.unsettled is not None
        )

    def labels(self) -> dict[str, str]:
        """Return the labels of the client."""
        return {} if self.client is None else self.client.labels()

    @property
    def user(self) -> str | None:
        """The user who is logged in, also by a login that is not committed yet."""
        if isinstance(self.renewal, Login):
            return self.renewal.user
        return None if self.contents is None else self.contents.user

    def authenticated(self) -> bool:
        """Return whether a user is logged in; the record's body is not decoded for it."""
        record = self.record
        if record is not None and record.authenticated_at > 0:
            return True
        return self.renewal is not None and isinstance(self.renewal, Login)

    def authenticated_at(self) -> int:
        """Return the instant of the last login, milliseconds since 1970 UTC; 0 if there is none."""
        if isinstance(self.renewal, Login):
            return self.renewal.at
        return 0 if self.record is None else self.record.authenticated_at

    def persistent(self) -> bool:
        """Return whether the cookie outlives the browser ("remember me")."""
        if self.persistence is not None:
            return self.persistence
        if isinstance(self.renewal, Login):
            return self.renewal.remember
        return self.record is not None and self.record.persistent

    # Changing

    def edit(self) -> ChangeTracker:
        """Return the keys for a change.

        Raises:
            ResponseStarted: the change would create a session whose cookie cannot be sent.
        """
        self.accessed = True
        changes = self.changes or self.decode()
        if self.response_started and not self.revoked:
            if self.record is None:
                raise ResponseStarted
            if self.client is None:
                self._record_late_change()
        return changes

    def _record_late_change(self) -> None:
        """Record a change after the end of the request, which the framework does not commit."""
        if self.late_changes is None:
            self.late_changes = LateChanges(self)

    def destroy(self) -> None:
        """Delete the record at the next commit and start an empty session."""
        if self.record is not None:
            self.destroyed_record = self.record
        elif self.unsettled is not None:
            self.destroyed_record = self.unsettled.created()
        self.reset()
        if self.client is None and self.destroyed_record is not None:
            self._record_late_change()  # also if the request failed, and another layer responds

    def mark_response_started(self) -> None:
        """Record that the session was loaded after the headers were sent: no cookie can be set."""
        self.response_started = True
        self.renewal = None  # a rotation would replace a verifier that the client still sends
        self.cookie_change = CookieChange.NONE

    def send_cookie(self) -> None:
        """Send the cookie with the response, if the headers have not been sent."""
        if not self.response_started:
            self.cookie_change = CookieChange.SEND
            self.send_cookie_until = FOREVER

    def reset(self) -> None:
        """Become the empty session of a new visitor."""
        if self.cookie_change is CookieChange.SEND:
            self.cookie_change = CookieChange.NONE  # its ticket belongs to the previous session
        self.send_cookie_until = FOREVER
        self.record = None
        self.renewal = None
        self.persistence = None
        self.verifier = b""
        self.created_in_request = True
        self.contents = None
        self.unsaved_id = b""
        context = self.context
        self.changes = ChangeTracker({}, context.merges, context.encoder, upgrade=context.upgrade)
        self.state = None
        self.unsettled = None

    def set_persistence(self, persistent: bool) -> None:  # noqa: FBT001 - the only argument
        """Let the cookie outlive the browser from the next commit on, or end with it.

        Raises:
            ResponseStarted: the cookie cannot be sent.
        """
        if self.persistent() is persistent:
            return
        if self.response_started and not self.revoked:
            raise ResponseStarted
        self.persistence = persistent

    def record_instant(self) -> None:
        """Record that a login or a grant has just been dated."""
        server_clock = self.context.server_clock
        if server_clock is not None and self.provisional_offset is None and server_clock.due():
            self.provisional_offset = server_clock.offset()

    def correct_instants(self) -> None:
        """Move the instants of the login and the grants to the offset that was measured since."""
        server_clock = self.context.server_clock
        if self.provisional_offset is None or server_clock is None:
            return
        correction = server_clock.offset() - self.provisional_offset
        self.provisional_offset = None
        if isinstance(self.renewal, Login) and not self.renewal.checked_at:
            self.renewal = msgspec.structs.replace(self.renewal, at=self.renewal.at + correction)
        changes = self.decode()
        for key in list(changes):
            if key.startswith(GRANT):
                changes.set(key, changes.get(key) + correction)

    # Following the store

    def replace_record(self, record: Record, contents: Contents) -> None:
        """Continue on a newer record of the same session; keep uncommitted operations."""
        self.record = record
        self.contents = contents
        data = contents.data
        if self.unsettled is not None:
            data = self.unsettled.apply(data)
        if self.changes is not None:
            self.changes.rebase(data)
            return
        context = self.context
        self.changes = changes = ChangeTracker(data, context.merges, context.encoder)
        if context.upgrade is not None:
            changes.use_upgrade(context.upgrade)

    def follow_rotation(self, record: Record) -> None:
        """Adopt the verifier of a newer record if it was rotated by another request."""
        known = self.record
        if known is None or known.verifier == record.verifier:
            return
        self.header_dirty = False  # the ticket that was seen is not the newest any more
        if isinstance(self.renewal, Rotation) and self.renewal.grace_period:
            self.renewal = None  # another request has rotated already
        if compare_digest(hash_verifier(self.verifier), record.verifier):
            return
        verifier = self.context.rotation.descendant(
            record.id, self.verifier, hashed=record.verifier
        )
        if verifier is not None:
            self.verifier = verifier
            self.send_cookie()

    def renewal_saved(self, record: Record) -> None:
        """Record that the login, the rotation or the header was written; report it."""
        self.header_dirty = False
        renewal = self.renewal
        if renewal is None:
            return
        self.renewal = None
        self.written = False  # a record in memory has another verifier than the ticket
        self.verifier = renewal.verifier
        self.send_cookie()
        context = self.context
        if isinstance(renewal, Login):
            context.dispatcher.emit(Authenticated(record.session_id, renewal.user, renewal.methods))
            context.connections.user_logged_in(record.id)
        else:
            context.dispatcher.emit(Rotated(record.session_id))
            context.connections.verifier_rotated(record.id)

    # Interrupted commits (law A21)

    def add_unsettled(
        self,
        attempt: Attempt,
        log: OperationLog,
        *,
        created: Record | None = None,
        verifier: bytes = b"",
    ) -> None:
        """Keep the operations of a commit whose outcome is unknown.

        Args:
            attempt: the interrupted store call, which also contained the earlier operations.
            log: the operations, taken from ``changes``.
            created: the record, if the call inserts it.
            verifier: of ``created``.
        """
        self.unsettled = self.unsettled or UnsettledCommits()
        self.unsettled.operations.append(Operations(log, [], self.renewal, created, verifier))
        self.unsettled.add_attempt(attempt)
        self._rebase()

    def add_unsettled_claim(self, key: str, attempt: Attempt, value: bytes) -> None:
        """Keep the value of a claim whose outcome is unknown."""
        self.unsettled = self.unsettled or UnsettledCommits()
        self.unsettled.claims[key] = Claim(attempt, value)

    def settle(self, record: Record) -> int:
        """Adopt the interrupted commits that a newer record of the session contains.

        Returns:
            The instant of an interrupted login that the record contains; 0 if there is none.

        Raises:
            CommitOutcomeUnknown: the record has no commit ID of at least one of them any more.
        """
        unsettled = self.unsettled
        if unsettled is None:
            return 0
        login_at = 0
        applied, unknown = unsettled.settle(record)
        self.written = self.written or bool(applied)
        for operations in applied:
            renewal = operations.renewal
            if renewal is not None and renewal is self.renewal:
                self.renewal_saved(record)
                if isinstance(renewal, Login):
                    login_at = renewal.at
        if not (unsettled.operations or unsettled.claims):
            self.unsettled = None
        if unknown:
            self._rebase()
            raise CommitOutcomeUnknown(record.session_id, unknown)
        return login_at

    def _rebase(self) -> None:
        """Apply the unsettled operations to the data that the uncommitted ones are based on."""
        data = {} if self.contents is None else self.contents.data
        if self.unsettled is not None:
            data = self.unsettled.apply(data)
        self.decode().rebase(data)

    def commit_failed(self, error: BaseException) -> None:
        """Drop a login that was refused, with the grants given after it.

        The handler may answer ``LimitReached`` and continue with the session from before.
        """
        if isinstance(error, LimitReached):
            changes = self.decode()
            for key in self.renewal.grants if isinstance(self.renewal, Login) else ():
                changes.delete(key)
            self.renewal = None

    def mark_revoked(self, session_id: bytes) -> None:
        """Record that another party ended the session: no data, and never a new record (law A7).

        Args:
            session_id: 16 bytes, of the session that ended.
        """
        self.reset()
        self.revoked = True
        self.unsaved_id = session_id
