"""Sessions of other libraries are converted once; a destroyed session cannot be converted again."""

import asyncio
import hashlib
import json
import logging
import pickle
import threading
from base64 import b64decode, b64encode

import itsdangerous
import pytest

import sojourn
from sojourn import Sessions
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.events import Created, Rejected, StoreFailed
from sojourn.legacy import FlaskSessionRedis, StarletteCookie, decoding
from sojourn.record import UnreadableRecord
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.web.transport_security import TransportSecurity

pytestmark = pytest.mark.anyio

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"
OLD_SECRET = "the secret of the former library: 71f0c2"
UNTIL = "2026-06-30"
SESSION_ID = "3fGk-2sQ_9xLw7Vb0nT5yR8uJ1hD6aZ4cEoMpKiXqBg"


class Signer(itsdangerous.TimestampSigner):
    """Signs at the time of the fake clock."""

    def __init__(self, clock):
        super().__init__(OLD_SECRET)
        self._clock = clock

    def get_timestamp(self):
        return self._clock() // 1000


class OldStore:
    """The Redis server of the former library, as a client of redis-py."""

    def __init__(self):
        self.records = {}
        self.calls = 0
        self.error = None

    def get(self, key):
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self.records.get(key)

    def delete(self, key):
        if self.error is not None:
            raise self.error
        self.records.pop(key, None)


class World:
    """An installation that reads Starlette's cookie and records of Flask-Session."""

    def __init__(self, **options):
        self.clock = FakeClock()
        self.old = OldStore()
        self.store = options.pop("store", None) or FaultyStore(MemoryStore())
        readers = [
            StarletteCookie(OLD_SECRET, cookie="session", user="user"),
            FlaskSessionRedis(self.old, cookie="flask", user="user"),
        ]
        defaults = {
            "store": self.store,
            "secret": SECRET,
            "clock": self.clock,
            "read_legacy": readers,
            "read_legacy_until": UNTIL,
        }
        self.sessions = Sessions(**{**defaults, **options})

    def cookie(self, **data):
        """Return the Cookie header of a visitor with Starlette's cookie."""
        payload = b64encode(json.dumps(data).encode())
        return "session=" + Signer(self.clock).sign(payload).decode()

    def record(self, data, session_id=SESSION_ID):
        """Store a record of Flask-Session; return the Cookie header of its visitor."""
        self.old.records["session:" + session_id] = data
        return f"flask={session_id}"

    def open(self, cookies):
        return self.sessions.open(cookies=cookies, labels={"browser": "B"})


def set_cookies(visit):
    """Return the Set-Cookie headers of a response by cookie name."""
    found = [value for name, value in visit.response_headers() if name == "set-cookie"]
    return {value.partition("=")[0]: value for value in found}


def ticket(visit):
    """Return the Cookie header with the session's own cookie."""
    return set_cookies(visit)["__Host-sid"].partition(";")[0]


class TestConversion:
    async def test_the_session_is_continued_and_the_old_cookie_deleted(self):
        """A2: one response sets the new cookie and deletes the old one."""
        world = World()
        async with world.open(world.cookie(user="ada", cart=[1])) as visit:
            assert visit.session.copy() == {"user": "ada", "cart": [1]}
            assert visit.session.user == "ada"
            assert visit.session.labels == {"browser": "B"}
        cookies = set_cookies(visit)
        assert cookies["session"].startswith("session=; Max-Age=0; Expires=Thu, 01 Jan 1970")
        assert "; Path=/; Secure" in cookies["session"]
        assert dict(visit.response_headers())["vary"] == "Cookie"
        async with world.open(ticket(visit)) as again:
            assert again.session["cart"] == [1]
            assert not again.session.new
        assert set_cookies(again) == {}

    async def test_a_record_is_removed_from_the_old_store(self):
        world = World()
        async with world.open(world.record(b'{"user": 7}')) as visit:
            assert visit.session.user == "7"
        assert world.old.records == {}

    async def test_a_valid_ticket_wins(self):
        """A request with both cookies has the session of the ticket; the old cookie is not read."""
        world = World()
        async with world.open(None) as visit:
            visit.session["n"] = 1
        cookies = f"{ticket(visit)}; {world.record(b'{}')}"
        async with world.open(cookies) as visit:
            assert visit.session["n"] == 1
        assert world.old.calls == 0

    async def test_old_cookie_is_not_read_beside_a_ticket_of_an_expired_session(self):
        world = World()
        async with world.open(None) as visit:
            visit.session["n"] = 1
        own = ticket(visit)
        world.clock.advance("1 hour")
        async with world.open(f"{own}; {world.cookie(user='ada')}") as visit:
            assert visit.session.new

    async def test_several_old_cookies_with_one_name_are_rejected(self):
        """A8: one of them may have been planted."""
        world = World()
        async with world.open(f"{world.cookie(n=1)}; {world.cookie(n=2)}") as visit:
            assert visit.session.new

    async def test_quoted_cookie_is_read(self):
        """http.cookies of the standard library quotes a value that contains "="."""
        world = World()
        name, _, value = world.cookie(n=1).partition("=")
        async with world.open(f'{name}="{value}"') as visit:
            assert visit.session["n"] == 1
        for damaged in ('"', '""', f'"{value}'):
            async with world.open(f"{name}={damaged}") as visit:
                assert visit.session.new

    async def test_a_cookie_that_browsers_would_drop_is_not_verified(self):
        """A19."""
        world = World()
        cookie = world.cookie(word="x" * 5_000)
        async with world.open(cookie) as visit:
            assert visit.session.new

    @pytest.mark.parametrize(
        ("url", "secure"), [("https://shop.example/", True), ("http://localhost/", False)]
    )
    @pytest.mark.parametrize(
        ("options", "attributes"),
        [
            ({}, ["Path=/"]),
            ({"path": "/shop"}, ["Path=/shop"]),
            ({"domain": "shop.example"}, ["Path=/", "Domain=shop.example"]),
            ({"partitioned": True}, ["Path=/", "Partitioned"]),
        ],
    )
    async def test_the_old_cookie_is_deleted_with_its_own_attributes(
        self, url, secure, options, attributes
    ):
        """A14, B-44: browsers keep a cookie with another path, domain or partition."""
        reader = StarletteCookie(OLD_SECRET, cookie="session", **options)
        world = World(read_legacy=[reader])
        async with world.sessions.open(cookies=world.cookie(n=1), url=url) as visit:
            pass
        sent = set_cookies(visit)["session"].split("; ")
        expected = {*attributes, "HttpOnly", "SameSite=Lax", *(["Secure"] if secure else [])}
        assert {part for part in sent[1:] if part[:7] not in ("Max-Age", "Expires")} == expected

    @pytest.mark.parametrize("kind", ["invalid", "spent", "refused", "absent record", "past"])
    async def test_a_new_session_beside_an_old_cookie_has_the_labels_of_its_client(self, kind):
        world = World()
        cookie = {"invalid": "session=x", "absent record": f"flask={SESSION_ID}"}.get(kind)
        cookie = cookie or world.cookie(n=1)
        if kind == "spent":
            async with world.open(cookie) as visit:
                visit.session.destroy()
        elif kind == "refused":
            await world.sessions.arevoke_all()
            world.clock.advance("1 minute")
        elif kind == "past":
            world.clock.advance("300 days")
        async with world.open(cookie) as visit:
            assert visit.session.new
            visit.session["n"] = 2
        assert visit.session.labels == {"browser": "B"}

    async def test_a_response_that_did_not_use_the_session_depends_on_the_cookie(self):
        """A13: it deletes the old cookie of this visitor."""
        world = World()
        async with world.open(world.cookie(n=1)) as visit:
            pass
        headers = dict(visit.response_headers())
        assert (headers["vary"], headers["cache-control"]) == ("Cookie", "private, no-store")
        async with world.open("session=x") as visit:
            pass
        assert visit.response_headers() == []

    async def test_session_id_is_derived_from_the_old_session(self):
        """Processes of two versions share the session of a cookie."""
        world = World()
        cookie = world.record(b'{"n": 1}')
        reader = world.sessions.config.read_legacy[1]
        identity = reader.verify(SESSION_ID, world.clock()).identity
        async with world.open(cookie) as visit:
            pass
        expected = hashlib.sha256(b"sojourn legacy id" + identity).digest()[:16]
        assert visit.session.id == expected.hex()
        marker = hashlib.sha256(b"sojourn legacy marker" + identity).digest()[:16]
        assert await world.store.load(marker) is not None
        await world.sessions.arevoke_user("ada")
        refusal = hashlib.sha256(b"sojourn legacy marker" + b"user:ada").digest()[:16]
        assert await world.store.load(refusal) is not None

    async def test_a_request_has_a_cookie_until_the_last_day(self):
        """ASVS 3.5.1: cross-origin protection counts it as a ticket."""
        world = World()
        assert world.sessions.web.has_cookie(TransportSecurity.SECURE, b"session=x")
        assert not world.sessions.web.has_cookie(TransportSecurity.SECURE, b"other=x")
        assert not world.sessions.web.has_cookie(TransportSecurity.SECURE, None)
        world.clock.advance("300 days")
        assert not world.sessions.web.has_cookie(TransportSecurity.SECURE, b"session=x")

    async def test_session_that_accept_refuses_is_removed(self):
        """For example that of a blocked user; its cookie is not looked up again."""
        rejected = []
        old = OldStore()
        reader = FlaskSessionRedis(old, cookie="flask", accept=lambda data: data["n"] != 1)
        world = World(read_legacy=[reader])
        world.old = old
        world.sessions.on(Rejected, lambda event: rejected.append(event.reason))
        async with world.open(world.record(b'{"n": 1}')) as visit:
            assert visit.session.new
        assert (old.records, rejected) == ({}, ["refused"])
        async with world.open(world.record(b'{"n": 2}')) as visit:
            assert visit.session["n"] == 2

    async def test_values_that_cannot_be_stored_are_left_out_and_logged_once(self, caplog):
        world = World()
        deep = "[" * 100 + "]" * 100
        record = f'{{"deep": {deep}, "\\u0000x": 1, "n": 1}}'.encode()
        for number in range(2):
            async with world.open(world.record(record, f"{SESSION_ID}{number}")) as visit:
                assert visit.session.copy() == {"n": 1}
        assert sum("deep" in text for text in caplog.messages) == 1

    async def test_user_of_an_unsupported_type_is_not_logged_in(self, caplog):
        world = World()
        async with world.open(world.cookie(user=["ada"])) as visit:
            assert visit.session.user is None
        assert "expected a user as text or number, found a list" in caplog.text

    async def test_insecure_request_reads_no_old_cookie(self):
        world = World()
        visit = world.sessions.open(cookies=world.record(b"{}"), url="http://example.com/")
        async with visit:
            pass
        assert world.old.calls == 0

    async def test_old_cookie_with_the_session_cookies_name_is_replaced_not_deleted(self):
        """The same name for the old cookie and the new one: one Set-Cookie header."""
        world = World(cookie="session")
        async with world.open(world.cookie(n=1)) as visit:
            assert visit.session["n"] == 1
        headers = [value for name, value in visit.response_headers() if name == "set-cookie"]
        assert len(headers) == 1
        assert not headers[0].startswith("session=;")

    async def test_no_secret_and_no_value_is_in_a_log_line_or_repr(self, caplog):
        """A18."""
        caplog.set_level(logging.DEBUG)
        world = World()
        cookie = world.cookie(user="ada", word="swordfish")
        async with world.open(cookie):
            pass
        reader = world.sessions.config.read_legacy[0]
        found = reader.verify(cookie.partition("=")[2], world.clock())
        for text in (caplog.text, repr(reader), repr(found), repr(world.sessions)):
            assert OLD_SECRET not in text
            assert "swordfish" not in text
            assert cookie not in text


class TestEnd:
    """A7: an ended session does not come back with the old cookie."""

    async def test_old_cookie_replayed_after_logout_does_not_log_in(self):
        world = World()
        cookie = world.cookie(user="ada")
        async with world.open(cookie) as visit:
            pass
        async with world.open(ticket(visit)) as visit:
            visit.session.logout()
        async with world.open(cookie) as replayed:
            assert replayed.session.new
            assert replayed.session.user is None
        assert list(set_cookies(replayed)) == ["session"]  # deleted

    async def test_a_replayed_cookie_evicts_no_other_session(self):
        """The cookie is refused before the old store is called and a record is created."""
        world = World(max_sessions=1)
        cookie = world.record(b'{"user": "ada"}')
        async with world.open(cookie) as visit:
            visit.session.logout()
        async with world.open(None) as visit:
            visit.session.login("ada")
        calls = world.old.calls
        async with world.open(cookie):
            pass
        assert world.old.calls == calls
        assert [info.id for info in await world.sessions.alist_user("ada")] == [visit.session.id]

    async def test_a_logout_in_the_first_request_is_final(self):
        world = World()
        cookie = world.cookie(user="ada")
        async with world.open(cookie) as visit:
            visit.session.logout()
        assert all("Max-Age=0" in header for header in set_cookies(visit).values())
        assert "session" in set_cookies(visit)
        async with world.open(cookie) as replayed:
            assert replayed.session.user is None

    async def test_an_expired_session_does_not_come_back(self):
        world = World()
        cookie = world.cookie(user="ada")
        async with world.open(cookie):
            pass
        world.clock.advance("1 hour")
        async with world.open(cookie) as replayed:
            assert replayed.session.user is None

    async def test_a_revoked_session_does_not_come_back(self):
        world = World()
        cookie = world.cookie(user="ada")
        async with world.open(cookie) as visit:
            pass
        assert await world.sessions.arevoke(visit.session.id)
        async with world.open(cookie) as replayed:
            assert replayed.session.user is None

    async def test_a_record_that_the_old_store_keeps_is_not_read_again(self):
        """The old store may fail to delete it, or an old process may write it again."""
        world = World()
        cookie = world.record(b'{"user": "ada"}')
        async with world.open(cookie) as visit:
            visit.session.logout()
        world.record(b'{"user": "ada"}')
        async with world.open(cookie) as replayed:
            assert replayed.session.user is None

    async def test_conversion_is_remembered_until_the_last_day(self):
        """The cookie has no timestamp, and an old process may write the record again."""
        world = World()
        rejected = []
        world.sessions.on(Rejected, lambda event: rejected.append(event.reason))
        cookie = world.record(b'{"user": "ada"}')
        async with world.open(cookie) as visit:
            visit.session.logout()
        world.clock.advance("170 days")
        world.record(b'{"user": "ada"}')
        await world.sessions.apurge()
        async with world.open(cookie) as replayed:
            assert replayed.session.user is None
        assert rejected == ["converted before"]

    async def test_purge_keeps_the_markers_of_conversions(self):
        world = World()
        spent, other = world.cookie(n=1), world.cookie(n=2)
        async with world.open(spent) as visit:
            visit.session.destroy()
        await world.sessions.arevoke_all()
        await world.sessions.apurge()
        world.clock.advance("1 minute")
        for cookie in (spent, other):
            async with world.open(cookie) as visit:
                assert visit.session.new

    async def test_second_revocation_refuses_cookies_issued_after_the_first(self):
        world = World()
        await world.sessions.arevoke_all()
        world.clock.advance("1 hour")
        cookie = world.cookie(n=1)
        world.clock.advance("1 hour")
        await world.sessions.arevoke_all()
        world.clock.advance("1 hour")
        async with world.open(cookie) as visit:
            assert visit.session.new

    async def test_revoke_user_refuses_old_cookies_of_the_user(self):
        """ASVS 7.4.3: those issued before the revocation, not those issued after it."""
        world = World()
        before, other = world.cookie(user="ada"), world.cookie(user="bob")
        record = world.record(b'{"user": "ada"}')
        await world.sessions.arevoke_user("ada")
        for cookie in (before, record):
            async with world.open(cookie) as visit:
                assert visit.session.user is None
        async with world.open(other) as visit:
            assert visit.session.user == "bob"
        world.clock.advance("2 days")
        async with world.open(world.cookie(user="ada")) as visit:
            assert visit.session.user == "ada"

    @pytest.mark.parametrize("store", [None, "sqlite:///sessions.db"])
    async def test_revoke_all_refuses_all_old_cookies(self, store):
        world = World(store=store)
        before = [world.cookie(user="ada"), world.cookie(n=1), world.record(b'{"n": 2}')]
        spent = world.cookie(n=3)
        async with world.open(spent):
            pass
        await world.sessions.arevoke_all()
        await world.sessions.arevoke_all()
        world.clock.advance("1 minute")
        for cookie in [*before, spent]:
            async with world.open(cookie) as visit:
                assert visit.session.new
        async with world.open(world.cookie(user="ada")) as visit:
            assert visit.session.user == "ada"
        world.sessions.close()

    async def test_old_cookie_is_invalid_after_the_new_one_was_received(self):
        """A9: after two seconds for requests in flight; a later use does not revoke the session."""
        world = World()
        rejected = []
        world.sessions.on(Rejected, lambda event: rejected.append(event.reason))
        cookie = world.cookie(user="ada")
        async with world.open(cookie) as visit:
            pass
        own = ticket(visit)
        async with world.open(cookie) as visit:  # the client did not receive the response
            assert visit.session.user == "ada"
        assert ticket(visit) == own
        async with world.open(own):
            pass
        world.clock.advance("1 second")
        async with world.open(cookie) as visit:
            assert visit.session.user == "ada"
        world.clock.advance("2 seconds")
        assert rejected == []
        async with world.open(cookie) as visit:
            assert visit.session.user is None
        assert rejected == ["replaced"]
        async with world.open(own) as visit:
            assert visit.session.user == "ada"

    async def test_a_late_response_neither_sends_nor_deletes_a_cookie(self):
        """A7: a newer ticket may have been sent in the meantime; the old cookie is still valid."""
        world = World()
        cookie = world.cookie(user="ada")
        async with world.open(cookie):
            pass
        async with world.open(cookie) as visit:
            world.clock.advance("3 seconds")
        assert set_cookies(visit) == {}
        async with world.open(cookie) as visit:
            assert visit.session.user == "ada"
        assert list(set_cookies(visit)) == ["__Host-sid", "session"]


class TestLimits:
    async def test_a_continued_login_is_not_recent(self):
        world = World()
        cookie = world.cookie(user="ada")
        world.clock.advance("1 day")
        async with world.open(cookie) as visit:
            with pytest.raises(sojourn.errors.RecentAuthRequired):
                visit.session.require_recent("23 hours")

    async def test_max_sessions_applies(self):
        world = World(max_sessions=2)
        cookies = [world.cookie(user="ada", n=n) for n in range(3)]
        for cookie in cookies:
            world.clock.advance("1 second")
            async with world.open(cookie):
                pass
        assert len(await world.sessions.alist_user("ada")) == 2

    @pytest.mark.parametrize(("user", "alive"), [("ada", True), (None, False)])
    async def test_timeouts_depend_on_the_login(self, user, alive):
        """A17."""
        world = World(timeout="2 hours", anonymous_timeout="10 minutes")
        async with world.open(world.cookie(user=user, n=1)) as visit:
            pass
        own = ticket(visit)
        world.clock.advance("11 minutes")
        async with world.open(own) as again:
            assert ("n" in again.session) is alive

    async def test_a_visitor_without_a_user_is_not_logged_in(self):
        """A13: the page of a user may not be stored by the browser."""
        world = World()
        for user, control in (("ada", "private, no-store"), (None, "private")):
            async with world.open(world.cookie(user=user, n=1)) as visit:
                pass
            async with world.open(ticket(visit)) as again:
                assert again.session["n"] == 1
            assert dict(again.response_headers())["cache-control"] == control

    async def test_the_session_is_encrypted_with_its_own_ticket(self):
        world = World(encrypt=True)
        async with world.open(world.cookie(user="ada", word="swordfish")) as visit:
            assert visit.session["word"] == "swordfish"
        record = await world.store.load(bytes.fromhex(visit.session.id))
        assert b"swordfish" not in record.body
        async with world.open(ticket(visit)) as again:
            assert again.session["word"] == "swordfish"

    async def test_a_refused_session_keeps_its_cookie(self, caplog):
        world = World(max_sessions=1, on_limit="refuse")
        async with world.open(world.cookie(user="ada", n=1)) as visit:
            assert visit.session.user == "ada"
        async with world.open(world.cookie(user="ada", n=2)) as visit:
            assert visit.session.user is None
        assert set_cookies(visit) == {}
        reader = world.sessions.config.read_legacy[0]
        text = f"{reader!r}: a session is not continued: max_sessions is reached"
        assert caplog.messages == [text]

    async def test_a_session_beyond_max_bytes_is_not_continued(self, caplog):
        world = World(max_bytes=500)
        async with world.open(world.cookie(user="ada", text="x" * 1000)) as visit:
            assert visit.session.new
        (text,) = caplog.messages
        reader = world.sessions.config.read_legacy[0]
        assert text.startswith(f"{reader!r}: the session is not continued: ")
        assert "500" in text

    async def test_converted_session_is_listed_and_replaced_by_a_login(self):
        world = World()
        async with world.open(world.cookie(user="ada", n=1)) as visit:
            visit.session.login("ada")
        (info,) = await world.sessions.alist_user("ada")
        assert info.id == visit.session.id
        async with world.open(ticket(visit)) as visit:
            assert visit.session["n"] == 1


class TestParallel:
    @pytest.mark.parametrize("kind", ["cookie", "record"])
    async def test_twenty_first_requests_share_one_session(self, kind):
        """A6: no change is lost, and every response has the same ticket."""
        world = World()
        data = {"user": "ada", "cart": ["start"]}
        cookie = world.cookie(**data) if kind == "cookie" else world.record(json.dumps(data))
        entered = asyncio.Event()
        count = 0

        async def request(number):
            nonlocal count
            async with world.open(cookie) as visit:
                count += 1
                if count == 20:
                    entered.set()
                await entered.wait()
                visit.session.append("cart", number)
            return visit

        visits = await asyncio.gather(*map(request, range(20)))
        assert len({ticket(visit) for visit in visits}) == 1
        async with world.open(ticket(visits[0])) as visit:
            assert sorted(visit.session["cart"][1:]) == list(range(20))
        assert len(await world.sessions.alist_user("ada")) == 1

    @pytest.mark.parametrize("store", ["memory://", "sqlite:///sessions.db"])
    def test_twenty_threads_share_one_session(self, store):
        """A6 under WSGI, where calls of both stores block."""
        world = World(store=store)
        cookie = world.record(b'{"user": "ada", "cart": []}')
        barrier = threading.Barrier(20)
        tickets = set()

        def request(number):
            barrier.wait()
            with world.open(cookie) as visit:
                visit.session.append("cart", number)
            tickets.add(ticket(visit))

        threads = [threading.Thread(target=request, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(tickets) == 1
        with world.open(tickets.pop()) as visit:
            assert sorted(visit.session["cart"]) == list(range(20))
        world.sessions.close()

    async def test_request_overtaken_by_a_logout_does_not_restore_the_session(self):
        """A7: it found no marker; it creates the record after the session was destroyed."""
        world = World()
        cookie = world.record(b'{"user": "ada"}')
        read = FlaskSessionRedis.read
        raced = False

        async def read_late(self, session):
            nonlocal raced
            data = await read(self, session)
            if not raced:
                raced = True
                async with world.open(cookie) as visit:
                    assert visit.session.user == "ada"
                    visit.session.logout()
            return data

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FlaskSessionRedis, "read", read_late)
            async with world.open(cookie) as late:
                assert late.session.user is None
        assert await world.sessions.alist_user("ada") == []

    async def test_request_overtaken_before_the_read_shares_the_session(self):
        """A6: the other request removed the old record; the session must not be empty."""
        world = World()
        cookie = world.record(b'{"user": "ada"}')
        read = FlaskSessionRedis.read
        others = []

        async def read_late(self, session):
            if not others:
                others.append(world.open(cookie))
                async with others[0]:
                    pass
            return await read(self, session)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FlaskSessionRedis, "read", read_late)
            async with world.open(cookie) as late:
                assert late.session.user == "ada"
        assert ticket(late) == ticket(others[0])

    async def test_request_overtaken_at_the_marker_shares_the_session(self):
        """A6: the marker of a parallel conversion must not be taken for a destroyed session."""
        world = World()
        cookie = world.record(b'{"user": "ada"}')
        load = world.store.load
        others = []
        count = 0

        async def load_late(session_id):
            nonlocal count
            count += 1
            if count == 2:  # the first is the record, the second the marker
                others.append(world.open(cookie))
                async with others[0]:
                    pass
            return await load(session_id)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.store, "load", load_late)
            async with world.open(cookie) as late:
                assert late.session.user == "ada"
        assert ticket(late) == ticket(others[0])

    async def test_a_cancelled_request_leaves_a_complete_conversion(self):
        """A12, A21: the client disconnects while the marker is written."""
        world = World()
        cookie = world.record(b'{"user": "ada"}')
        world.store.hang("create", times=1)
        task = asyncio.ensure_future(world.open(cookie).__aenter__())
        while "create" not in world.store.calls:  # noqa: ASYNC110 - the store has no event for it
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        world.store.heal()
        async with asyncio.timeout(10):
            while world.old.records:  # noqa: ASYNC110 - no caller awaits the rest of the conversion
                await asyncio.sleep(0)
        async with world.open(cookie) as visit:
            assert visit.session.user == "ada"


class TestFailures:
    @pytest.mark.parametrize("verb", ["load", "create", "save_login"])
    async def test_a_failing_store_is_not_an_empty_session(self, verb):
        """A15: no cookie is deleted, and the next request continues the session."""
        world = World()
        failed = []
        world.sessions.on(StoreFailed, lambda event: failed.append(event.operation))
        cookie = world.cookie(user="ada")
        world.store.fail(verb, times=1)
        with pytest.raises(StoreUnavailable):
            async with world.open(cookie):
                pass
        assert failed == ["load" if verb == "load" else "create"]
        async with world.open(cookie) as visit:
            assert visit.session.user == "ada"

    async def test_a_marker_that_cannot_be_written_fails_the_request(self):
        """A7, A15: without it, the cookie could be used again after a logout."""
        world = World()
        failed = []
        world.sessions.on(StoreFailed, lambda event: failed.append(event.operation))
        cookie = world.cookie(n=1)
        world.store.slow("create", seconds=0, times=1)
        world.store.fail("create", times=1)
        with pytest.raises(StoreUnavailable):
            async with world.open(cookie):
                pass
        assert failed == ["create"]
        async with world.open(cookie) as visit:
            assert visit.session["n"] == 1
            visit.session.destroy()
        async with world.open(cookie) as visit:
            assert visit.session.new

    async def test_session_whose_old_record_cannot_be_deleted_is_converted(self, caplog):
        """The marker refuses the old cookie from now on."""
        caplog.set_level(logging.INFO, "sojourn")
        world = World()
        created = []
        world.sessions.on(Created, lambda event: created.append(event.session_id))
        cookie = world.record(b'{"n": 1}')
        world.old.delete = None  # raises a TypeError when it is called
        async with world.open(cookie) as visit:
            assert visit.session["n"] == 1
        assert created == [visit.session.id]
        reader = world.sessions.config.read_legacy[1]
        assert caplog.messages == [
            f"{reader!r} could not remove a session that was continued here",
            f"continued a session of {reader!r} as {visit.session.id}",
        ]

    async def test_failing_accept_function_is_not_an_empty_session(self):
        """A15: the log omits its message, which may contain data of the visitor (A18)."""

        def accept(data):
            raise KeyError(data["word"])

        reader = StarletteCookie(OLD_SECRET, cookie="session", accept=accept)
        world = World(read_legacy=[reader])
        with pytest.raises(StoreUnavailable, match=r"cookie 'session'> failed: KeyError") as raised:
            async with world.open(world.cookie(word="swordfish")):
                pass
        assert "swordfish" not in str(raised.value)

    async def test_an_unreadable_marker_counts_as_none(self):
        """S9."""
        world = World()
        cookie = world.cookie(n=1)
        world.store.slow("load", seconds=0, times=1)
        world.store.fail("load", times=1, error=UnreadableRecord("damaged"))
        async with world.open(cookie) as visit:
            assert visit.session["n"] == 1

    async def test_a_failing_old_store_is_not_an_empty_session(self):
        """A15."""
        world = World()
        cookie = world.record(b'{"user": "ada"}')
        world.old.error = ConnectionError("refused: secret=hunter2")
        with pytest.raises(StoreUnavailable) as raised:
            async with world.open(cookie):
                pass
        assert "hunter2" not in str(raised.value)
        world.old.error = None
        async with world.open(cookie) as visit:
            assert visit.session.user == "ada"

    async def test_a_route_may_continue_without_its_session(self):
        """A15: the old cookie stays for the next request."""
        world = World(on_store_failure="anonymous")
        cookie = world.record(b'{"user": "ada"}')
        world.old.error = ConnectionError("refused")
        async with world.open(cookie) as visit:
            assert visit.session.user is None
        assert set_cookies(visit) == {}

    async def test_a_pickle_is_refused_and_logged_once(self, caplog):
        """B-10: it is not decoded; the visitor gets a new session."""
        decoding._reported.clear()
        world = World()
        for number in range(2):
            record = pickle.dumps({"user": "ada"})
            async with world.open(world.record(record, f"{SESSION_ID}{number}")) as visit:
                assert visit.session.new
        assert sum("pickled" in text for text in caplog.messages) == 1

    @pytest.mark.parametrize("data", [b"\x80", b"\xc1", b"[1]", b"{" * 9, b"\x80\x04N.", b"7"])
    async def test_corrupt_record_is_ignored(self, data):
        world = World()
        async with world.open(world.record(data)) as visit:
            assert visit.session.user is None


class TestLastDay:
    async def test_readers_are_not_called_after_the_last_day(self, caplog):
        world = World()
        cookie = world.record(b'{"user": "ada"}')
        world.clock.now = 1_782_864_000_000 - 1  # 2026-07-01 00:00 UTC: the day is included
        async with world.open(cookie) as visit:
            assert visit.session.user == "ada"
        world.clock.now += 1
        calls = world.old.calls
        async with world.open(world.record(b"{}", SESSION_ID[::-1])) as visit:
            assert visit.session.new
        assert world.old.calls == calls
        assert not [record for record in caplog.records if record.levelno > logging.INFO]

    def test_last_day_is_logged_at_startup(self, caplog):
        world = World(read_legacy_until="2025-12-31")
        assert world.sessions.web.legacy is None
        assert "read_legacy_until has passed" in caplog.text

    def test_installation_without_readers_makes_no_call(self):
        sessions = Sessions(store="memory://")
        assert sessions.web.legacy is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"read_legacy": [StarletteCookie(OLD_SECRET)]}, "read_legacy_until"),
        ({"read_legacy_until": "2026-01-01"}, "read_legacy"),
        ({"read_legacy": [], "read_legacy_until": UNTIL}, "readers"),
        ({"read_legacy": ["session"], "read_legacy_until": UNTIL}, "readers"),
        ({"read_legacy": [StarletteCookie(OLD_SECRET)], "read_legacy_until": "soon"}, "date"),
        ({"read_legacy": [StarletteCookie(OLD_SECRET)], "read_legacy_until": 7}, "date"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Sessions(store="memory://", **options)


def test_request_with_an_old_cookie_is_checked_for_its_origin():
    """B-43: with `protect` a request of another site is refused before the conversion."""
    world = World(protect=True)
    cookie = world.cookie(user="ada").encode()
    refusal = world.sessions.web.check_origin(
        "POST",
        "https",
        site=None,
        origin=None,
        host=b"example.com",
        cookies=cookie,
        proxied=False,
    )
    assert refusal is not None


def test_base64_of_the_sample_is_that_of_starlette():
    world = World()
    payload = world.cookie(n=1).partition("=")[2].partition(".")[0]
    assert json.loads(b64decode(payload)) == {"n": 1}
