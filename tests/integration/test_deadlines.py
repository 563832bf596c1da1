"""The deadline of parallel commits of one session while the server hangs (S12, A21)."""

import asyncio
import sqlite3
import threading
import time

import pytest

from sojourn.errors import StoreUnavailable
from sojourn.sessions import Sessions
from tests.integration.valkey import Valkey, running

SECRET = b"deadlines-7Jm2Qw9vXc4Rk1-Zt"

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(Valkey(tmp_path_factory.mktemp("valkey"))) as server:
        yield server


def cookie_of(context):
    headers = {name.lower(): value for name, value in context.response_headers()}
    return headers["set-cookie"].partition(";")[0]


async def test_commits_of_eight_tasks_share_one_deadline(server):
    """They do not wait sequentially, and their changes are kept."""
    sessions = Sessions(store=server.url, secret=SECRET, store_timeout="1 second")
    async with sessions.open() as first:
        first.session["n"] = 0
    contexts = [sessions.open(cookies=cookie_of(first)) for _ in range(8)]
    for context in contexts:
        await context.__aenter__()
        context.session.increment("n")

    async def commit(context):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await context.session.acommit()
        return time.monotonic() - began

    with server.hanging():
        waited = await asyncio.gather(*map(commit, contexts))
    assert max(waited) < 1.9
    for context in contexts:
        await context.session.acommit()
        await context.__aexit__(None, None, None)
    async with sessions.open(cookies=cookie_of(first)) as last:
        assert last.session["n"] == 8
    sessions.close()
    await asyncio.sleep(0.01)


def test_commits_of_five_threads_share_one_deadline(server):
    """A record has the IDs of four commits, so the thread whose write was sent may commit last."""
    sessions = Sessions(store=server.url, secret=SECRET, store_timeout="1 second")
    with sessions.open() as first:
        first.session["n"] = 0
    contexts = [sessions.open(cookies=cookie_of(first)) for _ in range(5)]
    for context in contexts:
        context.__enter__()
        context.session.increment("n")
    waited = []

    def commit(context):
        began = time.monotonic()
        try:
            context.session.commit()
        except StoreUnavailable:
            waited.append(time.monotonic() - began)

    threads = [threading.Thread(target=commit, args=(context,)) for context in contexts]
    with server.hanging():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(waited) == 5
    assert max(waited) < 1.9
    for context in contexts:
        context.session.commit()
        context.__exit__(None, None, None)
    with sessions.open(cookies=cookie_of(first)) as last:
        assert last.session["n"] == 5
    sessions.close()


async def test_commit_that_times_out_on_a_locked_file_is_applied_once(tmp_path):
    """A21: with `asyncio.wait_for(session.acommit(), ...)`."""
    sessions = Sessions(store=f"sqlite:///{tmp_path}/sessions.db", secret=SECRET)
    async with sessions.open() as first:
        first.session.update(n=0, log=[])
    other = sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)
    async with sessions.open(cookies=cookie_of(first)) as context:
        context.session.increment("n")
        context.session.append("log", "one")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(context.session.acommit(), 0.1)
        other.execute("COMMIT")
        context.session.append("log", "two")
    async with sessions.open(cookies=cookie_of(first)) as last:
        assert dict(last.session) == {"n": 1, "log": ["one", "two"]}
    other.close()
    sessions.close()
