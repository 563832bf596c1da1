"""The load generator: many keep-alive connections, each a visitor with its own cookie.

A closed loop sends the next request when the answer is there: it finds the throughput, and its
latencies are mostly the queue of 48 in front of one server. A paced load sends at fixed instants,
whatever the server does, and counts each latency from the instant the request was due, so that a
stall is felt by all that would have come during it (no coordinated omission).

Every answer is checked for status and body, and after writing each visitor must find its last
value: errors cannot look fast. No processes here; throughput.py starts the servers.
"""

from __future__ import annotations

import asyncio
import gc
import re
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from time import perf_counter_ns
from typing import cast

from benchmarks.candidates.starlette import BODY_BYTES

CONNECTIONS = 48
SET_COOKIE = re.compile(rb"(?i)\r\nset-cookie: *([^;\r]+)")
SECOND = 1_000_000_000


class WrongAnswer(AssertionError):
    """A server answered something else than the application would."""


class Visitor(asyncio.Protocol):
    """One connection; calls back with each complete, correct answer."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.load: Load | None = None
        self.request = b""
        self.cookie = b""
        self.expected: bytes | None = None
        self.last = b""
        self.sent_at = 0
        self.busy = False
        self.waiting: deque[int] = deque()
        self._received = b""
        self._single: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.busy:
            self._fail(WrongAnswer("the server closed the connection"))

    def _fail(self, error: Exception) -> None:
        self.busy = False
        if self._single is not None:
            self._single.set_exception(error)
            self._single = None
        elif self.load is not None:
            self.load.fail(error)

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        body_at = data.find(b"\r\n\r\n") + 4
        if body_at < 4 or len(data) < body_at + BODY_BYTES:
            self._received = data
            return
        self._received = b""
        self.last = data
        body = data[body_at:]
        if (
            not data.startswith(b"HTTP/1.1 200 ")
            or len(body) != BODY_BYTES
            or not body.isdigit()
            or (self.expected is not None and body != self.expected)
        ):
            self._fail(WrongAnswer(f"expected {self.expected!r}, received {data!r}"))
            return
        self.busy = False
        if self._single is not None:
            self._single.set_result(body)
            self._single = None
        elif self.load is not None:
            self.load.answered(self, perf_counter_ns())

    def send(self, due_at: int) -> None:
        """Send the request; its latency counts from `due_at`, in nanoseconds."""
        self.busy = True
        self.sent_at = due_at
        self.transport.write(self.request)

    def ask_for(self, path: str) -> None:
        """Make every later request a GET of the path, with the cookie."""
        cookie = b"Cookie: " + self.cookie + b"\r\n" if self.cookie else b""
        self.request = (
            b"GET " + path.encode() + b" HTTP/1.1\r\nHost: localhost\r\n"
            b"User-Agent: benchmark/1.0\r\nAccept: */*\r\n" + cookie + b"\r\n"
        )

    async def get(self, path: str) -> bytes:
        """Return the body of one GET; take over a cookie that comes with it."""
        self._single = asyncio.get_running_loop().create_future()
        answer = self._single
        self.ask_for(path)
        self.send(perf_counter_ns())
        body = await answer
        self.keep_cookie()
        return body

    def keep_cookie(self) -> None:
        """Take over the cookie of the last answer, if it set one."""
        if found := SET_COOKIE.search(self.last):
            self.cookie = found[1]


@dataclass(frozen=True, slots=True)
class Run:
    """What one stretch of load gave: latencies in nanoseconds, sorted, and its duration."""

    latencies: array[int]
    nanoseconds: int

    @property
    def per_second(self) -> float:
        return len(self.latencies) * SECOND / self.nanoseconds


class Load:
    """One stretch of load over open connections: closed loop, or paced at a fixed rate."""

    def __init__(self, visitors: list[Visitor], *, seconds: float, rate: float | None) -> None:
        self.visitors = visitors
        self.latencies: array[int] = array("q")
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.started_at = perf_counter_ns()
        self.ends_at = self.started_at + int(seconds * SECOND)
        self.ended_at = self.ends_at
        self.interval = None if rate is None else int(SECOND / rate)
        self.due_at = self.started_at
        self.turns = cycle(visitors)
        self.open = 0

    async def run(self) -> Run:
        """Send until the time is over, wait for the last answers, return what was measured."""
        for visitor in self.visitors:
            visitor.load = self
        if self.interval is None:
            for visitor in self.visitors:
                self.open += 1
                visitor.send(perf_counter_ns())
        else:
            self._pace()
        try:
            await self.done
        finally:
            for visitor in self.visitors:
                visitor.load = None
        return Run(array("q", sorted(self.latencies)), self.ended_at - self.started_at)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def answered(self, visitor: Visitor, now: int) -> None:
        self.latencies.append(now - visitor.sent_at)
        if visitor.waiting:
            visitor.send(visitor.waiting.popleft())
            return
        if self.interval is None and now < self.ends_at:
            visitor.send(now)
            return
        self.open -= 1
        self._end_if_all_answered(now)

    def _pace(self) -> None:
        # Spins through the event loop: this process has a core to itself, and timers of event
        # loops are as coarse as a millisecond.
        now = perf_counter_ns()
        assert self.interval is not None
        while self.due_at <= now and self.due_at < self.ends_at:
            visitor = next(self.turns)
            if visitor.busy:
                visitor.waiting.append(self.due_at)
            else:
                self.open += 1
                visitor.send(self.due_at)
            self.due_at += self.interval
        if self.due_at < self.ends_at:
            self.loop.call_soon(self._pace)
        else:
            self._end_if_all_answered(now)

    def _end_if_all_answered(self, now: int) -> None:
        clock = now if self.interval is None else self.due_at
        if self.open == 0 and clock >= self.ends_at and not self.done.done():
            self.ended_at = now
            self.done.set_result(None)


async def arrive(port: int, *, remembers: bool) -> list[Visitor]:
    """Open the connections; each visitor gets a session and reads back what is in it."""
    loop = asyncio.get_running_loop()
    visitors = []
    for _ in range(CONNECTIONS):
        _, visitor = await loop.create_connection(Visitor, "127.0.0.1", port)
        seeded = await visitor.get("/seed")
        if remembers:
            if await visitor.get("/read") != seeded:
                raise WrongAnswer(f"seeded {seeded!r}, received {visitor.last!r}")
        else:
            visitor.cookie = b"sid=" + b"a" * 66
        visitors.append(visitor)
    return visitors


async def measure(
    visitors: list[Visitor], path: str, *, seconds: float, rate: float | None, remembers: bool
) -> Run:
    """Load a path for some seconds, after a fifth as long to warm up, and check the outcome.

    Raises:
        WrongAnswer: an answer was wrong, or what was written last is not there afterwards.
    """
    for visitor in visitors:
        visitor.expected = await visitor.get("/read") if path == "/read" else None
        visitor.ask_for(path)
    with _no_collector():
        await Load(visitors, seconds=seconds / 5, rate=rate).run()
        run = await Load(visitors, seconds=seconds, rate=rate).run()
    for visitor in visitors:
        if path == "/write" and remembers:
            visitor.keep_cookie()
            written = visitor.last[-BODY_BYTES:]
            if await visitor.get("/read") != written:
                raise WrongAnswer(f"wrote {written!r}, received {visitor.last!r}")
        visitor.expected = None
    return run


@contextmanager
def _no_collector() -> Iterator[None]:
    # A pause of the load generator would be counted as one of the server.
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
