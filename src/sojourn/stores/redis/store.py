"""RedisStore: records in a Valkey or Redis server, for any number of processes and machines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final
from weakref import WeakSet

from sojourn._core.concurrency import running_loop
from sojourn.record import Record
from sojourn.store import (
    GONE,
    SAVED,
    BatchObserver,
    Conflict,
    Count,
    CutoffPage,
    HistoryEntry,
    HistoryPage,
    ListPage,
    MessageHandler,
    MessageKind,
    Purged,
    SaveLoginResult,
    SaveResult,
    SessionLimit,
)
from sojourn.stores.batching import Batchers
from sojourn.stores.redis import commands, scripts
from sojourn.stores.redis.commands import GetRecord, Request
from sojourn.stores.redis.connection import Transport
from sojourn.stores.redis.counting import Counter
from sojourn.stores.redis.encoding import decode_value
from sojourn.stores.redis.executor import Executor
from sojourn.stores.redis.history import HistoryStream
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.listing import Lister
from sojourn.stores.redis.pubsub import Subscriber
from sojourn.stores.redis.topology import Topology, from_client
from sojourn.stores.redis.user_index import UserIndex

logger: logging.Logger = logging.getLogger("sojourn")

#: A result of the script ``REGISTER_KEYS``.
_UNREADABLE: Final = -1


class RedisStore:
    """Stores records in a Valkey or Redis server.

    Concurrent calls travel as one batch. An acknowledged write survives the death of any
    application process; what a dying server loses depends on its persistence and replication
    (docs/valkey.md).

    The core reads this server's clock (``server_time``) and derives from it every instant that it
    passes, so scripts compare instants of one clock. Lifetimes of keys are durations.

    Args:
        client: a redis-py client of the application: ``redis.Redis``, ``redis.asyncio.Redis``,
            either kind of ``RedisCluster``, or one made by a ``Sentinel``. Its settings are used
            except for retries and timeouts: a blindly repeated save could be applied twice. The
            slot map of a cluster is the client's own; give that client a ``socket_timeout``.
        prefix: the first part of every key, for installations that share a server.
        realm: the installation's namespace; the same as in ``Sessions``.
        timeout: seconds that a call may take.

    Raises:
        ConfigurationError: ``client`` is none of these.
    """

    def __init__(
        self,
        *,
        client: object,
        prefix: str = "sojourn",
        realm: str = "default",
        timeout: float = 2.0,
    ) -> None:
        topology = client if isinstance(client, Topology) else from_client(client)
        self._topology = topology
        self._name = f"RedisStore({topology.name}, {prefix}:{realm})"
        self._timeout = timeout
        self._keys = Keys(prefix, realm, is_cluster=topology.is_cluster)
        open_blocking = topology.open_blocking
        self._batchers: Batchers[Request, Any] = Batchers(
            lambda: self._make_executor(topology.open_async),
            None if open_blocking is None else lambda: self._make_executor(open_blocking),
            advice=topology.advice,
            timeout=timeout,
            has_writes=commands.has_writes,
        )
        self._submit = self._batchers.submit
        self._index = UserIndex(self._batchers, self._keys, timeout=timeout)
        self._lister = Lister(self._batchers, self._keys)
        self._counter = Counter(self._batchers, self._keys, self._lister)
        self._history = HistoryStream(self._batchers, self._keys)
        self._subscribers: WeakSet[Subscriber] = WeakSet()  # those that were closed are collected
        self._logins: set[asyncio.Task[SaveLoginResult]] = set()

    def _make_executor(self, open_transport: Callable[[float], Transport]) -> Executor:
        transport = open_transport(self._timeout)
        return Executor(transport, self._keys, name=self._name, timeout=self._timeout)

    def __repr__(self) -> str:
        """Return the location without a password."""
        return self._name

    @property
    def topology(self) -> Topology:
        """The servers, and how each is reached."""
        return self._topology

    @property
    def keys(self) -> Keys:
        """The names of keys and channels."""
        return self._keys

    def set_timeout(self, seconds: float) -> None:
        """Set the deadline of every call; see ``SupportsTimeout``."""
        self._timeout = self._index.timeout = seconds
        self._batchers.set_timeout(seconds)

    def add_batch_observer(self, observer: BatchObserver) -> None:
        """Report each batch; see ``SupportsBatchObservers``."""
        self._batchers.add_observer(observer)

    def remove_batch_observer(self, observer: BatchObserver) -> None:
        """Stop reporting batches."""
        self._batchers.remove_observer(observer)

    def requires_event_loop(self) -> str | None:
        """Return what to use without an event loop; see ``RequiresEventLoop``."""
        return self._topology.advice

    # Store

    async def load(self, session_id: bytes) -> Record | None:
        """Return the record, None if there is none."""
        submit = self._submit  # to call the attribute directly costs more; every request loads
        record: Record | None = await submit(GetRecord(session_id))
        return record

    async def create(self, record: Record) -> bool:
        """Insert a record; return False if its ID is taken."""
        reply: object = await self._submit(commands.create(record))
        return reply == 1

    async def save(self, record: Record, expected_version: int) -> SaveResult:
        """Replace the record whose version is the expected one."""
        submit = self._submit  # as in `load`
        reply = await submit(commands.save(record, expected_version))
        if reply == 1:
            return SAVED
        return GONE if reply == 0 else Conflict(decode_value(record.id, reply))

    async def touch(self, record: Record) -> bool:
        """Move ``seen_at`` forward, never backward."""
        reply: object = await self._submit(commands.touch(record))
        return reply == 1

    async def delete(self, session_id: bytes) -> bool:
        """Remove a record; return whether there was one."""
        (was_present,) = await self.delete_many([session_id])
        return was_present

    async def purge(self, now: int, limit: int) -> Purged:
        """Trim the history; the server itself removes each record a minute after its end."""
        return Purged(0, finished=await self._history.trim(now, limit))

    # SupportsBulk

    async def delete_many(self, session_ids: Sequence[bytes]) -> list[bool]:
        """Remove records and their index entries in two batches; see ``SupportsBulk``."""
        replies = await self._batchers.submit_all(list(map(commands.delete, session_ids)))
        answered = zip(session_ids, replies, strict=True)
        heads = {session_id: reply for session_id, reply in answered if reply != 0}
        await self._index.remove_deleted(heads)
        return [isinstance(reply, bytes) for reply in replies]

    async def create_many(self, records: Sequence[Record]) -> list[bool]:
        """Insert records in one batch; see ``SupportsBulk``."""
        replies = await self._batchers.submit_all(list(map(commands.create, records)))
        return [reply == 1 for reply in replies]

    # SupportsUserIndex

    async def save_login(
        self, record: Record, expected_version: int, *, limit: SessionLimit | None, now: int
    ) -> SaveLoginResult:
        """Save a record and index it under its names; see ``SupportsUserIndex``."""
        work = self._index.save_login(record, expected_version, limit, now)
        if running_loop() is None:
            return await work
        # A login in a cluster has several steps, which complete even if the caller is cancelled.
        task = asyncio.ensure_future(work)
        self._logins.add(task)
        task.add_done_callback(self._finish_login)
        return await asyncio.shield(task)

    def _finish_login(self, task: asyncio.Task[SaveLoginResult]) -> None:
        self._logins.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved, for a caller that was cancelled

    async def list_by_index(self, name: str) -> list[Record]:
        """Return the records indexed under a name, newest login first."""
        return await self._index.list_by_index(name)

    async def invalidate_logins(self, name: str, before: int) -> None:
        """Reject logins under a name that are older than an instant."""
        await self._index.invalidate_logins(name, before)

    async def invalidate_all(self, before: int) -> None:
        """Treat every record created before an instant as absent."""
        cutoffs = [self._keys.cutoff(tag) for tag in self._keys.tags()]
        arguments = (before.to_bytes(8), 0)
        await self._batchers.submit_all(
            [commands.call_script(scripts.ADVANCE_CUTOFF, (key,), arguments) for key in cutoffs]
        )

    # SupportsListing

    async def list_page(self, cursor: str, limit: int) -> ListPage:
        """Return a page of records; see ``SupportsListing``."""
        return await self._lister.list_page(cursor, limit)

    async def list_cutoffs(self, cursor: str, limit: int) -> CutoffPage:
        """Return a page of cutoffs; see ``SupportsCutoffListing``."""
        return await self._lister.list_cutoffs(cursor, limit)

    # SupportsCount

    async def count(self, now: int) -> Count:
        """Return the number of live sessions; of more than 20,000 keys, an estimate."""
        return await self._counter.count(now)

    # SupportsHistory

    async def add_history(self, entries: Sequence[HistoryEntry], lifetime: int) -> None:
        """Add entries in one batch; see ``SupportsHistory``."""
        await self._history.add(entries, lifetime)

    async def list_history(self, cursor: str, limit: int) -> HistoryPage:
        """Return a page of entries; see ``SupportsHistory``."""
        return await self._history.list_page(cursor, limit)

    # SupportsKeyFingerprints

    async def register_keys(self, fingerprints: Sequence[bytes]) -> bool:
        """Add fingerprints of keys; see ``SupportsKeyFingerprints``."""
        key = self._keys.fingerprints
        reply: int = await self._submit(
            commands.call_script(scripts.REGISTER_KEYS, (key,), fingerprints)
        )
        if reply == _UNREADABLE:
            logger.warning(
                "%s: the fingerprints of keys in %s cannot be read, so applications with different "
                "secrets are not distinguished; delete this key",
                self._name,
                key,
            )
        return reply != 0

    # SupportsServerTime

    async def server_time(self) -> int:
        """Return the server's time; see ``SupportsServerTime``."""
        seconds, microseconds = await self._submit(commands.server_time(self._keys))
        return int(seconds) * 1000 + int(microseconds) // 1000

    # SupportsBroadcast

    async def publish(
        self, kind: MessageKind, *session_ids: bytes, version: int = 0, reason: str = ""
    ) -> None:
        """Send a message for each session to every subscriber."""
        await self._batchers.submit_all(
            [
                commands.publish(kind, session_id, self._keys, version=version, reason=reason)
                for session_id in session_ids
            ]
        )

    def subscribe(self, on_message: MessageHandler, on_gap: Callable[[], object]) -> Subscriber:
        """Start a subscription; it connects in a thread of its own."""
        nodes = self._topology.subscription_nodes(self._timeout)
        subscriber = Subscriber(nodes, self._keys, on_message, on_gap)
        self._subscribers.add(subscriber)
        return subscriber

    # Closeable

    def close(self) -> None:
        """Close all connections except those of the application's own client."""
        for subscriber in list(self._subscribers):
            subscriber.close()
        self._batchers.close()
