"""The laws of requests about sessions that end, tickets that open nothing, and failing handlers.

What lives here: A7, A8 and A10 to A12. What must not: failing stores and time (``apptroubles.py``),
what a good request costs (``applaws.py``), requests that merge (``appoverlap.py``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from sojourn.errors import ResponseStarted, SessionGone
from sojourn.events import Rejected
from sojourn.session import Session
from sojourn.testing.appkit import AppKit
from sojourn.testing.applaws import destroy, read, write
from sojourn.testing.drivers import ASGIDriver, Reply
from sojourn.testing.running import under_loop
from sojourn.testing.site import Browser, Halt, Site, Status


async def _act_late(session: Session[Any], late: str) -> None:
    if late == "destroy":
        session.destroy()
    elif late != "read":
        session.increment("n")
    if late == "refresh":
        await session.arefresh()
    elif late == "commit":
        await session.acommit()


def _check_late(reply: Reply, late: str, end: str, raised: list[BaseException]) -> None:
    assert reply.status == 200
    if (late, end) != ("destroy", "expired"):  # that one did end it: the cookie is its
        assert reply.all("set-cookie") == []
    if late in ("refresh", "commit"):
        assert len(raised) == 1


class EndLaws(AppKit):
    """Endings and failing handlers."""

    # Gone is gone

    @pytest.mark.parametrize("end", ["destroyed", "revoked", "expired"])
    @pytest.mark.parametrize("late", ["write", "read", "stream", "refresh", "commit", "destroy"])
    def test_nothing_late_brings_an_ended_session_back(self, end: str, late: str) -> None:
        """A7, B-32, B-33, B-38: nor does a late answer send or clear a cookie it does not own."""

        async def law() -> None:
            stop = Halt()
            raised: list[BaseException] = []

            async def slow(session: Session[Any]) -> Status | None:
                session.get("n")
                if late == "stream":
                    return Status(body=_write_late(session, stop))
                await stop.here()
                try:
                    await _act_late(session, late)
                except SessionGone as error:
                    raised.append(error)
                return None

            handlers = {"/write": write, "/slow": slow, "/destroy": destroy, "/read": read}
            async with self.site(handlers, touch_interval=60) as site:
                browser = site.browser()
                await browser.get("/write")
                running = browser.start("/slow")
                await stop.reached()
                cookie = browser.cookie
                await self._end(site, browser, end)
                stop.go()
                reply = await running.done()
                _check_late(reply, late, end, raised)
                assert site.count() == 0
                for place in (site, site.another()):
                    assert (await place.browser(cookie).get("/read")).body == b"None"

        under_loop(law)()

    async def _end(self, site: Site, browser: Browser, how: str) -> None:
        if how == "destroyed":
            await browser.get("/destroy")
        elif how == "revoked":
            [record] = site.stored()  # the administrator's list
            assert await site.sessions.arevoke(record.session_id)
        else:
            site.clock.advance("31 minutes")

    @under_loop
    async def test_destroying_clears_the_cookie_and_the_record(self) -> None:
        """A7, B-35, B-36: the cookie of before opens nothing any more."""
        async with self.site({"/write": write, "/destroy": destroy, "/read": read}) as site:
            browser = site.browser()
            await browser.get("/write")
            before = browser.cookie
            await browser.get("/destroy")
            assert browser.cookie is None
            assert site.count() == 0
            assert (await site.browser(before).get("/read")).body == b"None"

    @under_loop
    async def test_what_is_written_after_destroying_is_another_session(self) -> None:
        """A7: another ID, another cookie, none of the old data."""

        async def renew(session: Session[Any]) -> Status:
            old = session.id
            session.destroy()
            session["fresh"] = True
            return Status(body=f"{old != session.id} {'n' in session}".encode())

        async with self.site({"/write": write, "/renew": renew, "/read": read}) as site:
            browser = site.browser()
            await browser.get("/write")
            before = browser.cookie
            assert (await browser.get("/renew")).body == b"True False"
            assert browser.cookie not in (None, before)
            assert site.count() == 1
            assert (await site.browser(before).get("/read")).body == b"None"

    # Tickets that open nothing

    @under_loop
    async def test_a_ticket_not_made_by_us_never_reaches_the_store(self) -> None:
        """A8, B-13, B-14, B-22, B-27, B-29, B-31: forged, malformed, planted, of another realm."""
        async with self.site({"/write": write, "/read": read}) as site:
            browser = site.browser()
            await browser.get("/write")
            assert browser.cookie is not None
            name, _, good = browser.cookie.partition("=")
            async with site.another(realm="other") as elsewhere:
                foreign = elsewhere.browser()
                await foreign.get("/write")
            flipped = ("B" if good[5] == "A" else "A").join((good[:5], good[6:]))
            bad = [
                f"{name}={flipped}",
                *(f"{name}={text}" for text in ("", " ", good[:-1], good + "A", f'"{good}"')),
                *(f"{name}={text}" for text in ("A" * 66, "../../etc/passwd", "%00", "ü", "a=b")),
                f"{name}=" + "\x00" * 66,
                f"{name}={good.lower()}",
                f"={name}={good}",
                f"%{ord(name[0]):02x}{name[1:]}={good}",
                f"{name}={good}; {name}={flipped}",
                f"{name}={flipped}; {name}={good}",
                str(foreign.cookie),
            ]  # fmt: skip
            site.traced()
            for cookie in bad:
                assert (await site.browser(cookie).get("/read")).body == b"None", cookie
                assert "load" not in site.traced(), cookie
            same_twice = f"{name}={good}; {name}={good}"
            assert (await site.browser(same_twice).get("/read")).body == b"1"

    @under_loop
    async def test_an_unknown_id_is_never_adopted(self) -> None:
        """A8, B-22 to B-24: a ticket of ours without a record begins nothing under its ID."""

        async def begin(session: Session[Any]) -> Status:
            session["n"] = 1
            return Status(body=session.id.encode())

        async with self.site({"/write": write, "/begin": begin, "/destroy": destroy}) as site:
            rejected: list[Rejected] = []
            site.sessions.on(Rejected, rejected.append)
            browser = site.browser()
            first = (await browser.get("/begin")).body.decode()
            before = browser.cookie
            await browser.get("/destroy")
            browser.cookie = before
            second = (await browser.get("/begin")).body.decode()
            assert second != first
            assert browser.cookie != before
            assert [(event.session_id, event.reason) for event in rejected] == [(first, "unknown")]

    @under_loop
    async def test_a_ticket_of_a_record_with_another_verifier_opens_nothing(self) -> None:
        """A8: whoever knows an ID, or the store, has no key to the session."""
        async with self.site({"/write": write, "/read": read}) as site:
            browser = site.browser()
            await browser.get("/write")
            [record] = site.stored()
            other = msgspec.structs.replace(record, version=2, verifier=bytes(32))
            await site.below.save(other, 1)
            assert (await browser.get("/read")).body == b"None"

    # Failing requests

    @pytest.mark.parametrize("how", ["500", "exception"])
    @pytest.mark.parametrize("keep", [False, True])
    def test_a_failing_request_drops_its_changes(self, how: str, keep: bool) -> None:  # noqa: FBT001
        """A10: unless the installation keeps them; a visitor without a session gets none."""

        async def fail(session: Session[Any]) -> Status:
            session.increment("n")
            if how == "exception":
                raise LookupError("as planned")
            return Status(500)

        async def law() -> None:
            handlers = {"/write": write, "/fail": fail, "/read": read}
            async with self.site(handlers, save_on_error=keep) as site:
                browser = site.browser()
                await browser.get("/write")
                await browser.start("/fail").done()
                assert (await browser.get("/read")).body == (b"2" if keep else b"1")
                stranger = await site.browser().start("/fail").done()
                if not keep:
                    assert stranger.all("set-cookie") == []
                    assert site.count() == 1

        under_loop(law)()

    @pytest.mark.parametrize("how", ["500", "exception"])
    def test_a_failing_request_still_ends_its_session(self, how: str) -> None:
        """A10, B-34: what it destroyed stays destroyed, what it wrote besides is dropped."""

        async def fail(session: Session[Any]) -> Status:
            session.destroy()
            session["n"] = 9
            if how == "exception":
                raise LookupError("as planned")
            return Status(500)

        async def law() -> None:
            async with self.site({"/write": write, "/fail": fail, "/read": read}) as site:
                browser = site.browser()
                await browser.get("/write")
                before = browser.cookie
                await browser.start("/fail").done()
                assert site.count() == 0
                assert (await site.browser(before).get("/read")).body == b"None"

        under_loop(law)()

    # Streams

    @under_loop
    async def test_a_stream_commits_at_its_end_what_it_did_since(self) -> None:
        """A11: as operations, so that requests meanwhile keep their work."""
        halt = Halt()

        async def stream(session: Session[Any]) -> Status:
            session.get("n")
            return Status(body=_write_late(session, halt))

        async with self.site({"/write": write, "/stream": stream, "/read": read}) as site:
            browser = site.browser()
            await browser.get("/write")
            running = browser.start("/stream")
            await halt.reached()
            assert (await browser.get("/write")).body == b"2"
            halt.go()
            assert (await running.done()).body == b"firstlast"
            assert (await browser.get("/read")).body == b"3"

    @under_loop
    async def test_a_stream_that_fails_drops_what_it_did_since(self) -> None:
        """A10, A11: also when it fails with an error that could be a client that left."""

        async def failing(session: Session[Any]) -> AsyncIterator[bytes]:
            yield b"first"
            session.increment("n")
            raise FileNotFoundError("as planned")

        async def stream(session: Session[Any]) -> Status:
            session.get("n")
            return Status(body=failing(session))

        async with self.site({"/write": write, "/stream": stream, "/read": read}) as site:
            browser = site.browser()
            await browser.get("/write")
            await browser.start("/stream").done()
            assert (await browser.get("/read")).body == b"1"

    @pytest.mark.parametrize("spec_version", ["2.0", "2.4"])
    def test_a_stream_keeps_its_changes_when_the_client_leaves(self, spec_version: str) -> None:
        """A11: however the server tells of it."""

        async def law() -> None:
            halt = Halt()

            async def stream(session: Session[Any]) -> Status:
                session.get("n")
                return Status(body=_count_on(session, halt))

            async with self.site({"/write": write, "/stream": stream, "/read": read}) as site:
                if self.protocol == "asgi":
                    site.driver = ASGIDriver(site.app, site.trace, spec_version=spec_version)
                browser = site.browser()
                await browser.get("/write")
                running = browser.start("/stream")
                await halt.reached()
                running.leave()
                halt.go()
                await running.done()
                number = int((await browser.get("/read")).body)
                assert number >= 2

        under_loop(law)()

    @under_loop
    async def test_no_session_begins_after_the_first_byte(self) -> None:
        """A11: its cookie cannot be sent any more; the stream hears of it at the assignment."""
        raised: list[str] = []

        async def late(session: Session[Any]) -> AsyncIterator[bytes]:
            yield b"first"
            for change in (
                lambda: session.update(n=1),
                lambda: session.increment("n"),
                lambda: session.setdefault("n", 1),
                lambda: session.append("log", 1),
                lambda: session.add("tags", 1),
                lambda: session.flash("hello"),
            ):
                try:
                    change()
                except ResponseStarted as error:
                    raised.append(type(error).__name__)
            yield b"last"

        async def stream(session: Session[Any]) -> Status:
            return Status(body=late(session))

        async with self.site({"/stream": stream}) as site:
            assert (await site.browser().get("/stream")).body == b"firstlast"
            assert raised == 6 * ["ResponseStarted"]
            assert site.count() == 0

    @under_loop
    async def test_a_cancelled_handler_drops_its_changes(self) -> None:
        """A12: nothing was answered, so nothing is kept but what was committed explicitly."""
        if self.protocol == "wsgi":
            pytest.skip("a thread cannot be cancelled")
        halt = Halt()

        async def slow(session: Session[Any]) -> None:
            session["kept"] = True
            await session.acommit()
            session.increment("n")
            await halt.here()

        async def show(session: Session[Any]) -> Status:
            return Status(body=f"{session.get('n')} {session.get('kept')}".encode())

        async with self.site({"/write": write, "/slow": slow, "/show": show}) as site:
            browser = site.browser()
            await browser.get("/write")
            running = browser.start("/slow")
            await halt.reached()
            running.cancel()
            await running.done()
            assert (await browser.get("/show")).body == b"1 True"

    @under_loop
    async def test_a_client_that_leaves_before_the_answer_harms_nobody(self) -> None:
        """A12: the request ends like one with an answer that nobody reads, or like an exception."""
        halt = Halt()

        async def slow(session: Session[Any]) -> None:
            session.increment("n")
            await halt.here()

        async with self.site({"/write": write, "/slow": slow, "/read": read}) as site:
            browser = site.browser()
            await browser.get("/write")
            running = browser.start("/slow")
            await halt.reached()
            running.leave()
            halt.go()
            await running.done()
            assert running.reply.status in (0, 200)
            assert (await browser.get("/read")).body in (b"1", b"2")
            assert (await browser.get("/write")).status == 200


async def _write_late(session: Session[Any], halt: Halt) -> AsyncIterator[bytes]:
    yield b"first"
    await halt.here()
    session.increment("n")
    yield b"last"


async def _count_on(session: Session[Any], halt: Halt) -> AsyncIterator[bytes]:
    yield b"first"
    for _ in range(5):  # a server without 2.4 lets an application that does not listen go on
        session.increment("n")
        yield b"x"
        await halt.here()
