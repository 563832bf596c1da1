"""The least that a session in a server can cost: its round trips, joined, and nothing besides.

The cookie is the bare ID, which anybody could make up; nothing expires or ends, a conflict is an
error, and the response says nothing to caches. What this candidate costs is what waiting for a
server costs: it bounds what any session layer on asyncio can reach in the same place. The store is
sojourn's, so that both wait in the same way.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.candidates.starlette import (
    SECRET,
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    starlette_app,
)

_HOUR = 3_600_000
_START = 1_800_000_000_000
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Held(dict[str, Any]):
    """What a session holds, and whether a handler changed it."""

    changed = False

    def __setitem__(self, key: str, value: Any) -> None:
        self.changed = True
        super().__setitem__(key, value)


class RoundTrips:
    """Loads before the application runs, saves before its answer begins."""

    def __init__(self, app: ASGIApp, url: str) -> None:
        import sojourn

        self._app = app
        self._store = sojourn.Sessions(store=url, secret=SECRET).engine.store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = None
        for name, value in scope["headers"]:
            if name == b"cookie":
                record = await self._store.load(bytes.fromhex(value[4:].decode()))
        scope["session"] = held = Held() if record is None else Held(_decode(record.body))

        def answer(message: Message) -> Awaitable[None]:
            if held.changed:
                held.changed = False
                return self._save(held, record, message, send)
            return send(message)

        await self._app(scope, receive, answer)

    async def _save(self, held: Held, record: Any, message: Message, send: Send) -> None:
        from sojourn.record import Record
        from sojourn.store import SAVED

        if record is None:
            session_id = os.urandom(16)
            new = Record(
                session_id, 1, _START, _START, _START + _HOUR, _HOUR, bytes(32), _encode(held)
            )
            assert await self._store.create(new)
            message["headers"].append((b"set-cookie", b"sid=" + session_id.hex().encode()))
        else:
            replaced = msgspec.structs.replace(
                record, version=record.version + 1, body=_encode(held)
            )
            assert await self._store.save(replaced, record.version) is SAVED
        await send(message)


def round_trips(folder: Path) -> ASGIApp:
    """Build the application with it, over the benchmark's server."""
    from starlette.middleware import Middleware

    app: ASGIApp = starlette_app(
        middleware=[Middleware(RoundTrips, url=os.environ["BENCHMARK_VALKEY"])]
    )
    return app
