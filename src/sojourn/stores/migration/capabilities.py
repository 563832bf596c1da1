"""``migrating``, and the capabilities of its store: those that both stores have.

Each class adds one capability. The class of a migrating store inherits those that apply.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, cast, overload

import msgspec

from sojourn.errors import ConfigurationError, StoreError
from sojourn.record import Record, UnreadableRecord
from sojourn.store import (
    GONE,
    REVOKED,
    Conflict,
    Count,
    HistoryEntry,
    HistoryPage,
    IncompleteList,
    ListPage,
    LoginSaved,
    MessageHandler,
    MessageKind,
    NeedsPurge,
    SaveLoginResult,
    SessionLimit,
    Store,
    StoreSource,
    SupportsBroadcast,
    SupportsBulk,
    SupportsCount,
    SupportsGroupCommit,
    SupportsHistory,
    SupportsImmediate,
    SupportsKeyFingerprints,
    SupportsListing,
    SupportsServerTime,
    SupportsUserIndex,
    invalid_cursor,
)
from sojourn.stores.migration.joined_subscription import JoinedSubscription
from sojourn.stores.migration.mover import InOld
from sojourn.stores.migration.store import MAX_ATTEMPTS, MigratingStore, each, is_final
from sojourn.stores.migration.transit import Moved, Pending, interpret
from sojourn.stores.urls import open_store


class _UserIndex(MigratingStore):
    """Finds the sessions of a user in both stores."""

    async def save_login(
        self, record: Record, expected_version: int, *, limit: SessionLimit | None, now: int
    ) -> SaveLoginResult:
        """Log in where the session is; see ``SupportsUserIndex``.

        Unless preparing, the user's other sessions are moved first, so that the new store compares
        their number with the limit in the step that stores the login.
        """
        return await self.bounded(self._save_login(record, expected_version, limit, now))

    async def _save_login(
        self, record: Record, expected_version: int, limit: SessionLimit | None, now: int
    ) -> SaveLoginResult:
        if self.prepare and not await self._has_moved_sessions(record, limit):
            old = cast("SupportsUserIndex", self.old)
            result = await old.save_login(record, expected_version, limit=limit, now=now)
            if is_final(result):
                return await self._if_inserted_once(self.old, record, expected_version, result)
        if await self.is_rejected_by_old(record, now):
            return REVOKED
        if limit is not None:
            await self._move_user(record)
        return await self._log_in_to_new(record, expected_version, limit, now)

    async def _has_moved_sessions(self, record: Record, limit: SessionLimit | None) -> bool:
        if limit is None:
            return False
        new = cast("SupportsUserIndex", self.new)
        for name in record.index_names()[:1]:
            if await new.list_by_index(name):
                return True
        return False

    async def _move_user(self, record: Record) -> None:
        """Move the sessions that count for the limit of a login, and withdraw void copies."""
        old, new = cast("tuple[SupportsUserIndex, ...]", (self.old, self.new))
        for name in record.index_names()[:1]:
            listed = await old.list_by_index(name)
            await each([self._move_if_readable(other.id) for other in listed if _is_unmoved(other)])
            copies = [other for other in await new.list_by_index(name) if other.in_transit]
            await each([self._settle_copy(copy) for copy in copies])

    async def _move_if_readable(self, session_id: bytes) -> None:
        # A damaged session must not prevent logins of its user.
        with suppress(UnreadableRecord):
            await self.mover.move(session_id)

    async def _settle_copy(self, stored: Record) -> None:
        """Withdraw a copy that a process has left whose session had ended."""
        with suppress(UnreadableRecord):
            found = interpret(stored)
            if isinstance(found, Pending) and not await self.mover.move(stored.id):
                await self.mover.withdraw(found)

    async def _log_in_to_new(
        self, record: Record, expected_version: int, limit: SessionLimit | None, now: int
    ) -> SaveLoginResult:
        new = cast("SupportsUserIndex", self.new)
        for _ in range(MAX_ATTEMPTS):
            # A session that is in the old store, or an ID to insert that is taken there.
            exists = await self.mover.move(record.id)
            # Called also for a session that is gone: a cutoff, which only processes with the new
            # store alone may have set, precedes GONE.
            result = await new.save_login(record, expected_version, limit=limit, now=now)
            if isinstance(result, LoginSaved):
                await self._end_in_old(result.evicted)
            if is_final(result):
                return await self._if_inserted_once(self.new, record, expected_version, result)
            if expected_version and not exists:
                return GONE
            if not expected_version:
                await self.free(self.new, record.id)
        return GONE

    async def _if_inserted_once(
        self, store: Store, record: Record, expected_version: int, result: SaveLoginResult
    ) -> SaveLoginResult:
        """Return a result; undo an insert if the other store has got the ID meanwhile."""
        if expected_version or not isinstance(result, LoginSaved):
            return result
        other = self.new if store is self.old else self.old
        taken = interpret(await other.load(record.id))
        if not isinstance(taken, Record):
            return result
        await store.delete(record.id)
        return Conflict(taken)

    async def _end_in_old(self, session_ids: Sequence[bytes]) -> None:
        """Remove evicted sessions whose move had only begun."""
        for session_id in session_ids:
            if interpret(await self.old.load(session_id)) is not None:
                await self.old.delete(session_id)

    async def list_by_index(self, name: str) -> list[Record]:
        """Return the records of both stores indexed under a name, newest login first.

        The old store is read first: a session that moves in between is then listed by the new one.
        While preparing it is read again, because other processes may roll the migration back.

        Raises:
            IncompleteList: one of them failed; a revocation does not wait for it.
        """
        return await self.bounded(self._list_by_index(name))

    async def _list_by_index(self, name: str) -> list[Record]:
        stores = (self.old, self.new, self.old) if self.prepare else (self.old, self.new)
        found: dict[bytes, Record] = {}
        moving: set[bytes] = set()
        error: StoreError | None = None
        for store in stores:
            try:
                listed = await cast("SupportsUserIndex", store).list_by_index(name)
            except StoreError as failed:
                error = error or failed
                continue
            for stored in listed:
                if not stored.in_transit:
                    found[stored.id] = stored
                elif _is_unmoved(stored):
                    moving.add(stored.id)
        if error is not None:
            raise IncompleteList(str(error), list(found.values())) from error
        for session_id in moving - found.keys():
            with suppress(UnreadableRecord):
                location = await self.mover.find(session_id)
                if location is not None:
                    found[session_id] = location.record
        return sorted(found.values(), key=lambda one: (one.authenticated_at, one.id), reverse=True)

    async def invalidate_logins(self, name: str, before: int) -> None:
        """Reject logins older than an instant in both stores."""
        await self._in_both(lambda store: store.invalidate_logins(name, before))

    async def invalidate_all(self, before: int) -> None:
        """Treat every record created before an instant as absent in both stores."""
        await self._in_both(lambda store: store.invalidate_all(before))

    async def _in_both(
        self, call: Callable[[SupportsUserIndex], Coroutine[Any, Any, None]]
    ) -> None:
        """Call both stores, the second also if the first fails."""
        error: StoreError | None = None
        for store in (self.old, self.new):
            try:
                await self.bounded(call(cast("SupportsUserIndex", store)))
            except StoreError as failed:
                error = error or failed
        if error is not None:
            raise error


class _Bulk(MigratingStore):
    """Deletes and creates many records in a few batches."""

    async def delete_many(self, session_ids: Sequence[bytes]) -> list[bool]:
        """Remove sessions from both stores; see ``SupportsBulk``."""
        return await self.delete_each(session_ids)

    async def create_many(self, records: Sequence[Record]) -> list[bool]:
        """Insert records; see ``SupportsBulk``."""
        return await each([self.create(record) for record in records])


class _Broadcast(MigratingStore):
    """Publishes to the subscribers of both stores, and subscribes to both."""

    async def publish(
        self, kind: MessageKind, *session_ids: bytes, version: int = 0, reason: str = ""
    ) -> None:
        """Send a message for each session to the subscribers of both stores."""
        error: StoreError | None = None
        for store in (self.old, self.new):
            try:
                await cast("SupportsBroadcast", store).publish(
                    kind, *session_ids, version=version, reason=reason
                )
            except StoreError as failed:
                error = error or failed
        if error is not None:
            raise error

    def subscribe(
        self, on_message: MessageHandler, on_gap: Callable[[], object]
    ) -> JoinedSubscription:
        """Subscribe to both stores; see ``SupportsBroadcast``."""
        stores = cast("tuple[SupportsBroadcast, ...]", (self.old, self.new))
        return JoinedSubscription(stores, on_message, on_gap)


class _Count(MigratingStore):
    """Counts the sessions of both stores."""

    async def count(self, now: int) -> Count:
        """Return the number of live sessions; one that moves at this moment may count or not."""
        counts = [await cast("SupportsCount", store).count(now) for store in (self.old, self.new)]
        is_exact = all(not isinstance(count, Count) or count.is_exact for count in counts)
        return Count(sum(map(int, counts)), is_exact=is_exact)


class _Listing(MigratingStore):
    """Lists the sessions of both stores."""

    async def list_page(self, cursor: str, limit: int) -> ListPage:
        """Return a page of the old store or, after its last one, of the new store.

        A session that moves during the listing may be listed by both. While other processes roll
        the migration back, one that returns to the old store may be missed.
        """
        name, _, position = (cursor or _OLD).partition(":")
        if name not in {_OLD, _NEW} or (cursor and ":" not in cursor):
            raise invalid_cursor(cursor)
        page = await cast("SupportsListing", self.old if name == _OLD else self.new).list_page(
            position, limit
        )
        records = [stored for stored in page.records if not stored.in_transit]
        unreadable = page.unreadable
        for stored in page.records:
            if stored.in_transit:
                try:
                    records += await self.bounded(self._find_listed(stored, is_old=name == _OLD))
                except UnreadableRecord:
                    unreadable += 1
        next_cursor = f"{_NEW}:" if name == _OLD else ""
        if page.cursor:
            next_cursor = f"{name}:{page.cursor}"
        return ListPage(records, unreadable, next_cursor, page.is_ordered)

    async def _find_listed(self, stored: Record, *, is_old: bool) -> list[Record]:
        """Return the session for which a record in transit stands, unless another record has it.

        Args:
            stored: of the store that is listed.
            is_old: whether that is the old store.

        Raises:
            UnreadableRecord: the record is damaged.
        """
        found = interpret(stored)
        if isinstance(found, Moved) and found.is_retired:
            return []
        location = await self.mover.find(stored.id)
        if isinstance(location, InOld):
            # A copy in the new store is void then: its session is listed by the old one.
            is_listed_here = is_old or isinstance(found, Moved)
        else:  # in the new store, whose pages follow those of the old one
            is_listed_here = location is not None and not is_old
        return [location.record] if location is not None and is_listed_here else []


#: Which store a cursor of a list belongs to.
_OLD: Final = "old"
_NEW: Final = "new"


class _KeyFingerprints(MigratingStore):
    """Registers the keys of the application in both stores."""

    async def register_keys(self, fingerprints: Sequence[bytes]) -> bool:
        """Add fingerprints of keys to both stores; see ``SupportsKeyFingerprints``."""
        for store in (self.old, self.new):
            if not await cast("SupportsKeyFingerprints", store).register_keys(fingerprints):
                return False
        return True


class _Purge(MigratingStore):
    """Is purged as often as the store that needs it more often."""

    @property
    def purge_interval(self) -> float:
        """Seconds between two purges."""
        stores = (self.old, self.new)
        return min(store.purge_interval for store in stores if isinstance(store, NeedsPurge))


class _ServerTime(MigratingStore):
    """Has the clock of the store that is written."""

    async def server_time(self) -> int:
        """Return the time of the server; see ``SupportsServerTime``."""
        return await cast(
            "SupportsServerTime", self.old if self.prepare else self.new
        ).server_time()


class _History(MigratingStore):
    """Adds to the history of the store that is written, and lists those of both."""

    async def add_history(self, entries: Sequence[HistoryEntry], lifetime: int) -> None:
        """Add entries to one store; see ``SupportsHistory``."""
        store = cast("SupportsHistory", self.old if self.prepare else self.new)
        await store.add_history(entries, lifetime)

    async def list_history(self, cursor: str, limit: int) -> HistoryPage:
        """Return a page of entries: those of the new store, then those of the old one.

        The cursor is the name of the store, a colon and the store's own cursor.
        """
        return await self.bounded(self._list_history(cursor, limit))

    async def _list_history(self, cursor: str, limit: int) -> HistoryPage:
        stores = [store for store in (self.new, self.old) if isinstance(store, SupportsHistory)]
        names = ["new" if store is self.new else "old" for store in stores]
        name, colon, position = cursor.partition(":") if cursor else (names[0], ":", "")
        if name not in names or not colon:
            raise ValueError(f"expected the cursor of a page of the history, found {cursor!r}")
        entries: list[HistoryEntry] = []
        unreadable = 0
        for number in range(names.index(name), len(stores)):
            rest = limit - len(entries) - unreadable
            if not rest:
                return HistoryPage(entries, unreadable, f"{names[number]}:")
            page = await stores[number].list_history(position, rest)
            entries += page.entries
            unreadable += page.unreadable
            if page.cursor:
                return HistoryPage(entries, unreadable, f"{names[number]}:{page.cursor}")
            position = ""
        return HistoryPage(entries, unreadable, "")


class _Immediate(MigratingStore):
    """Answers at once for a session in the store that is written."""

    def peek(self, session_id: bytes) -> Record | None:
        """Return the record if it is in this store; None if only ``load`` can decide."""
        store = cast("SupportsImmediate", self.old if self.prepare else self.new)
        record = store.peek(session_id)
        return record if record is None or isinstance(interpret(record), Record) else None

    def swap(self, record: Record, expected_version: int) -> bool:
        """Save the record if it is in this store; return False if ``save`` has to be called."""
        store = cast("SupportsImmediate", self.old if self.prepare else self.new)
        return store.swap(record, expected_version)


class _GroupCommit(MigratingStore):
    """Saves through ``save``, as the store that is written does."""

    #: Saves of one event-loop tick share a transaction.
    group_commit: Final = True


#: The class for each capability that both stores must have.
_OF_BOTH_STORES: Final[tuple[tuple[type, type[MigratingStore]], ...]] = (
    (SupportsUserIndex, _UserIndex),
    (SupportsBulk, _Bulk),
    (SupportsBroadcast, _Broadcast),
    (SupportsCount, _Count),
    (SupportsListing, _Listing),
    (SupportsKeyFingerprints, _KeyFingerprints),
)

#: The class for each capability that the store which is written must have.
_OF_WRITTEN_STORE: Final[tuple[tuple[type, type[MigratingStore]], ...]] = (
    (SupportsServerTime, _ServerTime),
    (SupportsHistory, _History),
    (SupportsImmediate, _Immediate),
    (SupportsGroupCommit, _GroupCommit),
)


class UnopenedMigration(msgspec.Struct, frozen=True):
    """Opens the stores of ``migrating`` when ``Sessions`` passes realm and deadline.

    Attributes:
        old: a URL or a store.
        new: a URL or a store.
        prepare: see ``migrating``.
    """

    old: str | Store
    new: str | Store
    prepare: bool

    def __repr__(self) -> str:
        """Show the schemes: a URL may contain a password."""
        old, new = (
            each.partition("://")[0] + "://" if isinstance(each, str) else repr(each)
            for each in (self.old, self.new)
        )
        return f"migrating({old}, {new})"

    def open(self, *, realm: str, timeout: float) -> MigratingStore:
        """Return the store; see ``StoreSource``."""
        old, new = (
            open_store(each, realm=realm, timeout=timeout) if isinstance(each, str) else each
            for each in (self.old, self.new)
        )
        store = _combine(old, new, prepare=self.prepare)
        store.set_timeout(timeout)
        return store


@overload
def migrating(old: Store, new: Store, *, prepare: bool = False) -> MigratingStore: ...
@overload
def migrating(old: str, new: str | Store, *, prepare: bool = False) -> StoreSource: ...
@overload
def migrating(old: Store, new: str, *, prepare: bool = False) -> StoreSource: ...
def migrating(
    old: str | Store, new: str | Store, *, prepare: bool = False
) -> MigratingStore | StoreSource:
    """Return a store that serves sessions from a new store while an old one is read.

    Sessions are moved when they are written; ``migrate`` moves the others. ``docs/migration.md``
    describes the steps of a deployment.

    Args:
        old: the URL or the store that sessions leave.
        new: the URL or the store that they enter.
        prepare: write to the old store, and read what other processes have moved. Deploy this to
            every process before the first one moves sessions.

    Raises:
        ConfigurationError: an argument is neither a URL nor a store, or both are the same store.
    """
    for name, store in (("old", old), ("new", new)):
        if not isinstance(store, str) and (isinstance(store, type) or not isinstance(store, Store)):
            raise ConfigurationError(
                f"migrating({name}=) expects a URL such as 'sqlite:///sessions.db', or a Store "
                f"object, found {store!r}"
            )
    if old is new or (isinstance(old, str) and old == new):
        raise ConfigurationError(
            "migrating(old, new) expects two different stores, found the same one twice"
        )
    if isinstance(old, str) or isinstance(new, str):
        return UnopenedMigration(old, new, prepare)
    return _combine(old, new, prepare=prepare)


def _combine(old: Store, new: Store, *, prepare: bool) -> MigratingStore:
    """Return the migrating store of two stores, with the capabilities that apply."""
    written = old if prepare else new
    bases: list[type[MigratingStore]] = [
        kind
        for capability, kind in _OF_BOTH_STORES
        if isinstance(old, capability) and isinstance(new, capability)
    ]
    # `swap` of a record leaves the index of the new store as it is; see `MigratingStore`.
    indexes_alike = isinstance(old, SupportsUserIndex) or not isinstance(new, SupportsUserIndex)
    bases += [
        kind
        for capability, kind in _OF_WRITTEN_STORE
        if isinstance(written, capability) and (indexes_alike or kind is not _Immediate)
    ]
    if isinstance(old, NeedsPurge) or isinstance(new, NeedsPurge):
        bases.append(_Purge)
    return _class_of(tuple(bases))(old, new, prepare=prepare)


@functools.cache
def _class_of(bases: tuple[type[MigratingStore], ...]) -> type[MigratingStore]:
    return type("MigratingStore", bases or (MigratingStore,), {})


def _is_unmoved(stored: Record) -> bool:
    """Return whether a record of the old store is a session that has not moved yet."""
    try:
        found = interpret(stored)
    except UnreadableRecord:
        return False
    return not (isinstance(found, Moved) and found.is_retired)
