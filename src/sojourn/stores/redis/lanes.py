"""Lanes: one way to the server for each event loop, and one for all threads without a loop.

What lives here: making them when they are first used, letting go of those whose loop was closed,
and forgetting them after a fork. What must not: what goes over them.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from sojourn._core.concurrency import running_loop
from sojourn.errors import ConfigurationError, StoreError
from sojourn.stores.batching import AsyncBatcher, ThreadBatcher
from sojourn.stores.redis.courier import Courier
from sojourn.stores.redis.links import Link
from sojourn.stores.redis.requests import Request

Joiner = AsyncBatcher[Request, Any] | ThreadBatcher[Request, Any]

#: Makes a link whose calls may take so many seconds.
MakeLink = Callable[[float], Link]


class Lanes:
    """The lanes of one store.

    Args:
        courier: makes one for a link.
        under_loop: makes a link for the running loop.
        without_loop: makes a link that never suspends; None if there is none.
        advice: what to use instead where there is none.
        timeout: seconds that a call may take.
    """

    def __init__(
        self,
        courier: Callable[[Link], Courier],
        *,
        under_loop: MakeLink,
        without_loop: MakeLink | None,
        advice: str | None,
        timeout: float,
    ) -> None:
        self._courier = courier
        self._under_loop = under_loop
        self._without_loop = without_loop
        self._advice = advice
        self._timeout = timeout
        self._closed = False
        _all.add(self)
        self.forget()

    def forget(self) -> None:
        """Begin without any, as a child process must: the connections are its parent's."""
        self._lock = threading.Lock()
        self._loops: dict[
            asyncio.AbstractEventLoop, tuple[AsyncBatcher[Request, Any], Courier]
        ] = {}
        self._threads: tuple[ThreadBatcher[Request, Any], Courier] | None = None

    def set_timeout(self, seconds: float) -> None:
        """Take the deadline of calls, of those lanes too that exist."""
        self._timeout = seconds
        lanes: list[tuple[Joiner, Courier]] = [*self._loops.values()]
        if self._threads is not None:
            lanes.append(self._threads)
        for joiner, courier in lanes:
            joiner.timeout = courier.timeout = seconds

    def here(self) -> Joiner:
        """Return the lane for where the caller is.

        Raises:
            ConfigurationError: no loop runs here, and the store's client needs one.
        """
        loop = running_loop()
        if loop is None:
            return self._threads[0] if self._threads is not None else self._open_threads()
        lane = self._loops.get(loop)
        return lane[0] if lane is not None else self._open_loop(loop)

    def _open_loop(self, loop: asyncio.AbstractEventLoop) -> AsyncBatcher[Request, Any]:
        courier = self._courier(self._under_loop(self._timeout))
        joiner: AsyncBatcher[Request, Any] = AsyncBatcher(
            loop, courier.carry, timeout=self._timeout
        )
        with self._lock:
            self._check_open()
            for other in [other for other in self._loops if other.is_closed()]:
                self._loops.pop(other)[1].close()
            self._loops[loop] = joiner, courier
        return joiner

    def _open_threads(self) -> ThreadBatcher[Request, Any]:
        if self._without_loop is None:
            raise ConfigurationError(
                f"this store waits for an event loop, and none runs in this thread: {self._advice}"
            )
        with self._lock:
            self._check_open()
            if self._threads is None:
                courier = self._courier(self._without_loop(self._timeout))
                self._threads = ThreadBatcher(courier.carry, timeout=self._timeout), courier
            return self._threads[0]

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store was closed; make a new one, or close it later")

    def close(self) -> None:
        """Let go of every connection. May be repeated."""
        with self._lock:
            self._closed = True
            couriers = [courier for _, courier in self._loops.values()]
            couriers += [] if self._threads is None else [self._threads[1]]
            self._loops, self._threads = {}, None
        for courier in couriers:
            courier.close()


_all: weakref.WeakSet[Lanes] = weakref.WeakSet()


def _after_fork() -> None:
    for lanes in list(_all):
        lanes.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
