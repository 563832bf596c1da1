"""RedisStore: records in a Valkey or Redis server, for any number of processes and machines.

What lives here: the verbs of a store, and what each answer of the server means. What must not:
bytes and scripts (``requests.py``, ``scripts.py``), connections (``lanes.py`` and what it uses),
lists of users (``lists.py``) and URLs (``openers.py``).

All calls of one tick of an event loop, or of the threads that wait together, go to the server as
one batch. What was acknowledged survives the death of any application process; what the server
loses when it dies itself depends on its persistence and replication (docs/valkey.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from sojourn._core.concurrency import running_loop
from sojourn.record import Record
from sojourn.store import (
    GONE,
    SAVED,
    Conflict,
    MessageHandler,
    MessageKind,
    Purged,
    SaveLoginResult,
    SaveResult,
    SessionLimit,
)
from sojourn.stores.redis import requests
from sojourn.stores.redis.courier import Courier
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.lanes import Lanes
from sojourn.stores.redis.listener import Listener
from sojourn.stores.redis.lists import Lists
from sojourn.stores.redis.requests import Load, Request, Void, run_script
from sojourn.stores.redis.scripts import VOID_ALL
from sojourn.stores.redis.values import unpack
from sojourn.stores.redis.ways import Ways, from_client


class RedisStore:
    """Keeps records in a server.

    Args:
        client: a redis-py client of the application: ``redis.Redis``, ``redis.asyncio.Redis``,
            either kind of ``RedisCluster``, or one that a ``Sentinel`` gave. Its settings are used,
            but for its retries and time limits: a save that is repeated blindly could be done
            twice. Only a cluster's client is used itself; give that a ``socket_timeout``.
        prefix: the first part of every key, for installations that share a server.
        realm: the installation's namespace; the same as in ``Sessions``.
        timeout: seconds that a call may take.

    Raises:
        ConfigurationError: the client is none of these.
    """

    def __init__(
        self,
        *,
        client: object,
        prefix: str = "sojourn",
        realm: str = "default",
        timeout: float = 2.0,
    ) -> None:
        self._ways = ways = client if isinstance(client, Ways) else from_client(client)
        self._name = f"RedisStore({ways.name}, {prefix}:{realm})"
        self._timeout = timeout
        self._keys = Keys(prefix, realm, clustered=ways.clustered)
        self._lanes = Lanes(
            lambda link: Courier(link, self._keys, name=self._name, timeout=self._timeout),
            under_loop=ways.under_loop,
            without_loop=ways.without_loop,
            advice=ways.advice,
            timeout=timeout,
        )
        self._lists = Lists(self._ask, self._ask_all, self._keys, timeout=timeout)
        self._listeners: list[Listener] = []
        self._logins: set[asyncio.Task[SaveLoginResult]] = set()

    def __repr__(self) -> str:
        """Show where it is, without a password."""
        return self._name

    def set_timeout(self, seconds: float) -> None:
        """Take the deadline of every call."""
        self._timeout = self._lists.timeout = seconds
        self._lanes.set_timeout(seconds)

    def requires_event_loop(self) -> str | None:
        """Return what to use without an event loop; None if this store will do."""
        return self._ways.advice

    async def _ask(self, request: Request) -> Any:
        return await self._lanes.here().ask(request)

    async def _ask_all(self, asked: Sequence[Request]) -> list[Any]:
        if running_loop() is None:
            return [await self._ask(request) for request in asked]
        return list(await asyncio.gather(*(self._ask(request) for request in asked)))

    # The verbs

    async def load(self, session_id: bytes) -> Record | None:
        """Return the record, None if there is none."""
        record: Record | None = await self._lanes.here().ask(Load(session_id))
        return record

    async def create(self, record: Record) -> bool:
        """Insert a record; False if its ID is taken."""
        answer: object = await self._lanes.here().ask(requests.create(record))
        return answer == 1

    async def save(self, record: Record, expected_version: int) -> SaveResult:
        """Replace the record whose version is the expected one."""
        answer = await self._lanes.here().ask(requests.save(record, expected_version))
        if answer == 1:
            return SAVED
        return GONE if answer == 0 else Conflict(unpack(record.id, answer))

    async def touch(self, record: Record) -> bool:
        """Move ``seen_at`` forward, never backward."""
        answer: object = await self._lanes.here().ask(requests.touch(record))
        return answer == 1

    async def delete(self, session_id: bytes) -> bool:
        """Remove a record; tell whether there was one."""
        answer = await self._ask(requests.delete(session_id))
        if isinstance(answer, Void):
            await self._lists.unlist_head(session_id, answer.head)
            return False
        if answer == 0:
            return False
        await self._lists.unlist_head(session_id, answer)
        return True

    async def purge(self, now: int, limit: int) -> Purged:  # noqa: ARG002 - the server forgets by itself
        """Do nothing: the server forgets each record a minute after its end."""
        return Purged(0, finished=True)

    # Lists of users

    async def save_login(
        self, record: Record, expected_version: int, *, limit: SessionLimit | None, now: int
    ) -> SaveLoginResult:
        """Store a record that has a user from now on, and list it under its names."""
        work = self._lists.save_login(record, expected_version, limit, now)
        if running_loop() is None:
            return await work
        # A login takes several steps, which are all done although nobody waits any more (S13).
        task = asyncio.ensure_future(work)
        self._logins.add(task)
        task.add_done_callback(self._end_login)
        return await asyncio.shield(task)

    def _end_login(self, task: asyncio.Task[SaveLoginResult]) -> None:
        self._logins.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits has it, or else nobody wants it

    async def list_by_index(self, name: str) -> list[Record]:
        """Return the records listed under a name, newest login first."""
        return await self._lists.list_by_index(name)

    async def invalidate_logins(self, name: str, before: int) -> None:
        """Let no login that began before an instant be bound to a name any more."""
        await self._lists.invalidate_logins(name, before)

    async def invalidate_all(self, before: int) -> None:
        """Make every record that was created before an instant absent from all calls."""
        marks = [self._keys.mark(tag) for tag in self._keys.tags()]
        await self._ask_all(
            [run_script(VOID_ALL, (mark,), (before.to_bytes(8),)) for mark in marks]
        )

    # Telling others

    async def publish(
        self, kind: MessageKind, session_id: bytes, *, version: int = 0, reason: str = ""
    ) -> None:
        """Tell every process that listens what happened to a session."""
        await self._ask(
            requests.publish(kind, session_id, self._keys, version=version, reason=reason)
        )

    def subscribe(self, on_message: MessageHandler, on_gap: Callable[[], object]) -> Listener:
        """Begin to listen, in a thread of its own; see ``SupportsBroadcast.listen``."""
        listener = Listener(self._ways.listening(self._timeout), self._keys, on_message, on_gap)
        self._listeners.append(listener)
        return listener

    # Ending

    def close(self) -> None:
        """Let go of every connection; those of the application's own client stay its."""
        while self._listeners:
            self._listeners.pop().close()
        self._lanes.close()
