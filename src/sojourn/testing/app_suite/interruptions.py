"""Commits whose outcome is unknown to the caller: law A21."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sojourn.errors import StoreUnavailable
from sojourn.session import Session
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.handlers import HANDLERS, HandlerResponse
from sojourn.testing.decorators import under_loop
from sojourn.testing.faults import FaultyStore

#: Seconds after which a handler cancels its own commit.
_TIME_LIMIT = 0.05


_Interrupted = Callable[[Session[Any], FaultyStore], Awaitable[HandlerResponse]]


class InterruptionTests(AppTests):
    """Tests of explicit commits that are cancelled or lose their response."""

    @pytest.mark.parametrize("again", ["by the handler", "with the response"])
    @pytest.mark.parametrize("after", [False, True], ids=["no effect", "effect"])
    @under_loop
    async def test_a_cancelled_commit_loses_and_doubles_nothing(
        self,
        after: bool,  # noqa: FBT001
        again: str,
    ) -> None:
        """A21: before and after the effect of the save; handler or response commits next."""
        if self.protocol == "wsgi":
            pytest.skip("threads are not cancelled")

        async def interrupted(session: Session[Any], store: FaultyStore) -> HandlerResponse:
            store.hang("save", after=after, times=1)
            value = session.increment("n")
            session.append("log", value)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(_TIME_LIMIT):
                    await session.acommit()
            if again == "by the handler":
                await session.acommit()
            return HandlerResponse(body=str(value).encode())

        await self._write_around(interrupted)

    @pytest.mark.parametrize("after", [False, True], ids=["no effect", "effect"])
    @under_loop
    async def test_a_commit_without_a_response_loses_and_doubles_nothing(
        self,
        after: bool,  # noqa: FBT001
    ) -> None:
        """A21: the connection to the store breaks before or after the effect."""

        async def interrupted(session: Session[Any], store: FaultyStore) -> HandlerResponse:
            store.fail("save", after=after, times=1)
            value = session.increment("n")
            session.append("log", value)
            with pytest.raises(StoreUnavailable):
                await session.acommit()
            await session.acommit()
            return HandlerResponse(body=str(value).encode())

        await self._write_around(interrupted)

    async def _write_around(self, handler: _Interrupted) -> None:
        """Write, run the handler, write again; every change is there once."""

        async def interrupted(session: Session[Any]) -> HandlerResponse:
            return await handler(session, app.store)

        async def show(session: Session[Any]) -> HandlerResponse:
            return HandlerResponse(body=f"{session.get('n')} {session.get('log')}".encode())

        handlers = {**HANDLERS, "/interrupted": interrupted, "/show": show}
        async with self.serve(handlers) as app:
            browser = app.browser()
            await browser.get("/write")
            reply = await browser.get("/interrupted")
            assert (reply.status, reply.body) == (200, b"2")
            assert (await browser.get("/show")).body == b"2 [2]"
            assert (await browser.get("/write")).body == b"3"
            assert (await browser.get("/show")).body == b"3 [2]"
