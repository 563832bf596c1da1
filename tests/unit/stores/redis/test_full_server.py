"""Revocation on a full server (maxmemory, noeviction), with real servers."""

import pytest
import redis

from sojourn.errors import ConfigurationError, RevocationIncomplete, StoreUnavailable
from sojourn.sessions import Sessions
from sojourn.store import REVOKED
from sojourn.stores.urls import open_store
from sojourn.testing.decorators import with_loop, without_loop
from sojourn.testing.records import login, make_record, now, save_login
from sojourn.testing.store_suite.worker import SECRET
from tests.integration.binaries import BINARIES
from tests.integration.valkey import Valkey, full, running
from tests.integration.valkey_groups import ValkeyCluster

RUNNERS = pytest.mark.parametrize("runner", [with_loop, without_loop], ids=["loop", "no loop"])


@pytest.fixture
def server(tmp_path, request):
    binary = getattr(request, "param", None)
    with running(Valkey(tmp_path, binary=binary)) as started:
        yield started


@pytest.fixture
def admin(server):
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def sessions(server):
    return Sessions(store=server.url, secret=SECRET)  # each test closes it in its event loop


async def log_in(sessions, user, **labels):
    """Return the cookies of a new session of a user."""
    async with sessions.open(labels=labels) as visit:
        visit.session.login(user, labels=labels)
    return {cookie.split(";")[0] for cookie in _set_cookies(visit)}


def _set_cookies(visit):
    return [value for name, value in visit.response_headers() if name.lower() == "set-cookie"]


async def user_of(sessions, cookies):
    async with sessions.open(cookies="; ".join(cookies)) as visit:
        return visit.session.user


VERBS = {
    "revoke_user": lambda sessions: sessions.arevoke_user("ada"),
    "revoke_where": lambda sessions: sessions.arevoke_where(idp_sid="s-1"),
    "revoke_all": lambda sessions: sessions.arevoke_all(),
    "credentials_changed": lambda sessions: sessions.acredentials_changed("ada"),
}


@RUNNERS
@pytest.mark.parametrize("verb", VERBS)
def test_a_full_server_revokes_sessions(runner, verb, sessions, admin):
    """S12, S16, ASVS 7.4.1."""

    async def check():
        cookies = await log_in(sessions, "ada", idp_sid="s-1")
        with full(admin):
            with pytest.raises(StoreUnavailable, match="OOM"):
                await log_in(sessions, "bob")
            assert await VERBS[verb](sessions) in {1, None}
            assert await user_of(sessions, cookies) is None
        assert await user_of(sessions, cookies) is None
        assert await user_of(sessions, await log_in(sessions, "ada", idp_sid="s-1")) == "ada"
        sessions.close()

    runner(check())


@BINARIES
def test_a_full_server_rejects_logins_in_progress(binary, tmp_path):
    """S16: cutoffs are stored although SET is denied, on the oldest server too."""
    with running(Valkey(tmp_path, binary=binary)) as server:
        store = open_store(server.url, realm="default", timeout=2.0)

        async def check():
            at = now()
            invalidated = make_record(created_at=at - 1)
            await store.create(invalidated)
            with redis.Redis.from_url(server.url) as admin, full(admin):
                with pytest.raises(StoreUnavailable, match="OOM"):
                    await store.create(make_record())
                await store.invalidate_logins("user:ada", at)
                await store.invalidate_logins("user:ada", at - 1)  # an earlier one has no effect
                await store.invalidate_all(at)
                assert await store.load(invalidated.id) is None
            early = login(None, "ada", at=at - 1)
            assert await save_login(store, early, 0) is REVOKED
            store.close()

        with_loop(check())


def test_a_full_cluster_revokes_sessions(tmp_path):
    """S12, S16: every node stores its cutoffs."""
    with running(ValkeyCluster(tmp_path, steady=True)) as cluster:
        sessions = Sessions(store=cluster.url, secret=SECRET)
        admins = [cluster.admin(node) for node in cluster.nodes]

        async def check():
            cookies = [await log_in(sessions, "ada") for _ in range(3)]
            other = await log_in(sessions, "bob")
            with full(*admins):
                assert await sessions.arevoke_user("ada") == 3
                for each in cookies:
                    assert await user_of(sessions, each) is None
                assert await user_of(sessions, other) == "bob"
                await sessions.arevoke_all()
                assert await user_of(sessions, other) is None
            sessions.close()

        with_loop(check())
        for admin in admins:
            admin.close()


@RUNNERS
@pytest.mark.parametrize("verb", VERBS)
def test_a_server_that_denies_every_write_raises_and_names_the_remaining_sessions(
    runner, verb, sessions, admin
):
    """S12: a read-only replica; the next attempt succeeds."""

    async def check():
        cookies = await log_in(sessions, "ada", idp_sid="s-1")
        [listed] = await sessions.alist_user("ada")
        admin.replicaof("127.0.0.1", 1)
        with pytest.raises(RevocationIncomplete) as caught:
            await VERBS[verb](sessions)
        error = caught.value
        assert (error.revoked, error.cutoff_set) == ((), False)
        assert error.remaining == (None if verb == "revoke_all" else (listed.id,))
        assert isinstance(error.__cause__, StoreUnavailable)
        admin.replicaof("NO", "ONE")
        assert await user_of(sessions, cookies) == "ada"
        await VERBS[verb](sessions)
        assert await user_of(sessions, cookies) is None
        sessions.close()

    runner(check())


def test_a_full_server_revokes_for_a_process_with_a_new_key(server, admin):
    """S16, A24: a revocation does not need the registration of the key."""

    async def check():
        sessions = Sessions(store=server.url, secret=SECRET)
        cookies = await log_in(sessions, "ada")
        newer = Sessions(store=server.url, secret=[b"a newer secret: Hq4Gd7Wf1Ve9Ru2", SECRET])
        other = Sessions(store=server.url, secret=b"another application: p8Zs5Lk0Tn3Yb6")
        with full(admin):
            assert await user_of(newer, cookies) == "ada"
            with pytest.raises(ConfigurationError, match="realm="):
                await other.arevoke_user("ada")
            assert await newer.arevoke_user("ada") == 1
        assert await user_of(sessions, cookies) is None
        for each in (sessions, newer, other):
            each.close()

    with_loop(check())
