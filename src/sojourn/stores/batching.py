"""Batching: what many callers ask for at the same moment goes to the server as one batch.

What lives here: joining calls, under an event loop (``AsyncBatcher``) and among threads
(``ThreadBatcher``); who sends, who waits, and for how long. What must not: what a request means, and
connections; a ``Send`` function knows both. One batch is in flight at a time, and what arrives
meanwhile forms the next: the busier the server, the larger the batches, and the cheaper each call
(60-90 us of redis-py for a command awaited alone, 4 as one of many).

No caller can harm another (law S13): a batch belongs to nobody, so it goes on when one of its
callers is cancelled; what was withdrawn before its batch was sent is not sent.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from sojourn._core.concurrency import run
from sojourn.errors import StoreUnavailable

Q = TypeVar("Q")
R = TypeVar("R")

#: Sends requests and returns what became of each, in their order; an exception is that caller's
#: alone, and one that is raised instead is everybody's. The deadline is one of ``time.monotonic``.
Send = Callable[[Sequence[Q], float], Awaitable[Sequence["R | Exception"]]]

#: Requests of one batch: some milliseconds of a server, so that others get their turn.
MOST: Final = 256


class AsyncBatcher(Generic[Q, R]):
    """Joins the calls that tasks of one event loop make in one tick, or while a batch is in flight.

    Args:
        loop: whose.
        send: called from a task of the loop, never twice at the same time.
        timeout: seconds that a call may take, from asking to answer.
    """

    __slots__ = ("_flight", "_futures", "_requests", "_send", "_since", "loop", "timeout")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, send: Send[Q, R], *, timeout: float
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.timeout: float = timeout
        self._send = send
        self._requests: list[Q] = []  # and beside it, not in pairs: a pair is one more object
        self._futures: list[asyncio.Future[R]] = []  # for the collector to look at meanwhile
        # When the first of each MOST of them came: batches are taken from the front, so it is the
        # first of its batch, too.
        self._since: list[float] = []
        self._flight: asyncio.Task[None] | None = None

    def ask(self, request: Q) -> Awaitable[R]:
        """Return a future of what became of a request.

        Raises:
            StoreUnavailable: (when awaited) there was no answer in time.
        """
        future: asyncio.Future[R] = self.loop.create_future()
        requests = self._requests
        if not len(requests) % MOST:
            self._since.append(time.monotonic())
            if self._flight is None:
                self.loop.call_soon(self._begin)
        requests.append(request)
        self._futures.append(future)
        return future

    def _begin(self) -> None:
        if self._flight is None and self._requests:
            self._flight = self.loop.create_task(self._fly())

    async def _fly(self) -> None:
        try:
            while self._requests:
                requests, self._requests = self._requests[:MOST], self._requests[MOST:]
                futures, self._futures = self._futures[:MOST], self._futures[MOST:]
                await self._carry(requests, futures, self._since.pop(0) + self.timeout)
        finally:
            self._flight = None
            for future in self._futures:  # the loop ends, and its tasks with it
                future.cancel()
            self._requests, self._futures, self._since = [], [], []

    async def _carry(
        self, requests: list[Q], futures: list[asyncio.Future[R]], deadline: float
    ) -> None:
        withdrawn = [at for at, future in enumerate(futures) if future.done()]
        for at in reversed(withdrawn):
            del requests[at], futures[at]
        if not requests:
            return
        try:
            outcomes = await self._send(requests, deadline)
        except Exception as error:  # noqa: BLE001 - every waiting caller must hear of it
            outcomes = [_same(error) for _ in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        for future, outcome in zip(futures, outcomes, strict=True):
            try:
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)
            except asyncio.InvalidStateError:
                continue  # its caller was cancelled meanwhile


class _Waiting(Generic[Q, R]):
    """A thread in line, and what became of its request.

    Attributes:
        signal: released when there is an outcome, or when it is this thread's turn to lead.
        leads: it is.
    """

    __slots__ = ("leads", "outcome", "request", "settled", "signal", "since")

    def __init__(self, request: Q) -> None:
        self.request: Q = request
        self.since: float = time.monotonic()
        self.settled: bool = False
        self.leads: bool = False
        self.outcome: R | Exception | None = None
        self.signal: threading.Lock | None = None

    def settle(self, outcome: R | Exception) -> None:
        self.outcome = outcome
        self.settled = True
        if self.signal is not None:
            self.signal.release()


class ThreadBatcher(Generic[Q, R]):
    """Joins the calls of threads: one leads and sends for all who are in line, then another.

    Whoever finds nobody leading leads at once, so a lone thread pays for a lock and nothing else.

    Args:
        send: called by the leading thread; it must not suspend.
        timeout: seconds that a call may take, from asking to answer.
    """

    __slots__ = ("_led", "_line", "_lock", "_send", "timeout")

    def __init__(self, send: Send[Q, R], *, timeout: float) -> None:
        self.timeout: float = timeout
        self._send = send
        self._lock = threading.Lock()
        self._line: list[_Waiting[Q, R]] = []
        self._led = False

    async def ask(self, request: Q) -> R:
        """Return what became of a request; see ``AsyncBatcher.ask``. Blocks, never suspends."""
        mine: _Waiting[Q, R] = _Waiting(request)
        with self._lock:
            self._line.append(mine)
            if self._led:
                mine.signal = threading.Lock()
                mine.signal.acquire()
            else:
                self._led = mine.leads = True
        if mine.signal is not None:
            self._follow(mine, mine.signal)
        if not mine.settled:
            self._lead()
        if isinstance(mine.outcome, Exception):
            raise _same(mine.outcome)
        return mine.outcome  # type: ignore[return-value] # set before it is woken

    def _follow(self, mine: _Waiting[Q, R], signal: threading.Lock) -> None:
        try:
            # The leader keeps the deadline of its whole batch; this is for one that was killed.
            signalled = signal.acquire(timeout=2 * self.timeout)
        except BaseException:
            self._withdraw(mine)
            raise
        if not signalled and self._withdraw(mine):
            raise StoreUnavailable(f"no answer within {2 * self.timeout:g} seconds")

    def _withdraw(self, mine: _Waiting[Q, R]) -> bool:
        """Leave the line; False if the outcome, or the lead, came at this very moment."""
        with self._lock:
            if mine.settled:
                return False
            if mine in self._line:
                self._line.remove(mine)
            if mine.leads:
                self._pass_on()
            return True

    def _lead(self) -> None:
        with self._lock:
            batch, self._line = self._line[:MOST], self._line[MOST:]
        outcomes: Sequence[R | Exception]
        error: BaseException | None = None
        try:
            deadline = batch[0].since + self.timeout
            outcomes = run(_sent(self._send, [call.request for call in batch], deadline))
        except Exception as failure:  # noqa: BLE001 - every waiting caller must hear of it
            outcomes = [failure] * len(batch)
        except BaseException as interruption:  # noqa: BLE001 - raised below, once all have an answer
            error = interruption
            outcomes = [StoreUnavailable("the thread that was sending ended")] * len(batch)
        with self._lock:
            self._pass_on()
        for call, outcome in zip(batch, outcomes, strict=True):
            call.settle(outcome)
        if error is not None:
            raise error

    def _pass_on(self) -> None:
        """Let the first in line lead; the lock must be held."""
        if not self._line:
            self._led = False
            return
        following = self._line[0]
        following.leads = True
        assert following.signal is not None  # noqa: S101 - whoever is in line waits
        following.signal.release()


async def _sent(send: Send[Q, R], requests: list[Q], deadline: float) -> Sequence[Any]:
    return await send(requests, deadline)


def _same(error: Exception) -> Exception:
    """Return an error that one caller may raise and change although others raise the same."""
    if not isinstance(error, StoreUnavailable):
        return error
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy
