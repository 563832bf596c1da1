"""LegacyConversion: continues the sessions that visitors have from another library."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sojourn._core.codec import encode
from sojourn._core.concurrency import Deadline, shielded
from sojourn._core.engine import Engine
from sojourn._core.login import UNKNOWN_LOGIN, UNTIL_SEEN
from sojourn._core.policy import expired
from sojourn._core.reserved_keys import AUTH, check_key
from sojourn._core.revocation import TOMBSTONE_VERSION
from sojourn._core.working_copy import Client, CookieChange, WorkingCopy
from sojourn._crypto.tickets import VERIFIER_BYTES, Ticket, derive, hash_verifier
from sojourn.errors import (
    LimitReached,
    NotSerializable,
    SessionTooLarge,
    StoreError,
    StoreUnavailable,
)
from sojourn.events import Created
from sojourn.record import (
    COMMIT_ID_BYTES,
    FOREVER,
    ID_BYTES,
    NO_COMMIT_IDS,
    NO_VERIFIER,
    Contents,
    Record,
    UnreadableRecord,
    check_user,
    new_commit_id,
    pack_body,
)
from sojourn.store import SAVED
from sojourn.web.cookies import Cookie, CookieReader
from sojourn.web.legacy_reader import MAX_COOKIE_BYTES, LegacyReader, LegacySession
from sojourn.web.transport_security import SECURE, TransportSecurity

logger: logging.Logger = logging.getLogger("sojourn")

#: Milliseconds that markers outlive ``read_legacy_until``, in case it is postponed.
_MARKER_MARGIN: Final = 90 * 86_400_000

#: The label of a marker that names the commit that created the session.
_COMMIT: Final = "commit"

#: Names of the markers that refuse sessions of a user, or all.
_ALL: Final = b"all"


class LegacyConversion:
    """Converts the sessions of other libraries until an instant.

    The session is created when the first request with the old cookie is loaded, under an ID derived
    from the cookie, so that parallel requests meet in one record (law A6). The old cookie counts as
    the ticket before the first: valid until the new one was seen, and two seconds longer (A9). A
    record of version 0, the conversion marker, prevents that the old cookie is converted again
    after the session has ended (A7).

    Args:
        readers: tried in this order; the first whose cookie is valid decides.
        until: milliseconds since 1970 UTC.
        engine: of the installation.
        secrets: of the installation, newest first.
        realm: of the installation.
    """

    def __init__(
        self,
        readers: Sequence[LegacyReader],
        until: int,
        engine: Engine,
        *,
        secrets: Sequence[bytes],
        realm: str,
    ) -> None:
        self._readers = [(reader, CookieReader(reader.cookie).find) for reader in readers]
        self._until = until
        self._engine = engine
        self._key = derive(secrets[0], b"legacy", realm, 32)
        self._reported: set[tuple[str, str]] = set()

    def active(self) -> bool:
        """Return whether old cookies are still read."""
        return self._engine.clock() < self._until

    def has_cookie(self, cookies: bytes | None) -> bool:
        """Return whether a Cookie header has a cookie of another library, valid or not."""
        return cookies is not None and self.active() and any(f(cookies) for _, f in self._readers)

    async def load(
        self, cookies: bytes, transport: TransportSecurity, client: Client
    ) -> WorkingCopy:
        """Return the session of a request without a ticket: continued, or empty.

        Args:
            cookies: the Cookie header.
            transport: of the request.
            client: of the request.

        Raises:
            StoreUnavailable: a store failed; the visitor may have a session.
        """
        found = self._verify(cookies) if self.active() else None
        if found is None:
            return self._empty(client)
        reader, session = found
        deadline = Deadline(self._engine.context.config.store_timeout)
        # Shielded: a client that disconnects must not leave a session without its marker.
        copy = await deadline.bound(shielded(self._load(reader, session, client)))
        if copy is None:
            return self._empty(client)
        copy.retired_cookie = _deleting_cookie(reader, transport)
        copy.accessed = True  # the response depends on the old cookie
        return copy

    async def refuse_user(self, user: str) -> None:
        """Refuse the sessions of a user that other libraries began before now.

        Raises:
            StoreError: the store failed.
        """
        await self._add_refusal(b"user:" + user.encode())

    async def refuse_all(self) -> None:
        """Refuse the sessions that other libraries began before now.

        Raises:
            StoreError: the store failed.
        """
        await self._add_refusal(_ALL)

    def _verify(self, cookies: bytes) -> tuple[LegacyReader, LegacySession] | None:
        now = self._engine.clock()
        for reader, find in self._readers:
            values = find(cookies)
            # Several may be an attacker's, as with the session cookie (law A8).
            if len(values) != 1 or len(values[0]) > MAX_COOKIE_BYTES:
                continue
            value = values[0]
            if len(value) > 1 and value[0] == value[-1] == '"':  # as http.cookies writes "="
                value = value[1:-1]
            session = reader.verify(value, now)
            if session is not None:
                return reader, session
        return None

    def _empty(self, client: Client) -> WorkingCopy:
        return WorkingCopy(self._engine.context, None, b"", client)

    async def _load(
        self, reader: LegacyReader, session: LegacySession, client: Client
    ) -> WorkingCopy | None:
        """Return the session; an empty one if it ended or is refused; None to keep the cookie."""
        engine = self._engine
        ticket = self._ticket(session)
        await engine.context.check_keys(Deadline(engine.context.config.store_timeout))
        record = await engine.fetch(ticket.session_id)
        if record is not None:
            return await self._load_converted(reader, session, record, client)
        now = engine.revoker.now()  # before the refusals are read, so that later cutoffs are later
        try:
            converted = await self._marker(session) is not None
            data = None if converted else await reader.read(session)
            if data is None:
                # Another request may have converted it since the first check.
                record = await engine.fetch(ticket.session_id)
                if record is not None:
                    return await self._load_converted(reader, session, record, client)
                if not converted:
                    return None
                engine.context.report_rejected(ticket.session_id, "converted before")
                return self._empty(client)
            if not await self._accepted(reader, session, data):
                engine.context.report_rejected(ticket.session_id, "refused")
                await reader.remove(session)
                return self._empty(client)
        except StoreError as error:
            engine.context.raise_store_error("load", ticket.session_id, error)
        except Exception as error:
            raise StoreUnavailable(
                f"{reader!r} failed: {type(error).__name__}; the visitor's session is not known"
            ) from error
        contents = self._contents(reader, data, client)
        return await self._convert(reader, session, contents, now, client)

    async def _accepted(
        self, reader: LegacyReader, session: LegacySession, data: Mapping[str, Any]
    ) -> bool:
        user = self._user(reader, data)
        names = [_ALL] if user is None else [_ALL, b"user:" + user.encode()]
        for name in names:
            refusal = await self._fetch(_marker_id(name))
            if refusal is not None and session.issued_at <= refusal.seen_at:
                return False
        return await reader.accepts(data)

    async def _load_converted(
        self,
        reader: LegacyReader,
        session: LegacySession,
        record: Record,
        client: Client,
    ) -> WorkingCopy:
        """Return the session of a cookie that was converted by another request."""
        engine = self._engine
        ticket = self._ticket(session)
        now = engine.clock()
        if (
            expired(record, now) is None
            and hmac.compare_digest(record.previous_verifier, ticket.digest)
            and now < record.previous_valid_until
        ) and await self._complete(reader, session, record):
            return await engine.load(ticket, client)
        # Not `engine.load`, which takes it for theft: a request may have waited for a busy server.
        engine.context.report_rejected(ticket.session_id, "replaced")
        return self._empty(client)

    async def _convert(
        self,
        reader: LegacyReader,
        session: LegacySession,
        contents: Contents,
        now: int,
        client: Client,
    ) -> WorkingCopy | None:
        engine = self._engine
        context = engine.context
        ticket = self._ticket(session)
        verifier = context.rotation.next_verifier(ticket.session_id, ticket.verifier)
        user = contents.user
        limits = engine.policy.limits(user, False)
        try:
            record = Record(
                id=ticket.session_id,
                version=1,
                seen_at=now,
                created_at=now,
                absolute_at=limits.absolute_at(now),
                idle_timeout=limits.idle_timeout,
                verifier=hash_verifier(verifier),
                body=engine.writer.pack(ticket.session_id, contents, verifier),
                authenticated_at=0 if user is None else session.issued_at or UNKNOWN_LOGIN,
                previous_verifier=ticket.digest,
                previous_valid_until=UNTIL_SEEN,
                commit_ids=new_commit_id() + NO_COMMIT_IDS[COMMIT_ID_BYTES:],
            )
            if user is None:
                created = await engine.store.create(record)
            else:
                created = await engine.writer.save_login(record, 0, now) is SAVED
        except SessionTooLarge as error:
            self._report(reader, "size", f"the session is not continued: {error}")
            return None
        except LimitReached:
            self._report(reader, "limit", "a session is not continued: max_sessions is reached")
            return None
        except StoreError as error:
            context.raise_store_error("create", ticket.session_id, error)
        if not created:
            existing = await engine.fetch(ticket.session_id)
            if existing is None:  # its user was revoked, or another request has ended it meanwhile
                return self._empty(client)
            return await self._load_converted(reader, session, existing, client)
        if not await self._complete(reader, session, record):
            await engine.revoker.revoke(
                record.id, "destroyed", record=record
            )  # it had ended before
            return self._empty(client)
        context.dispatcher.emit(Created(record.session_id))
        logger.info("continued a session of %r as %s", reader, record.session_id)
        copy = WorkingCopy(context, record, verifier, client)
        copy.cookie_change = CookieChange.SEND
        return copy

    async def _complete(self, reader: LegacyReader, session: LegacySession, record: Record) -> bool:
        """Write the marker of a converted session and remove it from the old store.

        Every request that finds the record does so before it returns the session, so the record has
        version 1 when the marker is written, and the marker names the commit that created the
        record.

        Returns:
            False if the cookie was converted before, into a session that has ended.
        """
        engine = self._engine
        expires_at = session.expires_at or min(self._until + _MARKER_MARGIN, FOREVER)
        labels = {_COMMIT: record.commit_ids[:COMMIT_ID_BYTES].hex()}
        marker = self._make_marker(_marker_id(session.identity), labels, expires_at)
        try:
            if not await engine.store.create(marker):
                if record.version > 1:
                    return True
                present = await self._marker(session)
                return present is None or present.metadata().labels == labels
        except StoreError as error:
            engine.context.raise_store_error("create", record.id, error)
        try:
            await reader.remove(session)
        except Exception:
            logger.exception("%r could not remove a session that was continued here", reader)
        return True

    # Markers

    def _make_marker(self, record_id: bytes, labels: dict[str, str], expires_at: int) -> Record:
        now = self._engine.revoker.now()
        lifetime = max(1, expires_at - now)
        return Record(
            id=record_id,
            version=TOMBSTONE_VERSION,
            seen_at=now,
            created_at=FOREVER,  # `revoke_all` must not remove it
            absolute_at=now + lifetime,
            idle_timeout=lifetime,
            verifier=NO_VERIFIER,
            body=pack_body(None, labels, {}),
        )

    async def _marker(self, session: LegacySession) -> Record | None:
        return await self._fetch(_marker_id(session.identity))

    async def _fetch(self, record_id: bytes) -> Record | None:
        try:
            return await self._engine.store.load(record_id)
        except UnreadableRecord:
            return None

    async def _add_refusal(self, name: bytes) -> None:
        store = self._engine.store
        marker = self._make_marker(_marker_id(name), {}, min(self._until + _MARKER_MARGIN, FOREVER))
        if not await store.create(marker):
            await store.touch(marker)  # moves `seen_at` to now

    # Contents

    def _ticket(self, session: LegacySession) -> Ticket:
        session_id = hashlib.sha256(b"sojourn legacy id" + session.identity).digest()[:ID_BYTES]
        verifier = hmac.digest(self._key, session.identity, "sha256")[:VERIFIER_BYTES]
        return Ticket(session_id, verifier)

    def _user(self, reader: LegacyReader, data: Mapping[str, Any]) -> str | None:
        user = reader.user(data)
        if user is None:
            return None
        try:
            return check_user(user)
        except TypeError:
            kind = type(user).__qualname__
            self._report(reader, "user", f"expected a user as text or number, found a {kind}")
            return None

    def _contents(self, reader: LegacyReader, data: Mapping[str, Any], client: Client) -> Contents:
        context = self._engine.context
        values: dict[str, bytes] = {}
        for key, value in data.items():
            try:
                check_key(key)
                values[key] = context.encoder(key, value)
            except NotSerializable as error:
                self._report(reader, f"key {key}", f"a value is not continued: {error}")
            except (TypeError, ValueError) as error:
                self._report(reader, "key", f"a key is not continued: {error}")
        user = self._user(reader, data)
        if user is not None:
            values[AUTH] = encode(AUTH, {"methods": []})
        return Contents(user, client.labels(), values)

    def _report(self, reader: LegacyReader, subject: str, text: str) -> None:
        """Log something once for each reader and subject."""
        if (repr(reader), subject) not in self._reported and len(self._reported) < _MAX_REPORTS:
            self._reported.add((repr(reader), subject))
            logger.warning("%r: %s", reader, text)


#: The number of warnings; keys of sessions may be invented by visitors.
_MAX_REPORTS: Final = 100


def _marker_id(name: bytes) -> bytes:
    return hashlib.sha256(b"sojourn legacy marker" + name).digest()[:ID_BYTES]


def _deleting_cookie(reader: LegacyReader, transport: TransportSecurity) -> bytes:
    """Return the Set-Cookie header that deletes the old cookie."""
    secure = transport is SECURE
    tail = f"; Path={reader.path}"
    if reader.domain is not None:
        tail += f"; Domain={reader.domain}"
    if secure:  # browsers keep a cookie named __Secure- or __Host- otherwise
        tail += "; Secure"
    tail += "; HttpOnly; SameSite=Lax"
    if reader.partitioned:
        tail += "; Partitioned"
    return Cookie(reader.cookie, secure, tail.encode()).delete()
