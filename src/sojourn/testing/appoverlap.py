"""The laws of requests that overlap, and of what must never show: A6, A16 and A18.

What lives here: several requests under way at once; where tickets must not appear. What must not:
the full model of merging, which sojourn's own tests play against random operations.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from sojourn import events
from sojourn._core.concurrency import pause
from sojourn.session import Session
from sojourn.testing.appkit import AppKit
from sojourn.testing.applaws import destroy, read, write
from sojourn.testing.running import under_loop
from sojourn.testing.site import SECRET, Halt

Change = Callable[[Session[Any]], object]

START: dict[str, Any] = {
    "n": 10,
    "plain": "old",
    "doomed": "here",
    "cart": {"apple": 1, "deep": {"x": 1}},
    "log": ["a"],
    "tags": {"a"},
}

#: What one request does, what the other one does before it commits, and what is there afterwards.
MERGES: dict[str, tuple[Change, Change, dict[str, Any]]] = {
    "different keys": (
        lambda s: s.update(one=1), lambda s: s.update(two=2), {"one": 1, "two": 2},
    ),
    "different paths of one dict": (
        lambda s: s["cart"].update(pear=2),
        lambda s: s["cart"]["deep"].update(y=2),
        {"cart": {"apple": 1, "pear": 2, "deep": {"x": 1, "y": 2}}},
    ),
    "increments": (lambda s: s.increment("n", 3), lambda s: s.increment("n"), {"n": 14}),
    "declared sums": (
        lambda s: s.update(total=s.get("total", 0) + 3),
        lambda s: s.update(total=s.get("total", 0) + 1),
        {"total": 4},
    ),
    "appends": (
        lambda s: s.append("log", "b"), lambda s: s["log"].append("c"), {"log": ["a", "c", "b"]},
    ),
    "adds": (
        lambda s: s.add("tags", "b"), lambda s: s["tags"].add("c"), {"tags": {"a", "b", "c"}},
    ),
    "a discard and an add": (
        lambda s: s.discard("tags", "a"), lambda s: s.add("tags", "c"), {"tags": {"c"}},
    ),
    "the same plain key": (
        lambda s: s.update(plain="later"), lambda s: s.update(plain="first"), {"plain": "later"},
    ),
    "a key deleted here and untouched there": (
        lambda s: s.pop("doomed"), lambda s: s.update(two=2), {"doomed": None, "two": 2},
    ),
    "a key deleted there and untouched here": (
        lambda s: s.update(two=2), lambda s: s.pop("doomed"), {"doomed": None, "two": 2},
    ),
    "a default both want": (
        lambda s: s.setdefault("box", []).append(1),
        lambda s: s.setdefault("box", []).append(2),
        {"box": [2, 1]},
    ),
}  # fmt: skip


class OverlapLaws(AppKit):
    """Requests under way at the same time, and secrets."""

    @pytest.mark.parametrize("what", MERGES)
    def test_overlapping_requests_keep_each_others_work(self, what: str) -> None:
        """A6: in one process, and the same between two."""
        here, there, expected = MERGES[what]

        async def law(*, elsewhere: bool) -> None:
            halt = Halt()
            found: dict[str, Any] = {}

            async def begin(session: Session[Any]) -> None:
                session.update(START)

            async def slow(session: Session[Any]) -> None:
                here(session)
                await halt.here()

            async def fast(session: Session[Any]) -> None:
                there(session)

            async def show(session: Session[Any]) -> None:
                found.update(session)

            handlers = {"/begin": begin, "/slow": slow, "/fast": fast, "/show": show}
            async with self.site(handlers, merge={"total": "sum"}) as site:
                browser = site.browser()
                await browser.get("/begin")
                running = browser.start("/slow")
                await halt.reached()
                async with site.another() as other:
                    place = other if elsewhere else site
                    reply = await place.browser(browser.cookie).get("/fast")
                    assert reply.status == 200
                halt.go()
                assert (await running.done()).status == 200
                await browser.get("/show")
            untouched = {key: value for key, value in START.items() if key not in expected}
            wanted = {key: value for key, value in expected.items() if value is not None}
            assert found == {**untouched, **wanted}

        for elsewhere in (False, True):
            asyncio.run(law(elsewhere=elsewhere))

    @under_loop
    async def test_interleaved_requests_never_see_each_others_session(self) -> None:
        """A16, B-52: 200 requests of 40 visitors, all under way at once, some of them failing."""
        wrong: list[tuple[str, str]] = []

        def names(name: str) -> Any:
            async def handler(session: Session[Any]) -> None:
                session.setdefault("name", name)
                for _ in range(3):
                    await pause(0)  # lets other tasks or threads run
                    if session["name"] != name:
                        wrong.append((name, session["name"]))
                if len(name) % 2:
                    raise LookupError("as planned")

            return handler

        visitors = [f"visitor-{n}" for n in range(40)]
        async with self.site({f"/{name}": names(name) for name in visitors}) as site:
            browsers = [site.browser() for _ in visitors]
            for _ in range(5):
                pairs = list(zip(visitors, browsers, strict=True))
                under_way = [browser.start(f"/{name}") for name, browser in pairs]
                for running, browser in zip(under_way, browsers, strict=True):
                    browser.take(await running.done())
            assert wrong == []
            assert site.count() == sum(len(name) % 2 == 0 for name in visitors)

    @under_loop
    async def test_a_worker_that_failed_keeps_nothing_for_the_next_request(self) -> None:
        """A16: the thread or task that served an exception serves a stranger afterwards."""

        async def fail(session: Session[Any]) -> None:
            session["n"] = 99
            raise LookupError("as planned")

        async with self.site({"/write": write, "/fail": fail, "/read": read}) as site:
            for _ in range(20):
                await site.browser().start("/fail").done()
                assert (await site.browser().get("/read")).body == b"None"
            assert site.count() == 0

    def test_the_ticket_shows_nowhere_but_in_the_cookie(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A18, B-46, B-48, B-49: in no log, repr, exception, event, store or error page."""
        shown: list[str] = []
        cookies: list[str] = []
        verifiers: list[bytes] = []

        async def show(session: Session[Any]) -> None:
            verifiers.append(session._copy.verifier)  # noqa: SLF001 - to look for it everywhere
            shown.extend((repr(session), str(session), repr(session.labels), session.id))

        async def fail(session: Session[Any]) -> None:
            session["n"] = 1
            raise LookupError(f"with {session!r}")

        async def law() -> None:
            handlers = {"/write": write, "/show": show, "/fail": fail, "/destroy": destroy}
            async with self.site(handlers) as site:
                for kind in events.KINDS:
                    site.sessions.on(kind, lambda event: shown.append(repr(event)))
                browser = site.browser()
                await browser.get("/write")
                cookies.append(browser.cookie or "")
                await browser.get("/show")
                await browser.get("/write")
                for record in site.stored():
                    shown.append(record.to_bytes().decode("latin-1"))
                    shown.append(repr(await site.sessions.aget(record.session_id)))
                failed = await browser.start("/fail").done()
                shown.append(failed.body.decode())
                shown.extend(traceback.format_exception(failed.error))
                site.store.fail("load", times=1)
                unavailable = await browser.get("/write")
                shown.append(f"{unavailable.body.decode()} {unavailable.headers}")
                await browser.get("/write", headers=[("x", "y")])
                before = browser.cookie
                await browser.get("/destroy")
                assert before == cookies[0]
                browser.cookie = before
                await browser.get("/write")
                cookies.append(browser.cookie or "")
                await site.browser(str(before)[:-9] + "A" * 9).get("/write")
                shown.extend((repr(site.sessions), repr(site.sessions.config), repr(site.app)))
                shown.extend(
                    repr(part) for part in (site.sessions.web, site.sessions.engine, site.store)
                )

        with caplog.at_level(logging.DEBUG):
            under_loop(law)()
        shown.extend(f"{record.getMessage()} {record.exc_text}" for record in caplog.records)
        text = "\n".join(shown)
        assert len(shown) > 20
        for cookie in cookies:
            value = cookie.partition("=")[2]
            assert len(value) == 66
            assert value not in text
            assert value[20:50] not in text
        for verifier in verifiers:
            assert len(verifier) == 16
            for form in (verifier.hex(), repr(verifier)[2:-1], verifier.decode("latin-1")):
                assert form not in text
        assert SECRET not in text

    def test_the_tickets_of_a_user_show_nowhere(self, caplog: pytest.LogCaptureFixture) -> None:
        """A18: those that were replaced, and the newest, in no log, event, list or store."""
        shown: list[str] = []
        cookies: list[str] = []

        async def renew(session: Session[Any]) -> None:
            shown.append(repr(session))
            if session.user is None:
                session.login("ada")
            else:
                session.rotate()

        async def law() -> None:
            async with self.site({"/write": write, "/renew": renew}) as site:
                for kind in events.KINDS:
                    site.sessions.on(kind, lambda event: shown.append(repr(event)))
                browser = site.browser()
                for path in ("/write", "/renew", "/renew", "/renew"):
                    await browser.get(path)
                    cookies.append(browser.cookie or "")
                    site.clock.advance("10 seconds")  # of the grace: no rotation comes sooner
                shown.append(repr(await site.sessions.alist_user("ada")))
                shown.extend(record.to_bytes().decode("latin-1") for record in site.stored())
                await site.browser(cookies[1]).get("/renew")  # two rotations ago: an alarm

        with caplog.at_level(logging.DEBUG):
            under_loop(law)()
        shown.extend(f"{record.getMessage()} {record.exc_text}" for record in caplog.records)
        text = "\n".join(shown)
        assert "Reused" in text
        assert len(set(cookies)) == 4
        assert not any(cookie.partition("=")[2][20:50] in text for cookie in cookies)
