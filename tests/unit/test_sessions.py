"""Sessions: methods outside of a request, their async twins, and data that they never reveal."""

import asyncio
import dataclasses
import hashlib
import inspect
import threading
from datetime import timedelta
from uuid import UUID

import msgspec
import pytest

from sojourn import Sessions
from sojourn._core.concurrency import run
from sojourn._crypto.tickets import Ticket
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.events import Created, Revoked
from sojourn.session import create_session
from sojourn.sessions import SessionInfo, Usage
from sojourn.stores.callback import CallbackStore
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.web.transport_security import TransportSecurity
from tests.support.working_copies import commit, copy_of

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"


class Browser:
    def labels(self):
        return {"browser": "Firefox", "address": "10.0.0.1"}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def sessions(clock):
    made = Sessions(store="memory://", clock=clock, secret=SECRET)
    yield made
    made.close()


async def load(sessions, ticket, client=None):
    copy = await sessions.engine.load(ticket, client)
    return create_session(copy, sessions.engine)


async def begin(sessions, **data):
    session = await load(sessions, None, Browser())
    session.update(data or {"a": 1})
    await commit(session)
    return session


class TestGet:
    def test_get_describes_a_session_without_secrets_and_data(self, sessions, clock):
        """A18, B-46, ASVS 7.5.2."""
        session = run(begin(sessions, password="hunter2"))
        info = sessions.get(session.id)
        assert dict(info.labels) == {"browser": "Firefox", "address": "10.0.0.1"}
        assert (info.id, info.connections) == (session.id, 0)
        assert (info.created_at, info.expires_at) == (session.created_at, session.expires_at)
        assert [field.name for field in dataclasses.fields(SessionInfo)] == [
            "id", "user", "labels", "created_at", "seen_at", "expires_at", "authenticated_at",
            "connections", "idle_expires_at", "absolute_expires_at",
        ]  # fmt: skip
        assert "hunter2" not in repr(info)
        assert copy_of(session).verifier.hex() not in repr(info)
        with pytest.raises(TypeError):
            info.labels["browser"] = "x"

    @pytest.mark.parametrize(
        "session_id",
        [
            "",
            "0" * 32,
            "0" * 31,
            "0" * 33,
            "G" * 32,
            "A" * 32,
            "../" + "0" * 29,
            "\0" * 32,
            "é" * 32,
        ],
    )
    def test_an_unknown_or_malformed_id_returns_none(self, session_id):
        """B-31, B-50: a malformed ID never reaches the store."""
        store = FaultyStore(MemoryStore())
        sessions = Sessions(store=store, secret=SECRET)
        assert sessions.get(session_id) is None
        assert sessions.revoke(session_id) is False
        assert store.calls == (["load", "delete"] if session_id == "0" * 32 else [])

    def test_an_expired_or_unreadable_session_returns_none(self, sessions, clock):
        session = run(begin(sessions))
        record = run(sessions.store.load(copy_of(session).session_id()))
        run(sessions.store.save(msgspec.structs.replace(record, version=2, body=b"\xc1"), 1))
        assert sessions.get(session.id) is None
        other = run(begin(sessions))
        clock.advance("30 minutes")
        assert sessions.get(other.id) is None

    def test_a_session_without_limits_expires_in_the_year_9999(self):
        sessions = Sessions(store="memory://", timeout="7000000 weeks", absolute_timeout=None)
        assert sessions.get(run(begin(sessions)).id).expires_at.year == 9999
        sessions.close()

    def test_a_revoked_session_is_deleted_and_reported(self, sessions, clock):
        """A7, ASVS 7.4.1."""
        session, events = run(begin(sessions)), []
        sessions.on(Revoked, events.append)
        ticket = Ticket(copy_of(session).session_id(), copy_of(session).verifier)
        assert sessions.revoke(session.id, reason="stolen phone") is True
        assert sessions.revoke(session.id) is False
        assert events == [Revoked(session.id, "stolen phone", None, clock())]
        assert dict(run(load(sessions, ticket))) == {}

    def test_a_failing_store_raises(self):
        store = FaultyStore(MemoryStore())
        sessions = Sessions(store=store, secret=SECRET)
        session = run(begin(sessions))
        store.fail()
        for act in (sessions.get, sessions.revoke):
            with pytest.raises(StoreUnavailable):
                act(session.id)

    def test_a_tombstone_returns_none(self, sessions):
        """S1: neither the session nor its tombstone is described."""
        session = run(begin(sessions))
        sessions.revoke(session.id, reason="lost")
        tombstone_id = hashlib.sha256(b"sojourn mark" + bytes.fromhex(session.id)).hexdigest()[:32]
        assert run(sessions.store.load(bytes.fromhex(tombstone_id))) is not None
        assert sessions.get(tombstone_id) is None
        assert sessions.get(session.id) is None


class TestStoreMethods:
    def test_purge_deletes_only_expired_records(self, sessions, clock):
        """S8."""
        for _ in range(1_200):
            run(begin(sessions))
        clock.advance("29 minutes")
        alive = run(begin(sessions))
        clock.advance("2 minutes")
        assert sessions.count() == 1
        assert sessions.purge() == 1_200
        assert sessions.purge() == 0
        assert sessions.get(alive.id) is not None

    def test_count_needs_a_store_that_can_count(self):
        sessions = Sessions(store=FaultyStore(MemoryStore()), secret=SECRET)
        with pytest.raises(ConfigurationError, match="cannot count its sessions"):
            sessions.count()

    def test_usage_counts_events(self, sessions):
        run(begin(sessions))
        assert sessions.usage() == Usage(
            reads=0, writes=0, creates=1, touches=0, removes=0, logins=0, rotations=0,
            conflicts=0, rejected=0, failures=0, connections=0,
        )  # fmt: skip


class TestList:
    def test_a_page_contains_only_public_fields(self, sessions, clock):
        session = run(begin(sessions))
        clock.advance("1 minute")
        session["a"] = 2
        session.login("ada")
        run(commit(session))
        (shown,) = sessions.list_page().sessions
        assert shown == sessions.get(session.id)
        assert (shown.user, dict(shown.labels)) == ("ada", Browser().labels())
        assert shown.authenticated_at == shown.seen_at > shown.created_at
        assert sessions.list_page(user="ada", labels={"browser": "Firefox"}).sessions == (shown,)
        assert sessions.list_user("ada") == [shown]

    @pytest.mark.parametrize("encrypt", [True, "ticket"])
    def test_labels_and_users_are_readable_with_encryption(self, clock, encrypt):
        """The option ``encrypt`` encrypts only the data."""
        sessions = Sessions(store="memory://", clock=clock, secret=SECRET, encrypt=encrypt)
        session = run(begin(sessions, password="hunter2"))
        session.login("ada")
        run(commit(session))
        page = sessions.list_page(labels={"browser": "Firefox"})
        (shown,) = page.sessions
        assert (shown.id, shown.user, page.unreadable) == (session.id, "ada", 0)
        assert sessions.count() == 1
        assert "hunter2" not in repr(page)

    def test_an_instant_without_a_time_zone_is_refused(self, sessions, clock):
        session = run(begin(sessions))
        seen_at = sessions.get(session.id).seen_at
        assert len(sessions.list_page(since=seen_at).sessions) == 1
        later = seen_at + timedelta(microseconds=1)
        assert sessions.list_page(since=later).sessions == ()
        for instant in (seen_at.replace(tzinfo=None), seen_at.date(), 5):
            with pytest.raises(ValueError, match="since expects a datetime with a time zone"):
                sessions.list_page(since=instant)

    @pytest.mark.parametrize("user", ["", 1.5, "x" * 256])
    def test_an_invalid_user_is_refused(self, sessions, user):
        with pytest.raises(TypeError, match="expected a user"):
            sessions.list_page(user=user)

    def test_a_user_can_be_an_integer(self, sessions):
        session = run(begin(sessions))
        session.login(42)
        run(commit(session))
        assert [info.user for info in sessions.list_page(user=42).sessions] == ["42"]

    def test_the_error_of_a_store_that_cannot_list_names_the_store(self):
        sessions = Sessions(store=CallbackStore(), secret=SECRET)
        for act in (sessions.list_page, sessions.count, lambda: sessions.list_page(user="ada")):
            with pytest.raises(ConfigurationError, match=r"CallbackStore.*use a store (that|with)"):
                act()
        sessions.close()

    def test_a_plain_number_returned_by_a_store_becomes_an_exact_count(self, clock):
        class Counting(MemoryStore):
            async def count(self, now):
                return 7

        found = Sessions(store=Counting(), clock=clock, secret=SECRET).count()
        assert (found, found.is_exact) == (7, True)


class TestAsyncTwins:
    def test_every_blocking_method_has_an_async_twin(self):
        for name, method in vars(Sessions).items():
            if inspect.iscoroutinefunction(method):
                assert name.startswith("a")
                twin = vars(Sessions)[name[1:]]
                assert inspect.signature(twin) == inspect.signature(method)

    def test_each_blocking_method_under_an_event_loop_raises_and_names_its_twin(self, sessions):
        async def main():
            for act, twin in [
                (lambda: sessions.get("0" * 32), "sessions.aget()"),
                (lambda: sessions.revoke("0" * 32), "sessions.arevoke()"),
                (sessions.purge, "sessions.apurge()"),
                (sessions.count, "sessions.acount()"),
            ]:
                with pytest.raises(ConfigurationError) as caught:
                    act()
                assert twin in str(caught.value)
            session = await begin(sessions)
            assert (await sessions.aget(session.id)).id == session.id
            assert await sessions.acount() == 1
            assert await sessions.apurge() == 0
            assert await sessions.arevoke(session.id)

        asyncio.run(main())


class TestConstruction:
    def test_a_shared_store_needs_a_secret_and_the_error_contains_one(self):
        """It is freshly generated, to copy."""
        with pytest.raises(ConfigurationError, match="SOJOURN_SECRET=") as caught:
            Sessions(store=FaultyStore(MemoryStore()))
        fresh = str(caught.value).partition("SOJOURN_SECRET=")[2].split()[0]
        Sessions(store=FaultyStore(MemoryStore()), secret=fresh).close()

    def test_a_secret_is_generated_for_a_store_of_this_process(self):
        one, two = Sessions(store="memory://"), Sessions(store="memory://")
        side = one.web.cookie_variant(TransportSecurity.SECURE)
        ticket = Ticket(bytes(16), bytes(16))
        text = one.web._keyring.seal(ticket, name=side.name)
        assert one.web._keyring.unseal(text, name=side.name) == ticket
        assert two.web._keyring.unseal(text, name=side.name) is None

    def test_workers_with_one_embedded_store_share_a_secret(self, tmp_path):
        """B-19."""
        url = f"sqlite:///{tmp_path}/s.db"
        one, two = Sessions(store=url), Sessions(store=url)
        name = one.web.cookie_variant(TransportSecurity.SECURE).name
        ticket = Ticket(bytes(16), bytes(16))
        sealed = one.web._keyring.seal(ticket, name=name)
        assert two.web._keyring.unseal(sealed, name=name) == ticket
        one.close()
        two.close()

    def test_route_needs_a_framework(self, sessions):
        with pytest.raises(ConfigurationError, match="install first"):
            sessions.route(lambda: None)

    def test_reader_and_writer_need_a_callback_store(self, sessions):
        for act in (sessions.on_read, sessions.on_write):
            with pytest.raises(ConfigurationError, match=r"CallbackStore, found MemoryStore"):
                act(lambda: None)

    def test_construction_starts_no_thread(self):
        before = set(threading.enumerate())
        sessions = Sessions(store="memory://")
        assert set(threading.enumerate()) <= before
        run(begin(sessions))
        assert [t.name for t in set(threading.enumerate()) - before] == ["sojourn-purger"]
        sessions.close()
        sessions.close()

    def test_a_listener_can_be_registered_later(self, sessions):
        run(begin(sessions))
        events = []
        sessions.on(Created, events.append)
        session = run(begin(sessions))
        assert events == [Created(session.id)]


def test_reprs_contain_no_secret(sessions):
    """A18."""
    session = run(begin(sessions))
    shown = " ".join(
        map(
            repr,
            [
                sessions, sessions.config, sessions.store, sessions.web._keyring,
                sessions.usage(),
                sessions.get(session.id), session, session.state, session.labels,
                copy_of(session).ticket(), sessions.config.web,
            ],
        )
    )  # fmt: skip
    assert SECRET not in shown
    assert copy_of(session).verifier.hex() not in shown
    assert repr(copy_of(session).verifier)[2:-1] not in shown
    assert repr(sessions) == "<Sessions in MemoryStore(1 of 100000 records), realm 'default'>"


class TestUsers:
    def login(self, sessions, user="ada", **options):
        session = run(load(sessions, None, Browser()))
        session["a"] = 1
        session.login(user, **options)
        run(commit(session))
        return session

    def ticket(self, session):
        return Ticket(copy_of(session).session_id(), copy_of(session).verifier)

    def test_the_sessions_of_a_user_are_listed_newest_login_first(self, sessions, clock):
        """ASVS 7.5.2, S15."""
        first = self.login(sessions)
        clock.advance("1 minute")
        second = self.login(sessions)
        self.login(sessions, "bob")
        listed = sessions.list_user("ada")
        assert [info.id for info in listed] == [second.id, first.id]
        assert [info.user for info in listed] == ["ada", "ada"]
        assert listed[0].authenticated_at == second.authenticated_at
        clock.advance("30 minutes")
        assert sessions.list_user("ada") == []

    def test_revoke_user_keeps_the_session_given_as_keep(self, sessions, clock):
        """S16, ASVS 7.4.2, 7.4.3."""
        events = []
        sessions.on(Revoked, events.append)
        kept, ended, other = self.login(sessions), self.login(sessions), self.login(sessions, "bob")
        assert sessions.revoke_user("ada", keep=kept.id, reason="lost", actor="admin") == 1
        assert events == [Revoked(ended.id, "lost", "admin", clock())]
        assert [info.id for info in sessions.list_user("ada")] == [kept.id]
        assert sessions.get(other.id) is not None
        assert run(load(sessions, self.ticket(ended))).ended_reason == "lost"
        assert self.login(sessions).user == "ada", "logging in again is possible at once"
        assert len(sessions.list_user("ada")) == 2

    def test_each_visitor_gets_the_reason_of_the_revocation(self, sessions):
        """B-41, S16: whether one session of the user was revoked or several."""
        for count in (1, 3):
            ended = [self.login(sessions) for _ in range(count)]
            assert sessions.revoke_user("ada", reason="lost") == count
            for session in ended:
                assert run(load(sessions, self.ticket(session))).ended_reason == "lost"

    def test_a_user_can_be_an_integer(self, sessions):
        """S15, S16: stored as text; every method accepts both."""
        session = self.login(sessions, 17)
        assert session.user == "17"
        (found,) = sessions.list_user(17)
        assert found == sessions.list_user("17")[0]
        assert sessions.credentials_changed(17, keep=session) == 0
        assert sessions.revoke_user(17) == 1

    def test_a_user_can_be_a_uuid(self, sessions):
        """S15, S16: such as a primary key; stored as text."""
        user = UUID("0b7e12aa-91d0-4c3b-8a51-7f6e5f8c1e90")
        session = self.login(sessions, user)
        assert session.user == str(user)
        assert sessions.list_user(user) == sessions.list_user(str(user)) != []
        assert sessions.revoke_user(user) == 1

    @pytest.mark.parametrize("invalid", [None, True, 1.5, b"ada", "", "a" * 256, "\ud800"])
    def test_none_is_not_a_user(self, sessions, invalid):
        """S15, S16: ``None`` is not the user with the name "None"."""
        self.login(sessions, "None")
        for act in (sessions.list_user, sessions.revoke_user, sessions.credentials_changed):
            with pytest.raises(TypeError, match="expected a user of 1 to 255 characters"):
                act(invalid)
        assert len(sessions.list_user("None")) == 1

    @pytest.mark.parametrize("keep", ["", "me", "A" * 32, 7])
    def test_an_invalid_id_given_as_keep_is_refused_and_revokes_nothing(self, sessions, keep):
        """ASVS 7.4.3: otherwise a typing error would end the caller's own session."""
        session = self.login(sessions)
        for wrong in (keep, session):
            with pytest.raises(ValueError, match="keep expects the public ID"):
                sessions.revoke_user("ada", keep=wrong)
        assert len(sessions.list_user("ada")) == 1

    @pytest.mark.parametrize("reason", [None, 7, object(), "\ud800"])
    def test_an_invalid_reason_is_refused_and_revokes_nothing(self, sessions, reason):
        """S16: it is checked before the first session is revoked."""
        one, two = self.login(sessions, labels={"idp_sid": "s-1"}), self.login(sessions)
        for act in (
            lambda: sessions.revoke(one.id, reason=reason),
            lambda: sessions.revoke_user("ada", reason=reason),
            lambda: sessions.revoke_where(idp_sid="s-1", reason=reason),
            lambda: sessions.revoke_all(reason=reason),
        ):
            with pytest.raises(TypeError, match="a reason is a text"):
                act()
        assert {info.id for info in sessions.list_user("ada")} == {one.id, two.id}

    def test_back_channel_logout_revokes_the_sessions_of_a_provider_session(self, sessions):
        """ASVS 7.1.3, 7.6.1."""
        ended = self.login(sessions, labels={"idp_sid": "s-1"})
        kept = self.login(sessions, labels={"idp_sid": "s-2"})
        assert sessions.revoke_where(idp_sid="s-1") == 1
        assert sessions.get(ended.id) is None
        assert sessions.get(kept.id) is not None
        for wrong in ({}, {"browser": "x"}, {"idp_sid": "a", "browser": "b"}):
            with pytest.raises(TypeError, match="exactly one of idp_sid"):
                sessions.revoke_where(**wrong)
        for no_id in (None, "", 7):  # a logout token need not name a session
            with pytest.raises(TypeError, match="idp_sid expects a text"):
                sessions.revoke_where(idp_sid=no_id)

    def test_credentials_changed_revokes_other_sessions_and_renews_the_current_one(self, sessions):
        """B-39, ASVS 7.4.3."""
        own, other = self.login(sessions, methods=("password",)), self.login(sessions)
        before = self.ticket(own)
        own = run(load(sessions, before))
        assert sessions.credentials_changed("ada", keep=own) == 1
        run(commit(own))
        assert run(load(sessions, before)).new
        again = run(load(sessions, self.ticket(own)))
        assert (again.user, again.methods, again["a"]) == ("ada", ("password",), 1)
        assert run(load(sessions, self.ticket(other))).ended_reason == "credentials changed"
        with pytest.raises(
            ValueError, match="expects a session of 'bob', found one of another user"
        ):
            sessions.credentials_changed("bob", keep=own)
        with pytest.raises(TypeError, match="keep expects a session, not its ID"):
            sessions.credentials_changed("ada", keep=own.id)
        assert sessions.credentials_changed("ada") == 1

    @pytest.mark.parametrize("pending", [False, True])
    def test_credentials_changed_keeps_labels_and_persistence(self, sessions, pending):
        """ASVS 7.4.3, 7.6.1: also after a password reset that logs the user in."""
        options = {"labels": {"idp_sid": "s-1", "device": "phone"}, "remember": True}
        own = self.login(sessions, methods=("password",), labels={"old": "gone"})
        own = run(load(sessions, self.ticket(own), Browser()))
        own.login("ada", **options)
        if not pending:
            run(commit(own))
        assert own.labels["device"] == "phone"
        sessions.credentials_changed("ada", keep=own)
        run(commit(own))
        noted = {**Browser().labels(), **options["labels"]}
        assert dict(own.labels) == dict(sessions.get(own.id).labels) == noted
        assert copy_of(own).record.persistent
        assert sessions.revoke_where(idp_sid="s-1") == 1

    def test_revoke_all_revokes_sessions_of_all_users(self, sessions):
        """ASVS 7.4.5."""
        events = []
        sessions.on(Revoked, events.append)
        ended = [self.login(sessions), self.login(sessions, "bob"), run(begin(sessions))]
        sessions.revoke_all(reason="incident", actor="ops")
        assert events == [Revoked("", "incident", "ops", sessions.engine.revoker.not_before)]
        assert sessions.count() == 0
        assert all(run(load(sessions, self.ticket(session))).new for session in ended)
        later = self.login(sessions)
        assert run(load(sessions, self.ticket(later))).user == "ada"

    def test_csrf_tokens_are_checked_by_session(self, sessions):
        """NIST SESS-19, SESS-20, B-17."""
        session = self.login(sessions)
        session = run(load(sessions, self.ticket(session)))
        token = session.csrf_token
        assert token != session.csrf_token, "masked differently each time"
        assert sessions.check_csrf(token, session)
        session.rotate()
        run(commit(session))
        assert sessions.check_csrf(token, session), "a form from before the rotation"
        session = run(load(sessions, self.ticket(session)))
        session.login("ada")
        run(commit(session))
        for wrong in (token, None, "", "x" * 86, 7):
            assert not sessions.check_csrf(wrong, session)
        assert not sessions.check_csrf(token, run(load(sessions, None)))

    def test_lists_need_a_store_with_a_user_index(self):
        class Plain:
            """A store with the six required methods only."""

            def __init__(self):
                memory = MemoryStore()
                for verb in ("load", "create", "save", "touch", "delete", "purge"):
                    setattr(self, verb, getattr(memory, verb))

        with pytest.raises(ConfigurationError, match="needs a store with an index of users"):
            Sessions(store=Plain(), secret=SECRET, max_sessions=3)
        sessions = Sessions(store=Plain(), secret=SECRET)
        session = self.login(sessions)
        again = run(load(sessions, self.ticket(session)))
        assert again.user == "ada", "logging in needs no lists"
        again.login("bob")
        run(commit(again))
        assert run(load(sessions, self.ticket(again))).user == "bob"
        for act in (
            lambda: sessions.list_user("ada"),
            lambda: sessions.revoke_user("ada"),
            sessions.revoke_all,
        ):
            with pytest.raises(ConfigurationError, match="has no index of users"):
                act()
