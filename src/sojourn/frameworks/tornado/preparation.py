"""finish_preparation: what Tornado waits for before it calls the method of a handler."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol


class FinishingHandler(Protocol):
    """A handler whose response is committed before it is finished.

    Attributes:
        sojourn_finishing: commits and finishes the response; None before ``finish`` was called.
    """

    sojourn_finishing: asyncio.Task[None] | None


def finish_preparation(
    handler: FinishingHandler, preparing: Awaitable[None] | None
) -> Awaitable[None] | None:
    """Return what ``prepare`` of a handler returns; None if there is nothing to wait for.

    If the application's ``prepare`` has finished the response, that is waited for: Tornado calls
    the method of a handler that is not finished.

    Args:
        handler: the handler.
        preparing: what the application's ``prepare`` has returned.
    """
    if preparing is None and handler.sojourn_finishing is None:
        return None
    return _wait(handler, preparing)


async def _wait(handler: FinishingHandler, preparing: Awaitable[None] | None) -> None:
    if preparing is not None:
        await preparing
    if handler.sojourn_finishing is not None:
        await handler.sojourn_finishing
