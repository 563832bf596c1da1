"""Session: the mapping that a handler reads and writes, and ``NullSession`` for store failures."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import datetime
from hmac import compare_digest
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Never, NoReturn, Self, cast
from uuid import UUID

from sojourn._core.changes import ChangeTracker
from sojourn._core.checked_coroutine import checked_coroutine
from sojourn._core.clock import MAX_DATETIME, to_datetime
from sojourn._core.concurrency import run
from sojourn._core.durations import Duration, milliseconds
from sojourn._core.engine import Engine
from sojourn._core.lease import SessionLease
from sojourn._core.login import Login, Rotation, stored_methods
from sojourn._core.operations import ABSENT
from sojourn._core.plain_values import PLAIN_CONTAINERS
from sojourn._core.reserved_keys import CSRF, FLASHES, GRANT, PREFIX, check_key
from sojourn._core.working_copy import CookieChange, WorkingCopy
from sojourn._crypto.tickets import hash_verifier, mint_verifier
from sojourn.errors import (
    LoginRequired,
    NotSerializable,
    RecentAuthRequired,
    ResponseStarted,
    SessionGone,
    SessionRequired,
    StoreUnavailable,
)
from sojourn.record import INDEXED_LABELS, NO_VERIFIER, Record, check_labels, check_user, plain_text

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    S = TypeVar("S", default=Any)
else:
    from typing import TypeVar

    S = TypeVar("S")


class Session(MutableMapping[str, Any], Generic[S]):
    """A visitor's session, stored on the server.

    The framework's integration provides it, for example as ``request.session``. A session without a
    record (``session.new``) costs nothing until it is written to.

    Every access is recorded, because a response that depends on the session must not be cached for
    other visitors (law A13). No ticket or verifier is reachable through public members (A18).
    """

    __slots__ = ("_copy", "_engine")

    _copy: WorkingCopy
    _engine: Engine

    # Mapping

    def __getitem__(self, key: str) -> Any:
        """Return the value of a key; changes inside it are detected.

        Raises:
            KeyError: there is no such key.
        """
        copy = self._copy
        copy.accessed = True  # instead of `access()`: called by every request
        value = (copy.changes or copy.decode()).get(key)
        if value is ABSENT:
            raise KeyError(key)
        return value

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return the value of a key, ``default`` if there is none.

        A mutable default is not part of the session: assign it, or use ``setdefault``.
        """
        value = self._copy.access().get(key)
        return default if value is ABSENT else value

    def __setitem__(self, key: str, value: Any) -> None:
        """Assign a key.

        Subclasses of dict, list and tuple, such as OAuth tokens, are stored as their base type.

        Raises:
            NotSerializable: a session cannot store this value (also a ``TypeError``).
            ResponseStarted: this would create a session after the response has started.
        """
        if type(key) is not str or not key.isascii() or PREFIX in key:
            check_key(key)
        changes = self._copy.edit()
        try:
            changes.set(key, value)
        except NotSerializable:
            if not isinstance(value, dict | list | tuple):
                raise
            changes.set(key, value, PLAIN_CONTAINERS)

    def __delitem__(self, key: str) -> None:
        """Delete a key.

        Raises:
            KeyError: there is no such key.
        """
        if key not in self._copy.access():
            raise KeyError(key)
        self._edit(key).delete(key)

    def __contains__(self, key: object) -> bool:
        """Return whether a key exists."""
        return key in self._copy.access()

    def __iter__(self) -> Iterator[str]:
        """Yield the keys, oldest first."""
        return (key for key in list(self._copy.access()) if not key.startswith(PREFIX))

    def __len__(self) -> int:
        """Return the number of keys."""
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        """Show the ID and the number of keys; values may be personal and stay out of logs."""
        return f"<Session {self.id} with {len(self)} keys{', new' if self.new else ''}>"

    def __reversed__(self) -> Iterator[str]:
        """Yield the keys, newest first."""
        return reversed(list(self))

    def __eq__(self, other: object) -> bool:
        """Compare the content with another mapping; compare with another session by identity.

        So a session has a hash, and two sessions in one set are two.
        """
        if isinstance(other, Session) or not isinstance(other, Mapping):
            return self is other
        return self.copy() == dict(other)

    def __hash__(self) -> int:
        """Hash by identity."""
        return object.__hash__(self)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        """Return a plain dict with the content of both; the right one wins."""
        given: object = other
        return {**self.copy(), **other} if isinstance(given, Mapping) else NotImplemented

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        """Return a plain dict with the content of both; the session wins."""
        given: object = other
        return {**other, **self.copy()} if isinstance(given, Mapping) else NotImplemented

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Self:
        """Assign each key of another mapping, as ``update`` does."""
        self.update(other)
        return self

    def copy(self) -> dict[str, Any]:
        """Return the content as a plain dict, for example for ``JSONResponse``.

        The values are copies: changes of them do not change the session.

        Raises:
            NotSerializable: a value was changed in place so that it cannot be stored.
        """
        return self._copy.access().plain_values()

    def __copy__(self) -> dict[str, Any]:
        """Return a plain dict; see ``copy``."""
        return self.copy()

    def __deepcopy__(self, memo: object) -> dict[str, Any]:
        """Return a plain dict; see ``copy``."""
        return self.copy()

    def __reduce__(self) -> NoReturn:
        """Raise ``TypeError``: a pickle would contain the verifier (law A18)."""
        raise TypeError("a session cannot be pickled; pickle its content: session.copy()")

    @staticmethod
    def fromkeys(keys: Iterable[str], value: Any = None) -> dict[str, Any]:
        """Return a plain dict with these keys, as ``dict.fromkeys`` does."""
        return dict.fromkeys(keys, value)

    def popitem(self) -> tuple[str, Any]:
        """Remove the newest key and return it with its value.

        Raises:
            KeyError: the session is empty.
        """
        key = next(reversed(self), None)
        if key is None:
            raise KeyError("popitem(): the session is empty")
        return key, self.pop(key)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of a key; set it to ``default`` if there is none.

        If two parallel requests find the key absent, both get the value of the first commit.

        Raises:
            NotSerializable: as an assignment.
        """
        changes = self._edit(key)
        try:
            return changes.set_default(key, default)
        except NotSerializable:
            if not isinstance(default, dict | list | tuple):
                raise
            return changes.set_default(key, default, PLAIN_CONTAINERS)

    def clear(self, *, keep_login: bool = False) -> None:
        """Delete every key; if a user is logged in, log out.

        A logout destroys the session (see ``destroy``), and what is written afterwards starts a new
        one. Without a login the record and the ticket are kept, and keys that parallel requests add
        before the commit are deleted, too.

        Args:
            keep_login: delete the keys and keep the session, its user and its ticket.
        """
        copy = self._copy
        copy.access()
        if copy.user is not None and not keep_login:
            copy.destroy()
        else:
            copy.edit().clear()

    # Explicit operations

    def increment(self, key: str, amount: float = 1, *, path: Sequence[Any] = ()) -> Any:
        """Add to a number; parallel increments are all counted.

        Args:
            key: of the session.
            amount: an int or a float.
            path: keys of nested dicts from the key's value to the number, which are created if they
                do not exist: ``session.increment("cart", path=("apple",))``.

        Returns:
            The new value in this request.

        Raises:
            TypeError: the key holds a value that is not a number.
        """
        return self._edit(key).increment(key, amount, _to_path(path))

    def append(self, key: str, *items: Any, path: Sequence[Any] = ()) -> None:
        """Append items to a list; parallel appends are all kept.

        Args:
            key: of the session.
            items: to append.
            path: see ``increment``.
        """
        self._edit(key).append(key, list(items), _to_path(path))

    def add(self, key: str, *members: Any, path: Sequence[Any] = ()) -> None:
        """Add members to a set; parallel additions are all kept.

        Args:
            key: of the session.
            members: to add.
            path: see ``increment``.
        """
        self._edit(key).add(key, set(members), _to_path(path))

    def discard(self, key: str, *members: Any, path: Sequence[Any] = ()) -> None:
        """Remove members from a set, if they are in it.

        A member that a parallel request adds is removed if this request commits later.

        Args:
            key: of the session.
            members: to remove.
            path: see ``increment``.
        """
        self._edit(key).discard(key, set(members), _to_path(path))

    def flash(self, message: str, category: str = "message") -> None:
        """Store a message for the next page that calls ``flashes()``.

        Raises:
            NotSerializable: as an assignment.
        """
        changes = self._copy.edit()
        changes.encoder("flash", [message, category])  # here, not at the commit
        messages = changes.set_default(FLASHES, {})
        messages[secrets.token_hex(4)] = [message, category]

    def flashes(self) -> list[tuple[str, str]]:
        """Return and remove the stored messages as (message, category), oldest first.

        A message that a parallel request stores meanwhile is kept for the next call.
        """
        messages = self._copy.access().get(FLASHES)
        if messages is ABSENT or not messages:
            return []
        found = [(message, category) for message, category in messages.values()]
        messages.clear()
        return found

    @property
    def state(self) -> S:
        """The session as attributes; typed and checked if ``state=`` was given at install.

        Raises:
            InvalidState: a field was assigned, or holds, a value of another type.
        """
        copy = self._copy
        copy.access()
        if copy.state is None:
            copy.state = self._engine.state.bind(copy)
        state: S = copy.state
        return state

    # Properties

    @property
    def id(self) -> str:
        """The public session ID, 32 hex digits: safe to log and to show; it grants no access."""
        self._copy.accessed = True
        return self._copy.session_id().hex()

    @property
    def new(self) -> bool:
        """Whether the session is not stored yet."""
        self._copy.accessed = True
        return self._copy.record is None

    @property
    def created_at(self) -> datetime | None:
        """When the session was created, UTC; None while it is new."""
        self._copy.accessed = True
        record = self._copy.record
        return None if record is None else to_datetime(record.created_at)

    @property
    def seen_at(self) -> datetime | None:
        """The last recorded activity (see ``touch_interval``), UTC; None while it is new."""
        self._copy.accessed = True
        record = self._copy.record
        return None if record is None else to_datetime(record.seen_at)

    @property
    def expires_at(self) -> datetime | None:
        """When the session expires without activity, UTC; None while new, or if it never does."""
        self._copy.accessed = True
        record = self._copy.record
        if record is None or record.expires_at > MAX_DATETIME:
            return None
        return to_datetime(record.expires_at)

    @property
    def labels(self) -> MappingProxyType[str, str]:
        """Short texts recorded at creation or at the login, such as ``browser``, ``address``."""
        copy = self._copy
        copy.access()
        source = copy.renewal if isinstance(copy.renewal, Login) else copy.contents
        return MappingProxyType({} if source is None else dict(source.labels))

    @property
    def ended_reason(self) -> str | None:
        """Why the session that the visitor had before ended; None if that is not known.

        Such as "revoked" or the reason given to ``sessions.revoke``, "limit", "reused", "expired
        (idle)". Available for a day, and only to the holder of its ticket.
        """
        self._copy.accessed = True
        return self._copy.ended_reason

    # Lifecycle

    def destroy(self) -> None:
        """Destroy the session: its record, its cookie and its open connections.

        Carried out at the next commit, also if the request fails (law A10). What is written
        afterwards starts a new session with a new ID.
        """
        self._copy.access()
        self._copy.destroy()

    def logout(self) -> None:
        """Destroy the session; the same as ``destroy``."""
        self.destroy()

    def commit(self) -> None:
        """Write the changes now; later changes are committed as usual.

        Raises:
            SessionGone: the session has ended; nothing was written.
            SessionConflict: other requests kept changing it; nothing was written.
            SessionTooLarge: it exceeds ``max_bytes``; nothing was written.
            StoreUnavailable: the store failed or did not answer in time. The changes may have been
                written, if only the answer was lost. Another commit of this session determines
                whether they were, and applies nothing twice; another request must read the session
                before it repeats something that must not happen twice.
        """
        run(self.acommit(), instead="session.acommit()")

    @checked_coroutine
    async def acommit(self) -> None:
        """Write the changes now; see ``commit``.

        Raises:
            StoreUnavailable: the store failed or did not answer in time; the changes may have been
                written. Another commit determines whether they were, and applies nothing twice.
        """
        self._copy.access()
        await self._engine.commit(self._copy, explicit=True)

    def refresh(self) -> None:
        """Adopt the newest record; keep what is not committed here.

        Raises:
            SessionGone: the session has ended.
            StoreUnavailable: the store failed.
        """
        run(self.arefresh(), instead="session.arefresh()")

    @checked_coroutine
    async def arefresh(self) -> None:
        """Adopt the newest record; see ``refresh``."""
        self._copy.access()
        await self._engine.refresh(self._copy, explicit=True)

    def claim(self, key: str, default: Any = None) -> Any:
        """Remove a key and return its value to exactly one of all claimers.

        The others get ``default``. For one-time values: OAuth states, nonces, vouchers.

        Raises:
            SessionGone: the session has ended.
            StoreUnavailable: the store failed.
        """
        return run(self.aclaim(key, default), instead="session.aclaim()")

    @checked_coroutine
    async def aclaim(self, key: str, default: Any = None) -> Any:
        """Remove a key and return its value to exactly one claimer; see ``claim``."""
        self._edit(key)
        return await self._engine.claim(self._copy, key, default)

    def exclusive(
        self, *, wait: Duration = "10 seconds", lease: Duration = "30 seconds"
    ) -> SessionLease:
        """Return a ``with`` or ``async with`` block that runs once at a time for this session.

        Rarely needed, because parallel changes are merged. The block starts with what others wrote
        before; its changes are committed at its end.

        Args:
            wait: how long to wait for the lease.
            lease: how long to hold it at most; after that other blocks may start.

        Raises:
            ExclusiveTimeout: another block held the lease all the time (raised at its start).
            SessionConflict: the block outlasted its lease (raised at its end).
            StoreUnavailable: the store failed (at its start or its end).
        """
        self._copy.access()
        return SessionLease(self._copy, self._engine, wait=wait, lease=lease)

    # Login

    def login(
        self,
        user: str | int | UUID,
        *,
        methods: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        remember: bool = False,
    ) -> None:
        """Bind the session to a user who has proved their identity; also for re-authentication.

        The session keeps its data and ID and gets a new ticket. Once this is committed, the
        previous ticket is invalid, sockets that were opened with it are closed, and all limits
        restart.

        Args:
            user: the application's own identifier, 1 to 255 characters; an int or a UUID is stored
                as text.
            methods: of authentication, such as ``("password", "totp")``; see ``require_recent``.
            labels: short texts for lists, besides browser and address, which are recorded again.
                ``idp_sid`` is the session at an identity provider: ``sessions.revoke_where``. It is
                kept for the same user unless another is given.
            remember: the cookie and the session may outlive the browser, with the limits
                ``remember_timeout`` and ``remember_absolute_timeout``.

        Raises:
            SessionGone: the session has ended during this request.
            ResponseStarted: the response has started, so the cookie cannot be sent.
            LimitReached: at the commit, with ``on_limit="refuse"``.
            TypeError: an argument is not of its type, or the user is empty or too long.
        """
        name = check_user(user)
        checked_methods, checked_labels = _check_methods(methods), check_labels(labels)
        given: object = remember  # callers without a type checker may pass anything, such as "off"
        if not isinstance(given, bool):
            raise TypeError(f"remember expects True or False, found {remember!r}")
        record = self._check_renewable()
        copy = self._copy
        previous_login = 0 if record is None else record.authenticated_at
        copy.renewal = Login(
            name,
            checked_methods,
            {**copy.labels(), **self._indexed_labels(name), **checked_labels},
            max(self._engine.revoker.now(), previous_login + 1),
            remember,
            mint_verifier(),
        )
        copy.record_instant()

    def renew_login(self) -> None:
        """Log the present user in again, with a new ticket and restarted limits.

        For a user who has just proved their identity, for example by changing the password.

        Raises:
            ValueError: no user is logged in.
            SessionGone: the session has ended during this request.
            ResponseStarted: the response has started, so the cookie cannot be sent.
        """
        user = self.user
        if user is None:
            raise ValueError("renew_login expects a session with a user; call login first")
        copy = self._copy
        labels = {**self.labels, **copy.labels()}
        self.login(user, methods=self.methods, labels=labels, remember=copy.persistent())

    def _indexed_labels(self, user: str) -> dict[str, str]:
        """Return the present labels by which the sessions of this user can be revoked."""
        copy = self._copy
        source = copy.renewal if isinstance(copy.renewal, Login) else copy.contents
        if source is None or source.user != user:
            return {}
        return {name: source.labels[name] for name in INDEXED_LABELS if name in source.labels}

    def rotate(self, *, grace_period: bool = True) -> None:
        """Replace the ticket and keep everything else, for example after a change of privileges.

        The previous ticket remains valid until a request has brought the new one, and two seconds
        longer for requests under way. While a previous ticket is valid, another rotation keeps the
        present one. A session that is not stored has no ticket to replace.

        Args:
            grace_period: False to make the previous ticket invalid at once, as a login does.

        Raises:
            SessionGone: the session has ended.
            ResponseStarted: the response has started, so the cookie cannot be sent.
        """
        record = self._check_renewable()
        copy = self._copy
        if not grace_period:
            if record is not None and not isinstance(copy.renewal, Login):
                copy.renewal = Rotation(mint_verifier(), automatic=False, grace_period=False)
            return
        # A request that gets a new ticket already, by a login or a previous ticket, needs no other.
        if record is None or copy.renewal is not None or copy.cookie_change is CookieChange.SEND:
            return
        if self._engine.clock() < record.previous_valid_until:
            return  # a second rotation would end the grace period of requests under way
        if compare_digest(hash_verifier(copy.verifier), record.verifier):
            verifier = copy.context.rotation.next_verifier(record.id, copy.verifier)
            copy.renewal = Rotation(verifier, automatic=False)

    def _check_renewable(self) -> Record | None:
        """Return the record, or raise if the ticket cannot be replaced any more."""
        copy = self._copy
        copy.access()
        if copy.revoked:
            raise SessionGone(copy.session_id().hex())
        if copy.response_started:
            raise ResponseStarted
        return copy.record

    @property
    def user(self) -> str | None:
        """The user who is logged in; None if none is."""
        self._copy.access()
        return self._copy.user

    @user.setter
    def user(self, _: Never) -> None:
        raise AttributeError(
            "session.user cannot be assigned: call session.login(user), which also replaces the "
            "ticket, or session.logout()"
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """The authentication methods that were given to ``login``."""
        copy = self._copy
        copy.access()
        if isinstance(copy.renewal, Login):
            return copy.renewal.methods
        return () if copy.contents is None else stored_methods(copy.contents.data)

    @property
    def authenticated_at(self) -> datetime | None:
        """When the user last logged in, UTC; None if no user is logged in."""
        self._copy.access()
        at = self._copy.authenticated_at()
        return to_datetime(at) if at else None

    @property
    def remembered(self) -> bool:
        """Whether the session is alive only because of "remember me": the login is old.

        Sufficient to greet the user, not to act for them (NIST SESS-05): use ``require_recent``.
        """
        copy = self._copy
        copy.access()
        record = copy.record
        if isinstance(copy.renewal, Login):
            return copy.renewal.restored
        if record is None:
            return False
        return record.reauthentication_required or self._engine.policy.reauthentication_required(
            record, self._engine.clock()
        )

    def require_existing(self) -> None:
        """Require a session that is stored: the visitor was here before.

        Raises:
            SessionRequired: it is new. Uncaught, it is 401 over HTTP; a WebSocket is closed with
                ``close_code``.
        """
        copy = self._copy
        copy.accessed = True
        if copy.record is None:
            raise SessionRequired(copy.ended_reason)

    def require_user(self) -> str:
        """Require a user who is logged in, and return the user.

        Raises:
            LoginRequired: no user is. Uncaught, it is 401 over HTTP; a WebSocket is closed with
                ``close_code``.
        """
        user = self.user
        if user is None:
            raise LoginRequired(self._copy.ended_reason)
        return user

    def require_recent(self, within: Duration, *, methods: Sequence[str] = ()) -> None:
        """Require a recent login before a sensitive operation (ASVS 7.5.1 and 7.5.3).

        Args:
            within: the maximum age of the login.
            methods: all of them must have been used.

        Raises:
            RecentAuthRequired: there is no login, it is too old, it lacks a method, or the session
                is only remembered. Let the user authenticate and call ``login`` again.
        """
        limit = milliseconds(within, option="within") / 1000
        copy = self._copy
        copy.access()
        at = copy.authenticated_at()
        missing = [method for method in _check_methods(methods) if method not in self.methods]
        if copy.user is None or not at or self.remembered:
            raise RecentAuthRequired(None, limit, missing)
        age = max(0, self._engine.clock() - at) / 1000
        if age > limit or missing:
            raise RecentAuthRequired(age, limit, missing)

    def grant(self, purpose: str, lifetime: Duration = "5 minutes") -> None:
        """Store a one-time permission, for example after a second factor (ASVS 7.5.3).

        A later login removes the grant.

        Args:
            purpose: what it permits, such as ``delete-account``; not empty.
            lifetime: how long it can be used.

        Raises:
            TypeError: the purpose is not a text, or is empty.
            ResponseStarted: this would create a session after the response has started.
        """
        until = self._engine.clock() + milliseconds(lifetime, option="lifetime")
        key = _grant_key(purpose)
        copy = self._copy
        copy.edit().set(key, until)
        copy.record_instant()
        if isinstance(copy.renewal, Login):
            copy.renewal.grants.add(key)

    def use_grant(self, purpose: str) -> bool:
        """Consume a grant; return True to exactly one caller, and only before it expires.

        Args:
            purpose: as given to ``grant``.

        Raises:
            SessionGone: the session has ended.
            StoreUnavailable: the store failed.
        """
        return run(self.ause_grant(purpose), instead="session.ause_grant()")

    @checked_coroutine
    async def ause_grant(self, purpose: str) -> bool:
        """Consume a grant; see ``use_grant``."""
        self._copy.edit()
        until = await self._engine.claim(self._copy, _grant_key(purpose), 0)
        return bool(self._engine.clock() < until)

    @property
    def csrf_token(self) -> str:
        """A token for forms, checked by ``sessions.check_csrf``.

        Each access returns another token. All are valid until the next login, the second rotation,
        or one without a grace period. It creates a session for a visitor without one, because the
        token belongs to the session's ticket.

        Raises:
            ResponseStarted: this would create a session after the response has started.
        """
        copy = self._copy
        changes = copy.edit()
        if copy.record is None and not copy.verifier:
            copy.verifier = mint_verifier()
            changes.set(CSRF, value=True)  # so that the session is created
        verifier = copy.verifier if copy.renewal is None else copy.renewal.verifier
        return copy.context.csrf.make(hash_verifier(verifier))

    def check_csrf(self, value: object) -> bool:
        """Return whether a value is a CSRF token of this session; see ``csrf_token``.

        Args:
            value: from the request; None if there is none.
        """
        copy = self._copy
        record = copy.record
        hashes = () if record is None else (record.verifier, record.previous_verifier)
        copy.access()
        return any(known != NO_VERIFIER for known in hashes) and copy.context.csrf.check(
            value, hashes
        )

    def _edit(self, key: str) -> ChangeTracker:
        check_key(key)
        return self._copy.edit()


class NullSession(Session[Any]):
    """The session of a request that continues although the store failed (``on_store_failure``).

    It is empty, and what is written to it lasts for the request. It is never saved, and no cookie
    is sent or cleared (law A15): the visitor's own session is used again when the store answers.
    Verbs that depend on the store raise its error.
    """

    __slots__ = ()

    def _fail(self) -> NoReturn:
        raise_store_error(self._copy)

    def clear(self, *, keep_login: bool = False) -> None:
        """Raise ``StoreUnavailable``, because a user may be logged in and would not be logged out.

        With ``keep_login`` delete what was written in this request.
        """
        if not keep_login:
            self._fail()
        super().clear(keep_login=True)

    def login(self, *_: Any, **__: Any) -> None:
        """Raise ``StoreUnavailable``: the login would not be stored."""
        self._fail()

    def rotate(self, *, grace_period: bool = True) -> None:  # noqa: ARG002 - always fails
        """Raise ``StoreUnavailable``: the ticket would not be replaced."""
        self._fail()

    def destroy(self) -> None:
        """Raise ``StoreUnavailable``: the session would not be destroyed."""
        self._fail()

    def require_existing(self) -> None:
        """Raise ``StoreUnavailable``: the visitor may have a session."""
        self._fail()

    def require_user(self) -> NoReturn:
        """Raise ``StoreUnavailable``: a user may be logged in."""
        self._fail()

    @checked_coroutine
    async def acommit(self) -> None:
        """Raise ``StoreUnavailable``: nothing can be saved."""
        self._fail()

    @checked_coroutine
    async def arefresh(self) -> None:
        """Raise ``StoreUnavailable``: the stored data is unknown."""
        self._fail()

    @checked_coroutine
    async def aclaim(self, key: str, default: Any = None) -> Any:  # noqa: ARG002 - always fails
        """Raise ``StoreUnavailable``: another request might claim the key as well."""
        self._fail()

    @checked_coroutine
    async def ause_grant(self, purpose: str) -> bool:  # noqa: ARG002 - always fails
        """Raise ``StoreUnavailable``: another request might use the grant as well."""
        self._fail()

    def exclusive(self, **_: Any) -> NoReturn:
        """Raise ``StoreUnavailable``: other blocks would not be excluded."""
        self._fail()


def create_session(
    copy: WorkingCopy, engine: Engine, kind: type[Session[Any]] | None = None
) -> Session[Any]:
    """Return the session of a working copy.

    Args:
        copy: the working copy.
        engine: of the installation.
        kind: a subclass without ``__init__``; None for ``Session``.
    """
    # Instead of `__init__`: in Python 3.11 a call of a class whose `__init__` is written in Python
    # costs 800 instructions more, and every request creates a session.
    self: Session[Any] = Session() if kind is None else kind()
    self._copy = copy
    self._engine = engine
    return self


def null_session(
    engine: Engine, copy: WorkingCopy, kind: type[NullSession] = NullSession
) -> NullSession:
    """Return the session of a request whose own could not be loaded.

    Args:
        engine: of the installation.
        copy: an empty working copy with ``store_error`` set; commits skip it from now on.
        kind: the class, which has no ``__init__``.
    """
    copy.revoked = True
    self = kind()
    self._copy = copy
    self._engine = engine
    return self


def raise_store_error(copy: WorkingCopy) -> NoReturn:
    """Raise the error because of which a session could not be loaded; record that it was raised.

    Raises:
        StoreUnavailable: always.
    """
    copy.store_error_raised = True
    raise StoreUnavailable(
        "this request continues without its session, which does not support this operation: "
        f"{copy.store_error}"
    ) from copy.store_error


def _to_path(path: Sequence[Any]) -> tuple[Any, ...]:
    if isinstance(path, str | bytes):
        raise TypeError(f"path expects a tuple of keys such as ('apple',), found {path!r}")
    return tuple(path)


def _grant_key(purpose: object) -> str:
    text = plain_text(purpose)
    if not text:
        raise TypeError(f"a grant is for a purpose such as 'delete-account', found {purpose!r}")
    return GRANT + text


def _check_methods(methods: Sequence[object]) -> tuple[str, ...]:
    texts = () if isinstance(methods, str) else tuple(map(plain_text, methods))
    if isinstance(methods, str) or None in texts:
        raise TypeError(f"methods expects texts such as ('password',), found {methods!r}")
    return cast("tuple[str, ...]", texts)
