"""mark_coroutine_function: for plain functions that return coroutines."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def mark_coroutine_function(function: F) -> F:
    """Let ``iscoroutinefunction`` return True for a function; return the function.

    Frameworks and servers recognise handlers and ASGI applications by that: asgiref and uvicorn
    call another object with the scope alone, as ASGI 2 did.
    """
    # Python 3.11 has only this mark, which asyncio.iscoroutinefunction reads, and so do Starlette
    # and asgiref there; Python 3.12 has a public one.
    vars(function)["_is_coroutine"] = getattr(asyncio.coroutines, "_is_coroutine", None)
    mark: Callable[[F], F] | None = getattr(inspect, "markcoroutinefunction", None)
    return function if mark is None else mark(function)
