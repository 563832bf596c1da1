"""Limits of users with thousands of sessions: the cost of a login, and the evicted sessions."""

import asyncio

import pytest
import redis

from sojourn._core.concurrency import run
from sojourn.store import LIMIT_REACHED, LimitPolicy, LoginSaved, SessionLimit
from sojourn.stores.redis.encoding import encode_value
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.scripts import EXAMINED_MEMBERS
from sojourn.stores.urls import open_store
from sojourn.testing.records import HOUR, MINUTE, login, now, save_login
from tests.integration.valkey import running
from tests.integration.valkey_groups import ValkeyCluster
from tests.support.million_sessions import fill as fill_store

MANY = 10_000
EVICTING = pytest.mark.parametrize("policy", [LimitPolicy.EVICT_OLDEST, LimitPolicy.EVICT_IDLEST])


@pytest.fixture
def admin(valkey):
    with redis.Redis.from_url(valkey.url) as client:
        yield client


@pytest.fixture
def store(valkey):
    made = open_store(valkey.url, realm="default", timeout=10.0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with running(ValkeyCluster(tmp_path_factory.mktemp("limits"), steady=True)) as started:
        yield started


def sessions_of_ada(number, **changes):
    """Return sessions of a user, oldest login first; the last login is the longest inactive."""
    at = now() - HOUR
    return [
        login(None, "ada", at=at + n, created_at=at, seen_at=now() - n, **changes)
        for n in range(number)
    ]


def fill(admin, records, *, keys=None):
    """Store sessions as their logins would have."""
    keys = keys or Keys("sojourn", "default", is_cluster=False)
    digest = keys.digest("user:ada")
    pipeline = admin.pipeline(transaction=False)
    for n, record in enumerate(records):
        pipeline.set(keys.record(record.id), encode_value(record, [digest]))
        pipeline.zadd(keys.index(digest).entries, {record.id: 10**15 + n})
    pipeline.execute()


def reads(admin):
    """Return how many values the scripts have read."""
    stats = admin.info("commandstats")
    return stats.get("cmdstat_getrange", {"calls": 0})["calls"]


@pytest.mark.parametrize("policy", list(LimitPolicy))
def test_the_cost_of_a_login_at_the_limit_is_independent_of_the_number_of_sessions(
    policy, store, admin
):
    """ASVS 7.1.2: a user with 10,000 sessions does not block the server for others."""
    records = sessions_of_ada(MANY)
    fill(admin, records)
    limit = SessionLimit(MANY, policy)
    for _ in range(3):
        before = reads(admin)
        result = run(save_login(store, login(None, "ada"), 0, limit=limit))
        assert reads(admin) - before <= EXAMINED_MEMBERS + 10
        if policy is LimitPolicy.REFUSE:
            assert result is LIMIT_REACHED
        else:
            assert isinstance(result, LoginSaved)
            assert len(result.evicted) == 1
        if policy is LimitPolicy.EVICT_OLDEST:
            assert result.evicted == (records.pop(0).id,)
        assert len(run(store.list_by_index("user:ada"))) == MANY


@pytest.mark.parametrize("policy", list(LimitPolicy))
def test_a_login_below_the_limit_reads_a_sample(policy, store, admin):
    """The size of the index shows that no session must be evicted."""
    fill(admin, sessions_of_ada(200))
    before = reads(admin)
    limit = SessionLimit(201, policy)
    assert run(save_login(store, login(None, "ada"), 0, limit=limit)) == LoginSaved(())
    assert reads(admin) - before <= 20


@EVICTING
def test_a_lowered_limit_evicts_thousands_of_sessions_in_steps(policy, store, admin):
    """ASVS 7.1.2: the login returns when the user has no more sessions than allowed."""
    records = sessions_of_ada(2_000)
    fill(admin, records)
    newest = login(None, "ada")
    result = run(save_login(store, newest, 0, limit=SessionLimit(5, policy)))
    assert isinstance(result, LoginSaved)
    assert len(set(result.evicted)) == len(records) - 4
    left = run(store.list_by_index("user:ada"))
    assert len(left) == 5
    assert newest in left
    if policy is LimitPolicy.EVICT_OLDEST:
        assert set(left) == {newest, *records[-4:]}
    else:
        used_at = sorted(record.seen_at for record in records)
        assert min(record.seen_at for record in left) >= used_at[-500]


@pytest.mark.parametrize("policy", list(LimitPolicy))
def test_expired_sessions_are_removed_before_any_is_evicted(policy, store, admin):
    """ASVS 7.1.2: expired sessions do not count for the limit."""
    old = now() - 2 * HOUR
    live = sessions_of_ada(1_000)
    ended = [login(None, "ada", at=old, created_at=old, seen_at=old) for _ in range(150)]
    fill(admin, [*ended, *live])
    result = run(save_login(store, login(None, "ada"), 0, limit=SessionLimit(1_001, policy)))
    assert result == LoginSaved(())
    assert len(run(store.list_by_index("user:ada"))) == 1_001


def test_damaged_values_do_not_prevent_evictions(store, admin):
    """S9: keys of another type and records of another format are not counted."""
    records = sessions_of_ada(600)
    fill(admin, records)
    for record in records[:200]:
        key = f"sojourn:default:s:{record.id.hex()}"
        admin.delete(key)
        admin.lpush(key, "x")
    result = run(
        save_login(store, login(None, "ada"), 0, limit=SessionLimit(10, LimitPolicy.EVICT_OLDEST))
    )
    assert isinstance(result, LoginSaved)


@EVICTING
def test_a_cluster_examines_the_same_number_of_sessions(policy, cluster):
    """ASVS 7.1.2: in steps under the lock; the same sessions stay as on a single server."""
    records = sessions_of_ada(700, idle_timeout=90 * MINUTE)
    newest, later = login(None, "ada"), login(None, "ada")

    async def check():
        store = open_store(f"{cluster.url}?prefix={policy.value}", realm="default", timeout=10.0)
        for start in range(0, len(records), 100):
            logins = [save_login(store, each, 0) for each in records[start : start + 100]]
            await asyncio.gather(*logins)
        limit = SessionLimit(700, policy)
        result = await save_login(store, newest, 0, limit=limit)
        assert isinstance(result, LoginSaved)
        assert len(result.evicted) == 1
        result = await save_login(store, later, 0, limit=SessionLimit(3, policy))
        assert isinstance(result, LoginSaved)
        left = await store.list_by_index("user:ada")
        assert len(left) == 3
        assert later in left
        if policy is LimitPolicy.EVICT_OLDEST:
            assert set(left) == {later, newest, records[-1]}
        result = await save_login(
            store, login(None, "ada"), 0, limit=SessionLimit(3, LimitPolicy.REFUSE)
        )
        assert result is LIMIT_REACHED
        store.close()

    asyncio.run(check())


def test_a_long_index_is_listed_in_steps(valkey, admin):
    """S15: each session once, even if many entries have one score; stale entries are removed."""
    fill_store(valkey.url, 5_000, users=1)
    store = open_store(valkey.url, realm="default", timeout=10.0)
    (index,) = admin.keys("sojourn:default:u:*")
    members = admin.zrange(index, 0, -1)
    assert len(members) == 2_500
    admin.zadd(index, dict.fromkeys(members[:1_200], 5))
    admin.zadd(index, {b"stale entry %5d" % n: 5 + n for n in range(1_500)})
    listed = [record.id for record in run(store.list_by_index("user:user-0"))]
    assert sorted(listed) == sorted(members)
    assert admin.zcard(index) == 2_500
    store.close()
