"""A16: 200 interleaved requests in one process never see each other's session.

For every application module in ``tests/frameworks/apps``: in tasks for ASGI, in threads for WSGI.
"""

import asyncio
import time
from importlib import import_module
from inspect import iscoroutinefunction
from pathlib import Path

import pytest

from sojourn.testing import HandlerResponse
from sojourn.testing.app_suite.drivers import ASGIDriver, Request, WSGIDriver

#: The frameworks that have a server of their own are tested in ``test_servers.py``.
OWN_SERVERS = {"aiohttp", "sanic", "tornado"}
VISITORS = 20
REQUESTS = 200

NAMES = sorted(
    path.name.removesuffix("_app.py") for path in (Path(__file__).parent / "apps").glob("*_app.py")
)


async def own(session):
    """Respond with the visitor's name, read before and after other requests ran."""
    name = session.setdefault("name", session.id)
    for _ in range(3):
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            time.sleep(0.0005)  # noqa: ASYNC251 - another thread runs
        else:
            await asyncio.sleep(0)
        if session["name"] != name:
            name = "changed"
    return HandlerResponse(body=f"{name} {session['name']}".encode())


class Browser:
    """A visitor with a cookie."""

    def __init__(self, driver):
        self._driver = driver
        self._cookie = None

    async def get(self):
        reply = await self._driver.start(Request(path="/own", cookie=self._cookie)).done()
        assert reply.status == 200, reply
        self._cookie = (reply.get("set-cookie") or self._cookie or "").partition(";")[0]
        return reply.body


@pytest.mark.parametrize("name", sorted(set(NAMES) - OWN_SERVERS))
def test_interleaved_requests_see_their_own_session(name):
    """A16."""
    module = import_module(f"tests.frameworks.apps.{name}_app")
    app, sessions = module.build({"/own": own}, store="memory://")
    asynchronous = iscoroutinefunction(app) or iscoroutinefunction(type(app).__call__)
    driver = (ASGIDriver if asynchronous else WSGIDriver)(app, [])

    async def run():
        browsers = [Browser(driver) for _ in range(VISITORS)]
        names = [await browser.get() for browser in browsers]
        assert len(set(names)) == VISITORS
        rounds = REQUESTS // VISITORS
        calls = [browser.get() for _ in range(rounds) for browser in browsers]
        assert await asyncio.gather(*calls) == names * rounds

    try:
        asyncio.run(run())
    finally:
        driver.close()
        sessions.close()
