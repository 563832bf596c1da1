"""Least layers: ASGI middleware with only the work that every session layer must do.

They are the lower bound of a session layer over the same store. They have no expiry, merging,
rotation or sealing; the cookie is the bare ID. In memory: find the cookie, one dict look-up,
msgpack, two response headers. SQLite: the same with one SELECT, and one UPDATE in a group with
those of other requests. Valkey: a load and a save that are joined with those of other requests.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.candidates.candidate import SECRET, ASGIApp, Message, Receive, Scope, Send

_HOUR = 3_600_000
_CREATED_AT = 1_800_000_000_000

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder().decode
_decode_body: Final = msgspec.msgpack.Decoder(dict[str, bytes]).decode
_find_cookies: Final = re.compile(rb";[ \t]*+sid=([^;]*+)").findall
_VARY: Final = (b"vary", b"Cookie")
_CACHE_CONTROL: Final = (b"cache-control", b"private")


class LeastSession:
    """The session of one request; decodes only the keys that are read."""

    __slots__ = ("_body", "_changed", "_id", "_save", "_send", "_values")

    def __init__(
        self,
        session_id: bytes,
        body: bytes,
        save: Callable[[bytes, bytes], Awaitable[None] | None],
        send: Send,
    ) -> None:
        self._id = session_id
        self._body = body
        self._values: dict[str, bytes] | None = None
        self._changed = False
        self._save = save
        self._send = send

    def _load_values(self) -> dict[str, bytes]:
        values = self._values
        if values is None:
            self._values = values = _decode_body(self._body) if self._body else {}
        return values

    def __getitem__(self, key: str) -> Any:
        """Return the value of a key."""
        return _decode(self._load_values()[key])

    def __setitem__(self, key: str, value: Any) -> None:
        """Set the value of a key."""
        self._load_values()[key] = _encode(value)
        self._changed = True

    def update(self, values: dict[str, Any]) -> None:
        """Set several values."""
        for key, value in values.items():
            self[key] = value

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message of the application; save and add headers before the response starts."""
        if message["type"] == "http.response.start" and self._values is not None:
            headers = message["headers"]
            headers.append(_VARY)
            headers.append(_CACHE_CONTROL)
            if self._changed:
                if not self._id:
                    self._id = secrets.token_hex(16).encode()
                    headers.append((b"set-cookie", b"sid=" + self._id))
                saved = self._save(self._id, _encode(self._values))
                if saved is not None:
                    return self._send_when_saved(saved, message)
        return self._send(message)

    async def _send_when_saved(self, saved: Awaitable[None], message: Message) -> None:
        await saved
        await self._send(message)


class MemoryLeastLayer:
    """Keeps bodies in a dict."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        bodies: dict[bytes, bytes] = {}
        self._load: Callable[[bytes, bytes], bytes] = bodies.get
        self._save: Callable[[bytes, bytes], Awaitable[None] | None] = bodies.__setitem__

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        app = self._app
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        cookie = None
        for name, value in scope["headers"]:
            if name == b"cookie":
                cookie = value
        found = _find_cookies(b";" + cookie) if cookie is not None else ()
        session_id = found[0] if len(found) == 1 else b""
        body = self._load(session_id, b"") if session_id else b""
        scope["session"] = session = LeastSession(session_id, body, self._save, send)
        try:
            await app(scope, receive, session.send)
        finally:
            scope["session"] = None  # breaks the cycle scope -> session -> send -> scope


class SQLiteLeastLayer(MemoryLeastLayer):
    """Keeps bodies in SQLite; the writes of one event-loop tick are one transaction."""

    def __init__(self, app: ASGIApp, path: Path) -> None:
        super().__init__(app)
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._execute = self._connection.execute
        self._execute("PRAGMA journal_mode = WAL")
        self._execute("PRAGMA synchronous = NORMAL")
        self._execute("CREATE TABLE sessions (id BLOB PRIMARY KEY, body BLOB) WITHOUT ROWID")
        self._pending: list[tuple[bytes, bytes]] = []
        self._committed: asyncio.Future[None] | None = None
        self._load = self._select
        self._save = self._update

    def _select(self, session_id: bytes, default: bytes) -> bytes:
        row = self._execute("SELECT body FROM sessions WHERE id = ?", (session_id,)).fetchone()
        return default if row is None else row[0]

    def _update(self, session_id: bytes, body: bytes) -> Awaitable[None]:
        self._pending.append((body, session_id))
        committed = self._committed
        if committed is None:
            loop = asyncio.get_running_loop()
            self._committed = committed = loop.create_future()
            loop.call_soon(self._commit)
        return committed

    def _commit(self) -> None:
        pending, self._pending = self._pending, []
        committed, self._committed = self._committed, None
        assert committed is not None
        self._execute("BEGIN IMMEDIATE")
        for body, session_id in pending:
            changed = self._execute("UPDATE sessions SET body = ? WHERE id = ?", (body, session_id))
            if changed.rowcount == 0:
                self._execute("INSERT INTO sessions VALUES (?, ?)", (session_id, body))
        self._execute("COMMIT")
        committed.set_result(None)


class LoadedValues(dict[str, Any]):
    """The values of a session, and whether a handler set one."""

    changed = False

    def __setitem__(self, key: str, value: Any) -> None:
        self.changed = True
        super().__setitem__(key, value)

    def update(self, values: dict[str, Any]) -> None:  # type: ignore[override] - in the one form that the handlers use
        """Set several values."""
        self.changed = True
        super().update(values)


class ValkeyLeastLayer:
    """Loads before the application runs and saves before its response starts, in Valkey.

    The store is sojourn's, so that both call the server in the same way. A conflict is an
    error, and the response has no headers for caches.
    """

    def __init__(self, app: ASGIApp, url: str) -> None:
        import sojourn

        self._app = app
        self._store = sojourn.Sessions(store=url, secret=SECRET).store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = None
        for name, value in scope["headers"]:
            if name == b"cookie":
                record = await self._store.load(bytes.fromhex(value[4:].decode()))
        values = LoadedValues() if record is None else LoadedValues(_decode(record.body))
        scope["session"] = values

        def send_when_saved(message: Message) -> Awaitable[None]:
            if values.changed:
                values.changed = False
                return self._save(values, record, message, send)
            return send(message)

        await self._app(scope, receive, send_when_saved)

    async def _save(self, values: LoadedValues, record: Any, message: Message, send: Send) -> None:
        from sojourn.record import Record
        from sojourn.store import SAVED

        if record is None:
            session_id = os.urandom(16)
            new = Record(
                session_id,
                version=1,
                seen_at=_CREATED_AT,
                created_at=_CREATED_AT,
                absolute_at=_CREATED_AT + _HOUR,
                idle_timeout=_HOUR,
                verifier=bytes(32),
                body=_encode(values),
            )
            assert await self._store.create(new)
            message["headers"].append((b"set-cookie", b"sid=" + session_id.hex().encode()))
        else:
            replaced = msgspec.structs.replace(
                record, version=record.version + 1, body=_encode(values)
            )
            assert await self._store.save(replaced, record.version) is SAVED
        await send(message)
