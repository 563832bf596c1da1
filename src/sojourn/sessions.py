"""Sessions: one installation, with the verbs for use outside of a request.

Each verb that reaches the store has an async twin with the prefix ``a``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from secrets import token_bytes
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, overload
from uuid import UUID

from sojourn._core.checked_coroutine import checked_coroutine
from sojourn._core.clock import ServerClock, to_datetime, wall_clock
from sojourn._core.codec import checked_encoder
from sojourn._core.concurrency import Deadline, replace_locks_after_fork, run
from sojourn._core.context import CoreContext
from sojourn._core.engine import Engine
from sojourn._core.history import History
from sojourn._core.key_fingerprints import KeyFingerprintCheck
from sojourn._core.listing import Listed
from sojourn._crypto.csrf import CsrfTokens
from sojourn._crypto.encryption import body_cipher
from sojourn._crypto.rotation import VerifierChain
from sojourn._crypto.secret_key import missing_secret, read_or_create_secrets
from sojourn._crypto.session_keys import SessionKeys
from sojourn._crypto.tickets import KeyRing, key_fingerprint
from sojourn.config import Config, Options, build_config, choice
from sojourn.errors import ConfigurationError, StoreError
from sojourn.events import (
    Authenticated,
    Conflicted,
    Created,
    Dispatcher,
    Event,
    Read,
    Rejected,
    Reused,
    Revoked,
    Rotated,
    StoreFailed,
    Touched,
    Written,
)
from sojourn.live.broadcast import Broadcaster
from sojourn.live.connection_control import LiveControl
from sojourn.live.connections import ConnectionRegistry
from sojourn.live.near_cache import NearCache
from sojourn.live.near_cache_subscriber import NearCacheSubscriber
from sojourn.record import (
    ID_BYTES,
    INDEXED_LABELS,
    check_labels,
    check_user,
    parse_session_id,
    plain_text,
    user_index_name,
)
from sojourn.session import Session
from sojourn.store import (
    Closeable,
    Count,
    HistoryEntry,
    LocalStore,
    NeedsPurge,
    RequiresEventLoop,
    Store,
    SupportsBroadcast,
    SupportsCount,
    SupportsHistory,
    SupportsKeyFingerprints,
    SupportsServerTime,
    value_check,
)
from sojourn.stores.purger import MAX_BATCH, Purger
from sojourn.web.installation import OnStoreFailure, WebInstallation
from sojourn.web.legacy_conversion import LegacyConversion
from sojourn.web.remembered_logins import RememberedLogins
from sojourn.web.session_context import SessionContext

if TYPE_CHECKING:
    from typing import Unpack

    from typing_extensions import TypeVar as TypeVarWithDefault

    from sojourn.stores.callback import (
        CallbackStore,
        JSONReadFunction,
        JSONWriteFunction,
        ReadFunction,
        WriteFunction,
    )

    S = TypeVarWithDefault("S", default=Any)
else:
    S = TypeVar("S")

E = TypeVar("E", bound=Event)
F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R", bound="ReadFunction | JSONReadFunction")
W = TypeVar("W", bound="WriteFunction | JSONWriteFunction")

logger: logging.Logger = logging.getLogger("sojourn")


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: The largest number of history entries that one page reads.
MAX_HISTORY_PAGE: Final = 1_000

#: An ID that no session has, because IDs are random.
_UNUSED_ID: Final = bytes(ID_BYTES)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as shown in lists and to administrators, without ticket, verifier and data.

    Attributes:
        id: the public ID, 32 hex digits.
        user: who is logged in; None if no user is.
        labels: such as browser and address, recorded at creation or at the login.
        created_at, seen_at, expires_at: UTC.
        authenticated_at: the last login, UTC; None if there was none.
        connections: how many of its sockets are open in this process.
        idle_expires_at: the end without further activity, UTC.
        absolute_expires_at: the end whatever the activity, UTC; the year 9999 if there is none.
    """

    id: str
    user: str | None
    labels: MappingProxyType[str, str]
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    authenticated_at: datetime | None
    connections: int
    idle_expires_at: datetime
    absolute_expires_at: datetime


@dataclass(frozen=True, slots=True)
class SessionPage:
    """One page of ``sessions.list_page``.

    Attributes:
        sessions: live ones that match the filters; maybe none, although more pages follow.
        cursor: for the next page; empty after the last one.
        examined: the number of records that were read for this page.
        unreadable: the number of them that are damaged or of a newer format.
    """

    sessions: tuple[SessionInfo, ...]
    cursor: str
    examined: int
    unreadable: int


@dataclass(frozen=True, slots=True)
class EndedSession:
    """A session that has ended, as listed in the history.

    Attributes:
        id: the public ID, 32 hex digits; empty if every session was revoked.
        user: who was logged in; None if no user was, or if it is unknown.
        labels: such as browser and address; empty if unknown.
        created_at: UTC; None if unknown.
        ended_at: UTC.
        reason: such as ``destroyed``, ``expired: idle`` or the text given to ``revoke``.
        actor: who revoked it, as the application named them; None if not given.
    """

    id: str
    user: str | None
    labels: MappingProxyType[str, str]
    created_at: datetime | None
    ended_at: datetime
    reason: str
    actor: str | None


@dataclass(frozen=True, slots=True)
class EndedPage:
    """One page of ``sessions.history``.

    Attributes:
        sessions: newest first; maybe none, although more pages follow.
        cursor: for the next page; empty after the last one.
        examined: the number of entries that were read for this page.
        unreadable: the number of them that are damaged or of a newer format.
    """

    sessions: tuple[EndedSession, ...]
    cursor: str
    examined: int
    unreadable: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What this process did since its start.

    Attributes:
        reads: records loaded for a request or a message.
        writes: records saved with changes.
        creates: records created.
        touches: records whose idle time was extended without a change.
        removes: sessions destroyed or revoked.
        logins: tickets replaced by a login.
        rotations: tickets replaced by a rotation.
        conflicts: saves that met a newer record and were replayed.
        rejected: tickets that were rejected.
        failures: store calls that failed.
        connections: sockets that are open now.
    """

    reads: int
    writes: int
    creates: int
    touches: int
    removes: int
    logins: int
    rotations: int
    conflicts: int
    rejected: int
    failures: int
    connections: int


class Sessions(Generic[S]):
    """One installation: a store, a key ring, a cookie and limits.

    ``sojourn.install`` creates it; create it yourself for a bare ASGI or WSGI callable. A verb that
    reaches the store raises ``StoreUnavailable`` if the store does not answer, and another
    ``StoreError`` if an operator must act.

    Args:
        state: a dataclass, ``msgspec.Struct`` or pydantic model for ``session.state``.
        options: the fields of ``sojourn.config.Options``; all have defaults.

    Attributes:
        config: the options, with their defaults.
        store: holds the records.
        web: the web layer, for adapters.
        engine: loads and commits, for adapters and tools.
        dispatcher: counts events and calls listeners; see ``on``.
        connections: the open connections of this process.
        broadcaster: reaches other processes; None if the store has no broadcast.
        near_cache_subscriber: of ``near_cache``; None without the option.
        session_keys: names sessions to server code, such as Django's.
        remembered_logins: checks cookies of other libraries for "remember me".
        route_decorator: of the framework in which this is installed; None for none.
        purger: removes expired records in the background; None if the store does.

    Raises:
        ConfigurationError: an option is unknown or wrong; the text says what to do.
    """

    def __init__(self, *, state: type[S] | None = None, **options: Unpack[Options]) -> None:
        config = build_config({**options, "state": state})
        self.config: Config = config
        self.store: Store = config.store
        self.dispatcher: Dispatcher = Dispatcher()
        replace_locks_after_fork(self.dispatcher)
        self.connections: ConnectionRegistry = ConnectionRegistry()
        self.broadcaster: Broadcaster | None = None
        if isinstance(config.store, SupportsBroadcast) and not _requires_loop(config.store):
            self.broadcaster = Broadcaster(config.store, self.connections, self.dispatcher)
        near_cache: NearCache | None = None
        self.near_cache_subscriber: NearCacheSubscriber | None = None
        if config.near_cache is not None and isinstance(config.store, SupportsBroadcast):
            near_cache = NearCache(config.near_cache, config.near_cache_bytes)
            self.near_cache_subscriber = NearCacheSubscriber(config.store, near_cache)
        server_clock: ServerClock | None = None  # a clock that is given, as in tests, replaces it
        if config.clock is None and isinstance(config.store, SupportsServerTime):
            server_clock = ServerClock(config.store)
        secrets = _secrets(config)
        realm = config.realm
        context = CoreContext(
            store=config.store,
            config=config.core,
            clock=config.clock or server_clock or wall_clock,
            key_fingerprint_check=_key_fingerprint_check(config, secrets),
            dispatcher=self.dispatcher,
            connections=LiveControl(self.connections, self.broadcaster, near_cache),
            rotation=VerifierChain(secrets, realm=realm),
            cipher=body_cipher(config.encrypt, secrets, realm=realm),
            csrf=CsrfTokens(secrets, realm=realm),
            merges=config.merges,
            upgrade=config.state.upgrade,
            server_clock=server_clock,
            encoder=checked_encoder(value_check(config.store)),
            near_cache=near_cache,
            history=_history(config, self.dispatcher),
        )
        self.engine: Engine = Engine(context, config.state)
        if config.audit is not None:
            config.audit.listen(self.dispatcher)
        self.session_keys: SessionKeys = SessionKeys(secrets, realm=realm)
        keyring = KeyRing(secrets, realm=realm)
        self.web: WebInstallation = WebInstallation(
            self.engine, keyring, self.connections, config.web
        )
        self.web.legacy = _legacy(config, self.engine, secrets)
        self.remembered_logins: RememberedLogins = RememberedLogins(
            self.engine, secrets, realm=realm, cookie=config.web.cookie.over_https().name
        )
        self.route_decorator: Callable[[Any, OnStoreFailure | None], Any] | None = None
        self.purger: Purger | None = None
        if isinstance(config.store, NeedsPurge):
            self.purger = Purger(
                config.store,
                context.clock,
                config.store.purge_interval,
                None if server_clock is None else context.synchronize_clock,
            )
            self.dispatcher.on(Created, self._start_purger)

    def __repr__(self) -> str:
        """Show the store and the realm; no secret."""
        return f"<Sessions in {self.store!r}, realm {self.config.realm!r}>"

    def _start_purger(self, _: Created) -> None:
        if self.purger is not None:
            self.purger.start()

    # One session

    def open(
        self,
        *,
        cookies: Mapping[str, str] | str | None = None,
        url: str = "https://localhost/",
        labels: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> SessionContext:
        """Open the session of a visitor in a ``with`` or ``async with`` block.

        For scripts, tests and servers without an adapter. The changes are committed at the end of
        the block, as those of a request; if it raises, they are dropped (law A10).

        Args:
            cookies: the visitor's cookies as a mapping, or a Cookie header; None for a new visitor.
            url: of the request: its scheme and host decide on the cookie's name and attributes.
            labels: of the client, such as ``browser`` and ``address``.
            headers: of the request, for ``transport="header"``; ``cookies`` is the Cookie header.

        Returns:
            An object with ``session`` and, after the block, ``response_headers()``.

        Raises:
            TypeError: the cookies or the labels are not of their type.
            ValueError: the URL is not an http or https URL with a host.
        """
        return SessionContext(
            self.web, cookies=cookies, url=url, labels=check_labels(labels), headers=headers
        )

    def get(self, session_id: str) -> SessionInfo | None:
        """Return information about a session; None if there is none.

        Args:
            session_id: the public ID, 32 hex digits.
        """
        return run(self.aget(session_id), instead="sessions.aget()")

    @checked_coroutine
    async def aget(self, session_id: str) -> SessionInfo | None:
        """Return information about a session; see ``get``."""
        raw = parse_session_id(session_id)
        listed = None if raw is None else await self.engine.lister.find(raw)
        return None if listed is None else self._info(listed)

    def revoke(self, session_id: str, *, reason: str = "revoked", actor: str | None = None) -> bool:
        """Revoke a session: once this returns, its ticket is invalid everywhere.

        Args:
            session_id: the public ID, 32 hex digits. The application decides who may revoke it.
            reason: for the event, for open connections, and for the visitor's next request
                (``session.ended_reason``).
            actor: who revokes it; for the event.

        Returns:
            False if there was no such session.

        Raises:
            StoreUnavailable: the store failed.
        """
        return run(
            self.arevoke(session_id, reason=reason, actor=actor), instead="sessions.arevoke()"
        )

    @checked_coroutine
    async def arevoke(
        self, session_id: str, *, reason: str = "revoked", actor: str | None = None
    ) -> bool:
        """Revoke a session; see ``revoke``."""
        raw = parse_session_id(session_id)
        return raw is not None and await self.engine.revoker.revoke(raw, reason, actor=actor)

    # Lists

    def list_page(
        self,
        cursor: str = "",
        limit: int = 50,
        *,
        user: str | int | UUID | None = None,
        labels: Mapping[str, str] | None = None,
        since: datetime | None = None,
    ) -> SessionPage:
        """Return a page of live sessions, ordered by ID; Valkey and Redis have no order.

        The cost of a page does not depend on its position. A page reads about 2,000 records at
        most, so it may have fewer sessions than ``limit``, or none, although more pages follow:
        check ``cursor``. A session that exists from the first page to the last one is listed,
        once; on Valkey, on Redis and while sessions move between two stores perhaps twice.

        Args:
            cursor: of the previous page, with the same arguments; empty for the first one.
            limit: the most sessions to return, 1 to 1,000.
            user: only sessions of this user, newest login first. Each page reads all of them.
            labels: only sessions that have each of these labels.
            since: only sessions that were seen at this instant or later, with a time zone.

        Raises:
            ConfigurationError: the store cannot list its sessions, or those of a user.
            TypeError: ``user`` is not a user, such as an empty text.
            ValueError: the cursor, the limit or ``since`` is invalid.
        """
        return run(
            self.alist_page(cursor, limit, user=user, labels=labels, since=since),
            instead="sessions.alist_page()",
        )

    @checked_coroutine
    async def alist_page(
        self,
        cursor: str = "",
        limit: int = 50,
        *,
        user: str | int | UUID | None = None,
        labels: Mapping[str, str] | None = None,
        since: datetime | None = None,
    ) -> SessionPage:
        """Return a page of live sessions; see ``list_page``."""
        page = await self.engine.lister.page(
            cursor,
            limit,
            user=None if user is None else check_user(user),
            labels=labels or {},
            since=0 if since is None else _to_milliseconds(since, "since"),
        )
        return SessionPage(
            tuple(map(self._info, page.sessions)), page.cursor, page.examined, page.unreadable
        )

    def history(
        self, cursor: str = "", limit: int = 50, *, user: str | int | UUID | None = None
    ) -> EndedPage:
        """Return a page of ended sessions, newest first; needs the option ``history``.

        A session that expires and is not requested again is not listed: the store removes it.

        Args:
            cursor: of the previous page; empty for the first one.
            limit: the most entries to read, 1 to 1,000.
            user: only sessions of this user; the page may then have fewer, or none.

        Raises:
            ConfigurationError: the store has no history.
            ValueError: the cursor or the limit is invalid.
        """
        return run(self.ahistory(cursor, limit, user=user), instead="sessions.ahistory()")

    @checked_coroutine
    async def ahistory(
        self, cursor: str = "", limit: int = 50, *, user: str | int | UUID | None = None
    ) -> EndedPage:
        """Return a page of ended sessions; see ``history``."""
        store = self.engine.store
        if not isinstance(store, SupportsHistory):
            raise ConfigurationError(
                f"{store!r} has no history of ended sessions; use a store with one, such "
                "as sqlite:///, and the option history"
            )
        if type(limit) is not int or not 1 <= limit <= MAX_HISTORY_PAGE:
            raise ValueError(f"limit expects 1 to {MAX_HISTORY_PAGE}, found {limit!r}")
        wanted = None if user is None else check_user(user)
        context = self.engine.context
        await context.check_keys(Deadline(context.config.store_timeout))
        page = await store.list_history(cursor, limit)
        ended = tuple(
            _ended(entry) for entry in page.entries if wanted is None or entry.user == wanted
        )
        return EndedPage(ended, page.cursor, len(page.entries) + page.unreadable, page.unreadable)

    # The sessions of a user

    def list_user(self, user: str | int | UUID) -> list[SessionInfo]:
        """Return a user's sessions, newest login first.

        Raises:
            ConfigurationError: the store has no user index.
            TypeError: ``user`` is not a user, such as None.
        """
        return run(self.alist_user(user), instead="sessions.alist_user()")

    @checked_coroutine
    async def alist_user(self, user: str | int | UUID) -> list[SessionInfo]:
        """Return a user's sessions, newest login first; see ``list_user``."""
        return list(map(self._info, await self.engine.lister.user_sessions(check_user(user))))

    def revoke_user(
        self,
        user: str | int | UUID,
        *,
        keep: str | None = None,
        reason: str = "revoked",
        actor: str | None = None,
    ) -> int:
        """Revoke every session of a user, also those whose login is in progress.

        Args:
            user: as given to ``session.login``.
            keep: the public ID of a session to keep, such as the caller's own.
            reason: as for ``revoke``.
            actor: as for ``revoke``.

        Returns:
            The number of sessions that were revoked.

        Raises:
            ConfigurationError: the store has no user index.
            RevocationIncomplete: the store failed; the error says what was done.
            TypeError: ``user`` is not a user, such as None.
            ValueError: ``keep`` is not a public ID; nothing was revoked.
        """
        return run(
            self.arevoke_user(user, keep=keep, reason=reason, actor=actor),
            instead="sessions.arevoke_user()",
        )

    @checked_coroutine
    async def arevoke_user(
        self,
        user: str | int | UUID,
        *,
        keep: str | None = None,
        reason: str = "revoked",
        actor: str | None = None,
    ) -> int:
        """Revoke every session of a user; see ``revoke_user``."""
        name = user_index_name(check_user(user))
        kept = None if keep is None else parse_session_id(keep)
        if keep is not None and kept is None:
            raise ValueError(
                f"keep expects the public ID of a session, found {keep!r}; use session.id"
            )
        if self.web.legacy is not None:
            await self.web.legacy.refuse_user(check_user(user))
        return await self.engine.revoker.revoke_indexed(name, reason, keep=kept, actor=actor)

    def revoke_where(
        self, *, reason: str = "revoked", actor: str | None = None, **label: str
    ) -> int:
        """Revoke every session that logged in with a label, such as ``idp_sid="..."``.

        For the back-channel logout of an identity provider. Indexed labels: ``idp_sid``.

        Returns:
            The number of sessions that were revoked.

        Raises:
            ConfigurationError: the store has no user index.
            RevocationIncomplete: the store failed; the error says what was done.
            TypeError: there is not exactly one indexed label, or its value is empty.
        """
        return run(
            self.arevoke_where(reason=reason, actor=actor, **label),
            instead="sessions.arevoke_where()",
        )

    @checked_coroutine
    async def arevoke_where(
        self, *, reason: str = "revoked", actor: str | None = None, **label: str
    ) -> int:
        """Revoke every session that logged in with a label; see ``revoke_where``."""
        if len(label) != 1 or not set(label) <= set(INDEXED_LABELS):
            raise TypeError(
                f"revoke_where expects exactly one of {', '.join(INDEXED_LABELS)}, found "
                f"{', '.join(label) or 'none'}"
            )
        ((name, value),) = label.items()
        if not plain_text(value):  # a logout token without it must not seem to succeed
            raise TypeError(f"{name} expects a text, found {value!r}")
        return await self.engine.revoker.revoke_indexed(
            f"{name}:{value}", reason, keep=None, actor=actor
        )

    def credentials_changed(
        self, user: str | int | UUID, *, keep: Session[Any] | None = None, actor: str | None = None
    ) -> int:
        """Revoke a user's sessions after a change of password or factors (ASVS 7.4.3).

        Args:
            user: as given to ``session.login``.
            keep: the session in which the change was made. It gets a new ticket, as by a login: a
                user who changes credentials has proved their identity.
            actor: as for ``revoke``.

        Returns:
            The number of sessions that were revoked.

        Raises:
            ConfigurationError: the store has no user index.
            RevocationIncomplete: the store failed; the error says what was done.
            TypeError: ``user`` is not a user, such as None, or ``keep`` is not a session.
            ValueError: ``keep`` is a session of another user; nothing was revoked.
        """
        return run(
            self.acredentials_changed(user, keep=keep, actor=actor),
            instead="sessions.acredentials_changed()",
        )

    @checked_coroutine
    async def acredentials_changed(
        self, user: str | int | UUID, *, keep: Session[Any] | None = None, actor: str | None = None
    ) -> int:
        """Revoke a user's sessions after a change of credentials; see ``credentials_changed``."""
        given: object = keep  # callers without a type checker may pass an ID, as to `revoke_user`
        if given is not None and not isinstance(given, Session):
            raise TypeError(f"keep expects a session, not its ID, found {keep!r}")
        if keep is not None and keep.user != check_user(user):
            raise ValueError(
                f"keep expects a session of {user!r}, found one of another user; log in first"
            )
        try:
            return await self.arevoke_user(
                user,
                keep=None if keep is None else keep.id,
                reason="credentials changed",
                actor=actor,
            )
        finally:
            if keep is not None:
                keep.renew_login()

    # All sessions

    def revoke_all(self, *, reason: str = "revoked", actor: str | None = None) -> None:
        """Revoke every session of the installation with one write.

        Raises:
            ConfigurationError: the store does not support it.
            RevocationIncomplete: the store failed.
        """
        run(self.arevoke_all(reason=reason, actor=actor), instead="sessions.arevoke_all()")

    @checked_coroutine
    async def arevoke_all(self, *, reason: str = "revoked", actor: str | None = None) -> None:
        """Revoke every session of the installation; see ``revoke_all``."""
        if self.web.legacy is not None:
            await self.web.legacy.refuse_all()
        await self.engine.revoker.revoke_all(reason, actor=actor)

    def purge(self, *, on_progress: Callable[[int], object] | None = None) -> int:
        """Remove every expired record now; return the number of records.

        Stores that do not expire records by themselves are also purged in the background.

        Args:
            on_progress: called after each step with the number of records removed so far.
        """
        return run(self.apurge(on_progress=on_progress), instead="sessions.apurge()")

    @checked_coroutine
    async def apurge(self, *, on_progress: Callable[[int], object] | None = None) -> int:
        """Remove every expired record now; see ``purge``."""
        context = self.engine.context
        await context.synchronize_clock_before(Deadline(context.config.store_timeout))
        total = 0
        for _ in ("the rest of a scan that was in progress", "a complete scan"):
            finished = False
            while not finished:
                removed, finished = await self.engine.store.purge(self.engine.clock(), MAX_BATCH)
                total += removed
                if on_progress is not None:
                    on_progress(total)
        return total

    def count(self) -> Count:
        """Return the number of live sessions, or an estimate where counting takes long.

        Exact in memory, in SQLite up to two million records, in PostgreSQL up to a table of 1 GB,
        and in Valkey and Redis up to 20,000 keys. An estimate comes from a sample; its error is a
        few percent.

        Returns:
            An integer; its ``is_exact`` is False for an estimate, and its text then begins with
            ``~``.

        Raises:
            ConfigurationError: the store cannot count.
        """
        return run(self.acount(), instead="sessions.acount()")

    @checked_coroutine
    async def acount(self) -> Count:
        """Return the number of live sessions; see ``count``."""
        store = self.engine.store
        if not isinstance(store, SupportsCount):
            raise ConfigurationError(
                f"{store!r} cannot count its sessions; use a store that can, such as "
                "sqlite:///, or count where its data is stored"
            )
        await self.engine.context.begin()
        number = await store.count(self.engine.clock())
        return number if isinstance(number, Count) else Count(number)

    def ping(self) -> float:
        """Load a record that does not exist; return the seconds until the store answered.

        Raises:
            StoreUnavailable: the store did not answer within ``store_timeout``.
            ConfigurationError: the store belongs to an application with other secrets.
        """
        return run(self.aping(), instead="sessions.aping()")

    @checked_coroutine
    async def aping(self) -> float:
        """Return the seconds until the store answered; see ``ping``."""
        context = self.engine.context
        try:
            deadline = Deadline(context.config.store_timeout)
            await context.check_keys(deadline)
            started_at = time.perf_counter()
            await deadline.bound(self.engine.store.load(_UNUSED_ID))
        except StoreError as error:
            context.raise_store_error("ping", b"", error)
        self.web.event_log.store_answered()
        return time.perf_counter() - started_at

    def usage(self) -> Usage:
        """Return what this process did since its start; derived from the counts of events."""
        counts = self.dispatcher.counts
        return Usage(
            reads=counts[Read],
            writes=counts[Written],
            creates=counts[Created],
            touches=counts[Touched],
            removes=counts[Revoked],
            logins=counts[Authenticated],
            rotations=counts[Rotated],
            conflicts=counts[Conflicted],
            rejected=counts[Rejected] + counts[Reused],
            failures=counts[StoreFailed],
            connections=self.connections.total(),
        )

    # Integration

    def check_csrf(self, value: object, session: Session[Any]) -> bool:
        """Return whether a form was sent by a page of this session (``session.csrf_token``).

        Args:
            value: the token from the request; None if there is none.
            session: of the request. A token from before a rotation is valid, too.
        """
        return session.check_csrf(value)

    def on(self, kind: type[E], listener: Callable[[E], object]) -> None:
        """Call a plain function with each event of a class, such as ``sojourn.Revoked``.

        Raises:
            ConfigurationError: ``kind`` is not an event class, or ``listener`` is not a plain
                function.
        """
        self.dispatcher.on(kind, listener)

    def on_read(self, function: R) -> R:
        """Set the read function of a ``CallbackStore``; also usable as a decorator.

        Raises:
            ConfigurationError: the store is not a ``CallbackStore``.
        """
        self._callback_store("on_read").on_read(function)
        return function

    def on_write(self, function: W) -> W:
        """Set the write function of a ``CallbackStore``; also usable as a decorator.

        Raises:
            ConfigurationError: the store is not a ``CallbackStore``.
        """
        self._callback_store("on_write").on_write(function)
        return function

    def _callback_store(self, verb: str) -> CallbackStore:
        from sojourn.stores.callback import CallbackStore  # for its users only

        if not isinstance(self.store, CallbackStore):
            raise ConfigurationError(
                f"sessions.{verb} gives a function to a CallbackStore, found {self.store!r}; "
                "install with store=sojourn.CallbackStore()"
            )
        return self.store

    @overload
    def route(self, handler: F) -> F: ...
    @overload
    def route(self, *, on_store_failure: OnStoreFailure | None = None) -> Callable[[F], F]: ...
    def route(
        self, handler: F | None = None, *, on_store_failure: OnStoreFailure | None = None
    ) -> F | Callable[[F], F]:
        """Give one route a session, for ``autoload=False`` and paths that are left out.

        A decorator for function handlers of the installed framework; put it under the framework's
        own. ``@sessions.route`` and ``@sessions.route(...)`` both work.

        Args:
            handler: the decorated function.
            on_store_failure: what to do if the store fails, ``"error"`` or ``"anonymous"``; None
                for the installation's choice.

        Raises:
            ConfigurationError: the framework has no function handlers, or none is installed.
        """
        if on_store_failure is not None:
            choice(OnStoreFailure)(on_store_failure, "on_store_failure")
        if handler is None:
            return partial(self._decorate, policy=on_store_failure)
        return self._decorate(handler, policy=on_store_failure)

    def _decorate(self, handler: F, *, policy: OnStoreFailure | None) -> F:
        if self.route_decorator is None:
            raise ConfigurationError(
                "@sessions.route needs the framework of the application: install first, "
                "sessions = sojourn.install(app, autoload=False)"
            )
        return cast("F", self.route_decorator(handler, policy))

    def close(self) -> None:
        """Stop background work and release the store's files and connections. Idempotent."""
        if self.purger is not None:
            self.purger.stop()
        self.web.event_log.close()
        if self.near_cache_subscriber is not None:
            self.near_cache_subscriber.close()
        if self.broadcaster is not None:
            self.broadcaster.close()
        if isinstance(self.store, Closeable):
            self.store.close()

    def _info(self, listed: Listed) -> SessionInfo:
        record, metadata = listed
        login = record.authenticated_at
        return SessionInfo(
            record.session_id,
            metadata.user,
            MappingProxyType(metadata.labels),
            to_datetime(record.created_at),
            to_datetime(record.seen_at),
            to_datetime(record.expires_at),
            to_datetime(login) if login else None,
            self.connections.count(record.session_id),
            to_datetime(record.seen_at + record.idle_timeout),
            to_datetime(record.absolute_at),
        )


def _secrets(config: Config) -> tuple[bytes, ...]:
    """Return the secrets: given, or generated beside a local store."""
    if config.secrets is not None:
        return config.secrets
    if not isinstance(config.store, LocalStore):
        raise missing_secret(config.store_name)
    path = config.store.secret_path()
    return (token_bytes(32),) if path is None else read_or_create_secrets(path)


def _legacy(config: Config, engine: Engine, secrets: Sequence[bytes]) -> LegacyConversion | None:
    """Return the conversion of old sessions; None without readers, or after their last day."""
    if config.read_legacy_until is None:
        return None
    conversion = LegacyConversion(
        config.read_legacy, config.read_legacy_until, engine, secrets=secrets, realm=config.realm
    )
    if conversion.active():
        return conversion
    logger.warning(
        "read_legacy_until has passed: the sessions of the former library are not read any more; "
        "remove read_legacy and read_legacy_until"
    )
    return None


def _key_fingerprint_check(config: Config, secrets: Sequence[bytes]) -> KeyFingerprintCheck | None:
    store, realm = config.store, config.realm
    if not isinstance(store, SupportsKeyFingerprints):
        return None
    path = store.secret_path() if isinstance(store, LocalStore) else None
    return KeyFingerprintCheck(
        store,
        [key_fingerprint(each, realm) for each in secrets],
        realm=realm,
        secret_file=None if path is None or not path.exists() else str(path),
    )


def _history(config: Config, dispatcher: Dispatcher) -> History | None:
    store = config.store
    if config.history is None or not isinstance(store, SupportsHistory):
        return None
    return History(
        store,
        store,
        dispatcher,
        lifetime=config.history,
        store_timeout=config.core.store_timeout,
    )


def _ended(entry: HistoryEntry) -> EndedSession:
    return EndedSession(
        entry.session_id.hex(),
        entry.user,
        MappingProxyType(entry.labels),
        to_datetime(entry.created_at) if entry.created_at else None,
        to_datetime(entry.ended_at),
        entry.reason,
        entry.actor,
    )


def _requires_loop(store: object) -> bool:
    # Publishing and subscribing happen in threads, which have no event loop.
    return isinstance(store, RequiresEventLoop) and store.requires_event_loop() is not None


def _to_milliseconds(instant: object, name: str) -> int:
    """Return milliseconds since 1970 UTC, rounded up.

    Raises:
        ValueError: the instant is no datetime, or has no time zone.
    """
    if not isinstance(instant, datetime) or instant.utcoffset() is None:
        raise ValueError(
            f"{name} expects a datetime with a time zone, such as datetime.now(UTC), found "
            f"{instant!r}"
        )
    return -((_EPOCH - instant) // timedelta(milliseconds=1))
