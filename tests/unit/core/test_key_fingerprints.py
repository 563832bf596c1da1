"""Applications with different secrets in one realm are refused at the first contact."""

import contextlib

import pytest

from sojourn._core.concurrency import sleep
from sojourn._crypto.tickets import Ticket, derive, key_fingerprint
from sojourn.errors import ConfigurationError, StoreError, StoreUnavailable
from sojourn.sessions import Sessions
from sojourn.stores.memory import MemoryStore
from sojourn.stores.sqlite import SQLiteStore
from sojourn.stores.urls import open_store
from sojourn.testing.decorators import with_loop, without_loop
from tests.integration.valkey import Valkey, running

ONE = "the first of two secrets: 7Jm2Qw9vXc4Rk1"
TWO = "another application's: p8Zs5Lk0Tn3Yb6"
THREE = "the newest of them: Hq4Gd7Wf1Ve9Ru2"

WAYS = pytest.mark.parametrize("way", [with_loop, without_loop], ids=["loop", "no loop"])


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    with running(Valkey(tmp_path_factory.mktemp("valkey"))) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "valkey"])
def make_sessions(request, tmp_path):
    """Return a function that creates installations over one database; the test closes them."""
    memory = {}
    prefix = f"p{abs(hash(request.node.name))}"
    url = ""
    if request.param == "valkey":
        url = f"{request.getfixturevalue('valkey').url}?prefix={prefix}"

    def make(secret, realm="default"):
        if request.param == "memory":
            store = memory.setdefault(realm, MemoryStore())
        elif request.param == "sqlite":
            store = SQLiteStore(tmp_path / "sessions.db", realm=realm)
        else:
            store = open_store(url, realm=realm, timeout=2.0)
        return Sessions(store=store, secret=secret, realm=realm)

    return make


async def begin(sessions, user="ada"):
    """Create a session with a login and return its cookie."""
    async with sessions.open() as visit:
        visit.session.login(user)
    [(_, cookie)] = [pair for pair in visit.response_headers() if pair[0].lower() == "set-cookie"]
    return cookie.split(";")[0]


async def user_of(sessions, cookie):
    async with sessions.open(cookies=cookie) as visit:
        return visit.session.user


def closing(*sessions):
    stack = contextlib.ExitStack()
    for each in sessions:
        stack.callback(each.close)
    return stack


USES = {
    "create": lambda sessions: begin(sessions, "eve"),
    "revoke_all": lambda sessions: sessions.arevoke_all(),
    "revoke_user": lambda sessions: sessions.arevoke_user("ada"),
    "list_user": lambda sessions: sessions.alist_user("ada"),
}


@WAYS
@pytest.mark.parametrize("use", USES)
def test_an_application_with_another_secret_is_refused(way, use, make_sessions):
    """A24: users and revoke_all would not be shared; the error advises to set a realm."""

    async def check():
        first, second = make_sessions(ONE), make_sessions(TWO)
        with closing(first, second):
            cookie = await begin(first)
            for _ in range(2):
                with pytest.raises(ConfigurationError, match="realm='shop'") as caught:
                    await USES[use](second)
                assert str(caught.value).startswith("realm 'default' of ")
                assert ONE not in str(caught.value)
                assert TWO not in str(caught.value)
            assert await user_of(first, cookie) == "ada"
            assert [info.user for info in await first.alist_user("ada")] == ["ada"]

    way(check())


def test_the_error_names_the_file_of_a_generated_secret(tmp_path):
    """An application that ran without a secret is given one later."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    file = tmp_path / "sessions.db.secret"

    def start_session(**options):
        sessions = Sessions(store=url, **options)
        try:
            with sessions.open() as visit:
                visit.session["n"] = 1
        finally:
            sessions.close()

    start_session()
    with pytest.raises(ConfigurationError) as refused:
        start_session(secret=ONE)
    assert str(refused.value).endswith(f"; the generated one is in {file}")
    start_session(secret=[ONE, file.read_text("utf-8")])
    file.unlink()
    with pytest.raises(ConfigurationError) as refused:
        start_session(secret=TWO)
    assert str(refused.value).endswith("add the former one: secret=[new, former]")


@WAYS
def test_secrets_can_be_replaced_in_a_rolling_deployment(way, make_sessions):
    """A24, ASVS 11.2.2: the former secret is removed when no process uses it."""

    async def check():
        old, both, new = make_sessions(ONE), make_sessions([TWO, ONE]), make_sessions(TWO)
        late, newest = make_sessions(ONE), make_sessions([THREE, TWO])
        with closing(old, both, new, late, newest):
            cookie = await begin(old)
            assert await user_of(both, cookie) == "ada"
            assert await user_of(late, cookie) == "ada"  # a process of the former deployment
            fresh = await begin(both)
            assert await user_of(new, fresh) == "ada"
            assert await user_of(newest, fresh) == "ada"

    way(check())


@WAYS
def test_two_applications_in_two_realms_share_a_database(way, make_sessions):
    """S14."""

    async def check():
        first, second = make_sessions(ONE), make_sessions(TWO, realm="shop")
        with closing(first, second):
            cookie, other = await begin(first), await begin(second)
            await second.arevoke_all()
            assert await user_of(first, cookie) == "ada"
            assert await user_of(second, other) is None

    way(check())


class CountingStore(MemoryStore):
    """Counts the checks, and fails as planned."""

    def __init__(self):
        super().__init__()
        self.checks = 0
        self.failures = 0

    def forget(self):
        self._fingerprints.clear()

    async def register_keys(self, fingerprints):
        self.checks += 1
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("planned")
        return await super().register_keys(fingerprints)


def test_the_check_is_executed_once_and_not_without_a_ticket():
    """A1: later loads make one store call."""
    store = CountingStore()
    sessions = Sessions(store=store, secret=ONE)
    load, load_immediately = sessions.engine.load, sessions.engine.load_immediately
    # Only the coroutine checks the keys.
    assert load_immediately(Ticket(bytes(16), bytes(16)), None) is None
    assert not sessions.engine.loads_immediately
    with sessions.open() as visit:
        assert visit.session.get("n") is None
    assert store.checks == 0
    with sessions.open() as visit:
        visit.session["n"] = 1
    [cookie] = [value for name, value in visit.response_headers() if name.lower() == "set-cookie"]
    assert store.checks == 1
    for _ in range(3):
        with sessions.open(cookies=cookie.split(";")[0]) as visit:
            assert visit.session["n"] == 1
    assert store.checks == 1
    assert sessions.engine.load != load
    assert sessions.engine.load_immediately != load_immediately
    assert sessions.engine.loads_immediately


def test_sessions_of_a_refused_application_are_not_loaded():
    """A24: both used the realm before their keys were registered."""
    store = CountingStore()
    first, second = Sessions(store=store, secret=ONE), Sessions(store=store, secret=TWO)
    with second.open() as visit:
        visit.session["n"] = 1
    [cookie] = [value for name, value in visit.response_headers() if name.lower() == "set-cookie"]
    store.forget()
    with first.open() as visit:
        visit.session["n"] = 1
    late = Sessions(store=store, secret=TWO)
    for _ in range(2):
        with (
            pytest.raises(ConfigurationError, match="realm="),
            late.open(cookies=cookie.split(";")[0]),
        ):
            pass


def test_a_store_that_cannot_register_keys_serves_sessions():
    """A15: a full server answers loads; the check is retried."""
    store = CountingStore()
    earlier = Sessions(store=store, secret=ONE)
    with earlier.open() as visit:
        visit.session["n"] = 1
    [cookie] = [value for name, value in visit.response_headers() if name.lower() == "set-cookie"]
    sessions = Sessions(store=store, secret=[TWO, ONE])
    store.failures = 1
    for expected in (2, 3, 3):
        with sessions.open(cookies=cookie.split(";")[0]) as visit:
            assert visit.session["n"] == 1
        assert store.checks == expected
    store.failures = 2
    sessions = Sessions(store=store, secret=[THREE, ONE])
    with sessions.open() as visit:
        visit.session.login("ada")
    assert sessions.revoke_user("ada") == 1
    assert store.failures == 0


def test_a_fingerprint_differs_from_every_other_derived_key():
    """A18, B-48: HKDF with its own purpose, shorter than a secret, different in each realm."""
    secret = ONE.encode()
    fingerprint = key_fingerprint(secret, "default")
    assert fingerprint == derive(secret, b"fingerprint", "default", 8)
    assert len(fingerprint) == 8
    for purpose, size in ((b"ticket", 64), (b"csrf", 32)):
        assert fingerprint not in derive(secret, purpose, "default", size)
    assert fingerprint != key_fingerprint(secret, "shop")
    assert key_fingerprint(b"\x00" * 16, "default").hex() == "ccc8aaed12a253cf"


@pytest.mark.anyio
async def test_a_request_without_a_ticket_makes_no_check():
    sessions = Sessions(store=MemoryStore(), secret=ONE)
    assert (await sessions.engine.load(None)).record is None
    assert not sessions.engine.context.key_fingerprint_check.passed


class SlowStore(MemoryStore):
    """A store whose check of the keys fails after the deadline."""

    def __init__(self):
        super().__init__()
        self.checks = 0

    async def register_keys(self, fingerprints):
        """Fail after the deadline."""
        self.checks += 1
        await sleep(0.06)
        raise StoreUnavailable("the store is down")


@WAYS
@pytest.mark.parametrize("verb", ["alist_page", "acount", "aping", "arevoke_all"])
def test_a_check_that_exceeds_the_deadline_is_the_last_call(way, verb):
    """A24: the next call would take as long."""
    store = SlowStore()
    sessions = Sessions(store=store, secret=ONE, store_timeout=0.05)

    async def work():
        with pytest.raises(StoreError) as caught:
            await getattr(sessions, verb)()
        assert "the store is down" in f"{caught.value} {caught.value.__cause__}"

    way(work())
    assert store.checks == 1
