"""Logins in a cluster while the slots of their indexes and records migrate, key by key."""

import asyncio
import threading

import pytest

from sojourn._core.concurrency import run
from sojourn.store import REVOKED, LimitPolicy, LoginSaved, SessionLimit
from sojourn.stores.redis.keys import Keys
from sojourn.stores.urls import open_store
from sojourn.testing.records import login, now
from tests.integration.slots import Move
from tests.integration.valkey import running
from tests.integration.valkey_groups import ValkeyCluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

KEYS = Keys("sojourn", "default", is_cluster=True)
THREE = SessionLimit(3, LimitPolicy.EVICT_OLDEST)

#: Logins of each user under load; enough for every slot to migrate several times.
LOGINS = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with running(ValkeyCluster(tmp_path_factory.mktemp("cluster"), steady=True)) as made:
        yield made


def list_key(user):
    return KEYS.index(KEYS.digest(f"user:{user}"))[0]


@pytest.mark.parametrize("where", ["not sent", "sent", "new"])
def test_a_login_is_stored_while_its_list_migrates(cluster, where):
    """S15, S16: TRYAGAIN is not a failure; limits, cutoffs and lists apply during the migration."""
    user = f"ada {where}"
    cluster.flush()
    store = open_store(cluster.url, realm="default", timeout=2.0)

    def save_login(**fields):
        record = login(None, user, **fields)
        return record, run(store.save_login(record, 0, limit=THREE, now=now()))

    before = [] if where == "new" else [save_login()[0] for _ in range(2)]
    with Move(cluster, list_key(user)) as move:
        if where == "sent":
            move.send_all()
        gone = []
        for _ in range(3):
            record, answer = save_login()
            assert isinstance(answer, LoginSaved)
            before.append(record)
            gone += answer.evicted
        living = {record.id for record in before} - set(gone)
        assert len(living) == 3
        assert {record.id for record in run(store.list_by_index(f"user:{user}"))} == living
        run(store.invalidate_logins(f"user:{user}", now() + 1000))
        record, answer = save_login()
        assert answer is REVOKED
        assert run(store.load(record.id)) is None
    assert {record.id for record in run(store.list_by_index(f"user:{user}"))} == living
    assert save_login()[1] is REVOKED
    assert isinstance(save_login(authenticated_at=now() + 2000)[1], LoginSaved), "no lock was left"
    store.close()


def test_no_login_fails_while_slots_migrate_constantly(cluster):
    """S15: of lists and of records, with limits; no login waits for a migration."""
    cluster.flush()
    users = [f"user {n}" for n in range(6)]
    ended, moves = threading.Event(), 0

    def move():
        nonlocal moves
        records = [KEYS.record(bytes([n]) * 16) for n in range(2)]
        while not ended.is_set():
            for key in (*map(list_key, users), *records):
                with Move(cluster, key) as moving:
                    ended.wait(0.05)  # a slot with many keys migrates slowly
                    moving.send_all(pause=0.002)
                    ended.wait(0.05)
                moves += 1

    async def log_in(store, user):
        living = set()
        for number in range(LOGINS):
            start = bytes([number % 2]) * 2  # half of the records in each of two moving slots
            record = login(None, user, id=start + login(None, user).id[2:])
            answer = await store.save_login(record, 0, limit=THREE, now=now())
            assert isinstance(answer, LoginSaved), answer
            living = living - set(answer.evicted) | {record.id}
            assert len(living) == min(number + 1, 3)
            assert await store.load(record.id) == record
        assert {record.id for record in await store.list_by_index(f"user:{user}")} == living

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
