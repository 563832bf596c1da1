"""CheckContext: what a check receives: the installation, and what earlier checks have found."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import unquote

import msgspec

from sojourn._core.clock import wall_clock
from sojourn._core.concurrency import run
from sojourn.cli.target import sqlite_path
from sojourn.config import Config
from sojourn.record import Record
from sojourn.store import Closeable, RequiresEventLoop, Store, SupportsServerTime
from sojourn.stores.urls import open_store, without_password

T = TypeVar("T")

#: Characters. Shorter ones would mask ordinary words.
_MIN_SECRET: Final = 4

#: Passwords before the host, which may contain "@" and "/", and in the query.
_PASSWORDS: Final = (
    r"//[^:/?#@]*:([^@?#\s]+)@",
    r"//[^:/?#@]*:(\S+)@",
    r"password=([^&#\s]+)",
)


class Inspector(Protocol):
    """A connection of a check's own to the server of a store."""

    def close(self) -> None:
        """Close the connection."""
        ...


class RecordSample(msgspec.Struct):
    """Records of the store.

    Attributes:
        records: expired ones included.
        unreadable: the number of records that are damaged or of a newer format.
    """

    records: list[Record] = []
    unreadable: int = 0


class CheckContext:
    """The installation that is examined, and what the checks have found out about it so far.

    The command ``sojourn doctor`` makes it from its ``Target``; other programs from a store.

    Args:
        url: of the store, with its password; None if ``store`` is given.
        store: that is open already, such as that of an application; it stays open.
        config: of the application; None if only its store is known.
        realm: the namespace.
        secret_file: None if none was given.
        secret_text: the value of ``SOJOURN_SECRET``; None if it is not set.
        timeout: seconds that a call may take.
        public_url: where visitors reach the application; None if not given.
        round_trips: how often the round trip is measured.

    Attributes:
        store: None until it was opened.
        secrets: that are usable, newest first; None if unknown.
        fingerprints: of the keys that use the realm; None if unknown.
        is_reached: whether the store has answered.
        blocked: why the remaining checks of the store are left out; empty if they are not.
        server: name and version of the server; empty if there is none, or unknown.
        durations: seconds of each measured round trip.
        sample: of the records; None if they were not listed.
        started_at: wall clock and monotonic clock at the start, nanoseconds.
        inspector: of the store's own checks.
        parts: the two stores of ``migrating``, old one first; empty for another store.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        store: Store | None = None,
        config: Config | None = None,
        realm: str = "default",
        secret_file: Path | None = None,
        secret_text: str | None = None,
        timeout: float = 2.0,
        public_url: str | None = None,
        round_trips: int = 20,
    ) -> None:
        self.url: str | None = url
        self.store: Store | None = store
        self.config: Config | None = config
        self.realm: str = realm
        self.secret_file: Path | None = secret_file
        self.secret_text: str | None = secret_text
        self.timeout: float = timeout
        self.public_url: str | None = public_url
        self.round_trips: int = round_trips
        self.secrets: Sequence[bytes] | None = None
        self.fingerprints: frozenset[bytes] | None = None
        self.is_reached: bool = False
        self.blocked: str = ""
        self.server: str = ""
        self.durations: list[float] = []
        self.sample: RecordSample | None = None
        self.started_at: tuple[int, int] = (time.time_ns(), time.monotonic_ns())
        self.inspector: Inspector | None = None
        self.parts: tuple[CheckContext, ...] = ()
        self._is_own = store is None
        self._runner: asyncio.Runner | None = None

    @property
    def name(self) -> str:
        """The store, without a password."""
        return repr(self.store) if self.url is None else without_password(self.url)

    @property
    def database(self) -> Path | None:
        """The file of a SQLite store; None for another store."""
        if self.url is not None:
            return sqlite_path(self.url)
        path = getattr(self.store, "path", None)
        return path if isinstance(path, Path) else None

    def open(self) -> Store:
        """Open the store unless it is open; return it.

        Raises:
            ConfigurationError: the URL is invalid, or its file cannot be used.
            StoreUnavailable: another process holds the file.
        """
        if self.store is None:
            assert self.url is not None  # noqa: S101 - one of the two is given
            self.store = open_store(self.url, realm=self.realm, timeout=self.timeout)
        return self.store

    def secret_texts(self) -> list[str]:
        """Return passwords and secrets that no message may show."""
        parts = [each.decode("utf-8", "replace") for each in self.secrets or ()]
        for url in (self.url, self.public_url):
            # Decoded twice, because the URL in `listen_url=` is itself encoded.
            for text in (url or "", unquote(url or ""), unquote(unquote(url or ""))):
                for pattern in _PASSWORDS:
                    parts += re.findall(pattern, text)
        # The longest first: a part of a password may be one, too.
        return sorted({each for each in parts if len(each) >= _MIN_SECRET}, key=len, reverse=True)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the store, in an event loop if the store needs one."""
        store = self.store
        if not isinstance(store, RequiresEventLoop) or store.requires_event_loop() is None:
            return run(coroutine)
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(coroutine)

    def now(self) -> int:
        """Return the time of the store's clock, or of this machine's if the store has none."""
        if isinstance(self.store, SupportsServerTime):
            return self.run(self.store.server_time())
        return wall_clock()

    def block(self, reason: str) -> None:
        """Leave out the remaining checks of the store; the first reason is kept."""
        self.blocked = self.blocked or reason

    def close(self) -> None:
        """Close what the examination has opened."""
        for part in self.parts:
            part.close()
        if self._runner is None:
            self._close()
            return

        async def close_in_loop() -> None:
            self._close()
            await asyncio.sleep(0)  # transports close in the next iteration of the loop

        with self._runner:
            self._runner.run(close_in_loop())

    def _close(self) -> None:
        if self.inspector is not None:
            self.inspector.close()
        # Connections of an asyncio client belong to the loop of the examination, which ends.
        if isinstance(self.store, Closeable) and (self._is_own or self._runner is not None):
            self.store.close()
