"""The laws of requests over PostgreSQL, and responses during its outage.

The adapters are those of ``tests/contract/test_applications.py``.
``tests/frameworks/test_laws_over_stores.py`` has every framework.
"""

import contextlib

import pytest

from sojourn.testing.app_suite.handlers import login, logout, look, read, write
from sojourn.testing.decorators import under_loop
from tests.contract import test_applications as adapters
from tests.integration.postgresql import PgBouncer, Postgres
from tests.integration.postgresql_binaries import INSTALLED, NEEDS_INSTALLED, NEEDS_PGBOUNCER
from tests.support.application_stores import OverPostgres

pytestmark = pytest.mark.slow

HANDLERS = {"/write": write, "/read": read, "/look": look, "/login": login, "/logout": logout}


class OnServer(OverPostgres):
    """Responses of an application during an outage of its server, in addition to the laws."""

    def outage(self, kind):
        return getattr(self.postgresql, kind)()

    @pytest.mark.parametrize("outage", ["refusing", "hanging"])
    def test_requests_are_503_until_the_server_is_available_again(self, outage):
        """A15, S12: no cookie and no session is lost; the application needs no restart."""
        self.timeout = 0.5

        @under_loop
        async def law():
            async with self.serve(HANDLERS) as site:
                browser, anonymous = site.browser(), site.browser()
                await browser.get("/write")
                cookie = browser.cookie
                with self.outage(outage):
                    for visitor, path in (
                        (browser, "/read"),
                        (browser, "/write"),
                        (anonymous, "/write"),
                        (anonymous, "/login"),
                    ):
                        reply = await visitor.get(path)
                        assert reply.status == 503
                        assert int(reply.get("retry-after")) > 0
                        assert reply.get("cache-control") == "no-store"
                        assert reply.all("set-cookie") == []
                    assert (await anonymous.get("/look")).status == 200
                assert browser.cookie == cookie
                assert (await browser.get("/read")).body in {b"1", b"2"}
                assert (await anonymous.get("/write")).body == b"1"

        law()

    def test_page_with_anonymous_is_served_during_an_outage(self):
        """A15: with on_store_failure="anonymous" the session is empty and the cookie is kept."""

        @under_loop
        async def law():
            async with self.serve(HANDLERS, on_store_failure="anonymous") as site:
                browser = site.browser()
                await browser.get("/write")
                with self.outage("refusing"):
                    reply = await browser.get("/read")
                    assert (reply.status, reply.body) == (200, b"None")
                    assert reply.all("set-cookie") == []
                    assert (await browser.get("/write")).all("set-cookie") == []
                assert (await browser.get("/read")).body == b"1"

        law()


class TestStarlette(OnServer, adapters.TestStarlette):
    """A1 to A24 through Starlette."""


class TestBareASGI(OnServer, adapters.TestBareASGI):
    """A1 to A24 through an ASGI callable."""


class TestBareWSGI(OnServer, adapters.TestBareWSGI):
    """A1 to A24 through a WSGI callable, without an event loop."""


@pytest.fixture(scope="module")
def shared_installed():
    server = Postgres(programs=INSTALLED)
    server.start()
    yield server
    server.remove()


class OnInstalled(OnServer):
    """On the system's server."""

    @pytest.fixture
    def postgresql(self, shared_installed):
        shared_installed.reset()
        return shared_installed


@NEEDS_INSTALLED
class TestStarletteOnInstalled(OnInstalled, adapters.TestStarlette):
    """A1 to A24 on the system's PostgreSQL."""


@NEEDS_INSTALLED
class TestBareWSGIOnInstalled(OnInstalled, adapters.TestBareWSGI):
    """A1 to A24 on the system's PostgreSQL, without an event loop."""


@pytest.fixture(scope="module")
def shared_bouncer(shared_postgresql):
    bouncer = PgBouncer(shared_postgresql)
    bouncer.start()
    yield bouncer
    bouncer.stop()


class BehindPgBouncer(OnServer):
    """In transaction mode: each transaction may use another connection to the server."""

    @pytest.fixture(autouse=True)
    def bouncer(self, shared_bouncer):
        self.bouncer = shared_bouncer

    @contextlib.contextmanager
    def outage(self, kind):
        with super().outage(kind):
            yield
        self.bouncer.wait_until_connected()

    def store_url(self):
        return f"{self.bouncer.url}?prepare_threshold=none&listen_url={self.postgresql.url}"


@NEEDS_PGBOUNCER
class TestStarletteBehindPgBouncer(BehindPgBouncer, adapters.TestStarlette):
    """A1 to A24 behind PgBouncer."""


@NEEDS_PGBOUNCER
class TestBareWSGIBehindPgBouncer(BehindPgBouncer, adapters.TestBareWSGI):
    """A1 to A24 behind PgBouncer, without an event loop."""
