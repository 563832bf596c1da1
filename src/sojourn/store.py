"""The store contract: the protocol, its results, and the optional capabilities of a store.

``docs/stores.md`` describes how to write a store. Capabilities are checked when ``Sessions`` is
built, so a configuration that needs a missing one is refused at start-up.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol, Self, runtime_checkable

import msgspec

from sojourn.errors import StoreUnavailable
from sojourn.record import Record, UnreadableRecord, parse_session_id

__all__ = [
    "GONE",
    "LIMIT_REACHED",
    "MAX_LOGIN_DURATION",
    "REVOKED",
    "SAVED",
    "BatchObserver",
    "BroadcastMessage",
    "Closeable",
    "Conflict",
    "Count",
    "CutoffPage",
    "HistoryEntry",
    "HistoryPage",
    "IncompleteList",
    "LimitPolicy",
    "ListPage",
    "LocalStore",
    "LoginSaved",
    "MessageHandler",
    "MessageKind",
    "NeedsPurge",
    "Purged",
    "Record",
    "RequiresEventLoop",
    "RestrictsValues",
    "SaveLoginResult",
    "SaveResult",
    "SessionLimit",
    "Status",
    "Store",
    "StoreSource",
    "Subscription",
    "SupportsBatchObservers",
    "SupportsBroadcast",
    "SupportsBulk",
    "SupportsCount",
    "SupportsCutoffListing",
    "SupportsGroupCommit",
    "SupportsHistory",
    "SupportsImmediate",
    "SupportsKeyFingerprints",
    "SupportsListing",
    "SupportsServerTime",
    "SupportsTimeout",
    "SupportsUserIndex",
    "UnreadableRecord",
    "ValueCheck",
    "invalid_cursor",
    "parse_id_cursor",
    "value_check",
]

# Results


class Status(enum.Enum):
    """The outcome of ``save`` and ``save_login``, except for a conflict."""

    SAVED = "saved"
    GONE = "gone"
    REVOKED = "revoked"
    LIMIT_REACHED = "limit reached"


SAVED: Final = Status.SAVED
GONE: Final = Status.GONE
REVOKED: Final = Status.REVOKED
LIMIT_REACHED: Final = Status.LIMIT_REACHED


class Conflict(msgspec.Struct, frozen=True):
    """The stored version differs from the expected one; nothing was written.

    Attributes:
        newer: the stored record.
    """

    newer: Record


class LoginSaved(msgspec.Struct, frozen=True):
    """The record is stored and indexed under its names.

    Attributes:
        evicted: IDs of the sessions that were removed because of the limit, 16 bytes each.
    """

    evicted: tuple[bytes, ...]


class Purged(NamedTuple):
    """The result of one ``purge`` call: records removed, and whether the scan reached the end."""

    removed: int
    finished: bool


class ListPage(NamedTuple):
    """One page of ``list_page``.

    Attributes:
        records: expired ones and tombstones included; maybe none.
        unreadable: the number of records that are damaged or of a newer format (law S9).
        cursor: for the next page; empty after the last one.
        is_ordered: whether the records are those with the next IDs. If not, as with SCAN, a page
            that is read again may end earlier or later, because other records were created or
            deleted.
    """

    records: list[Record]
    unreadable: int
    cursor: str
    is_ordered: bool = True


class HistoryEntry(msgspec.Struct, frozen=True, array_like=True):
    """How a session ended.

    Attributes:
        session_id: 16 bytes; empty if every session was revoked.
        ended_at: milliseconds since 1970 UTC.
        reason: such as ``destroyed``, ``expired: idle`` or the text given to ``revoke``.
        actor: who revoked it, as the application named them; None if not given.
        user: who was logged in; None if no user was, or if it is unknown.
        created_at: milliseconds since 1970 UTC; 0 if unknown.
        labels: of the session; empty if unknown.
    """

    session_id: bytes
    ended_at: int
    reason: str
    actor: str | None = None
    user: str | None = None
    created_at: int = 0
    labels: dict[str, str] = {}


class HistoryPage(NamedTuple):
    """One page of ``list_history``.

    Attributes:
        entries: newest first.
        unreadable: the number of entries that are damaged or of a newer format (law S9).
        cursor: for the next page; empty after the last one.
    """

    entries: list[HistoryEntry]
    unreadable: int
    cursor: str


class Count(int):
    """A number of live sessions. As text, an estimate begins with ``~``.

    Attributes:
        is_exact: whether every session was counted.
    """

    is_exact: bool

    def __new__(cls, number: int = 0, *, is_exact: bool = True) -> Self:
        """Return a count.

        Args:
            number: of the sessions.
            is_exact: False for an estimate.
        """
        count = super().__new__(cls, number)
        count.is_exact = is_exact
        return count

    def __repr__(self) -> str:
        """Show the number and whether it is exact."""
        return f"Count({int(self)}, is_exact={self.is_exact})"

    def __str__(self) -> str:
        """Return the digits, after ``~`` for an estimate."""
        return format(self)

    def __format__(self, spec: str) -> str:
        """Format as an integer, after ``~`` for an estimate."""
        return ("" if self.is_exact else "~") + format(int(self), spec)


class CutoffPage(NamedTuple):
    """One page of ``list_cutoffs``.

    Attributes:
        cutoffs: names and instants (milliseconds since 1970 UTC). The name of the cutoff of all
            sessions is empty.
        unnamed: the number of further cutoffs, of whose names the store has only a digest.
        cursor: for the next page; empty after the last one.
    """

    cutoffs: list[tuple[str, int]]
    unnamed: int
    cursor: str


SaveResult = Literal[Status.SAVED, Status.GONE] | Conflict
SaveLoginResult = LoginSaved | Conflict | Literal[Status.GONE, Status.REVOKED, Status.LIMIT_REACHED]

# Arguments


class LimitPolicy(enum.StrEnum):
    """What a login above the limit does: evict a session of the same user, or fail."""

    EVICT_OLDEST = "evict_oldest"
    EVICT_IDLEST = "evict_idlest"
    REFUSE = "refuse"


class SessionLimit(msgspec.Struct, frozen=True):
    """A limit on the live sessions of one user.

    A store on a server may examine 256 sessions of a user at a time, so that a login does not block
    it for long. A user with more may then have expired sessions that count until they are examined,
    and the evicted session is the idlest of those examined.

    Attributes:
        max_sessions: 1 or more.
        policy: applied when a login exceeds it.
    """

    max_sessions: int
    policy: LimitPolicy


#: Milliseconds. A login takes less than this, so a cutoff that is older may be removed. A login by
#: a "remember me" cookie began when the user proved their identity, and browsers keep a cookie for
#: at most 400 days (RFC 6265bis 5.5).
MAX_LOGIN_DURATION: Final = 400 * 24 * 60 * 60 * 1000


@runtime_checkable
class Store(Protocol):
    """Stores records by session ID (16 bytes).

    Absence is a result, never an exception (law S1). A store that cannot answer raises
    ``StoreUnavailable`` within its deadline; the call has then written everything or nothing (S12).
    Cancelling one caller does not affect the calls of others (S13). The core decides expiry: a
    store returns every record it holds and removes only those that ``purge`` finds expired.

    Methods are coroutines. A store whose coroutines never suspend also serves WSGI and threads.
    """

    async def load(self, session_id: bytes) -> Record | None:
        """Return the record, None if there is none.

        Raises:
            UnreadableRecord: the stored bytes are not a record of a known format (law S9).
        """
        ...

    async def create(self, record: Record) -> bool:
        """Insert a record; return False and change nothing if its ID is taken (law S2)."""
        ...

    async def save(self, record: Record, expected_version: int) -> SaveResult:
        """Replace the record whose version is ``expected_version`` (laws S3 to S6).

        Args:
            record: the new record; its version is ``expected_version + 1``, except that a
                migration between stores saves other versions.
            expected_version: the version that must be stored.

        Returns:
            ``SAVED``; ``Conflict`` with the stored record if its version differs; ``GONE`` if there
            is none. The larger ``seen_at`` of the two records is stored.
        """
        ...

    async def touch(self, record: Record) -> bool:
        """Move ``seen_at`` forward to the given record's, never backward.

        Data and version stay as stored. Return False and create nothing if there is no such record
        (laws S5, S6).
        """
        ...

    async def delete(self, session_id: bytes) -> bool:
        """Remove a record; return whether there was one. Idempotent (law S7)."""
        ...

    async def purge(self, now: int, limit: int) -> Purged:
        """Remove up to ``limit`` records that are expired at ``now`` (milliseconds since 1970 UTC).

        One call examines at most ten times ``limit`` records, so that it does not block other calls
        for long. The next call continues where this one stopped (law S8).
        """
        ...


@runtime_checkable
class StoreSource(Protocol):
    """Opens a store when ``Sessions`` is built, which passes the realm and the deadline."""

    def open(self, *, realm: str, timeout: float) -> Store:
        """Return the store.

        Args:
            realm: the installation's namespace.
            timeout: seconds that a store call may take.

        Raises:
            ConfigurationError: it cannot be opened.
        """
        ...


# Capabilities


class IncompleteList(StoreUnavailable):
    """A store that consists of several stores could not list the records of one of them.

    Attributes:
        records: of the stores that answered. A revocation deletes these, then raises.
    """

    def __init__(self, text: str, records: Sequence[Record]) -> None:
        super().__init__(text)
        self.records: tuple[Record, ...] = tuple(records)


@runtime_checkable
class SupportsUserIndex(Protocol):
    """Finds sessions by ``Record.index_names``: by user or by session at an identity provider.

    ``save_login`` gives a record its names; it has them until it is removed. ``save`` and
    ``touch`` do not change them. The index holds every live session of a name and no ended one
    (law S15).
    """

    async def save_login(
        self, record: Record, expected_version: int, *, limit: SessionLimit | None, now: int
    ) -> SaveLoginResult:
        """Save a record whose user has just logged in and index it, in one atomic step.

        Args:
            record: the new record; its version is ``expected_version + 1``.
            expected_version: the version that must be stored, as in ``save``; 0 inserts, as in
                ``create``.
            limit: the most sessions the user may have, this one included; None for no limit.
                Sessions expired at ``now`` do not count. This session is never evicted; of the
                others, those with the smallest ``authenticated_at`` (``EVICT_OLDEST``) or
                ``seen_at`` (``EVICT_IDLEST``) are.
            now: milliseconds since 1970 UTC.

        Returns:
            ``LoginSaved``; the larger ``seen_at`` is stored, as in ``save``. Otherwise nothing has
            changed: ``Conflict`` and ``GONE`` as in ``save`` (``Conflict`` also if an ID to insert
            is taken); ``REVOKED`` if ``invalidate_logins`` set a cutoff later than
            ``record.authenticated_at`` for one of the names (law S16), which precedes ``Conflict``
            and ``GONE``; ``LIMIT_REACHED`` if the limit is reached and its policy is ``REFUSE``.

        Raises:
            UnreadableRecord: the record's body is damaged, so its names are unknown.
        """
        ...

    async def list_by_index(self, name: str) -> list[Record]:
        """Return the records indexed under a name, newest login first.

        The list may contain expired records. Unreadable ones are omitted.

        Raises:
            IncompleteList: the store consists of several stores, and one of them failed.
        """
        ...

    async def invalidate_logins(self, name: str, before: int) -> None:
        """Reject logins under ``name`` whose ``authenticated_at`` is earlier than ``before``.

        Indexed records stay; the caller lists and deletes them afterwards (law S16). The latest of
        several cutoffs counts. A cutoff may be removed ``MAX_LOGIN_DURATION`` after its instant.
        """
        ...

    async def invalidate_all(self, before: int) -> None:
        """Treat every record created before an instant as absent in all calls, permanently.

        Costs one write for any number of records. ``purge`` removes them like expired ones; until
        then their IDs may stay taken. The latest of several cutoffs counts.
        """
        ...


@runtime_checkable
class SupportsBulk(Protocol):
    """Deletes or creates many records in a constant number of round trips."""

    async def delete_many(self, session_ids: Sequence[bytes]) -> list[bool]:
        """Delete as ``delete`` does; return its results in the order of the arguments."""
        ...

    async def create_many(self, records: Sequence[Record]) -> list[bool]:
        """Create as ``create`` does; return its results in the order of the arguments."""
        ...


@runtime_checkable
class SupportsImmediate(Protocol):
    """Answers the ordinary load and save without suspending, so that no coroutine is needed."""

    def peek(self, session_id: bytes) -> Record | None:
        """Return what ``load`` would return; None also if only ``load`` can decide."""
        ...

    def swap(self, record: Record, expected_version: int) -> bool:
        """Save as ``save`` does if its result would be ``SAVED``; otherwise change nothing.

        Returns:
            False if ``save`` has to be called: on a conflict, for a record that is gone, or if
            saving would have to wait.
        """
        ...


@runtime_checkable
class SupportsGroupCommit(Protocol):
    """Commits the saves of one event-loop tick in one transaction.

    Saves of such a store go through ``save``, although it may have ``swap``: one transaction for
    each costs more (SQLite: 7 % of the throughput of writes with 48 connections).
    """

    @property
    def group_commit(self) -> bool:
        """True."""
        ...


MessageKind = Literal["revoked", "rotated", "changed", "all-before"]


class BroadcastMessage(msgspec.Struct, frozen=True, array_like=True):
    """A message between processes about a session.

    A message is a hint to reload: it may be lost, duplicated, late or out of order (law S17). Only
    ``revoked`` may be acted on directly, because a revoked ID never names a session again.

    Attributes:
        format: 1.
        kind: ``revoked``: the session ended; ``rotated``: its verifier was replaced, by a rotation
            or (with a reason) by a login; ``changed``: its data; ``all-before``: every session
            created before an instant ended.
        session_id: 16 bytes; empty with ``all-before``.
        version: of the record, 0 if unknown; with ``all-before`` the instant in milliseconds since
            1970 UTC.
        reason: shown to clients whose connections are closed.
    """

    format: int
    kind: MessageKind
    session_id: bytes
    version: int
    reason: str


MessageHandler = Callable[[BroadcastMessage], object]


@runtime_checkable
class SupportsBroadcast(Protocol):
    """Publishes messages to other processes and subscribes to theirs.

    ``publish`` sends revocations and rotations to every subscriber. A ``changed`` message is
    published by the store itself as part of ``save`` and ``swap``, to the subscribers that watch
    the session, so that it costs no call of its own. Without this capability connections are
    checked every ``recheck_interval``.
    """

    async def publish(
        self, kind: MessageKind, *session_ids: bytes, version: int = 0, reason: str = ""
    ) -> None:
        """Send a message for each session to every subscriber.

        The messages travel together, not in one round trip each. Disconnected subscribers are not
        waited for. Called in a background thread without an event loop.

        Raises:
            StoreError: a message could not be sent.
        """
        ...

    def subscribe(self, on_message: MessageHandler, on_gap: Callable[[], object]) -> Subscription:
        """Start a subscription; may block until connected.

        Args:
            on_message: called with each message, in a thread of the store; must return quickly.
            on_gap: called in that thread whenever messages may have been missed, also at the start.
        """
        ...


class Subscription(Protocol):
    """One process's subscription. Methods do not wait for the server and are thread-safe."""

    def watch(self, session_id: bytes) -> None:
        """Also receive ``changed`` messages of a session. Two calls need two ``unwatch`` calls."""
        ...

    def unwatch(self, session_id: bytes) -> None:
        """Stop receiving the ``changed`` messages of a session."""
        ...

    def close(self) -> None:
        """End the subscription; no handler is called after this returns. Idempotent."""
        ...


@runtime_checkable
class SupportsCount(Protocol):
    """Counts live sessions."""

    async def count(self, now: int) -> int:
        """Return the number of records not expired at ``now`` (milliseconds since 1970 UTC).

        Records of version 0 do not count, because they are tombstones, and neither do those of a
        session in transit between two stores, whose version is ``TRANSIT_VERSION`` or more, and
        those that ``invalidate_all`` has ended. A record that is created, deleted or changed
        meanwhile may count or not.

        Returns:
            The number. If it would take more than about a second to count them all, an estimate: a
            ``Count`` whose ``is_exact`` is False.
        """
        ...


@runtime_checkable
class SupportsListing(Protocol):
    """Lists every record page by page, ordered by ID (Valkey and Redis: in the order of SCAN)."""

    async def list_page(self, cursor: str, limit: int) -> ListPage:
        """Return the page that follows a cursor.

        A record that exists during the whole listing is listed at least once, perhaps twice. One
        that is created, deleted or changed meanwhile may be listed or not. A record that
        ``invalidate_all`` has ended is absent. The cost of a page does not depend on its position.

        Args:
            cursor: of the previous page; empty for the first one. It stays valid when the process
                ends. With the same cursor the page can be read again.
            limit: about how many records to return, 1 or more; there may be a few more where the
                records have no order.

        Raises:
            ValueError: the cursor is not one of such a store.
        """
        ...


def invalid_cursor(cursor: object) -> ValueError:
    """Return the error of a cursor that is not one of a store."""
    found = cursor[:100] if isinstance(cursor, str) else cursor
    return ValueError(
        f"cursor expects that of the previous page of the same store, or '' for the first page, "
        f"found {found!r}"
    )


def parse_id_cursor(cursor: str) -> bytes:
    """Return the ID in a cursor of a store that lists by ID; empty for the first page.

    Args:
        cursor: the ID as 32 hex digits, or empty.

    Raises:
        ValueError: it is something else.
    """
    if not cursor:
        return b""
    session_id = parse_session_id(cursor)
    if session_id is None:
        raise invalid_cursor(cursor)
    return session_id


@runtime_checkable
class SupportsCutoffListing(Protocol):
    """Lists the cutoffs, which a migration to another store copies."""

    async def list_cutoffs(self, cursor: str, limit: int) -> CutoffPage:
        """Return a page of the cutoffs that ``invalidate_logins`` and ``invalidate_all`` set.

        Args:
            cursor: as in ``list_page``.
            limit: as in ``list_page``.
        """
        ...


@runtime_checkable
class SupportsHistory(Protocol):
    """Stores a history of ended sessions. An entry outlives its session."""

    async def add_history(self, entries: Sequence[HistoryEntry], lifetime: int) -> None:
        """Add entries, in one round trip.

        Args:
            entries: in the order in which the sessions ended; one or more.
            lifetime: milliseconds after ``ended_at`` for which each is kept. ``purge`` removes it
                later, if the store does not do so itself, at most ``limit`` entries in one call;
                ``Purged.removed`` does not count them.

        Raises:
            StoreError: nothing, or a part, was added.
        """
        ...

    async def list_history(self, cursor: str, limit: int) -> HistoryPage:
        """Return the page that follows a cursor, newest first.

        Entries of the same instant are listed in the reverse order of their addition. An entry that
        exists during the whole listing is listed once, although others are added meanwhile.
        ``invalidate_all`` keeps the entries. The cost of a page does not depend on its position.

        Args:
            cursor: of the previous page; empty for the first one.
            limit: the most entries to read, 1 or more.

        Raises:
            ValueError: the cursor is not one of this store.
        """
        ...


@runtime_checkable
class SupportsKeyFingerprints(Protocol):
    """Stores fingerprints of the keys of an application, to refuse another application.

    Two applications with different secrets in one realm would share users and ``revoke_all``.
    """

    async def register_keys(self, fingerprints: Sequence[bytes]) -> bool:
        """Add fingerprints to the set of the realm, in one atomic step.

        The set is kept as long as the realm: it has no lifetime, and ``purge`` and
        ``invalidate_all`` keep it. Nothing is written if all are in it.

        Args:
            fingerprints: of one application's key ring, 8 bytes each. A secret cannot be derived
                from one.

        Returns:
            True if the set was empty, contained one of them, or cannot be read; False and nothing
            has changed if it contains others only.
        """
        ...


@runtime_checkable
class SupportsServerTime(Protocol):
    """Has a clock that every process of the installation can read (law A22).

    Decisions then use this clock instead of the machine's, so the clocks of application machines
    may differ. Each process calls ``server_time`` at its first contact and once a minute.
    """

    async def server_time(self) -> int:
        """Return the server's time, milliseconds since 1970 UTC, rounded down.

        The server must read its clock during the call; a value kept from an earlier call is wrong.

        Raises:
            StoreUnavailable: the server did not answer within the deadline.
        """
        ...


@runtime_checkable
class SupportsTimeout(Protocol):
    """Accepts the installation's ``store_timeout`` after it was constructed."""

    def set_timeout(self, seconds: float) -> None:
        """Set the deadline of every call; called once, when ``Sessions`` is built."""
        ...


@runtime_checkable
class LocalStore(Protocol):
    """Is local to this machine, so that a generated secret can be stored beside it."""

    def secret_path(self) -> Path | None:
        """Return the path of the secret file; None if sessions do not outlive the process."""
        ...


@runtime_checkable
class NeedsPurge(Protocol):
    """Does not remove expired records by itself: ``purge`` must be called periodically."""

    @property
    def purge_interval(self) -> float:
        """Seconds between two purges."""
        ...


@runtime_checkable
class RequiresEventLoop(Protocol):
    """May require an event loop, as stores over an asyncio client do."""

    def requires_event_loop(self) -> str | None:
        """Return None if the store also works without an event loop (WSGI, threads).

        Otherwise return advice for the developer, such as "use redis:// with its blocking client".
        Checked when a WSGI middleware is built.
        """
        ...


class BatchObserver(Protocol):
    """Is called after each batch of a store; returns quickly and does not raise."""

    def __call__(self, size: int, seconds: float, /, *, failed: bool) -> object:
        """Observe a batch.

        Args:
            size: the number of calls that travelled together.
            seconds: from its start to its answer.
            failed: none of the calls has an answer.
        """
        ...


@runtime_checkable
class SupportsBatchObservers(Protocol):
    """Joins the calls of many requests to batches, and reports each to its observers."""

    def add_batch_observer(self, observer: BatchObserver) -> None:
        """Report each batch from now on, in the thread or the event loop that executes it."""
        ...

    def remove_batch_observer(self, observer: BatchObserver) -> None:
        """Stop reporting. Idempotent."""
        ...


ValueCheck = Callable[[str, object], object]
"""``check(key, value)``: raise ``NotSerializable`` if the store cannot hold the value of a key."""


@runtime_checkable
class RestrictsValues(Protocol):
    """May be unable to hold some values of sessions, such as bytes and dates in JSON.

    Such a store also needs the values unencrypted, so the option ``encrypt`` is refused.
    """

    def value_check(self) -> ValueCheck | None:
        """Return the check of values, called at each assignment; None if it holds every value.

        Called once, when ``Sessions`` is built.
        """
        ...


def value_check(store: object) -> ValueCheck | None:
    """Return the check of values that a store requires; None if it holds every value."""
    return store.value_check() if isinstance(store, RestrictsValues) else None


@runtime_checkable
class Closeable(Protocol):
    """Holds files, threads or connections."""

    def close(self) -> None:
        """Release them; later calls of the store are errors. Idempotent."""
        ...
