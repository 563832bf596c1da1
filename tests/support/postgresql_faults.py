"""Helpers of the fault tests of the PostgreSQL store."""

import asyncio
import contextlib
import gc
import threading
import time
from pathlib import Path

import pytest

from sojourn._core.concurrency import run, sleep
from sojourn.errors import StoreUnavailable
from sojourn.stores.urls import open_store
from sojourn.testing.decorators import with_loop, without_loop

RUNNERS = pytest.mark.parametrize("runner", [with_loop, without_loop], ids=["loop", "no loop"])

#: Seconds.
DEADLINE = 1.0

#: The deadline, with a margin for a busy machine.
LATEST = DEADLINE + 0.8


def store_at(url, timeout=DEADLINE):
    return open_store(url, realm="default", timeout=timeout)


async def fails_within(call, seconds=LATEST, match=None):
    """Assert that a call raises StoreUnavailable in time; return the error."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=match) as caught:
        await call
    assert time.monotonic() - began < seconds
    return caught.value


async def until(condition, what):
    """Poll until a function returns true."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        await sleep(0.02)  # polls another process


async def recovered(call):
    """Call repeatedly until the store answers, at most five seconds; return the result."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return await call()
        except StoreUnavailable:
            assert time.monotonic() < deadline, "the store does not recover"
            await sleep(0.02)  # polls another process


def files():
    """Return the number of open files and sockets of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.contextmanager
def leaving_nothing(server):
    """Assert that the block leaves no thread, file or connection of this process open.

    A call that timed out sends the server a cancel request, for at most a second afterwards.
    """
    threads, opened = set(threading.enumerate()), files()
    yield
    gc.collect()
    run(until(lambda: server.connections() == 0, "every connection closed"))
    run(until(lambda: set(threading.enumerate()) <= threads, "every thread ended"))
    run(until(lambda: files() <= opened, "every file closed"))


async def tasks_end(runner):
    """Wait until no task except that of the test is running."""
    if runner is with_loop:
        await until(lambda: len(asyncio.all_tasks()) == 1, "every task ended")
