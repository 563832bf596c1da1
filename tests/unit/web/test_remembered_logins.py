"""A companion cookie applies revocations to the "remember me" cookie of a framework."""

import pytest

from sojourn import Sessions
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.events import Rejected, StoreFailed
from sojourn.store import MAX_LOGIN_DURATION
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.web.remembered_logins import Restoration

pytestmark = pytest.mark.anyio

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"
SESSION_ID = bytes(range(16))
DAY = 86_400_000


class World:
    """An installation whose remembered logins are valid for ten days."""

    def __init__(self, **options):
        self.clock = FakeClock()
        self.store = options.pop("store", None) or FaultyStore(MemoryStore())
        options = {"remember_absolute_timeout": "10 days", **options}
        self.sessions = Sessions(store=self.store, secret=SECRET, clock=self.clock, **options)
        self.logins = self.sessions.remembered_logins
        self.rejected = []
        self.failed = []
        self.sessions.on(Rejected, lambda e: self.rejected.append((e.session_id, e.reason)))
        self.sessions.on(StoreFailed, lambda e: self.failed.append((e.session_id, e.operation)))

    def seal(self, user="ada", session_id=SESSION_ID):
        """Return the companion cookie of a login at the current time."""
        return self.logins.seal(user, self.clock(), session_id)


@pytest.mark.parametrize(
    ("cookie", "name"),
    [
        ("__Host-sid", "sid-remember"),
        ("__Secure-sid", "sid-remember"),
        ("__HOST-HTTP-sid", "sid-remember"),
        ("__Http-sid", "sid-remember"),
        ("__Host-__Host-sid", "__Host-sid-remember"),
        ("shop", "shop-remember"),
    ],
)
def test_companion_cookie_has_no_name_prefix(cookie, name):
    """`__Host-` forbids the domain and path that a framework may set (RFC 6265bis 4.1.3)."""
    assert World(cookie=cookie).logins.name == name


@pytest.mark.parametrize(
    ("timeout", "expected"),
    [("10 days", 10 * DAY), (None, MAX_LOGIN_DURATION), ("4000 days", MAX_LOGIN_DURATION)],
)
def test_remembered_login_lifetime_is_bounded_by_policy_and_store(timeout, expected):
    """Stores delete revocations after MAX_LOGIN_DURATION."""
    assert World(remember_absolute_timeout=timeout).logins.max_age() == expected


async def test_login_has_the_instant_of_its_companion():
    world = World()
    companion, login = world.seal(), world.clock()
    now = world.clock.advance("9 days")
    assert await world.logins.check("ada", companion) == Restoration(login, now, None)
    assert world.rejected == []


async def test_login_expires_with_the_absolute_timeout():
    """ASVS 7.3.2."""
    world = World()
    companion, login = world.seal(), world.clock()
    now = world.clock.advance("10 days")
    refused = Restoration(login, now, "expired (absolute)")
    assert await world.logins.check("ada", companion) == refused
    assert world.rejected == [(SESSION_ID.hex(), "expired (absolute)")]


async def test_a_login_is_refused_after_its_user_was_revoked():
    """ASVS 7.4.3."""
    world = World()
    companions = {user: world.seal(user) for user in ("ada", "bob")}
    world.clock.advance("1 minute")
    await world.sessions.arevoke_user("ada")
    refused = await world.logins.check("ada", companions["ada"])
    assert refused.refusal == "revoked"
    assert world.rejected == [(SESSION_ID.hex(), "revoked")]
    assert (await world.logins.check("bob", companions["bob"])).refusal is None


async def test_a_login_is_refused_after_its_session_was_revoked():
    world = World()
    async with world.sessions.open(cookies=None) as visit:
        visit.session["n"] = 1
    session_id = visit.session.id
    companion = world.seal(session_id=bytes.fromhex(session_id))
    await world.sessions.arevoke(session_id, reason="stolen")
    assert (await world.logins.check("ada", companion)).refusal == "stolen"
    assert world.rejected[-1] == (session_id, "stolen")


@pytest.mark.parametrize("companion", [None, "", "invalid"])
async def test_login_without_a_companion_is_accepted_before_any_revocation(companion):
    """It was set before sojourn was installed, so it is earlier than any revocation."""
    world = World()
    accepted = await world.logins.check("ada", companion)
    assert accepted == Restoration(1, world.clock(), None)
    await world.sessions.arevoke_user("ada")
    assert (await world.logins.check("ada", companion)).refusal == "revoked"
    assert world.rejected == [("", "revoked")]


@pytest.mark.parametrize("forged", ["of another user", "of another cookie"])
async def test_companion_is_bound_to_user_and_cookie(forged):
    """B-14."""
    world = World()
    companion = world.seal("bob" if forged == "of another user" else "ada")
    other = World(cookie="__Host-other") if forged == "of another cookie" else world
    assert (await other.logins.check("ada", companion)).authenticated_at == 1


async def test_companion_is_bound_to_the_realm():
    """B-29."""
    world, other = World(realm="shop"), World(realm="admin")
    companion = world.seal()
    assert (await world.logins.check("ada", companion)).authenticated_at == world.clock()
    assert (await other.logins.check("ada", companion)).authenticated_at == 1


@pytest.mark.parametrize("proven", [True, False])
async def test_store_failure_fails_the_session(proven):
    """No login is restored if revocations cannot be looked up."""
    world = World()
    companion = world.seal() if proven else None
    world.store.fail()
    with pytest.raises(StoreUnavailable):
        await world.logins.check("ada", companion)
    assert world.failed == [(SESSION_ID.hex() if proven else "", "load")]
    assert world.rejected == []


async def test_the_keys_are_checked_before_the_first_login():
    """Two applications with one realm and different secrets would share user indexes."""
    store = MemoryStore()
    await Sessions(store=store, secret="the secret of another application: 4c1b77").aping()
    world = World(store=store)
    with pytest.raises(ConfigurationError, match="is used with other secrets"):
        await world.logins.check("ada", None)
