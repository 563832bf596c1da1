"""Run coroutines as tests: under an event loop, without one, or in threads.

The suites need no pytest plugin for async tests.
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

Runner = Callable[[Coroutine[Any, Any, None]], None]
"""Completes a coroutine: ``with_loop`` or ``without_loop``."""

#: Seconds after which a wait counts as a deadlock.
WAIT_TIMEOUT = 20.0


def under_loop(body: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Turn a coroutine function into a test that runs it under asyncio, with a time limit."""

    def test(*args: P.args, **kwargs: P.kwargs) -> T:
        return asyncio.run(_with_timeout(body(*args, **kwargs)))

    copy_metadata(test, body)
    test.__signature__ = inspect.signature(body)  # type: ignore[attr-defined]
    return test


def copy_metadata(test: Callable[..., Any], body: Callable[..., Any]) -> None:
    """Give a test the name, docstring and marks of its body, without marking it as a coroutine."""
    for name in ("__module__", "__name__", "__qualname__", "__doc__", "pytestmark"):
        if hasattr(body, name):
            setattr(test, name, getattr(body, name))


def with_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine under asyncio, with a time limit."""
    asyncio.run(_with_timeout(coroutine))


def without_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine without an event loop, as WSGI, threads and the command line do."""
    run(coroutine)


async def _with_timeout(coroutine: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(2 * WAIT_TIMEOUT):
        return await coroutine


def in_threads(*functions: Callable[[], object]) -> None:
    """Run functions in parallel threads; raise the first exception."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(functions))

    def work(function: Callable[[], object]) -> None:
        try:
            start.wait(WAIT_TIMEOUT)
            function()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=[f], daemon=True) for f in functions]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.000_001)  # so that threads also meet within microseconds
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_TIMEOUT)
            assert not thread.is_alive(), "a thread does not end"
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]
