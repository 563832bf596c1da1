"""Changes by a task or thread that runs after its request, in every framework (laws A11, A24)."""

import asyncio
import gc
import inspect
import logging
import threading
from importlib import import_module

import pytest

from sojourn.testing import HandlerResponse, SocketDriver
from sojourn.testing.app_suite.drivers import ASGIDriver, Request, WSGIDriver
from tests.frameworks.test_contexts import NAMES, OWN_SERVERS

pytestmark = pytest.mark.usefixtures("small_heap")

LOST = "was changed after its request had ended"


class Detached:
    """A handler that starts a task or thread that changes the session after the response."""

    def __init__(self, *, commits):
        self._commits = commits
        self.released = None
        self.work = None

    async def __call__(self, session):
        session.setdefault("kept", True)
        # The proxies of Flask and Quart are bound to the request.
        own = getattr(session, "_get_current_object", lambda: session)()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.released = threading.Event()
            self.work = threading.Thread(target=self._change, args=[own])
            self.work.start()
        else:
            self.released = asyncio.Event()
            self.work = asyncio.create_task(self._achange(own))

    def _change(self, session):
        self.released.wait(10)
        session["late"] = 1
        if self._commits:
            session.commit()

    async def _achange(self, session):
        await self.released.wait()
        session["late"] = 1
        if self._commits:
            await session.acommit()

    async def finish(self):
        """Wait until the task or thread finished."""
        self.released.set()
        if isinstance(self.work, threading.Thread):
            await asyncio.to_thread(self.work.join)
        else:
            await self.work
        self.work = None


class Messages(logging.Handler):
    """Records messages of sojourn's logger; frameworks replace the handlers of the root logger."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.found = []

    def emit(self, record):
        self.found.append(record.getMessage())


@pytest.fixture
def messages():
    handler = Messages()
    logger = logging.getLogger("sojourn")
    logger.addHandler(handler)
    yield handler.found
    logger.removeHandler(handler)


async def late(session):
    return HandlerResponse(body=f"{session.get('kept')} {session.get('late')}".encode())


def driver_of(name, module, app):
    if name in OWN_SERVERS:
        return SocketDriver(app, [], module.running)
    asynchronous = inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(
        type(app).__call__
    )
    return (ASGIDriver if asynchronous else WSGIDriver)(app, [])


@pytest.mark.parametrize("name", NAMES)
def test_changes_after_the_response_are_committed_or_reported(name, messages):
    """A24: only the task can commit them; otherwise a log line names the session."""
    module = import_module(f"tests.frameworks.apps.{name}_app")
    lost, committed = Detached(commits=False), Detached(commits=True)
    handlers = {"/lost": lost, "/committed": committed, "/late": late}
    app, sessions = module.build(handlers, store="memory://")

    async def run():
        driver = driver_of(name, module, app)
        bodies = []
        for path, detached in (("/lost", lost), ("/committed", committed)):
            reply = await driver.start(Request(path=path)).done()
            cookie = reply.get("set-cookie").partition(";")[0]
            await detached.finish()
            reply = await driver.start(Request(path="/late", cookie=cookie)).done()
            bodies.append(reply.body)
        closing = driver.close()
        if inspect.isawaitable(closing):
            await closing
        return bodies

    try:
        bodies = asyncio.run(run())
        gc.collect()
    finally:
        sessions.close()
    reports = [each for each in messages if LOST in each]
    assert (bodies, len(reports)) == ([b"True None", b"True 1"], 1)
    assert "acommit()" in reports[0]
