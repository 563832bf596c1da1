"""The laws of requests about failing stores, passing time, and taking sessions away.

What lives here: A15, A17 and A20, which befall requests whose handler is in order. What must not:
what handlers do wrong (``appends.py``).
"""

from __future__ import annotations

from typing import Any

import pytest

from sojourn.session import Session
from sojourn.testing.appkit import AppKit
from sojourn.testing.applaws import look, read, write
from sojourn.testing.running import under_loop
from sojourn.testing.site import Halt, Status


class TroubleLaws(AppKit):
    """Failing stores, time, and taking sessions away."""

    # Failing stores

    @pytest.mark.parametrize("verb", ["load", "save", "create"])
    def test_a_failing_store_is_503_and_takes_nothing_away(self, verb: Any) -> None:
        """A15: no cookie cleared, no empty session saved; later everything is there."""

        async def law() -> None:
            async with self.site({"/write": write, "/read": read}) as site:
                browser = site.browser()
                await browser.get("/write")
                before = browser.cookie
                site.store.fail(verb)
                failing = site.browser() if verb == "create" else browser
                reply = await failing.get("/write")
                assert reply.status == 503
                assert int(reply.get("retry-after") or 0) > 0
                assert reply.get("cache-control") == "no-store"
                assert reply.all("set-cookie") == []
                assert browser.cookie == before
                site.store.heal()
                assert (await browser.get("/read")).body == b"1"
                assert site.count() == 1

        under_loop(law)()

    @under_loop
    async def test_who_has_no_cookie_never_waits_for_the_store(self) -> None:
        """A15: a store that hangs or fails is no concern of visitors without a session."""
        async with self.site({"/look": look}) as site:
            site.store.hang("load")
            assert (await site.browser().get("/look")).status == 200
            site.store.heal()
            site.store.fail()
            assert (await site.browser().get("/look")).status == 200

    @under_loop
    async def test_a_lost_answer_of_the_store_is_no_lost_update(self) -> None:
        """A15: the save happened, its answer was lost: 503, and the visitor finds the new state."""
        async with self.site({"/write": write, "/read": read}) as site:
            browser = site.browser()
            await browser.get("/write")
            site.store.fail("save", after=True, times=1)
            assert (await browser.get("/write")).status == 503
            assert (await browser.get("/read")).body == b"2"
            assert (await browser.get("/write")).body == b"3"

    # Time

    @under_loop
    async def test_silence_ends_a_session(self) -> None:
        """A17, ASVS 7.3.1: at the idle timeout, though the cookie still comes; the record goes."""
        async with self.site({"/write": write, "/read": read}, timeout="10 minutes") as site:
            browser = site.browser()
            await browser.get("/write")
            site.clock.advance(599.999)
            assert (await browser.get("/read")).body == b"1"
            site.clock.advance(600)
            assert (await browser.get("/read")).body == b"None"
            assert site.stored() == []  # expired ones are not counted

    @under_loop
    async def test_no_activity_extends_the_longest_life(self) -> None:
        """A17, ASVS 7.3.2, B-37: reading and writing all the time, it ends all the same."""
        options: dict[str, Any] = {"timeout": "10 minutes", "absolute_timeout": "1 hour"}
        async with self.site({"/write": write, "/read": read}, **options) as site:
            browser = site.browser()
            await browser.get("/write")
            for _ in range(11):
                site.clock.advance("5 minutes")
                assert (await browser.get("/write")).body != b"1"
                assert (await browser.get("/read")).body != b"None"
            site.clock.advance("5 minutes")
            assert (await browser.get("/read")).body == b"None"
            assert site.stored() == []  # expired ones are not counted

    # Taking it away

    @under_loop
    async def test_uninstalling_lets_requests_under_way_finish(self) -> None:
        """A20: with their session; later ones have none."""
        halt = Halt()

        async def slow(session: Session[Any]) -> Status:
            await halt.here()
            return Status(body=str(session.increment("n")).encode())

        async def ask(session: Session[Any] | None) -> Status:
            return Status(body=b"none" if session is None else b"some")

        async with self.site({"/write": write, "/slow": slow, "/ask": ask}) as site:
            browser = site.browser()
            await browser.get("/write")
            assert (await browser.get("/ask")).body == b"some"
            running = browser.start("/slow")
            await halt.reached()
            self.uninstall(site.app, site.sessions)
            after = await browser.get("/ask")
            assert after.body == b"none"
            assert after.get("vary") is None
            halt.go()
            assert (await running.done()).body == b"2"
            [record] = site.stored()
            assert record.version == 2
