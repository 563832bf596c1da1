"""Logins in a cluster while the slots of their lists and records are moved, key by key.

That sessions are there meanwhile is in ``test_groups.py``.
"""

import asyncio
import threading

import pytest

from sojourn.core.drive import run
from sojourn.core.store import VOID, Bound, Evict, Limit
from sojourn.stores.redis.keys import Keys
from sojourn.stores.url import open_store
from sojourn.testing.logins import login
from sojourn.testing.records import now
from tests.servers.slots import Move
from tests.servers.valkey import running
from tests.servers.valkey_groups import ValkeyCluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

KEYS = Keys("sojourn", "default", clustered=True)
THREE = Limit(3, Evict.OLDEST)

#: Logins of each user under load; enough for every slot to be on its way several times.
LOGINS = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with running(ValkeyCluster(tmp_path_factory.mktemp("cluster"), steady=True)) as made:
        yield made


def list_of(user):
    return KEYS.lists(KEYS.digest(f"user:{user}"))[0]


@pytest.mark.parametrize("where", ["not yet gone", "gone", "new"])
def test_a_login_is_stored_while_its_list_is_on_its_way(cluster, where):
    """S15, S16, TRYAGAIN is no failure: limits, voids and lists are as ever, before it arrives."""
    user = f"ada {where}"
    cluster.flush()
    store = open_store(cluster.url, realm="default", timeout=2.0)

    def bind(**fields):
        record = login(None, user, **fields)
        return record, run(store.bind(record, 0, limit=THREE, now=now()))

    before = [] if where == "new" else [bind()[0] for _ in range(2)]
    with Move(cluster, list_of(user)) as move:
        if where == "gone":
            move.send_all()
        gone = []
        for _ in range(3):
            record, answer = bind()
            assert isinstance(answer, Bound)
            before.append(record)
            gone += answer.evicted
        living = {record.id for record in before} - set(gone)
        assert len(living) == 3
        assert {record.id for record in run(store.find(f"user:{user}"))} == living
        run(store.void(f"user:{user}", now() + 1000))
        record, answer = bind()
        assert answer is VOID
        assert run(store.load(record.id)) is None
    assert {record.id for record in run(store.find(f"user:{user}"))} == living
    assert bind()[1] is VOID
    assert isinstance(bind(authenticated_at=now() + 2000)[1], Bound), "no lock was left"
    store.close()


def test_no_login_fails_while_slots_are_moved_all_the_time(cluster):
    """S15: under load, of lists and of records, with limits; none waits for a slot's arrival."""
    cluster.flush()
    users = [f"user {n}" for n in range(6)]
    ended, moves = threading.Event(), 0

    def move():
        nonlocal moves
        records = [KEYS.record(bytes([n]) * 16) for n in range(2)]
        while not ended.is_set():
            for key in (*map(list_of, users), *records):
                with Move(cluster, key) as moving:
                    ended.wait(0.05)  # a slot with many keys is on its way for long
                    moving.send_all(pause=0.002)
                    ended.wait(0.05)
                moves += 1

    async def log_in(store, user):
        living = set()
        for number in range(LOGINS):
            start = bytes([number % 2]) * 2  # half of the records in each of two moving slots
            record = login(None, user, id=start + login(None, user).id[2:])
            answer = await store.bind(record, 0, limit=THREE, now=now())
            assert isinstance(answer, Bound), answer
            living = living - set(answer.evicted) | {record.id}
            assert len(living) == min(number + 1, 3)
            assert await store.load(record.id) == record
        assert {record.id for record in await store.find(f"user:{user}")} == living

    async def check():
        store = open_store(cluster.url, realm="default", timeout=2.0)
        thread = threading.Thread(target=move)
        thread.start()
        try:
            await asyncio.gather(*(log_in(store, user) for user in users))
        finally:
            ended.set()
            await asyncio.to_thread(thread.join)
        assert moves > len(users)
        store.close()

    asyncio.run(check())
