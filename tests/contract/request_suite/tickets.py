"""Invalid tickets: law A8."""

from typing import Any

import msgspec

from sojourn.events import Rejected
from sojourn.session import Session
from sojourn.testing import HandlerResponse
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.handlers import HANDLERS
from sojourn.testing.decorators import under_loop


class TicketTests(AppTests):
    """Tests of invalid tickets."""

    @under_loop
    async def test_an_invalid_ticket_never_reaches_the_store(self) -> None:
        """A8, B-13, B-14, B-22, B-27, B-29, B-31: forged, malformed, or of another realm."""
        async with self.serve(HANDLERS) as app:
            browser = app.browser()
            await browser.get("/write")
            assert browser.cookie is not None
            name, _, good = browser.cookie.partition("=")
            async with app.another(realm="other") as elsewhere:
                foreign = elsewhere.browser()
                await foreign.get("/write")
            flipped = ("B" if good[5] == "A" else "A").join((good[:5], good[6:]))
            invalid = [
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
            app.take_trace()
            for cookie in invalid:
                reply = await app.browser(cookie).get("/read")
                refused = self.protocol == "own" and reply.status == 400  # by the server
                assert refused or reply.body == b"None", cookie
                assert "load" not in app.take_trace(), cookie
            same_twice = f"{name}={good}; {name}={good}"
            assert (await app.browser(same_twice).get("/read")).body == b"1"

    @under_loop
    async def test_an_unknown_id_is_never_adopted(self) -> None:
        """A8, B-22, B-23, B-24: no session gets the ID of a valid ticket without a record."""

        async def create(session: Session[Any]) -> HandlerResponse:
            session["n"] = 1
            return HandlerResponse(body=session.id.encode())

        async with self.serve({**HANDLERS, "/create": create}) as app:
            rejected: list[Rejected] = []
            app.sessions.on(Rejected, rejected.append)
            browser = app.browser()
            first = (await browser.get("/create")).body.decode()
            before = browser.cookie
            await browser.get("/destroy")
            browser.cookie = before
            second = (await browser.get("/create")).body.decode()
            assert second != first
            assert browser.cookie != before
            assert [(event.session_id, event.reason) for event in rejected] == [(first, "unknown")]

    @under_loop
    async def test_a_ticket_with_another_verifier_is_invalid(self) -> None:
        """A8: neither the session ID nor the contents of the store grant access."""
        async with self.serve(HANDLERS) as app:
            browser = app.browser()
            await browser.get("/write")
            [record] = app.stored()
            other = msgspec.structs.replace(record, version=2, verifier=bytes(32))
            await app.store.store.save(other, 1)
            assert (await browser.get("/read")).body == b"None"
