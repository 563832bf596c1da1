"""Machines whose clocks are wrong, over a store with a clock of its own: law A22."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from sojourn._core.clock import wall_clock
from sojourn.session import Session
from sojourn.store import Closeable
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.checkpoint import Checkpoint
from sojourn.testing.app_suite.handlers import HANDLERS, Handler
from sojourn.testing.app_suite.served_app import ServedApp
from sojourn.testing.decorators import under_loop
from sojourn.testing.faults import FaultyStore

_HOUR: Final = 3_600_000

#: Seconds by which a reading of the store's clock may be early: a round trip and 8 milliseconds.
_ACCURACY: Final = 0.05

every_skew: pytest.MarkDecorator = pytest.mark.parametrize("skew", [-_HOUR, _HOUR])


class _ClockedStore(FaultyStore):
    """A store whose server has a clock, which is right."""

    async def server_time(self) -> int:
        return wall_clock()


class ClockTests(AppTests):
    """Tests of two machines whose clocks differ by an hour."""

    @asynccontextmanager
    async def _machines(
        self, handlers: Mapping[str, Handler], skew: int
    ) -> AsyncIterator[tuple[ServedApp, ServedApp]]:
        """Serve an application on a machine whose clock is wrong, and on one whose clock is right.

        Args:
            handlers: by path.
            skew: milliseconds by which the clock of the first is ahead.
        """
        store = _ClockedStore(self.make_store())
        try:
            async with (
                self.serve(handlers, skew=skew, store=store) as here,
                here.another(skew=0) as there,
            ):
                yield here, there
        finally:
            if isinstance(store.store, Closeable):
                store.store.close()

    @every_skew
    @under_loop
    async def test_a_session_lives_as_long_on_each_machine(self, skew: int) -> None:
        """A22, A17: a session of one machine has not expired on the other one."""
        async with self._machines(HANDLERS, skew) as (here, there):
            browser = here.browser()
            await browser.get("/write")
            browser.at = there
            assert (await browser.get("/write")).body == b"2"
            browser.at = here
            assert (await browser.get("/write")).body == b"3"
            assert abs(here.stored()[0].expires_at - wall_clock()) < _HOUR

    @every_skew
    @under_loop
    async def test_a_revocation_holds_for_a_login_on_another_machine(self, skew: int) -> None:
        """A22, S16: a login that began before it, and is committed after it."""
        checkpoint = Checkpoint()

        async def slow_login(session: Session[Any]) -> None:
            session.login("ada")
            await checkpoint.wait()

        handlers = {**HANDLERS, "/slow": slow_login}
        async with self._machines(handlers, skew) as (here, there):
            browser = here.browser()
            await browser.get("/write")
            running = browser.start("/slow")
            await checkpoint.reached()
            await there.sessions.arevoke_user("ada")
            checkpoint.release()
            browser.store_cookies(await running.done())
            for place in (here, there):
                browser.at = place
                assert (await browser.get("/who")).body.startswith(b"None ")

    @every_skew
    @under_loop
    async def test_a_login_after_a_revocation_on_another_machine_holds(self, skew: int) -> None:
        """A22: although the clock of the revoking machine is ahead, or that of the login behind."""
        async with self._machines(HANDLERS, skew) as (here, there):
            for revoking, serving in ((here, there), (there, here)):
                await revoking.sessions.arevoke_user("ada")
                await asyncio.sleep(_ACCURACY)
                browser = serving.browser()
                await browser.get("/login")
                assert (await browser.get("/who")).body.startswith(b"ada ")
