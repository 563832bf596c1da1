"""The laws of requests (A) with the sessions in a real server, and responses when it fails.

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

#: Keeps every acknowledged write when it is killed.
LASTING = ("--appendonly", "yes", "--appendfsync", "always")


class OnServer(OverValkey):
    """Responses of an application when its server fails, in addition to the laws."""

    writes = ("/write", "/login", "/commit")

    @pytest.mark.parametrize("outage", ["refusing", "hanging"])
    def test_while_the_server_fails_responses_are_503_and_no_session_is_lost(
        self, outage, tmp_path
    ):
        """A15, S12: no cookie is lost, and no restart is necessary."""
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

        self._over_real_server(law)

    def test_with_anonymous_pages_are_served_while_the_server_fails(self, tmp_path):
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

        self._over_real_server(law)

    def test_with_a_full_server_writes_are_503_and_reads_succeed(self):
        """A15, A23, S12: with Retry-After; logging out works, and no cookie is lost."""

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

    def _over_real_server(self, law):
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
