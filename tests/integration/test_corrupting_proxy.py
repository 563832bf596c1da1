"""Announcements that are dropped, doubled and reordered on their way do no harm.

Two real servers share Valkey; the second one receives messages through a proxy that changes them,
and a real client holds sockets there. What a gap of the connection does is tested in
``test_broadcast.py``.
"""

from __future__ import annotations

import asyncio
import json
import time

import pytest
import redis.asyncio
from websockets.exceptions import ConnectionClosed

from tests.integration.corrupting_proxy import Meddler
from tests.integration.test_broadcast import SECRET, User, close_of, receive, subscribed
from tests.integration.valkey import Valkey
from tests.support.servers import browser, eventually, uvicorn

pytestmark = pytest.mark.anyio

#: Seconds between two looks where nothing else could tell.
RECHECK = 0.5


class Place:
    """A server that tells, another that hears through a meddler, and who is connected to Valkey."""

    def __init__(self, valkey, meddler, one, other):
        self.valkey, self.meddler, self.one, self.other = valkey, meddler, one, other

    def user(self):
        return User(self.one, self.other)

    async def clients(self):
        async with redis.asyncio.Redis.from_url(self.valkey.url) as admin:
            return len(await admin.client_list()) - 1

    async def usage(self):
        async with browser(self.other) as http:
            return (await http.get("/usage")).json()


def place_in(folder, recheck):
    """Return a place whose second server looks again after so many seconds."""
    valkey = Valkey(folder)
    valkey.start()
    meddler = Meddler(valkey.port)
    servers = []
    try:
        for name, store in (("one", valkey.url), ("other", meddler.url)):
            own = folder / name
            own.mkdir()
            options = {"store": store, "secret": SECRET, "recheck_interval": recheck}
            servers.append(uvicorn("accounts", own, options=options))
        with servers[0], servers[1]:
            yield Place(valkey, meddler, *servers)
    finally:
        meddler.close()
        valkey.stop()


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """Where only messages tell: the re-check is too late for any test."""
    yield from place_in(tmp_path_factory.mktemp("patient"), "1 hour")


@pytest.fixture(scope="module")
def looking(tmp_path_factory):
    yield from place_in(tmp_path_factory.mktemp("looking"), RECHECK)


@pytest.fixture(params=["drop", "double", "swap"])
def meddled(request):
    """A place and what is done there; where messages are lost, only looking helps."""
    place = request.getfixturevalue("looking" if request.param == "drop" else "patient")
    place.meddler.seen = 0
    yield place, request.param
    place.meddler.fault = None


async def test_ends_reach_everybody_who_is_meddled_with(meddled):
    """W4, S17: within a second, or by the next look where the message is lost; each only once."""
    place, fault = meddled
    async with (
        place.user() as one,
        place.user() as two,
        place.user() as bystander,
        one.socket() as first,
        two.socket("/push") as second,
        bystander.socket() as alive,
    ):
        for each in (first, second, alive):
            await receive(each)
        await subscribed(place.valkey, place.other)
        before = await place.clients()
        place.meddler.fault = fault
        started = time.monotonic()
        await one.do("revoke?id={id}")
        await two.do("revoke_user?user={user}")  # a pair, so that it can be swapped
        closes = await asyncio.gather(close_of(first), close_of(second))
        assert time.monotonic() - started < (1 + RECHECK if fault == "drop" else 1)
        assert place.meddler.seen >= 2, "the messages did not come this way"
        for (code, reason), said in zip(closes, ("stolen phone", "dismissed"), strict=True):
            assert code == 4401
            # Who looks by itself may do so before the reason was noted for it.
            assert reason == said or (fault == "drop" and reason == "ended")
        await alive.send("still there?")
        assert await receive(alive) == "{}"
        assert await place.clients() == before
    await eventually(place.usage, lambda usage: usage["connections"] == 0)


async def test_rotations_and_changes_end_nothing_and_show_no_older_state(meddled):
    """W5, S17: who pushes sees the latest change in the end, and after it nothing older."""
    place, fault = meddled
    async with place.user() as user, user.socket("/push") as pushed, user.socket() as ws:
        await receive(pushed)
        await receive(ws)
        await subscribed(place.valkey, place.other)
        place.meddler.fault = fault
        for n in range(1, 7):
            await user.do(f"put?n={n}")
            if n % 2:
                await user.do("rotate")
        await ws.send("what is there?")
        assert json.loads(await receive(ws)) == {"n": "6"}
        found = await numbers(pushed)
        assert found == sorted(found)
        if fault != "swap":  # the last of an odd number of messages is held for ever
            assert await latest(pushed) == "6"
        place.meddler.fault = None
        await user.do("put?n=7")
        assert await latest(pushed, "7") == "7"
        await user.do("revoke?id={id}")
        assert (await close_of(ws))[0] == 4401
        assert (await close_of(pushed))[0] == 4401
    await eventually(place.usage, lambda usage: usage["connections"] == 0)


async def numbers(pushed):
    """Return what is pushed next, in order."""
    return [int(json.loads(await receive(pushed)).get("n", "0")) for _ in range(10)]


async def latest(pushed, wanted="6"):
    """Read until something is pushed; return it."""
    async with asyncio.timeout(5):
        try:
            while (found := json.loads(await pushed.recv()).get("n")) != wanted:
                pass
        except ConnectionClosed as closed:
            raise AssertionError(found) from closed
    return found
