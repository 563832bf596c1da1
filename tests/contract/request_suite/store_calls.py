"""Store calls that the core decides: laws A1, A3 and A15. AppSuite tests the others."""

from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.handlers import HANDLERS
from sojourn.testing.decorators import under_loop


class StoreCallTests(AppTests):
    """Tests of the calls of a store."""

    @under_loop
    async def test_a_thousand_anonymous_requests_create_no_record(self) -> None:
        """A1, B-53, ASVS 7.6.2: reading an absent session does not create it."""
        async with self.serve(HANDLERS) as app:
            for _ in range(1000):
                await app.browser().get("/look")
            assert app.count() == 0

    @under_loop
    async def test_a_read_touches_once_per_touch_interval(self) -> None:
        """A3: the touch is the only write of a read."""
        async with self.serve(HANDLERS, touch_interval="1 minute") as app:
            browser = app.browser()
            await browser.get("/write")
            app.clock.advance("59 seconds")
            app.take_trace()
            await browser.get("/read")
            assert app.take_trace() == ["load", "start", "body", "end"]
            app.clock.advance("1 second")
            reply = await browser.get("/read")
            assert sorted(app.take_trace()) == ["body", "end", "load", "start", "touch"]
            assert reply.all("set-cookie") == []
            await browser.get("/read")
            assert app.take_trace() == ["load", "start", "body", "end"]

    @under_loop
    async def test_a_save_whose_response_is_lost_takes_effect_once(self) -> None:
        """A15: the response is 503, and the next request reads the new value."""
        async with self.serve(HANDLERS) as app:
            browser = app.browser()
            await browser.get("/write")
            app.store.fail("save", after=True, times=1)
            assert (await browser.get("/write")).status == 503
            assert (await browser.get("/read")).body == b"2"
            assert (await browser.get("/write")).body == b"3"
