"""The laws of requests with the sessions in a real server, and what a visitor sees when it fails.

The adapters are those of ``tests/contract/test_applications.py``; only the store is another one.
"""

import pytest
import redis

from sojourn.testing.app_suite.handlers import login, logout, look, read, rotate, write
from sojourn.testing.decorators import under_loop
from tests.contract import test_applications as adapters
from tests.integration.valkey import Valkey, full
from tests.support.application_stores import OverValkey


async def write_and_commit(session):
    """Commit explicitly, as a long job does."""
    session.increment("n")
    await session.acommit()


HANDLERS = {"/write": write, "/read": read, "/look": look}
FULL = {
    "/write": write,
    "/read": read,
    "/login": login,
    "/logout": logout,
    "/rotate": rotate,
    "/commit": write_and_commit,
}

#: Keeps every answered write through its death.
LASTING = ("--appendonly", "yes", "--appendfsync", "always")


class OnServer(OverValkey):
    """What an application does when its server fails, beside the laws."""

    writes = ("/write", "/login", "/commit")

    @pytest.mark.parametrize("outage", ["refusing", "hanging"])
    def test_visitors_meet_503_until_the_server_answers_again(self, outage, tmp_path):
        """A15, S12: no cookie and no session is lost, and nothing needs a restart."""
        self.valkey, self.timeout = Valkey(tmp_path, *LASTING), 0.5
        self.valkey.start()

        async def law():
            async with self.serve(HANDLERS) as site:
                browser, anonymous = site.browser(), site.browser()
                await browser.get("/write")
                cookie = browser.cookie
                with getattr(self.valkey, outage)():
                    for visitor, path in (
                        (browser, "/read"),
                        (browser, "/write"),
                        (anonymous, "/write"),
                    ):
                        reply = await visitor.get(path)
                        assert reply.status == 503
                        assert int(reply.get("retry-after")) > 0
                        assert reply.get("cache-control") == "no-store"
                        assert reply.all("set-cookie") == []
                    assert (await anonymous.get("/look")).status == 200
                assert browser.cookie == cookie
                assert (await browser.get("/read")).body == b"1"
                assert (await anonymous.get("/write")).body == b"1"
                assert site.count() == 2

        self._over_it(law)

    def test_a_page_that_can_do_without_is_served_while_the_server_is_away(self, tmp_path):
        """A15: on_store_failure="anonymous": an empty session, and the cookie stays."""
        self.valkey, self.timeout = Valkey(tmp_path, *LASTING), 2.0
        self.valkey.start()

        async def law():
            async with self.serve(HANDLERS, on_store_failure="anonymous") as site:
                browser = site.browser()
                await browser.get("/write")
                with self.valkey.refusing():
                    reply = await browser.get("/read")
                    assert (reply.status, reply.body) == (200, b"None")
                    assert reply.all("set-cookie") == []
                    assert (await browser.get("/write")).all("set-cookie") == []
                assert (await browser.get("/read")).body == b"1"

        self._over_it(law)

    def test_a_full_server_is_503_on_every_write(self):
        """A15, A23, S12: with Retry-After; reading and logging out go on, and no cookie is lost."""

        @under_loop
        async def law():
            async with self.serve(FULL) as site:
                browser, other, anonymous = site.browser(), site.browser(), site.browser()
                await browser.get("/write")
                await other.get("/login")
                cookie = browser.cookie
                with full(self.admin):
                    for visitor in (browser, anonymous):
                        for path in self.writes:
                            reply = await visitor.get(path)
                            assert (path, reply.status) == (path, 503)
                            assert int(reply.get("retry-after")) > 0
                            assert reply.all("set-cookie") == []
                    assert (await browser.get("/rotate")).status == 503
                    assert (await browser.get("/read")).body == b"1"
                    assert (await other.get("/logout")).status == 200
                assert (browser.cookie, other.cookie) == (cookie, None)
                assert (await browser.get("/write")).body == b"2"

        law()

    def _over_it(self, law):
        self.admin.close()
        self.admin = redis.Redis.from_url(self.valkey.url)
        try:
            under_loop(law)()
        finally:
            self.valkey.stop()


class TestStarlette(OnServer, adapters.TestStarlette):
    """A1 to A24 through Starlette."""

    writes = ("/write", "/login")


class TestBareASGI(OnServer, adapters.TestBareASGI):
    """A1 to A24 through an ASGI callable."""


class TestBareWSGI(OnServer, adapters.TestBareWSGI):
    """A1 to A24 through a WSGI callable."""
