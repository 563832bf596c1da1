"""The laws of requests that say what is sent, and when: A1 to A5, A13, A14 and A19.

What lives here: one request at a time. What must not: sessions that end (``appends.py``), failures
(``apptroubles.py``) and requests that overlap (``appoverlap.py``).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from sojourn.session import Session
from sojourn.testing.appkit import AppKit
from sojourn.testing.running import under_loop
from sojourn.testing.site import Halt, Site, Status


async def ignore(session: Session[Any]) -> None:
    """Do not look at the session."""


async def look(session: Session[Any]) -> None:
    """Only look."""
    session.get("n")


async def write(session: Session[Any]) -> Status:
    """Count one up, and answer with the number."""
    return Status(body=str(session.increment("n")).encode())


async def read(session: Session[Any]) -> Status:
    """Status with the number."""
    return Status(body=str(session.get("n")).encode())


async def destroy(session: Session[Any]) -> None:
    """End the session."""
    session.destroy()


LOOKS: Mapping[str, Callable[[Session[Any]], object]] = {
    "get": lambda session: session.get("n"),
    "item": lambda session: session["n"],
    "in": lambda session: "n" in session,
    "not in": lambda session: "absent" not in session,
    "len": len,
    "bool": bool,
    "iteration": list,
    "keys": lambda session: list(session.keys()),
    "values": lambda session: list(session.values()),
    "items": lambda session: list(session.items()),
    "copy": dict,
    "repr": repr,
    "state": lambda session: session.state.n,
    "id": lambda session: session.id,
    "new": lambda session: session.new,
    "created_at": lambda session: session.created_at,
    "seen_at": lambda session: session.seen_at,
    "expires_at": lambda session: session.expires_at,
    "labels": lambda session: dict(session.labels),
    "flashes": lambda session: session.flashes(),
}
"""Every way of looking at a session; none of them changes it."""


class RequestLaws(AppKit):
    """What is sent, and when."""

    # What it costs, and in which order

    @under_loop
    async def test_who_has_no_cookie_and_writes_nothing_costs_nothing(self) -> None:
        """A1: no store call, no Set-Cookie; Vary only where the session was looked at."""
        async with self.site({"/ignore": ignore, "/look": look}) as site:
            ignored = await site.browser().get("/ignore")
            assert ignored.all("set-cookie") == []
            assert ignored.get("vary") is None
            assert ignored.get("cache-control") is None
            looked = await site.browser().get("/look")
            assert looked.all("set-cookie") == []
            assert looked.get("vary") == "Cookie"
            assert site.traced() == 2 * ["start", "body", "end"]

    @under_loop
    async def test_a_thousand_anonymous_requests_leave_no_record(self) -> None:
        """A1, B-53, ASVS 7.6.2: whoever only reads leaves nothing behind."""
        async with self.site({"/look": look}) as site:
            for _ in range(1000):
                await site.browser().get("/look")
            assert site.count() == 0

    @under_loop
    async def test_the_first_write_creates_before_the_first_byte(self) -> None:
        """A2: one create, then the answer, and the cookie is in it."""
        async with self.site({"/write": write}) as site:
            browser = site.browser()
            reply = await browser.get("/write")
            assert site.traced() == ["create", "start", "body", "end"]
            assert len(reply.all("set-cookie")) == 1
            assert (await browser.get("/write")).body == b"2"
            assert site.count() == 1

    @under_loop
    async def test_reading_is_one_load(self) -> None:
        """A3: no write and no Set-Cookie."""
        async with self.site({"/write": write, "/read": read}) as site:
            browser = site.browser()
            await browser.get("/write")
            site.traced()
            for _ in range(2):
                reply = await browser.get("/read")
                assert reply.body == b"1"
                assert reply.all("set-cookie") == []
                assert site.traced() == ["load", "start", "body", "end"]

    @under_loop
    async def test_a_due_touch_is_all_that_a_read_may_write(self) -> None:
        """A3: once the touch interval is over, and not again before it is over once more."""
        async with self.site({"/write": write, "/read": read}, touch_interval="1 minute") as site:
            browser = site.browser()
            await browser.get("/write")
            site.clock.advance("59 seconds")
            site.traced()
            await browser.get("/read")
            assert site.traced() == ["load", "start", "body", "end"]
            site.clock.advance("1 second")
            reply = await browser.get("/read")
            assert sorted(site.traced()) == ["body", "end", "load", "start", "touch"]
            assert reply.all("set-cookie") == []
            await browser.get("/read")
            assert site.traced() == ["load", "start", "body", "end"]

    @under_loop
    async def test_writing_is_one_load_and_one_save(self) -> None:
        """A4, S18: the save comes before the first byte; there is no Set-Cookie."""
        async with self.site({"/write": write}) as site:
            browser = site.browser()
            await browser.get("/write")
            site.traced()
            reply = await browser.get("/write")
            assert site.traced() == ["load", "save", "start", "body", "end"]
            assert reply.all("set-cookie") == []

    @under_loop
    async def test_whoever_has_the_first_byte_finds_its_write(self) -> None:
        """A5: while the rest of the answer is under way, in another process."""
        halt = Halt()

        async def stream(session: Session[Any]) -> Status:
            session.increment("n")
            return Status(body=_two_parts(halt))

        async with self.site({"/write": write, "/stream": stream, "/read": read}) as site:
            browser = site.browser()
            await browser.get("/write")
            running = browser.start("/stream")
            await halt.reached()
            assert running.reply.body == b"first"
            async with site.another() as elsewhere:
                there = elsewhere.browser(browser.cookie)
                assert (await there.get("/read")).body == b"2"
            halt.go()
            assert (await running.done()).body == b"firstsecond"

    # Caches

    @pytest.mark.parametrize("way", LOOKS)
    def test_every_look_is_told_to_caches(self, way: str) -> None:
        """A13, B-2, B-3: whatever a handler looks at makes the answer one for this visitor."""

        async def handler(session: Session[Any]) -> None:
            LOOKS[way](session)

        async def law() -> None:
            async with self.site({"/write": write, "/look": handler}) as site:
                browser = site.browser()
                await browser.get("/write")
                reply = await browser.get("/look")
                assert reply.status == 200
                assert reply.get("vary") == "Cookie"
                assert reply.get("cache-control") == "private"
                assert reply.all("set-cookie") == []

        under_loop(law)()

    @under_loop
    async def test_an_answer_that_sets_the_cookie_is_never_stored(self) -> None:
        """A13, B-4, B-6, B-8: private and no-store beside Set-Cookie, whatever the handler said."""

        def saying(control: str) -> Any:
            async def handler(session: Session[Any]) -> Status:
                session.destroy()
                session["n"] = 1
                return Status(headers={"cache-control": control})

            return handler

        handlers = {
            "/write": write,
            "/destroy": destroy,
            "/public": saying("public, max-age=60"),
            "/shared": saying("private, s-maxage=60"),
        }
        async with self.site(handlers) as site:
            browser = site.browser()
            for path in ("/write", "/destroy", "/public", "/shared"):
                reply = await browser.get(path)
                assert len(reply.all("set-cookie")) == 1
                assert reply.get("cache-control") == "private, no-store"
                assert reply.get("vary") == "Cookie"

    @under_loop
    async def test_what_the_handler_said_to_caches_stays(self) -> None:
        """A13, B-5: its Cache-Control stands where no cookie is sent; Vary is added to."""

        def saying(**headers: str) -> Any:
            async def handler(session: Session[Any]) -> Status:
                session.get("n")
                return Status(headers={k.replace("_", "-"): v for k, v in headers.items()})

            return handler

        handlers = {
            "/own": saying(cache_control="max-age=60", vary="Accept-Encoding"),
            "/star": saying(vary="*"),
            "/cookie": saying(vary="accept, cookie"),
        }
        async with self.site(handlers) as site:
            own = await site.browser().get("/own")
            assert own.get("cache-control") == "max-age=60"
            assert own.get("vary") == "Accept-Encoding, Cookie"
            assert (await site.browser().get("/star")).get("vary") == "*"
            assert (await site.browser().get("/cookie")).get("vary") == "accept, cookie"

    @pytest.mark.parametrize("kind", ["304", "HEAD", "404", "500", "stream", "error"])
    def test_every_kind_of_answer_is_told_to_caches(self, kind: str) -> None:
        """A13, A.6: not modified, HEAD, errors and streams too."""

        async def handler(session: Session[Any]) -> Status:
            session.get("n")
            if kind == "error":
                raise LookupError("as planned")
            if kind == "stream":
                halt = Halt()
                halt.go()
                return Status(body=_two_parts(halt))
            status = int(kind) if kind.isdigit() else 200
            return Status(status, body=b"" if status == 304 else b"ok")

        async def law() -> None:
            if kind == "error" and not self.answers_errors:
                pytest.skip("the server answers exceptions, and never saw the session")
            async with self.site({"/page": handler}) as site:
                method = "HEAD" if kind == "HEAD" else "GET"
                reply = await site.browser().start("/page", method=method).done()
                assert reply.status == {"304": 304, "404": 404, "500": 500, "error": 500}.get(
                    kind, 200
                )
                assert reply.get("vary") == "Cookie"
                assert reply.get("cache-control") == "private"

        under_loop(law)()

    @under_loop
    async def test_a_stream_that_looks_later_is_told_to_caches(self) -> None:
        """A13, B-7: its headers leave first; only a visitor with a session has anything to hide."""

        async def stream(session: Session[Any]) -> Status:
            return Status(body=_look_late(session))

        async def login(session: Session[Any]) -> None:
            session.login("ada")

        async with self.site({"/write": write, "/login": login, "/stream": stream}) as site:
            browser = site.browser()
            reply = await browser.get("/stream")
            assert (reply.body, reply.get("vary")) == (b"userNone", None)
            await browser.get("/write")
            reply = await browser.get("/stream")
            assert (reply.get("vary"), reply.get("cache-control")) == ("Cookie", "private")
            await browser.get("/login")
            reply = await browser.get("/stream")
            assert reply.body == b"userada"
            assert (reply.get("vary"), reply.get("cache-control")) == (
                "Cookie",
                "private, no-store",
            )

    # The cookie

    @pytest.mark.parametrize(
        ("options", "scheme", "start", "attributes"),
        [
            ({}, "https", "__Host-sid=", {"path=/", "secure", "httponly", "samesite=lax"}),
            ({}, "http", "sid=", {"path=/", "httponly", "samesite=lax"}),
            (
                {"cookie": "shop", "path": "/shop", "domain": "example.com", "same_site": "Strict"},
                "https",
                "shop=",
                {"path=/shop", "domain=example.com", "secure", "httponly", "samesite=strict"},
            ),
            (
                {"same_site": "None", "partitioned": True, "persistent": True},
                "https",
                "__Host-sid=",
                {
                    *("path=/", "secure", "httponly", "samesite=none", "partitioned"),
                    "max-age=43200",
                },
            ),
            ({"secure": False}, "http", "sid=", {"path=/", "httponly", "samesite=lax"}),
            (
                {"secure": True},
                "http",
                "__Host-sid=",
                {"path=/", "secure", "httponly", "samesite=lax"},
            ),
        ],
        ids=["https", "http", "shared", "embedded", "secure=False", "secure=True"],
    )  # fmt: skip
    def test_the_cookie_is_as_configured(
        self, options: dict[str, Any], scheme: str, start: str, attributes: set[str]
    ) -> None:
        """A14, ASVS 3.3.1-3.3.5, B-44, B-60: flags, name and size; its deletion is its twin."""

        async def law() -> None:
            async with self.site({"/shop/write": write, "/shop/end": destroy}, **options) as site:
                browser = site.browser()
                [setting] = (await browser.get("/shop/write", scheme=scheme)).all("set-cookie")
                value, *found = setting.split("; ")
                assert value.startswith(start)
                assert len(value) <= 4096
                assert {attribute.lower() for attribute in found} == attributes
                [deleting] = (await browser.get("/shop/end", scheme=scheme)).all("set-cookie")
                empty, *found = deleting.split("; ")
                assert empty == start
                past = {"max-age=0", "expires=thu, 01 jan 1970 00:00:00 gmt"}
                gone = {attribute.lower() for attribute in found}
                assert gone == (attributes - {"max-age=43200"}) | past
                assert browser.cookie is None

        under_loop(law)()

    @under_loop
    async def test_a_hostile_cookie_header_is_cheap(self) -> None:
        """A19, B-57: 64 KiB of it cost less than 5 ms, and twice as much about twice that."""
        size = 65_536
        hostile = {
            "pairs": "a=b; " * (size // 5),
            "semicolons": ";" * size,
            "spaces": "sid=" + " " * (size - 8) + "x=1",
            "names": "; ".join(["sid=" + "A" * 66] * (size // 72)),
            "quotes": 'sid="' + "\\" * (size - 6),
            "equals": "=" * size,
        }
        async with self.site({"/ignore": ignore}) as site, self.site({"/ignore": ignore}) as bare:
            # Frameworks read the header too: what they need without us does not count.
            self.uninstall(bare.app, bare.sessions)
            for name, header in hostile.items():
                once = await _extra_cost(site, bare, header)
                assert once < 0.005, name
                twice = await _extra_cost(site, bare, f"{header};{header}")
                assert twice < 6 * max(once, 0.001), name
            assert "load" not in site.traced()


async def _extra_cost(site: Site, bare: Site, cookies: str) -> float:
    """Return the seconds of CPU that a request with these cookies costs beyond a bare one."""
    best = {site: float("inf"), bare: float("inf")}
    for _ in range(7):
        for place in (site, bare):
            began = time.process_time()
            await place.browser(cookies).get("/ignore")
            best[place] = min(best[place], time.process_time() - began)
    return best[site] - best[bare]


async def _two_parts(halt: Halt) -> AsyncIterator[bytes]:
    yield b"first"
    await halt.here()
    yield b"second"


async def _look_late(session: Session[Any]) -> AsyncIterator[bytes]:
    yield b"user"
    yield str(session.user).encode()
