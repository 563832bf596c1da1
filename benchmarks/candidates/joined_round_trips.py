"""The least layer over PostgreSQL: joined round trips over psycopg alone.

The loads of one event-loop tick, and those made while a batch is in flight, are one SELECT; the
saves likewise one UPDATE with compare-and-set. The table is like sojourn's: a primary key, room for
HOT updates, uncompressed records. It has no expiry, merging, rotation, sealing or error handling.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from benchmarks.candidates.candidate import ASGIApp, Message, Receive, Scope, Send
from benchmarks.candidates.least_layer import LoadedValues

Q = TypeVar("Q")
R = TypeVar("R")

_CREATE_TABLE: Final = """\
CREATE TABLE IF NOT EXISTS least_sessions (
    id bytea PRIMARY KEY, version bigint NOT NULL, record bytea NOT NULL
) WITH (fillfactor = 80)"""
_STORAGE: Final = "ALTER TABLE least_sessions ALTER COLUMN record SET STORAGE EXTERNAL"
_INSERT: Final = "INSERT INTO least_sessions VALUES (%b, 1, %b)"
_SELECT: Final = "SELECT id, version, record FROM least_sessions WHERE id = ANY(%b)"
_UPDATE: Final = """\
UPDATE least_sessions AS stored SET version = stored.version + 1, record = changed.record
FROM unnest(%b::bytea[], %b::bigint[], %b::bytea[]) AS changed (id, version, record)
WHERE stored.id = changed.id AND stored.version = changed.version RETURNING stored.id"""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder().decode


class _Joined(Generic[Q, R]):
    """Joins requests into batches; one batch is in flight."""

    def __init__(self, execute: Callable[[Sequence[Q]], Awaitable[Sequence[R]]]) -> None:
        self._execute = execute
        self._requests: list[Q] = []
        self._futures: list[asyncio.Future[R]] = []
        self._task: asyncio.Task[None] | None = None

    def submit(self, request: Q) -> Awaitable[R]:
        """Return a future with the outcome of a request."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        if not self._requests and self._task is None:
            loop.call_soon(self._start)
        self._requests.append(request)
        self._futures.append(future)
        return future

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._requests:
            requests, self._requests = self._requests, []
            futures, self._futures = self._futures, []
            outcomes = await self._execute(requests)
            for future, outcome in zip(futures, outcomes, strict=True):
                future.set_result(outcome)
        self._task = None


class JoinedRoundTrips:
    """Loads and saves records over two connections, one for each kind of batch.

    Args:
        url: of the server.
        relaxed: commit without waiting for the disk.
    """

    def __init__(self, url: str, *, relaxed: bool) -> None:
        self._url = url
        self._options = "-c synchronous_commit=off" if relaxed else ""
        self._reader: Any = None
        self._writer: Any = None
        self._loads: _Joined[bytes, tuple[int, bytes] | None] = _Joined(self._select)
        self._saves: _Joined[tuple[bytes, int, bytes], bool] = _Joined(self._update)

    async def open(self) -> None:
        """Connect and create the table."""
        from psycopg import AsyncConnection

        self._reader, self._writer = [
            await AsyncConnection.connect(self._url, autocommit=True, options=self._options)
            for _ in range(2)
        ]
        await self._writer.execute(_CREATE_TABLE)
        await self._writer.execute(_STORAGE)

    async def close(self) -> None:
        """Close the connections."""
        await self._reader.close()
        await self._writer.close()

    def load(self, session_id: bytes) -> Awaitable[tuple[int, bytes] | None]:
        """Return version and record; None if there is none."""
        return self._loads.submit(session_id)

    def save(self, session_id: bytes, version: int, record: bytes) -> Awaitable[bool]:
        """Replace the record of a version; return whether it was still stored."""
        return self._saves.submit((session_id, version, record))

    async def create(self, session_id: bytes, record: bytes) -> None:
        """Insert the first version of a record."""
        await self._writer.execute(_INSERT, (session_id, record))

    async def _select(self, ids: Sequence[bytes]) -> Sequence[tuple[int, bytes] | None]:
        cursor = await self._reader.execute(_SELECT, (list(ids),), binary=True)
        found = {row[0]: (row[1], row[2]) for row in await cursor.fetchall()}
        return [found.get(session_id) for session_id in ids]

    async def _update(self, saves: Sequence[tuple[bytes, int, bytes]]) -> Sequence[bool]:
        columns = [list(column) for column in zip(*sorted(saves), strict=True)]
        cursor = await self._writer.execute(_UPDATE, columns, binary=True)
        saved = {row[0] for row in await cursor.fetchall()}
        return [save[0] in saved for save in saves]


class PostgreSQLLeastLayer:
    """Loads before the application runs, saves before its response starts; adds no headers.

    Args:
        app: the application.
        url: of the server.
        relaxed: commit without waiting for the disk.
    """

    def __init__(self, app: ASGIApp, url: str, *, relaxed: bool) -> None:
        self._app = app
        self._store = JoinedRoundTrips(url, relaxed=relaxed)
        self._opening: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._store.open())
        if not self._opening.done():
            await self._opening
        session_id, found = b"", None
        for name, value in scope["headers"]:
            if name == b"cookie":
                session_id = bytes.fromhex(value[4:].decode())
                found = await self._store.load(session_id)
        version, record = found or (0, b"")
        values = LoadedValues(_decode(record) if record else {})
        scope["session"] = values

        def send_when_saved(message: Message) -> Awaitable[None]:
            if values.changed:
                values.changed = False
                return self._save(session_id, version, values, message, send)
            return send(message)

        await self._app(scope, receive, send_when_saved)

    async def _save(
        self, session_id: bytes, version: int, values: LoadedValues, message: Message, send: Send
    ) -> None:
        if version:
            assert await self._store.save(session_id, version, _encode(values))
        else:
            session_id = os.urandom(16)
            await self._store.create(session_id, _encode(values))
            message["headers"].append((b"set-cookie", b"sid=" + session_id.hex().encode()))
        await send(message)
