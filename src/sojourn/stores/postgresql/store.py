"""PostgresStore: records in a table of a PostgreSQL database, for any number of machines."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final
from weakref import WeakSet

import psycopg
from psycopg import pq

from sojourn.errors import ConfigurationError
from sojourn.record import Record, UnreadableRecord
from sojourn.store import (
    GONE,
    LIMIT_REACHED,
    MAX_LOGIN_DURATION,
    REVOKED,
    BatchObserver,
    Conflict,
    CutoffPage,
    HistoryEntry,
    HistoryPage,
    LimitPolicy,
    ListPage,
    LoginSaved,
    MessageHandler,
    MessageKind,
    Purged,
    SaveLoginResult,
    SaveResult,
    SessionLimit,
)
from sojourn.stores.batching import Batchers
from sojourn.stores.postgresql.connection import Server
from sojourn.stores.postgresql.connection_sources import (
    Open,
    Source,
    connect,
    from_pool,
    own_connections,
    parse_server,
)
from sojourn.stores.postgresql.encoding import (
    TEXT,
    advisory_key,
    decode_record,
    digest,
    pack_bigint,
    pack_bigints,
    pack_byteas,
    unpack_bigint,
    unpack_byteas,
)
from sojourn.stores.postgresql.executor import Executor
from sojourn.stores.postgresql.history import HistoryTable
from sojourn.stores.postgresql.listing import Lister
from sojourn.stores.postgresql.named_queries import named_query, rows_of
from sojourn.stores.postgresql.pipeline import Preparation, Query, Transaction
from sojourn.stores.postgresql.pubsub import Subscriber, channel_of, encode_payload
from sojourn.stores.postgresql.purge import TablePurger
from sojourn.stores.postgresql.schema import Schema
from sojourn.stores.postgresql.schema_migration import Migrator
from sojourn.stores.postgresql.statements import ANY_VERSION, Statements
from sojourn.stores.postgresql.transactions import (
    Command,
    Create,
    Delete,
    Load,
    Planner,
    Request,
    Update,
)


class Durability(StrEnum):
    """What an acknowledged write survives."""

    DURABLE = "durable"
    """A crash of the server."""

    RELAXED = "relaxed"
    """The death of the application; a crash of the server loses the last writes, up to three times
    ``wal_writer_delay``, 0.6 seconds by default. Logins, deletions and cutoffs are durable
    nevertheless, so that no session that was revoked or evicted comes back."""


#: As psycopg's: the fifth repetition is worth the preparation.
DEFAULT_PREPARE_THRESHOLD: Final = 5

#: Messages of one transaction.
_MAX_NOTIFICATIONS: Final = 1000

#: The name under which ``invalidate_all`` stores its cutoff; names of users are never empty.
_ALL_SESSIONS: Final = b""


class PostgresStore:
    """Stores records in a table of a PostgreSQL database.

    Concurrent calls travel as one batch. An acknowledged write survives the death of any
    application process, and a crash of the server unless ``durability="relaxed"``
    (docs/postgresql.md).

    The core reads this server's clock (``server_time``) and derives from it every instant that it
    passes, so statements compare instants of one clock.

    Args:
        pool: ``psycopg_pool.ConnectionPool`` or ``AsyncConnectionPool`` of the application. Each
            batch takes a connection for one round trip. For connections of its own give
            ``Sessions`` a URL.
        realm: the installation's namespace; the same as in ``Sessions``.
        timeout: seconds that a call may take.
        schema: where the tables are; None for the first schema in the user's ``search_path``.
        durability: ``durable``, or ``relaxed``: a commit does not wait for the disk.
        prepare_threshold: executions before a statement is prepared; None behind a pooler that
            does not support prepared statements.
        listen_url: of a direct connection for broadcasts, if the pool leads to a pooler.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    #: Each purge examines every record, so it is rare; expired records are invisible meanwhile.
    purge_interval: Final = 300.0

    def __init__(
        self,
        *,
        pool: object,
        realm: str = "default",
        timeout: float = 2.0,
        schema: str | None = None,
        durability: str = Durability.DURABLE,
        prepare_threshold: int | None = DEFAULT_PREPARE_THRESHOLD,
        listen_url: str | None = None,
    ) -> None:
        source = own_connections(pool) if isinstance(pool, Server) else from_pool(pool)
        self._source = source
        self._connect_listener = source.connect
        if listen_url is not None:
            listener = parse_server(listen_url, "listen_url")
            self._connect_listener = functools.partial(connect, listener)
        self._realm = realm.encode()
        self._timeout = timeout
        self._preparation = Preparation(prepare_threshold)
        self._tables = tables = Schema(schema)
        if durability not in set(Durability):
            raise ConfigurationError(
                f"PostgresStore(durability=) expects 'durable' or 'relaxed', found {durability!r}"
            )
        self._is_relaxed = is_relaxed = durability == Durability.RELAXED
        self._statements = Statements(tables, is_relaxed=is_relaxed)
        self._planner = Planner(self._statements, realm)
        where = realm if schema is None else f"{schema}, {realm}"
        self._name = f"PostgresStore({source.name}, {where})"
        self._migrator = Migrator(tables, self._name)
        # Each has a connection for every event loop and one for the threads. No read waits for a
        # commit, which waits for the disk; a relaxed one does not, and one larger batch then costs
        # less than two. No request waits for the login of another session, which may wait for a
        # lock, and no login waits for a scan of the table.
        self._reads = self._make_batchers()
        self._writes = self._reads if is_relaxed else self._make_batchers()
        # Deletions wait for the disk in any case.
        self._deletions = self._make_batchers() if is_relaxed else self._writes
        self._commands = self._make_batchers()
        self._scans = self._make_batchers()
        self._lister = Lister(self._scans.submit, self._statements, self._realm)
        self._history = HistoryTable(
            self._commands.submit_all,
            self._scans.submit_all,
            self._planner.write,
            statements=self._statements,
            realm=self._realm,
        )
        self._purges_history = False  # a purge has entries of the history left
        self._purger = TablePurger(tables.sessions, realm, invalid=self._statements.invalid)
        self._channel = channel_of(tables.sessions, realm)
        self._subscribers: WeakSet[Subscriber] = WeakSet()  # those that were closed are collected

    def _make_batchers(self) -> Batchers[Request, Any]:
        source = self._source
        open_blocking = source.open_blocking
        return Batchers(
            lambda: self._make_executor(source.open_async),
            None if open_blocking is None else lambda: self._make_executor(open_blocking),
            advice=source.advice,
            timeout=self._timeout,
        )

    def _all_batchers(self) -> tuple[Batchers[Request, Any], ...]:
        return self._reads, self._writes, self._deletions, self._commands, self._scans

    def _make_executor(self, open_transport: Open) -> Executor:
        return Executor(
            open_transport(self._preparation),
            self._planner,
            self._migrator,
            self._preparation,
            name=self._name,
            timeout=self._timeout,
        )

    def __repr__(self) -> str:
        """Return the location without a password."""
        return self._name

    @property
    def source(self) -> Source:
        """Where the connections come from."""
        return self._source

    @property
    def tables(self) -> Schema:
        """The tables."""
        return self._tables

    @property
    def is_relaxed(self) -> bool:
        """Whether a commit does not wait for the disk."""
        return self._is_relaxed

    @property
    def prepares_statements(self) -> bool:
        """Whether repeated statements are prepared."""
        return self._preparation.threshold is not None

    def connect_listener(self) -> psycopg.Connection[Any]:
        """Return a new connection to the server of the broadcasts, in autocommit mode."""
        return self._connect_listener(self._timeout)

    def set_timeout(self, seconds: float) -> None:
        """Set the deadline of every call; see ``SupportsTimeout``."""
        self._timeout = seconds
        for batchers in self._all_batchers():
            batchers.set_timeout(seconds)

    def add_batch_observer(self, observer: BatchObserver) -> None:
        """Report each batch; see ``SupportsBatchObservers``."""
        for batchers in set(self._all_batchers()):
            batchers.add_observer(observer)

    def remove_batch_observer(self, observer: BatchObserver) -> None:
        """Stop reporting batches."""
        for batchers in set(self._all_batchers()):
            batchers.remove_observer(observer)

    def requires_event_loop(self) -> str | None:
        """Return what to use without an event loop; see ``RequiresEventLoop``."""
        return self._source.advice

    # Store

    async def load(self, session_id: bytes) -> Record | None:
        """Return the record, None if there is none."""
        record: Record | None = await self._reads.submit(Load(session_id))
        return record

    async def create(self, record: Record) -> bool:
        """Insert a record; return False if its ID is taken."""
        created: bool = await self._writes.submit(Create(record))
        return created

    async def save(self, record: Record, expected_version: int) -> SaveResult:
        """Replace the record whose version is the expected one."""
        result: SaveResult = await self._writes.submit(Update(record, expected_version))
        return result

    async def touch(self, record: Record) -> bool:
        """Move ``seen_at`` forward, never backward."""
        result: SaveResult = await self._writes.submit(Update(record, ANY_VERSION))
        return result is not GONE

    async def delete(self, session_id: bytes) -> bool:
        """Remove a record; return whether there was one."""
        deleted: bool = await self._deletions.submit(Delete(session_id))
        return deleted

    async def purge(self, now: int, limit: int) -> Purged:
        """Remove expired records along the table; at its end old cutoffs, then history."""
        removed = 0
        if not self._purges_history:
            removed, finished = await self._purger.purge(self._execute_sql, now, limit)
            if not finished:
                return Purged(removed, finished=False)
            if now > MAX_LOGIN_DURATION:
                await self._purge_cutoffs(now - MAX_LOGIN_DURATION, limit)
        self._purges_history = False  # after an error the next call begins with the records
        self._purges_history = not await self._history.purge(now, limit)
        return Purged(removed, finished=not self._purges_history)

    async def _purge_cutoffs(self, until: int, limit: int) -> None:
        query = Query(
            self._statements.delete_cutoffs, (self._realm, pack_bigint(until), pack_bigint(limit))
        )
        while True:
            results = await self._execute(self._planner.write(query))
            if results[-1].ntuples < limit:
                return

    async def _execute_sql(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Execute a write with parameters such as ``%(name)s``; return the rows."""
        results = await self._execute(self._planner.write(named_query(sql, parameters)))
        return rows_of(results[-1])

    # SupportsBulk

    async def delete_many(self, session_ids: Sequence[bytes]) -> list[bool]:
        """Remove records in batches; see ``SupportsBulk``."""
        return await self._deletions.submit_all(list(map(Delete, session_ids)))

    async def create_many(self, records: Sequence[Record]) -> list[bool]:
        """Insert records in batches; see ``SupportsBulk``."""
        return await self._writes.submit_all(list(map(Create, records)))

    # SupportsUserIndex

    async def save_login(
        self, record: Record, expected_version: int, *, limit: SessionLimit | None, now: int
    ) -> SaveLoginResult:
        """Save a record and index it under its names; see ``SupportsUserIndex``."""
        names = record.index_names()
        most, policy = (
            (0, LimitPolicy.REFUSE) if limit is None else (limit.max_sessions, limit.policy)
        )
        columns = {name.partition(":")[0]: digest(name) for name in names}
        parameters = (
            self._realm,
            record.id,
            pack_bigint(expected_version),
            pack_bigint(record.version),
            pack_bigint(record.seen_at),
            pack_bigint(record.idle_timeout),
            pack_bigint(record.absolute_at),
            columns.get("user"),
            columns.get("idp_sid"),
            record.to_bytes(),
            pack_bigint(record.authenticated_at),
            pack_bigint(most),
            pack_bigint(now),
        )
        results = await self._execute(
            self._planner.locking(
                self._lock(*names), Query(self._statements.login[policy], parameters)
            )
        )
        value = results[-1].get_value
        code = value(0, 0) or b""
        if code == b"s" and value(0, 1) == b"\x01":
            return LoginSaved(tuple(unpack_byteas(value(0, 4))))
        if code == b"c":
            return Conflict(decode_record(record.id, value(0, 2), value(0, 3)))
        if code == b"s":  # another call has inserted the same ID meanwhile
            newer = await self.load(record.id)
            return GONE if newer is None else Conflict(newer)
        return _LOGIN_RESULTS[code]

    def _lock(self, *names: str) -> Query:
        """Return the statement that waits for other logins of the names, and delays new ones.

        Locks of the transaction, in the same order everywhere; not of the session, which a pooler
        shares. The next statement's snapshot contains what the other logins wrote.
        """
        keys = sorted(advisory_key(self._realm.decode(), name) for name in names)
        return Query(self._statements.lock_names, (pack_bigints(keys),))

    async def list_by_index(self, name: str) -> list[Record]:
        """Return the records indexed under a name, newest login first."""
        statement = self._statements.list_by_index.get(name.partition(":")[0])
        if statement is None:
            return []
        query = Query(statement, (self._realm, digest(name)))
        (result,) = await self._execute((query,), is_idempotent=True)
        value = result.get_value
        records = []
        for row in range(result.ntuples):
            try:
                records.append(decode_record(value(row, 0) or b"", value(row, 1), value(row, 2)))
            except UnreadableRecord:
                continue
        return records

    async def invalidate_logins(self, name: str, before: int) -> None:
        """Reject logins under a name that are older than an instant."""
        cutoff = self._cutoff(digest(name), before)
        transaction = self._planner.locking(self._lock(name), cutoff)
        await self._execute(transaction, is_idempotent=True)

    async def invalidate_all(self, before: int) -> None:
        """Treat every record created before an instant as absent."""
        cutoff = self._cutoff(_ALL_SESSIONS, before)
        await self._execute((cutoff,), is_idempotent=True)

    def _cutoff(self, name: bytes, before: int) -> Query:
        return Query(self._statements.set_cutoff, (self._realm, name, pack_bigint(before)))

    # SupportsBroadcast

    async def publish(
        self, kind: MessageKind, *session_ids: bytes, version: int = 0, reason: str = ""
    ) -> None:
        """Send a message for each session to every subscriber."""
        for start in range(0, len(session_ids), _MAX_NOTIFICATIONS):
            payloads: list[bytes | None] = [
                encode_payload(kind, session_id, version=version, reason=reason).encode()
                for session_id in session_ids[start : start + _MAX_NOTIFICATIONS]
            ]
            parameters = (self._channel.encode(), pack_byteas(payloads, element=TEXT))
            notify = Query(self._statements.notify, parameters)
            await self._execute(self._planner.notify(notify), is_idempotent=True)

    def subscribe(self, on_message: MessageHandler, on_gap: Callable[[], object]) -> Subscriber:
        """Start a subscription; it connects in a thread of its own."""
        subscriber = Subscriber(
            lambda: self._connect_listener(self._timeout), self._channel, on_message, on_gap
        )
        self._subscribers.add(subscriber)
        return subscriber

    # SupportsListing

    async def list_page(self, cursor: str, limit: int) -> ListPage:
        """Return a page of records in the order of their IDs."""
        return await self._lister.list_page(cursor, limit)

    async def list_cutoffs(self, cursor: str, limit: int) -> CutoffPage:
        """Return a page of cutoffs; the table has digests of names only."""
        return await self._lister.list_cutoffs(cursor, limit)

    # SupportsHistory

    async def add_history(self, entries: Sequence[HistoryEntry], lifetime: int) -> None:
        """Add entries in one batch; see ``SupportsHistory``."""
        await self._history.add(entries, lifetime)

    async def list_history(self, cursor: str, limit: int) -> HistoryPage:
        """Return a page of entries; see ``SupportsHistory``."""
        return await self._history.list_page(cursor, limit)

    # SupportsCount

    async def count(self, now: int) -> int:
        """Return the number of live sessions; of a table above 1 GB, an estimate."""
        return await self._lister.count(now)

    # SupportsKeyFingerprints

    async def register_keys(self, fingerprints: Sequence[bytes]) -> bool:
        """Add fingerprints of keys; see ``SupportsKeyFingerprints``."""
        register = Query(
            self._statements.register_keys, (self._realm, pack_byteas(list(fingerprints)))
        )
        transaction = self._planner.locking(self._lock(""), register)
        results = await self._execute(transaction, is_idempotent=True)
        return results[-1].get_value(0, 0) == b"\x01"

    # SupportsServerTime

    async def server_time(self) -> int:
        """Return the server's time; see ``SupportsServerTime``."""
        query = Query(self._statements.server_time, ())
        (result,) = await self._reads.submit(Command((query,), is_idempotent=True))
        return unpack_bigint(result.get_value(0, 0) or b"")

    def _execute(
        self, transaction: Transaction, *, is_idempotent: bool = False
    ) -> Awaitable[list[pq.abc.PGresult]]:
        return self._commands.submit(Command(transaction, is_idempotent))

    # Closeable

    def close(self) -> None:
        """Close all connections except those of the application's own pool."""
        for subscriber in list(self._subscribers):
            subscriber.close()
        for batchers in self._all_batchers():
            batchers.close()


#: Outcomes of the login statement; see ``statements.py``.
_LOGIN_RESULTS: Final[Mapping[bytes, SaveLoginResult]] = {
    b"g": GONE,
    b"r": REVOKED,
    b"l": LIMIT_REACHED,
}
