"""Login, rotation, grants and what follows for tickets, one engine at a time."""

import asyncio

import msgspec
import pytest

from sojourn._core.engine import ClaimedKey
from sojourn._core.policy import IN_FLIGHT_PERIOD
from sojourn._core.revocation import indexed_store
from sojourn._core.working_copy import CookieChange
from sojourn._crypto.rotation import VerifierChain
from sojourn.errors import (
    ConfigurationError,
    LimitReached,
    RecentAuthRequired,
    ResponseStarted,
    SessionGone,
    StoreUnavailable,
)
from sojourn.events import Authenticated, Created, Rejected, Reused, Revoked, Rotated, StoreFailed
from sojourn.record import NO_VERIFIER
from sojourn.store import LimitPolicy, SessionLimit
from tests.unit.core.engine_harness import Browser, World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio


async def started(world=None, **data):
    world = world or World()
    return world, await world.begin(Browser(browser="B"), **(data or {"a": 1}))


async def contents_after_login(world, ticket, user="ada", **options):
    session = await world.visit(ticket, Browser(browser="C"))
    session.login(user, **options)
    await end_of_request(session)
    return ticket_of(session)


class TestLogin:
    async def test_a_login_keeps_the_data_and_replaces_the_ticket(self):
        """A9, ASVS 7.2.4, B-25: the ticket from before is useless at once."""
        world, before = await started(cart=["apple"])
        session = await world.visit(before, Browser(browser="C", address="::1"))
        session["b"] = 2
        session.login("ada", methods=("password", "totp"), labels={"device": "phone"})
        assert (session.user, session.methods) == ("ada", ("password", "totp"))
        assert session.authenticated_at is not None
        await end_of_request(session)
        after = ticket_of(session)
        assert after.session_id == before.session_id
        assert after.verifier != before.verifier
        assert session._copy.cookie_change is CookieChange.SEND
        assert (await world.visit(before)).new
        again = await world.visit(after)
        assert (again.user, again.methods) == ("ada", ("password", "totp"))
        assert dict(again) == {"cart": ["apple"], "b": 2}
        assert dict(again.labels) == {"browser": "C", "address": "::1", "device": "phone"}
        assert world.emitted(Authenticated) == [
            Authenticated(session.id, "ada", ("password", "totp"))
        ]
        record = await world.record(after)
        assert record.authenticated_at == world.clock.now
        assert record.previous_verifier == NO_VERIFIER

    async def test_the_providers_session_stays_with_the_same_user_alone(self):
        """ASVS 7.6.1: proving it once more, by a code, takes no back-channel logout away."""
        world, ticket = await started()
        ticket = await contents_after_login(
            world, ticket, labels={"idp_sid": "s-1", "device": "phone"}
        )
        ticket = await contents_after_login(world, ticket, methods=["totp"])
        assert dict((await world.visit(ticket)).labels) == {"browser": "C", "idp_sid": "s-1"}
        ticket = await contents_after_login(world, ticket, labels={"idp_sid": "s-2"})
        assert (await world.visit(ticket)).labels["idp_sid"] == "s-2"
        ticket = await contents_after_login(world, ticket, "eve")
        assert "idp_sid" not in (await world.visit(ticket)).labels

    async def test_a_login_and_a_change_in_place_are_one_write(self):
        """A4."""
        world, ticket = await started(cart={})
        session = await world.visit(ticket)
        session["cart"]["apple"] = 1
        session.login("ada")
        await end_of_request(session)
        after = ticket_of(session)
        assert (await world.data(after))["cart"] == {"apple": 1}
        assert (await world.record(after)).version == 2

    async def test_two_logins_in_one_request_keep_the_providers_session(self):
        world, ticket = await started()
        session = await world.visit(ticket)
        session.login("ada", labels={"idp_sid": "s-1"})
        session.login("ada", methods=["totp"])
        assert session.labels["idp_sid"] == "s-1"

    async def test_a_login_in_the_first_request_begins_a_session(self):
        world = World()
        session = await world.visit(None, Browser(browser="B"))
        session.login("ada")
        await end_of_request(session)
        again = await world.visit(ticket_of(session))
        assert again.user == "ada"
        assert len(world.emitted(Created)) == len(world.emitted(Authenticated)) == 1

    async def test_only_a_login_restarts_the_longest_life(self):
        """A17, NIST REAUTH-10."""
        world, ticket = await started(World(absolute_timeout="1 hour", timeout="40 minutes"))
        world.clock.advance("35 minutes")
        ticket = await contents_after_login(world, ticket)
        world.clock.advance("35 minutes")
        session = await world.visit(ticket)
        assert not session.new
        session.rotate()
        await end_of_request(session)
        world.clock.advance("24 minutes")
        assert not (await world.visit(ticket_of(session))).new
        world.clock.advance("1 minute")
        assert (await world.visit(ticket_of(session))).ended_reason == "expired (absolute)"

    async def test_a_login_confirms_a_session(self):
        world, ticket = await started(World(unconfirmed_timeout="1 minute"))
        ticket = await contents_after_login(world, ticket)
        assert (await world.record(ticket)).confirmed

    async def test_a_second_login_at_the_same_moment_has_a_later_instant(self):
        """A9: a request with a record from between the two must notice."""
        world, ticket = await started()
        ticket = await contents_after_login(world, ticket)
        first = (await world.record(ticket)).authenticated_at
        ticket = await contents_after_login(world, ticket)
        assert (await world.record(ticket)).authenticated_at == first + 1

    async def test_clearing_keeps_a_login_on_request(self):
        """A24: ``clear(keep_login=True)`` empties the data only."""
        world, ticket = await started()
        ticket = await contents_after_login(world, ticket, methods=("password",))
        session = await world.visit(ticket)
        session.clear(keep_login=True)
        await end_of_request(session)
        again = await world.visit(ticket)
        assert (again.user, again.methods, dict(again)) == ("ada", ("password",), {})

    async def test_a_request_under_way_with_the_old_ticket_writes_nothing_more(self):
        """A9: it was useless from the login on, also for who had loaded the session before."""
        world, ticket = await started()
        late = await world.visit(ticket)
        late["late"] = True
        after = await contents_after_login(world, ticket)
        await end_of_request(late)
        assert late._copy.cookie_change is CookieChange.NONE
        assert world.emitted(Rejected)[-1].reason == "ended"
        assert dict(await world.visit(after)) == {"a": 1}
        with pytest.raises(SessionGone):
            await late.arefresh()
        with pytest.raises(SessionGone):
            late.login("mallory")

    async def test_of_two_logins_at_once_one_holds(self):
        """A9: a double click on the button."""
        world, ticket = await started()
        one, two = await world.visit(ticket), await world.visit(ticket)
        one.login("ada")
        two.login("ada")
        await end_of_request(one)
        await end_of_request(two)
        assert one._copy.cookie_change is CookieChange.SEND
        assert two._copy.cookie_change is CookieChange.NONE
        assert (await world.visit(ticket_of(one))).user == "ada"

    async def test_a_failing_request_logs_in_no_user(self):
        """A10."""
        world, ticket = await started()
        session = await world.visit(ticket)
        session.login("ada")
        await end_of_request(session, failed=True)
        assert session._copy.cookie_change is CookieChange.NONE
        assert (await world.visit(ticket)).user is None

    async def test_after_the_first_byte_there_is_no_login(self):
        """A11: the cookie cannot be sent any more."""
        world, ticket = await started()
        session = await world.visit(ticket)
        await end_of_request(session)
        for act in (lambda: session.login("ada"), session.rotate):
            with pytest.raises(ResponseStarted):
                act()

    async def test_logout_removes_the_record(self):
        """A7, B-35, ASVS 7.4.1."""
        world, ticket = await started()
        ticket = await contents_after_login(world, ticket)
        session = await world.visit(ticket)
        session.logout()
        assert session.user is None
        await end_of_request(session)
        assert session._copy.cookie_change is CookieChange.CLEAR
        gone = await world.visit(ticket)
        assert (gone.new, gone.user, gone.ended_reason) == (True, None, None)

    async def test_another_user_after_a_logout_in_one_request_has_nothing_of_the_first(self):
        world, ticket = await started(secret="ada's")
        ticket = await contents_after_login(world, ticket)
        session = await world.visit(ticket)
        session.logout()
        session.login("bob")
        await end_of_request(session)
        assert (session.user, dict(session)) == ("bob", {})
        assert session._copy.session_id() != ticket.session_id

    @pytest.mark.parametrize(
        ("user", "options", "text"),
        [
            ("", {}, "0 characters"),
            ("x" * 256, {}, "256 characters"),
            (True, {}, "found True"),
            (17.5, {}, "found 17.5"),
            (None, {}, "found None"),
            ("a\ud800", {}, r"found 'a\\ud800'"),
            ("ada", {"methods": "password"}, "methods expects texts"),
            ("ada", {"methods": [1]}, "methods expects texts"),
            ("ada", {"methods": ["\ud800"]}, "methods expects texts"),
            ("ada", {"labels": {"a": 1}}, "labels expects"),
            ("ada", {"labels": {1: "a"}}, "labels expects"),
            ("ada", {"labels": {"a": "\ud800"}}, "labels expects"),
            ("ada", {"remember": "off"}, "remember expects True or False, found 'off'"),
        ],
    )
    async def test_what_makes_no_sense_is_refused(self, user, options, text):
        with pytest.raises(TypeError, match=text):
            (await World().visit(None)).login(user, **options)

    async def test_of_special_text_only_what_it_says_is_taken(self):
        """What a template or a form made of it may be a class of its own."""

        class Safe(str):
            __slots__ = ()

            def __str__(self):
                return self

        world, ticket = await started()
        options = {"methods": [Safe("password")], "labels": {Safe("device"): Safe("phone")}}
        session = await world.visit(
            await contents_after_login(world, ticket, Safe("ada"), **options)
        )
        assert (session.user, session.methods) == ("ada", ("password",))
        assert session.labels["device"] == "phone"


LIMITS = {"timeout": "10 minutes", "absolute_timeout": "1 hour", "remember_timeout": "5 days"}


class TestRemember:
    async def test_a_remembered_session_outlives_the_ordinary_limits(self):
        world, ticket = await started(World(**LIMITS))
        ticket = await contents_after_login(world, ticket, remember=True)
        world.clock.advance("4 days")
        assert (await world.visit(ticket)).user == "ada"

    async def test_it_is_known_before_and_after_the_commit(self):
        """``credentials_changed`` keeps it, and responses to logged-in users are marked private."""
        world, ticket = await started(World(**LIMITS))
        session = await world.visit(ticket)
        assert (session._copy.persistent(), session._copy.authenticated()) == (False, False)
        session.login("ada", remember=True)
        assert (session._copy.persistent(), session._copy.authenticated()) == (True, True)
        await end_of_request(session)
        session = await world.visit(ticket_of(session))
        assert (session._copy.persistent(), session._copy.authenticated()) == (True, True)

    async def test_it_counts_as_less_recently_authenticated(self):
        """NIST SESS-05: after a silence the proof is old, whatever the clock says."""
        world, ticket = await started(World(**LIMITS))
        ticket = await contents_after_login(world, ticket, remember=True)
        session = await world.visit(ticket)
        assert not session.remembered
        session.require_recent("1 hour")
        world.clock.advance("11 minutes")
        session = await world.visit(ticket)
        assert session.remembered
        await end_of_request(session)
        assert (await world.record(ticket)).reauthentication_required, (
            "noted though the handler changed nothing"
        )
        session = await world.visit(ticket)
        with pytest.raises(RecentAuthRequired) as caught:
            session.require_recent("1 hour")
        assert caught.value.age is None
        ticket = await contents_after_login(world, ticket, remember=True)
        session = await world.visit(ticket)
        assert not session.remembered
        session.require_recent("1 hour")

    async def test_a_session_becomes_persistent_without_a_login(self):
        """A17: its lifetime counts from its creation."""
        world = World(**LIMITS)
        session = await world.visit(None)
        session["a"] = 1
        session._copy.set_persistence(True)
        assert session._copy.persistent()
        await end_of_request(session)
        ticket = ticket_of(session)
        record = await world.record(ticket)
        assert record.persistent
        assert record.absolute_at - record.created_at == 30 * 86_400_000
        world.clock.advance("4 days")
        session = await world.visit(ticket)
        assert session["a"] == 1
        assert not session.remembered
        session._copy.set_persistence(False)
        await end_of_request(session)
        record = await world.record(ticket)
        assert not record.persistent
        assert record.absolute_at - record.created_at == 3_600_000
        assert (await world.visit(ticket)).get("a") is None

    async def test_the_cookie_of_a_persistent_session_is_sent_again(self):
        world, ticket = await started(World(**LIMITS))
        session = await world.visit(ticket)
        session._copy.set_persistence(True)
        await end_of_request(session)
        assert session._copy.cookie_change is CookieChange.SEND
        session = await world.visit(ticket)
        session._copy.set_persistence(True)
        assert not session._copy.modified()
        await end_of_request(session)
        assert session._copy.cookie_change is CookieChange.NONE

    async def test_a_failing_request_does_not_change_the_persistence(self):
        """A10."""
        world, ticket = await started(World(**LIMITS))
        session = await world.visit(ticket)
        session._copy.set_persistence(True)
        await end_of_request(session, failed=True)
        assert not (await world.record(ticket)).persistent

    async def test_a_response_that_has_started_refuses_another_persistence(self):
        """A11."""
        world, ticket = await started(World(**LIMITS))
        session = await world.visit(ticket)
        session._copy.response_started = True
        with pytest.raises(ResponseStarted):
            session._copy.set_persistence(True)

    async def test_a_restored_login_is_not_recent(self):
        """NIST SESS-05: in the request itself, and later."""
        world, ticket = await started(World(**LIMITS))
        session = await world.visit(ticket)
        session.login("ada", remember=True)
        session._copy.renewal = msgspec.structs.replace(session._copy.renewal, restored=True)
        for _ in range(2):
            assert session.remembered
            with pytest.raises(RecentAuthRequired):
                session.require_recent("1 hour")
            await end_of_request(session)
            session = await world.visit(ticket_of(session))

    async def test_a_new_visitor_is_not_remembered(self):
        assert not (await World().visit(None)).remembered


class TestRecentAuth:
    async def test_age_and_methods(self):
        """ASVS 7.5.1, 7.5.3."""
        world, ticket = await started()
        ticket = await contents_after_login(world, ticket, methods=("password",))
        world.clock.advance("5 minutes")
        session = await world.visit(ticket)
        session.require_recent("5 minutes", methods=("password",))
        with pytest.raises(RecentAuthRequired, match="by totp") as caught:
            session.require_recent("5 minutes", methods=("password", "totp"))
        assert caught.value.missing == ("totp",)
        world.clock.advance("1 ms")
        session = await world.visit(ticket)
        with pytest.raises(RecentAuthRequired) as caught:
            session.require_recent("5 minutes")
        assert caught.value.age == pytest.approx(300.001)
        assert caught.value.limit == 300
        session.login("ada")
        session.require_recent("1 second")

    async def test_one_method_alone_is_no_list_of_them(self):
        """ASVS 7.5.3: its letters would be missing for ever."""
        world, ticket = await started()
        session = await world.visit(await contents_after_login(world, ticket, methods=["totp"]))
        with pytest.raises(TypeError, match="methods expects texts"):
            session.require_recent("5 minutes", methods="totp")

    async def test_nobody(self):
        session = await World().visit(None)
        assert (session.user, session.methods, session.authenticated_at) == (None, (), None)
        with pytest.raises(RecentAuthRequired, match="none that counts"):
            session.require_recent("5 minutes")


class TestGrants:
    async def test_a_grant_is_used_once(self):
        """ASVS 7.5.3."""
        world, ticket = await started()
        session = await world.visit(ticket)
        session.grant("delete-account")
        await end_of_request(session)
        one, two = await world.visit(ticket), await world.visit(ticket)
        assert [await one.ause_grant("delete-account"), await two.ause_grant("delete-account")] == [
            True,
            False,
        ]
        assert dict(await world.visit(ticket)) == {"a": 1}

    async def test_a_grant_ends(self):
        world, ticket = await started()
        session = await world.visit(ticket)
        session.grant("delete-account", "1 minute")
        await end_of_request(session)
        world.clock.advance("1 minute")
        assert not await (await world.visit(ticket)).ause_grant("delete-account")

    async def test_a_login_takes_grants_away(self):
        """ASVS 7.5.3: a factor that was proved by one user allows nothing to the next."""
        world, ticket = await started()
        session = await world.visit(ticket)
        session.grant("delete-account")
        await end_of_request(session)
        ticket = await contents_after_login(world, ticket)
        assert not await (await world.visit(ticket)).ause_grant("delete-account")

    async def test_a_grant_given_after_the_login_stays(self):
        """ASVS 7.5.3: also in the same request; what an earlier login was granted does not."""
        world, ticket = await started()
        session = await world.visit(ticket)
        session.grant("old")
        session.login("eve")
        session.grant("older")
        session.login("ada")
        session.grant("new")
        await world.write(ticket, b=2)  # so that the login is replayed
        await end_of_request(session)
        session = await world.visit(ticket_of(session))
        assert [await session.ause_grant(purpose) for purpose in ("old", "older", "new")] == [
            False,
            False,
            True,
        ]

    def test_without_a_loop(self):
        from sojourn._core.concurrency import run

        world, ticket = run(started())
        session = run(world.visit(ticket))
        session.grant("x")
        assert session.use_grant("x")

    @pytest.mark.parametrize("wrong", ["", 7, "\ud800"])
    async def test_a_grant_has_a_purpose(self, wrong):
        with pytest.raises(TypeError, match="for a purpose such as"):
            (await World().visit(None)).grant(wrong)


class TestRotation:
    async def test_both_tickets_work_until_the_new_one_was_seen(self):
        """A9."""
        world, before = await started()
        session = await world.visit(before)
        session.rotate()
        session.rotate()
        await end_of_request(session)
        after = ticket_of(session)
        assert after.verifier != before.verifier
        assert session._copy.cookie_change is CookieChange.SEND
        assert world.emitted(Rotated) == [Rotated(session.id)]
        for _ in range(3):  # the answer may have been lost: it comes again
            world.clock.advance("29 minutes")
            late = await world.visit(before)
            assert late["a"] == 1
            assert late._copy.cookie_change is CookieChange.SEND
            assert ticket_of(late) == after
            late.rotate()
            await end_of_request(late)
        assert len(world.emitted(Rotated)) == 1

    async def test_without_a_grace_period_the_previous_ticket_is_dead_at_once(self):
        """Session fixation: a request with the previous ticket must not receive the new one."""
        world, before = await started()
        session = await world.visit(before)
        session.rotate(grace_period=False)
        await end_of_request(session)
        after = ticket_of(session)
        assert after.verifier != before.verifier
        assert (await world.visit(before)).new
        assert (await world.visit(after))["a"] == 1
        assert world.emitted(Reused) == []

    async def test_a_grace_period_ends_with_a_rotation_without_one(self):
        world, first = await started()
        session = await world.visit(first)
        session.rotate()
        await end_of_request(session)
        session = await world.visit(first)
        session.rotate(grace_period=False)
        await end_of_request(session)
        assert (await world.visit(first)).new
        assert (await world.visit(ticket_of(session)))["a"] == 1

    async def test_a_new_session_or_a_login_needs_no_such_rotation(self):
        world = World()
        session = await world.visit(None)
        session.rotate(grace_period=False)
        assert session._copy.renewal is None
        session["a"] = 1
        session.login("ada")
        login = session._copy.renewal
        session.rotate(grace_period=False)
        assert session._copy.renewal is login

    async def test_parallel_rotations_both_end_the_previous_ticket(self):
        """A6, A9: the write of the request with a grace period is kept, and its ticket is not."""
        world, before = await started()
        strict, lenient = await world.visit(before), await world.visit(before)
        strict.rotate(grace_period=False)
        lenient["b"] = 2
        lenient.rotate()
        await end_of_request(lenient)
        await end_of_request(strict)
        assert (await world.visit(before)).new
        assert (await world.visit(ticket_of(lenient))).new
        assert (await world.visit(ticket_of(strict)))["b"] == 2

    async def test_seeing_the_new_one_leaves_stragglers_a_moment(self):
        """A9: requests that left before the answer arrived are on their way still."""
        world, before = await started()
        session = await world.visit(before)
        session.rotate()
        await end_of_request(session)
        await end_of_request(await world.visit(ticket_of(session)))
        world.clock.advance(IN_FLIGHT_PERIOD / 1000 - 0.001)
        assert (await world.visit(before))["a"] == 1
        world.clock.advance("1 ms")
        assert (await world.visit(before)).new
        assert world.emitted(Reused) == [Reused(session.id)]

    async def test_a_second_rotation_waits_for_the_stragglers_of_the_first(self):
        """A9: a double click does not shorten the grace period, and is not a sign of theft."""
        world, before = await started()
        session = await world.visit(before)
        session.rotate()
        await end_of_request(session)
        after = ticket_of(session)
        again = await world.visit(after)
        again.rotate()
        await end_of_request(again)
        assert ticket_of(again) == after
        assert (await world.visit(before))["a"] == 1
        assert not world.emitted(Reused)
        world.clock.advance(IN_FLIGHT_PERIOD / 1000)
        later = await world.visit(after)
        later.rotate()
        await end_of_request(later)
        assert ticket_of(later) != after

    async def test_an_interval_below_the_grace_keeps_the_grace(self):
        """A9: what is under way with the former ticket works, however often there is a new one."""
        world, ticket = await started(World(rotate_interval="1 second"))
        world.clock.advance("1 minute")
        replaced = {}
        for _ in range(20):
            session = await world.visit(ticket)
            await end_of_request(session)
            if ticket_of(session) != ticket:
                replaced[ticket] = world.clock.now
                ticket = ticket_of(session)
            for former, at in replaced.items():
                if world.clock.now < at + IN_FLIGHT_PERIOD:
                    assert (await world.visit(former))["a"] == 1
            world.clock.advance("500 ms")
        assert len(world.emitted(Rotated)) > 1
        assert not world.emitted(Reused)

    async def test_the_former_ticket_is_the_sign_of_theft_after_the_grace(self):
        """A9, B-40: it ends the session, also for the holder of the new ticket."""
        world, before = await started()
        session = await world.visit(before)
        session.rotate()
        await end_of_request(session)
        await end_of_request(await world.visit(ticket_of(session)))
        world.clock.advance(IN_FLIGHT_PERIOD / 1000)
        thief = await world.visit(before)
        assert thief.new
        assert thief.ended_reason == "reused"
        assert world.emitted(Revoked)[-1].reason == "reused"
        owner = await world.visit(ticket_of(session))
        assert (owner.new, owner.ended_reason) == (True, "reused")

    async def test_a_ticket_of_many_rotations_ago_is_recognised(self):
        """A9, B-40."""
        world, first = await started()
        ticket = first
        for _ in range(5):
            session = await world.visit(ticket)
            session.rotate()
            await end_of_request(session)
            ticket = ticket_of(session)
            await end_of_request(await world.visit(ticket))
            world.clock.advance(IN_FLIGHT_PERIOD / 1000)
        assert (await world.visit(first)).new
        assert world.emitted(Reused)

    async def test_ignoring_reuse_keeps_the_session(self):
        world, before = await started(World(revoke_reused=False))
        session = await world.visit(before)
        session.rotate()
        await end_of_request(session)
        await end_of_request(await world.visit(ticket_of(session)))
        world.clock.advance("1 minute")
        assert (await world.visit(before)).new
        assert world.emitted(Reused)
        assert (await world.visit(ticket_of(session)))["a"] == 1

    async def test_a_ticket_from_before_a_login_is_no_alarm(self):
        """Parallel requests of the login page bring it: they must not log any user out."""
        world, before = await started()
        after = await contents_after_login(world, before)
        assert (await world.visit(before)).new
        assert world.emitted(Rejected)[-1].reason == "replaced"
        assert not world.emitted(Reused)
        assert (await world.visit(after)).user == "ada"

    async def test_parallel_rotations_arrive_at_one_ticket(self):
        """A9: the order of responses does not log a visitor out."""
        world, before = await started()
        one, two = await world.visit(before), await world.visit(before, elsewhere=True)
        for session in (one, two):
            session["at"] = id(session)
            session.rotate()
        await end_of_request(one)
        await end_of_request(two)
        assert ticket_of(one) == ticket_of(two)
        assert one._copy.cookie_change is two._copy.cookie_change is CookieChange.SEND
        assert (await world.visit(ticket_of(one)))["at"] == id(two)
        assert len(world.emitted(Rotated)) == 1

    async def test_parallel_rotations_without_a_change(self):
        world, before = await started()
        one, two = await world.visit(before), await world.visit(before, elsewhere=True)
        one.rotate()
        two.rotate()
        await end_of_request(one)
        await end_of_request(two)
        assert ticket_of(one) == ticket_of(two)

    async def test_a_writer_behind_a_rotation_continues_with_the_new_ticket(self):
        """A6, A9: replayed on the newer record; it takes over the new ticket."""
        world, before = await started()
        late = await world.visit(before)
        late["late"] = True
        session = await world.visit(before, elsewhere=True)
        session.rotate()
        await end_of_request(session)
        await end_of_request(late)
        assert ticket_of(late) == ticket_of(session)
        assert dict(await world.visit(ticket_of(session))) == {"a": 1, "late": True}

    async def test_a_socket_stays_open_through_many_rotations(self):
        """W5: it has an older ticket than the page by now."""
        world, ticket = await started()
        socket = await world.visit(ticket)
        socket._copy.response_started = True
        for _ in range(3):
            session = await world.visit(ticket)
            session.rotate()
            session["n"] = session.get("n", 0) + 1
            await end_of_request(session)
            ticket = ticket_of(session)
            await end_of_request(await world.visit(ticket))
            world.clock.advance(IN_FLIGHT_PERIOD / 1000)
        await socket.arefresh()
        assert socket["n"] == 3
        socket["socket"] = True
        await end_of_request(socket)
        assert (await world.visit(ticket))["socket"]
        assert socket._copy.cookie_change is CookieChange.NONE

    async def test_a_ticket_whose_grace_is_over_begets_no_other(self):
        """A9: a handler of before the rotation may still run, and its ticket is dead by now."""
        world, ticket = await started()
        late = await world.visit(ticket)
        session = await world.visit(ticket)
        session.rotate()
        await end_of_request(session)
        await end_of_request(await world.visit(ticket_of(session)))
        await late.arefresh()
        world.clock.advance(IN_FLIGHT_PERIOD / 1000)
        late.rotate()
        late["b"] = 2
        await end_of_request(late)
        assert dict(await world.visit(ticket_of(session))) == {"a": 1, "b": 2}
        assert len(world.emitted(Rotated)) == 1

    async def test_a_failing_request_still_rotates(self):
        """A10: destroy and rotate are kept, data is not."""
        world, before = await started()
        session = await world.visit(before)
        session["b"] = 2
        session.rotate()
        await end_of_request(session, failed=True)
        assert ticket_of(session).verifier != before.verifier
        assert dict(await world.visit(ticket_of(session))) == {"a": 1}

    async def test_a_login_in_the_same_request_is_more(self):
        world, before = await started()
        session = await world.visit(before)
        session.login("ada")
        session.rotate()
        await end_of_request(session)
        assert (await world.record(before)).previous_verifier == NO_VERIFIER
        assert not world.emitted(Rotated)

    async def test_a_new_session_has_nothing_to_rotate(self):
        world = World()
        session = await world.visit(None)
        session.rotate()
        await end_of_request(session)
        assert world.store.calls == []

    async def test_where_the_secret_changed_the_former_ticket_cannot_rotate_again(self):
        world, before = await started()
        session = await world.visit(before)
        session.rotate()
        await end_of_request(session)
        world.replace_rotation(
            VerifierChain([b"another secret of the same world"], realm="default")
        )
        late = await world.visit(before)
        assert late["a"] == 1
        assert late._copy.cookie_change is CookieChange.NONE, (
            "what the new ticket is cannot be known"
        )
        late.rotate()
        world.clock.advance("10 minutes")
        late.rotate()
        late["b"] = 2
        await end_of_request(late)
        assert dict(await world.visit(ticket_of(session))) == {"a": 1, "b": 2}


class TestAutomaticRotation:
    async def test_an_old_ticket_is_replaced(self):
        """OWASP renewal timeout; A3 otherwise: not before it is due."""
        world, ticket = await started(World(rotate_interval="10 minutes"))
        world.clock.advance("9 minutes")
        await end_of_request(session := await world.visit(ticket))
        assert session._copy.cookie_change is CookieChange.NONE
        world.clock.advance("1 minute")
        await end_of_request(session := await world.visit(ticket))
        assert session._copy.cookie_change is CookieChange.SEND
        assert len(world.emitted(Rotated)) == 1
        await end_of_request(again := await world.visit(ticket_of(session)))
        assert again._copy.cookie_change is CookieChange.NONE

    async def test_a_failing_request_does_not(self):
        """A12: a response that is not sent must not replace a ticket."""
        world, ticket = await started(World(rotate_interval="10 minutes"))
        world.clock.advance("10 minutes")
        await end_of_request(session := await world.visit(ticket), failed=True)
        assert ticket_of(session) == ticket
        assert not world.emitted(Rotated)


class TestLimits:
    async def test_one_too_many_ends_the_oldest(self):
        """ASVS 7.1.2."""
        world = World(limit=SessionLimit(2, LimitPolicy.EVICT_OLDEST))
        tickets = []
        for _ in range(3):
            world.clock.advance("1 second")
            _, ticket = await started(world)
            tickets.append(await contents_after_login(world, ticket))
        first = await world.visit(tickets[0])
        assert (first.new, first.ended_reason) == (True, "limit")
        assert [(await world.visit(ticket)).user for ticket in tickets[1:]] == ["ada", "ada"]
        assert world.emitted(Revoked) == [
            Revoked(tickets[0].session_id.hex(), "limit", None, world.clock())
        ]

    async def test_refusing_raises_and_writes_nothing(self):
        world = World(limit=SessionLimit(1, LimitPolicy.REFUSE))
        _, ticket = await started(world)
        await contents_after_login(world, ticket)
        _, ticket = await started(world)
        session = await world.visit(ticket)
        session.login("ada")
        with pytest.raises(LimitReached, match="fewer than 1 sessions"):
            await session.acommit()
        new = await world.visit(None)
        new.login("ada")
        with pytest.raises(LimitReached):
            await new.acommit()
        assert (await world.visit(ticket)).user is None
        assert dict(await world.visit(ticket)) == {"a": 1}

    async def test_who_is_refused_has_no_grant_of_that_login(self):
        """ASVS 7.5.3: the factor belongs to a login that was refused."""
        world = World(limit=SessionLimit(1, LimitPolicy.REFUSE))
        _, ticket = await started(world)
        await contents_after_login(world, ticket)
        for visited in ((await started(world))[1], None):
            session = await world.visit(visited)
            session.login("ada")
            session.grant("delete-account")
            session["b"] = 2
            with pytest.raises(LimitReached):
                await session.acommit()
            await end_of_request(session)  # its handler answered that, with something written
            again = await world.visit(ticket_of(session))
            assert (again.user, again["b"]) == (None, 2)
            assert not await again.ause_grant("delete-account")


class TestRevokingUsers:
    async def test_a_login_that_began_before_is_refused(self):
        """S16: also one that was just committing."""
        world, ticket = await started()
        session, new = await world.visit(ticket), await world.visit(None)
        session.login("ada")
        new.login("ada")
        await world.engine.revoker.revoke_indexed("user:ada", "disabled", keep=None, actor=None)
        for each in (session, new):
            await end_of_request(each)
            assert each._copy.cookie_change is CookieChange.NONE
        session["b"] = 1
        with pytest.raises(SessionGone):
            await session.acommit()
        assert (await world.visit(ticket)).user is None
        later = await contents_after_login(world, ticket)
        assert (await world.visit(later)).user == "ada"

    async def test_an_explicit_commit_of_such_a_login_raises(self):
        world = World()
        new = await world.visit(None)
        new.login("ada")
        await world.engine.revoker.revoke_indexed("user:ada", "disabled", keep=None, actor=None)
        with pytest.raises(SessionGone):
            await new.acommit()

    async def test_a_store_that_fails_is_told(self):
        """S12."""
        world, ticket = await started()
        await contents_after_login(world, ticket)
        for verb, act in (
            (
                "list_by_index",
                world.engine.revoker.revoke_indexed("user:ada", "x", keep=None, actor=None),
            ),
            ("invalidate_all", world.engine.revoker.revoke_all("x", actor=None)),
        ):
            world.store.fail(verb, times=1)
            with pytest.raises(StoreUnavailable):
                await act
        assert len(world.emitted(StoreFailed)) == 2

    async def test_an_end_whose_reason_cannot_be_kept_is_an_end(self):
        world, ticket = await started()
        world.store.fail("create", times=1)
        assert await world.engine.revoker.revoke(ticket.session_id, "stolen")
        gone = await world.visit(ticket)
        assert (gone.new, gone.ended_reason) == (True, None)
        assert world.emitted(StoreFailed)[0].operation == "add_tombstone"


class TestCsrf:
    async def test_a_token_begins_a_session_and_belongs_to_its_ticket(self):
        """NIST SESS-19, SESS-20."""
        world = World()
        session = await world.visit(None)
        token = session.csrf_token
        await end_of_request(session)
        record = await world.record(ticket_of(session))
        assert world.engine.context.csrf.check(token, [record.verifier])
        assert dict(session) == {}

    async def test_a_token_made_beside_a_login_is_good_after_it(self):
        world, ticket = await started()
        session = await world.visit(ticket)
        before = session.csrf_token
        session.login("ada")
        token = session.csrf_token
        await end_of_request(session)
        record = await world.record(ticket)
        assert world.engine.context.csrf.check(token, [record.verifier, record.previous_verifier])
        assert not world.engine.context.csrf.check(
            before, [record.verifier, record.previous_verifier]
        )


class TestSealed:
    @pytest.mark.parametrize("encrypt", [True, "ticket"])
    async def test_a_whole_life_under_encryption(self, encrypt):
        """ASVS 11.2.2: the same lives, and nothing of the data in the record."""
        world = World(encrypt=encrypt)
        _, first = await started(world, note="plain text")
        session = await world.visit(first)
        session.login("ada", methods=("password",))
        session["b"] = 2
        await end_of_request(session)
        second = ticket_of(session)
        session = await world.visit(second)
        session.rotate()
        await end_of_request(session)
        third = ticket_of(session)
        late = await world.visit(second)
        late["late"] = True
        await end_of_request(late)
        socket = await world.visit(third)
        socket._copy.response_started = True
        session = await world.visit(third)
        session.rotate()
        await end_of_request(session)
        fourth = ticket_of(session)
        await socket.arefresh()
        socket["socket"] = 1
        await end_of_request(socket)
        again = await world.visit(fourth)
        assert dict(again) == {"note": "plain text", "b": 2, "late": True, "socket": 1}
        assert again.user == "ada"
        record = await world.record(fourth)
        assert b"plain text" not in record.to_bytes()
        assert b"late" not in record.to_bytes()


class TestRare:
    async def test_an_id_that_is_taken_is_replaced_at_a_login_too(self):
        """ASVS 7.2.3."""
        world = World(encrypt=True)
        session = await world.visit(None)
        session.login("ada")
        session["a"] = 1
        taken = session._copy.session_id()
        _, other = await started(world)
        await world.memory.create(msgspec.structs.replace(await world.record(other), id=taken))
        await end_of_request(session)
        assert session._copy.session_id() != taken
        assert dict(await world.visit(ticket_of(session))) == {"a": 1}

    async def test_a_store_without_lists_takes_logins(self):
        """Lists are a capability; a login is not."""
        world = World()

        class Plain:
            def __init__(self):
                for verb in ("load", "create", "save", "touch", "delete", "purge"):
                    setattr(self, verb, getattr(world.memory, verb))

        world.store = Plain()
        world.engine = world.another_process()
        new = await world.visit(None)
        new.login("ada")
        await end_of_request(new)
        ticket = await contents_after_login(world, ticket_of(new), "bob")
        assert (await world.visit(ticket)).user == "bob"
        with pytest.raises(ConfigurationError, match="has no index"):
            indexed_store(world.store)

    async def test_ending_a_user_keeps_the_one_that_was_named(self):
        world, ticket = await started()
        ticket = await contents_after_login(world, ticket)
        _, other = await started(world)
        await contents_after_login(world, other)
        ended = await world.engine.revoker.revoke_indexed(
            "user:ada", "x", keep=ticket.session_id, actor=None
        )
        assert ended == 1
        assert (await world.visit(ticket)).user == "ada"

    async def test_a_reason_that_is_no_text_revokes_no_session(self):
        world, ticket = await started()
        ticket = await contents_after_login(world, ticket)
        with pytest.raises(TypeError, match="a reason is a text, found 3"):
            await world.engine.revoker.revoke_indexed("user:ada", 3, keep=None, actor=None)
        assert (await world.visit(ticket)).user == "ada"

    async def test_all_sessions_at_once(self):
        """ASVS 7.4.5."""
        world, ticket = await started()
        await world.engine.revoker.revoke_all("incident", actor="ops")
        assert world.emitted(Revoked) == [
            Revoked("", "incident", "ops", world.engine.revoker.not_before)
        ]
        assert (await world.visit(ticket)).new

    async def test_a_mark_that_cannot_be_read_is_none(self):
        """S9."""
        world, ticket = await started()
        await world.engine.revoker.revoke(ticket.session_id, "stolen")
        (mark,) = world.memory._records.values()
        world.memory._records[mark.id] = msgspec.structs.replace(mark, body=b"\xc1")
        assert (await world.visit(ticket)).ended_reason is None

    async def test_a_store_that_fails_while_the_reason_is_looked_up_is_no_empty_session(self):
        """A15."""
        world, ticket = await started()
        await world.engine.revoker.revoke(ticket.session_id, "stolen")

        async def then_fail():
            world.store.fail("load", times=1)

        world.store.meanwhile("load", then_fail)
        with pytest.raises(StoreUnavailable):
            await world.visit(ticket)

    async def test_a_replaced_ticket_of_an_expired_session_is_no_alarm(self):
        world, before = await started()
        session = await world.visit(before)
        session.rotate()
        await end_of_request(session)
        world.clock.advance("31 minutes")
        assert (await world.visit(before)).ended_reason == "expired (idle)"
        assert not world.emitted(Reused)

    async def test_labels_are_checked_for_a_former_ticket_too(self):
        world = World(check_labels=("browser",))
        before = await world.begin(Browser(browser="B"), a=1)
        session = await world.visit(before, Browser(browser="B"))
        session.rotate()
        await end_of_request(session)
        assert (await world.visit(before, Browser(browser="other"))).new
        assert (await world.visit(before, Browser(browser="B")))["a"] == 1

    async def test_a_rotation_is_written_with_an_amendment_that_changes_nothing(self):
        """Requested before the record was changed by a claim that found nothing."""
        world, before = await started()
        session = await world.visit(before)
        session.rotate()
        base = session._copy.record
        assert await world.engine.writer.write(
            session._copy, base, ClaimedKey("absent"), world.clock.now
        )
        assert ticket_of(session).verifier != before.verifier

    async def test_a_newer_record_whose_ticket_cannot_be_known(self):
        """The secret was changed between two processes: the work goes on, the cookie stays."""
        world, before = await started()
        late = await world.visit(before)
        late["late"] = 1
        session = await world.visit(before)
        own = world.engine.context.rotation
        world.replace_rotation(
            VerifierChain([b"a newer secret of another process"], realm="default")
        )
        session.rotate()
        await end_of_request(session)
        world.replace_rotation(own)
        await end_of_request(late)
        assert late._copy.cookie_change is CookieChange.NONE
        assert dict(await world.visit(ticket_of(session))) == {"a": 1, "late": 1}

    async def test_a_newer_record_twice_in_one_commit_is_followed_once(self):
        world, before = await started()
        late = await world.visit(before)
        late["late"] = 1
        session = await world.visit(before)
        session.rotate()
        await end_of_request(session)

        async def another_write():
            await world.write(ticket_of(session), b=2)

        async def a_third_one():
            await world.write(ticket_of(session), b=3)

        world.store.meanwhile("save", another_write)  # the first of ``late``
        world.store.meanwhile("save", lambda: asyncio.sleep(0))  # that of the other write
        world.store.meanwhile("save", a_third_one)  # the second of ``late``
        await end_of_request(late)
        assert ticket_of(late) == ticket_of(session)
        assert dict(await world.visit(ticket_of(session))) == {"a": 1, "b": 3, "late": 1}

    async def test_what_began_meanwhile_and_was_followed_on_a_socket_sends_no_cookie(self):
        world, before = await started()
        socket = await world.visit(before)
        socket._copy.response_started = True
        session = await world.visit(before)
        session.rotate()
        await end_of_request(session)
        socket["s"] = 1
        await end_of_request(socket)
        assert socket._copy.cookie_change is CookieChange.NONE
        assert socket._copy.verifier == session._copy.verifier

    async def test_a_load_after_the_first_byte_rotates_nothing(self):
        """A9: the new ticket could not be sent, and the old one would die."""
        world, ticket = await started(World(rotate_interval="10 minutes"))
        world.clock.advance("10 minutes")
        session = await world.visit(ticket)
        session._copy.mark_response_started()
        await end_of_request(session)
        assert not world.emitted(Rotated)
        assert (await world.visit(ticket))["a"] == 1
