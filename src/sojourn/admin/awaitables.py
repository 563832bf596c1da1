"""Awaits the results of functions that an application gives, which may be coroutine functions."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import TypeVar

from sojourn._core.concurrency import running_loop
from sojourn.errors import ConfigurationError

T = TypeVar("T")


async def resolve(found: T | Awaitable[T], option: str) -> T:
    """Return what a function returned; await it first if the function is a coroutine function.

    Args:
        found: what the function returned.
        option: the name of the function, for the error message.

    Raises:
        ConfigurationError: it is a coroutine function and no event loop runs in this thread.
    """
    if not inspect.isawaitable(found):
        return found
    if running_loop() is None:
        if inspect.iscoroutine(found):
            found.close()
        raise ConfigurationError(
            f"{option} expects a function where no event loop runs, as under WSGI; found a "
            "coroutine function, which needs ASGI"
        )
    result: T = await found
    return result
