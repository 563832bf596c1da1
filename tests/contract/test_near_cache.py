"""A1 to A24 with ``near_cache``, over a store with broadcast."""

import pytest

from sojourn.store import SupportsBroadcast
from sojourn.testing.app_suite.handlers import HANDLERS
from sojourn.testing.decorators import under_loop
from tests.contract import test_applications as applications
from tests.support.broadcast_store import BroadcastingStore, FaultyBroadcastingStore, confirm


class WithNearCache:
    """Serves each application with a near cache whose subscription is confirmed.

    Laws A3 and A4 are weakened: a read may make no load, and a write sends a cookie. The tests that
    count loads or forbid the cookie are omitted; tests/unit/web/test_near_cache.py tests N1 and N3.
    Every other test applies.
    """

    test_a_read_is_one_load = None
    test_a_read_touches_once_per_touch_interval = None
    test_a_write_is_one_load_and_one_save = None
    test_clear_without_a_login_keeps_the_record_and_the_ticket = None
    test_clear_without_a_login_keeps_the_ticket = None
    # Responses with the same new ticket also send the cookie of N3 if they wrote.
    test_parallel_requests_rotate_once = None

    @under_loop
    async def test_reads_are_served_from_memory(self):
        """N1: only the first read makes a load."""
        async with self.serve(HANDLERS) as app:
            browser = app.browser()
            await browser.get("/write")
            app.take_trace()
            for _ in range(3):
                assert (await browser.get("/read")).body == b"1"
            assert [call for call in app.take_trace() if call == "load"] == ["load"]
            assert app.sessions.engine.context.near_cache.hits == 2

    @under_loop
    async def test_a_write_is_read_in_another_process(self):
        """N3, A5: by the cookie of the response."""
        async with self.serve(HANDLERS) as app, app.another() as other:
            confirm(other.sessions)
            browser = app.browser()
            await browser.get("/write")
            elsewhere = other.browser(browser.cookie)
            assert (await elsewhere.get("/read")).body == b"1"
            await browser.get("/write")
            assert browser.written_cookie is not None
            assert (await elsewhere.get("/read")).body == b"1"
            elsewhere.written_cookie = browser.written_cookie
            assert (await elsewhere.get("/read")).body == b"2"

    def make_store(self):
        return BroadcastingStore()

    def serve(self, handlers, *, skew=None, **options):
        store = options.setdefault("store", FaultyBroadcastingStore(self.make_store()))
        if isinstance(store, SupportsBroadcast):  # some tests pass their own store
            options["near_cache"] = "10 seconds"
        served = super().serve(handlers, skew=skew, **options)
        if "near_cache" in options:
            confirm(served.sessions)
        return served


class TestStarlette(WithNearCache, applications.TestStarlette):
    """A1 to A24 through Starlette."""


@pytest.mark.slow
class TestBareASGI(WithNearCache, applications.TestBareASGI):
    """A1 to A24 through an ASGI callable."""


@pytest.mark.slow
class TestBareWSGI(WithNearCache, applications.TestBareWSGI):
    """A1 to A24 through a WSGI callable."""
