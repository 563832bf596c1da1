"""Load generator: 48 keep-alive connections, each with the cookie of its own session.

A closed loop sends the next request when the answer has arrived: it finds the throughput, and its
latencies are mostly the time in the queue of 48 requests. A paced load sends at fixed instants
and counts each latency from the instant the request was due, so that a stall counts for every
request that was due during it (no coordinated omission).

The status and body of every response are checked, and after writing each visitor must read its
last value, so that errors are not counted as fast responses.
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

from benchmarks.candidates.candidate import BODY_BYTES

CONNECTIONS = 48
SECOND = 1_000_000_000
_SET_COOKIE = re.compile(rb"(?i)\r\nset-cookie: *([^;\r]+)")
_HELLO = b"hello, world"


class WrongAnswer(AssertionError):
    """A response differs from the expected one."""


class Visitor(asyncio.Protocol):
    """One connection with one session; reports each complete, correct answer to its load."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.load: Load | None = None
        self.request = b""
        self.cookie = b""
        self.expected: bytes | None = None
        self.response = b""
        self.due_at = 0
        self.busy = False
        self.overdue: deque[int] = deque()
        self._received = b""
        self._answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.busy:
            self._fail(WrongAnswer("the server closed the connection"))

    def _fail(self, error: Exception) -> None:
        self.busy = False
        if self._answer is not None:
            self._answer.set_exception(error)
            self._answer = None
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
        self.response = data
        body = data[body_at:]
        if (
            not data.startswith(b"HTTP/1.1 200 ")
            or len(body) != BODY_BYTES
            or (body != self.expected if self.expected is not None else not body.isdigit())
        ):
            self._fail(WrongAnswer(f"expected {self.expected!r}, received {data!r}"))
            return
        self.busy = False
        if self._answer is not None:
            self._answer.set_result(body)
            self._answer = None
        elif self.load is not None:
            self.load.record_answer(self, perf_counter_ns())

    def send(self, due_at: int) -> None:
        """Send the request; its latency counts from `due_at`, in nanoseconds."""
        self.busy = True
        self.due_at = due_at
        self.transport.write(self.request)

    def set_path(self, path: str) -> None:
        """Make every later request a GET of the path, with the cookie unless the path is `/`."""
        cookie = b"Cookie: " + self.cookie + b"\r\n" if self.cookie and path != "/" else b""
        self.request = (
            b"GET " + path.encode() + b" HTTP/1.1\r\nHost: localhost\r\n"
            b"User-Agent: benchmark/1.0\r\nAccept: */*\r\n" + cookie + b"\r\n"
        )

    async def get(self, path: str) -> bytes:
        """Send one GET and return its body; store the cookie of the answer."""
        self._answer = asyncio.get_running_loop().create_future()
        answer = self._answer
        self.set_path(path)
        self.send(perf_counter_ns())
        body = await answer
        self.store_cookie()
        return body

    def store_cookie(self) -> None:
        """Store the cookie of the last answer, if it set one."""
        if found := _SET_COOKIE.search(self.response):
            self.cookie = found[1]


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Sorted latencies and the duration of one stretch of load, in nanoseconds."""

    latencies: array[int]
    duration: int

    @property
    def per_second(self) -> float:
        return len(self.latencies) * SECOND / self.duration


class Load:
    """One stretch of load over open connections.

    Args:
        seconds: duration.
        rate: requests per second of a paced load; None for a closed loop.
    """

    def __init__(self, visitors: list[Visitor], *, seconds: float, rate: float | None) -> None:
        self._visitors = visitors
        self._latencies: array[int] = array("q")
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._started_at = perf_counter_ns()
        self._ends_at = self._started_at + int(seconds * SECOND)
        self._ended_at = self._ends_at
        self._interval = None if rate is None else int(SECOND / rate)
        self._due_at = self._started_at
        self._turns = cycle(visitors)
        self._unanswered = 0

    async def run(self) -> LoadResult:
        """Send until the duration has elapsed; wait for the last responses."""
        for visitor in self._visitors:
            visitor.load = self
        if self._interval is None:
            for visitor in self._visitors:
                self._unanswered += 1
                visitor.send(perf_counter_ns())
        else:
            self._pace()
        try:
            await self._done
        finally:
            for visitor in self._visitors:
                visitor.load = None
        latencies = array("q", sorted(self._latencies))
        return LoadResult(latencies, self._ended_at - self._started_at)

    def fail(self, error: Exception) -> None:
        """End the load with an error."""
        if not self._done.done():
            self._done.set_exception(error)

    def record_answer(self, visitor: Visitor, now: int) -> None:
        """Record the latency of an answer and send the visitor's next request."""
        self._latencies.append(now - visitor.due_at)
        if visitor.overdue:
            visitor.send(visitor.overdue.popleft())
            return
        if self._interval is None and now < self._ends_at:
            visitor.send(now)
            return
        self._unanswered -= 1
        self._end_if_all_answered(now)

    def _pace(self) -> None:
        # Spins through the event loop: this process has a core to itself, and timers of event
        # loops are as coarse as a millisecond.
        now = perf_counter_ns()
        assert self._interval is not None
        while self._due_at <= now and self._due_at < self._ends_at:
            visitor = next(self._turns)
            if visitor.busy:
                visitor.overdue.append(self._due_at)
            else:
                self._unanswered += 1
                visitor.send(self._due_at)
            self._due_at += self._interval
        if self._due_at < self._ends_at:
            self._loop.call_soon(self._pace)
        else:
            self._end_if_all_answered(now)

    def _end_if_all_answered(self, now: int) -> None:
        clock = now if self._interval is None else self._due_at
        if self._unanswered == 0 and clock >= self._ends_at and not self._done.done():
            self._ended_at = now
            self._done.set_result(None)


async def connect(port: int, *, keeps_values: bool) -> list[Visitor]:
    """Open the connections; create the session of each visitor and read it back."""
    loop = asyncio.get_running_loop()
    visitors = []
    for _ in range(CONNECTIONS):
        _, visitor = await loop.create_connection(Visitor, "127.0.0.1", port)
        seeded = await visitor.get("/seed")
        if keeps_values:
            if await visitor.get("/read") != seeded:
                raise WrongAnswer(f"seeded {seeded!r}, received {visitor.response!r}")
        else:
            visitor.cookie = b"sid=" + b"a" * 66
        visitors.append(visitor)
    return visitors


async def measure(
    visitors: list[Visitor], path: str, *, seconds: float, rate: float | None, keeps_values: bool
) -> LoadResult:
    """Load a path for some seconds, after a fifth as long to warm up, and check the outcome.

    Raises:
        WrongAnswer: an answer was wrong, or the value written last is not there afterwards.
    """
    for visitor in visitors:
        visitor.expected = _HELLO if path == "/" else None
        if path == "/read":
            visitor.expected = await visitor.get("/read")
        visitor.set_path(path)
    with _collector_off():
        await Load(visitors, seconds=seconds / 5, rate=rate).run()
        result = await Load(visitors, seconds=seconds, rate=rate).run()
    for visitor in visitors:
        visitor.expected = None
        if path == "/write" and keeps_values:
            visitor.store_cookie()
            written = visitor.response[-BODY_BYTES:]
            if await visitor.get("/read") != written:
                raise WrongAnswer(f"wrote {written!r}, received {visitor.response!r}")
    return result


@contextmanager
def _collector_off() -> Iterator[None]:
    # A pause of the load generator would be counted as one of the server.
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
