"""How the suites run: laws are coroutines, tests are ordinary functions.

What lives here: the decorators that make a test of a coroutine, so that no pytest plugin for async
tests is needed, the two ways a store is called (under an event loop and without one), and threads.
What must not: laws.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from sojourn._core.concurrency import run

T = TypeVar("T")
P = ParamSpec("P")

Way = Callable[[Coroutine[Any, Any, None]], None]
"""Takes a coroutine to its end: ``asyncio.run``, or without a loop."""

#: Seconds after which something that waits for something else is considered stuck.
PATIENCE = 20.0


def under_loop(body: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make a test function of a coroutine function; it runs under asyncio, with a time limit."""

    def test(*args: P.args, **kwargs: P.kwargs) -> T:
        return asyncio.run(_limited(body(*args, **kwargs)))

    return _named_like(test, body)


async def _limited(coroutine: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(2 * PATIENCE):
        return await coroutine


def with_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine under asyncio."""
    asyncio.run(_limited(coroutine))


def without_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine without a loop, as WSGI, threads and the command line do."""
    run(coroutine)


def in_threads(*functions: Callable[[], object]) -> None:
    """Run functions at the same time and raise what one of them raised."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(functions))

    def begin(function: Callable[[], object]) -> None:
        try:
            start.wait(PATIENCE)
            function()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=begin, args=[f], daemon=True) for f in functions]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.000_001)  # so that threads meet within steps of microseconds, too
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread waits for ever"
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]


def _named_like(test: Callable[P, T], body: Callable[..., Any]) -> Callable[P, T]:
    """Let pytest see the body's name, text, marks and parameters, and no coroutine."""
    for name in ("__module__", "__name__", "__qualname__", "__doc__", "pytestmark"):
        if hasattr(body, name):
            setattr(test, name, getattr(body, name))
    test.__signature__ = inspect.signature(body)  # type: ignore[attr-defined]
    return test
