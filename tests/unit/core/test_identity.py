"""Login, rotation, grants and the tickets that each of them invalidates."""

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
from tests.support.working_copies import copy_of
from tests.unit.core.engine_harness import Browser, World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio


async def stored_session(world=None, **data):
    world = world or World()
    return world, await world.create(Browser(browser="B"), **(data or {"a": 1}))


async def log_in(world, ticket, user="ada", **options):
    session = await world.load(ticket, Browser(browser="C"))
    session.login(user, **options)
    await end_of_request(session)
    return ticket_of(session)


class TestLogin:
    async def test_a_login_keeps_the_data_and_replaces_the_ticket(self):
        """A9, ASVS 7.2.4, B-25: the previous ticket is invalid at once."""
        world, before = await stored_session(cart=["apple"])
        session = await world.load(before, Browser(browser="C", address="::1"))
        session["b"] = 2
        session.login("ada", methods=("password", "totp"), labels={"device": "phone"})
        assert (session.user, session.methods) == ("ada", ("password", "totp"))
        assert session.authenticated_at is not None
        await end_of_request(session)
        after = ticket_of(session)
        assert after.session_id == before.session_id
        assert after.verifier != before.verifier
        assert copy_of(session).cookie_change is CookieChange.SEND
        assert (await world.load(before)).new
        again = await world.load(after)
        assert (again.user, again.methods) == ("ada", ("password", "totp"))
        assert dict(again) == {"cart": ["apple"], "b": 2}
        assert dict(again.labels) == {"browser": "C", "address": "::1", "device": "phone"}
        assert world.emitted(Authenticated) == [
            Authenticated(session.id, "ada", ("password", "totp"))
        ]
        record = await world.record(after)
        assert record.authenticated_at == world.clock.now
        assert record.previous_verifier == NO_VERIFIER

    async def test_the_identity_provider_session_is_kept_for_the_same_user_only(self):
        """ASVS 7.6.1: a second factor of the same user keeps back-channel logout working."""
        world, ticket = await stored_session()
        ticket = await log_in(world, ticket, labels={"idp_sid": "s-1", "device": "phone"})
        ticket = await log_in(world, ticket, methods=["totp"])
        assert dict((await world.load(ticket)).labels) == {"browser": "C", "idp_sid": "s-1"}
        ticket = await log_in(world, ticket, labels={"idp_sid": "s-2"})
        assert (await world.load(ticket)).labels["idp_sid"] == "s-2"
        ticket = await log_in(world, ticket, "eve")
        assert "idp_sid" not in (await world.load(ticket)).labels

    async def test_a_login_and_a_change_in_place_are_written_together(self):
        """A4."""
        world, ticket = await stored_session(cart={})
        session = await world.load(ticket)
        session["cart"]["apple"] = 1
        session.login("ada")
        await end_of_request(session)
        after = ticket_of(session)
        assert (await world.data(after))["cart"] == {"apple": 1}
        assert (await world.record(after)).version == 2

    async def test_two_logins_in_one_request_keep_the_identity_provider_session(self):
        world, ticket = await stored_session()
        session = await world.load(ticket)
        session.login("ada", labels={"idp_sid": "s-1"})
        session.login("ada", methods=["totp"])
        assert session.labels["idp_sid"] == "s-1"

    async def test_a_login_in_the_first_request_creates_a_session(self):
        world = World()
        session = await world.load(None, Browser(browser="B"))
        session.login("ada")
        await end_of_request(session)
        again = await world.load(ticket_of(session))
        assert again.user == "ada"
        assert len(world.emitted(Created)) == len(world.emitted(Authenticated)) == 1

    async def test_only_a_login_restarts_the_absolute_timeout(self):
        """A17, NIST REAUTH-10."""
        world, ticket = await stored_session(World(absolute_timeout="1 hour", timeout="40 minutes"))
        world.clock.advance("35 minutes")
        ticket = await log_in(world, ticket)
        world.clock.advance("35 minutes")
        session = await world.load(ticket)
        assert not session.new
        session.rotate()
        await end_of_request(session)
        world.clock.advance("24 minutes")
        assert not (await world.load(ticket_of(session))).new
        world.clock.advance("1 minute")
        assert (await world.load(ticket_of(session))).ended_reason == "expired (absolute)"

    async def test_a_login_confirms_a_session(self):
        world, ticket = await stored_session(World(unconfirmed_timeout="1 minute"))
        ticket = await log_in(world, ticket)
        assert (await world.record(ticket)).confirmed

    async def test_a_second_login_in_the_same_millisecond_has_a_later_instant(self):
        """A9: a request that loaded the record between the two logins must detect the second."""
        world, ticket = await stored_session()
        ticket = await log_in(world, ticket)
        first = (await world.record(ticket)).authenticated_at
        ticket = await log_in(world, ticket)
        assert (await world.record(ticket)).authenticated_at == first + 1

    async def test_clear_with_keep_login_keeps_the_user_and_methods(self):
        """A24: ``clear(keep_login=True)`` empties the data only."""
        world, ticket = await stored_session()
        ticket = await log_in(world, ticket, methods=("password",))
        session = await world.load(ticket)
        session.clear(keep_login=True)
        await end_of_request(session)
        again = await world.load(ticket)
        assert (again.user, again.methods, dict(again)) == ("ada", ("password",), {})

    async def test_a_request_in_progress_with_the_previous_ticket_writes_nothing(self):
        """A9: the login invalidates its ticket although it had loaded the session before."""
        world, ticket = await stored_session()
        late = await world.load(ticket)
        late["late"] = True
        after = await log_in(world, ticket)
        await end_of_request(late)
        assert copy_of(late).cookie_change is CookieChange.NONE
        assert world.emitted(Rejected)[-1].reason == "ended"
        assert dict(await world.load(after)) == {"a": 1}
        with pytest.raises(SessionGone):
            await late.arefresh()
        with pytest.raises(SessionGone):
            late.login("mallory")

    async def test_one_of_two_parallel_logins_succeeds(self):
        """A9: such as a double click on the login button."""
        world, ticket = await stored_session()
        one, two = await world.load(ticket), await world.load(ticket)
        one.login("ada")
        two.login("ada")
        await end_of_request(one)
        await end_of_request(two)
        assert copy_of(one).cookie_change is CookieChange.SEND
        assert copy_of(two).cookie_change is CookieChange.NONE
        assert (await world.load(ticket_of(one))).user == "ada"

    async def test_a_failing_request_logs_no_user_in(self):
        """A10."""
        world, ticket = await stored_session()
        session = await world.load(ticket)
        session.login("ada")
        await end_of_request(session, failed=True)
        assert copy_of(session).cookie_change is CookieChange.NONE
        assert (await world.load(ticket)).user is None

    async def test_login_and_rotation_raise_after_the_response_started(self):
        """A11: the cookie can no longer be set."""
        world, ticket = await stored_session()
        session = await world.load(ticket)
        await end_of_request(session)
        for act in (lambda: session.login("ada"), session.rotate):
            with pytest.raises(ResponseStarted):
                act()

    async def test_logout_removes_the_record(self):
        """A7, B-35, ASVS 7.4.1."""
        world, ticket = await stored_session()
        ticket = await log_in(world, ticket)
        session = await world.load(ticket)
        session.logout()
        assert session.user is None
        await end_of_request(session)
        assert copy_of(session).cookie_change is CookieChange.CLEAR
        gone = await world.load(ticket)
        assert (gone.new, gone.user, gone.ended_reason) == (True, None, None)

    async def test_a_login_of_another_user_after_a_logout_starts_an_empty_session(self):
        world, ticket = await stored_session(secret="ada's")
        ticket = await log_in(world, ticket)
        session = await world.load(ticket)
        session.logout()
        session.login("bob")
        await end_of_request(session)
        assert (session.user, dict(session)) == ("bob", {})
        assert copy_of(session).session_id() != ticket.session_id

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
            ("ada", {"labels": "browser"}, "labels expects"),
            ("ada", {"remember": "off"}, "remember expects True or False, found 'off'"),
        ],
    )
    async def test_invalid_arguments_of_a_login_raise(self, user, options, text):
        with pytest.raises(TypeError, match=text):
            (await World().load(None)).login(user, **options)

    async def test_subclasses_of_str_are_stored_as_plain_text(self):
        """Template engines and form libraries define such classes."""

        class Safe(str):
            __slots__ = ()

            def __str__(self):
                return self

        world, ticket = await stored_session()
        options = {"methods": [Safe("password")], "labels": {Safe("device"): Safe("phone")}}
        session = await world.load(await log_in(world, ticket, Safe("ada"), **options))
        assert (session.user, session.methods) == ("ada", ("password",))
        assert session.labels["device"] == "phone"


LIMITS = {"timeout": "10 minutes", "absolute_timeout": "1 hour", "remember_timeout": "5 days"}


class TestRemember:
    async def test_a_remembered_session_outlasts_the_limits_of_a_login(self):
        world, ticket = await stored_session(World(**LIMITS))
        ticket = await log_in(world, ticket, remember=True)
        world.clock.advance("4 days")
        assert (await world.load(ticket)).user == "ada"

    async def test_persistent_is_true_before_and_after_the_commit(self):
        """``credentials_changed`` and the cache headers depend on it."""
        world, ticket = await stored_session(World(**LIMITS))
        session = await world.load(ticket)
        assert (copy_of(session).persistent(), copy_of(session).authenticated()) == (False, False)
        session.login("ada", remember=True)
        assert (copy_of(session).persistent(), copy_of(session).authenticated()) == (True, True)
        await end_of_request(session)
        session = await world.load(ticket_of(session))
        assert (copy_of(session).persistent(), copy_of(session).authenticated()) == (True, True)

    async def test_a_remembered_login_requires_reauthentication_after_the_idle_limit(self):
        """NIST SESS-05: ``require_recent`` raises even if the login was within the limit."""
        world, ticket = await stored_session(World(**LIMITS))
        ticket = await log_in(world, ticket, remember=True)
        session = await world.load(ticket)
        assert not session.remembered
        session.require_recent("1 hour")
        world.clock.advance("11 minutes")
        session = await world.load(ticket)
        assert session.remembered
        await end_of_request(session)
        assert (await world.record(ticket)).reauthentication_required, (
            "it is stored although the handler changed nothing"
        )
        session = await world.load(ticket)
        with pytest.raises(RecentAuthRequired) as caught:
            session.require_recent("1 hour")
        assert caught.value.age is None
        ticket = await log_in(world, ticket, remember=True)
        session = await world.load(ticket)
        assert not session.remembered
        session.require_recent("1 hour")

    async def test_a_session_becomes_persistent_without_a_login(self):
        """A17: its lifetime starts at its creation."""
        world = World(**LIMITS)
        session = await world.load(None)
        session["a"] = 1
        copy_of(session).set_persistence(True)
        assert copy_of(session).persistent()
        await end_of_request(session)
        ticket = ticket_of(session)
        record = await world.record(ticket)
        assert record.persistent
        assert record.absolute_at - record.created_at == 30 * 86_400_000
        world.clock.advance("4 days")
        session = await world.load(ticket)
        assert session["a"] == 1
        assert not session.remembered
        copy_of(session).set_persistence(False)
        await end_of_request(session)
        record = await world.record(ticket)
        assert not record.persistent
        assert record.absolute_at - record.created_at == 3_600_000
        assert (await world.load(ticket)).get("a") is None

    async def test_a_login_that_ends_with_the_browser_has_the_limits_of_a_user(self):
        """A17: the lifetime starts at the login."""
        limits = {"absolute_timeout": "12 hours", "anonymous_absolute_timeout": "3 hours"}
        world = World(timeout="1 hour", **limits)
        session = await world.load(None)
        session.login("ada", remember=True)
        await end_of_request(session)
        session = await world.load(ticket_of(session))
        copy_of(session).set_persistence(False)
        await end_of_request(session)
        record = await world.record(ticket_of(session))
        assert not record.persistent
        assert record.absolute_at - record.authenticated_at == 12 * 3_600_000

    async def test_the_cookie_is_sent_again_when_a_session_becomes_persistent(self):
        world, ticket = await stored_session(World(**LIMITS))
        session = await world.load(ticket)
        copy_of(session).set_persistence(True)
        await session.acommit()
        assert copy_of(session).cookie_change is CookieChange.SEND
        world.store.calls.clear()
        await end_of_request(session)
        assert world.store.calls == []
        session = await world.load(ticket)
        copy_of(session).set_persistence(True)
        assert not copy_of(session).modified()
        await end_of_request(session)
        assert copy_of(session).cookie_change is CookieChange.NONE

    async def test_a_failing_request_does_not_change_the_persistence(self):
        """A10."""
        world, ticket = await stored_session(World(**LIMITS))
        session = await world.load(ticket)
        copy_of(session).set_persistence(True)
        await end_of_request(session, failed=True)
        assert not (await world.record(ticket)).persistent

    async def test_persistence_cannot_be_changed_after_the_response_started(self):
        """A11."""
        world, ticket = await stored_session(World(**LIMITS))
        session = await world.load(ticket)
        copy_of(session).response_started = True
        with pytest.raises(ResponseStarted):
            copy_of(session).set_persistence(True)

    async def test_a_restored_login_is_not_recent(self):
        """NIST SESS-05: in the request that restores it and in later ones."""
        world, ticket = await stored_session(World(**LIMITS))
        session = await world.load(ticket)
        session.login("ada", remember=True)
        copy_of(session).renewal = msgspec.structs.replace(copy_of(session).renewal, restored=True)
        for _ in range(2):
            assert session.remembered
            with pytest.raises(RecentAuthRequired):
                session.require_recent("1 hour")
            await end_of_request(session)
            session = await world.load(ticket_of(session))

    async def test_a_new_visitor_is_not_remembered(self):
        assert not (await World().load(None)).remembered


class TestRecentAuth:
    async def test_require_recent_checks_the_age_and_the_methods_of_the_login(self):
        """ASVS 7.5.1, 7.5.3."""
        world, ticket = await stored_session()
        ticket = await log_in(world, ticket, methods=("password",))
        world.clock.advance("5 minutes")
        session = await world.load(ticket)
        session.require_recent("5 minutes", methods=("password",))
        with pytest.raises(RecentAuthRequired, match="by totp") as caught:
            session.require_recent("5 minutes", methods=("password", "totp"))
        assert (caught.value.missing, caught.value.age) == (("totp",), 300)
        world.clock.advance("1 ms")
        session = await world.load(ticket)
        with pytest.raises(RecentAuthRequired) as caught:
            session.require_recent("5 minutes")
        assert caught.value.age == pytest.approx(300.001)
        assert caught.value.limit == 300
        session.login("ada")
        session.require_recent("1 second")

    async def test_require_recent_refuses_methods_given_as_one_string(self):
        """ASVS 7.5.3: each of its letters would be taken for a missing method."""
        world, ticket = await stored_session()
        session = await world.load(await log_in(world, ticket, methods=["totp"]))
        with pytest.raises(TypeError, match="methods expects texts"):
            session.require_recent("5 minutes", methods="totp")

    async def test_require_recent_raises_without_a_login(self):
        session = await World().load(None)
        assert (session.user, session.methods, session.authenticated_at) == (None, (), None)
        with pytest.raises(RecentAuthRequired, match="none that counts"):
            session.require_recent("5 minutes")


class TestGrants:
    async def test_a_grant_is_used_once(self):
        """ASVS 7.5.3."""
        world, ticket = await stored_session()
        session = await world.load(ticket)
        session.grant("delete-account")
        await end_of_request(session)
        one, two = await world.load(ticket), await world.load(ticket)
        assert [await one.ause_grant("delete-account"), await two.ause_grant("delete-account")] == [
            True,
            False,
        ]
        assert dict(await world.load(ticket)) == {"a": 1}

    async def test_a_grant_expires(self):
        world, ticket = await stored_session()
        session = await world.load(ticket)
        session.grant("delete-account", "1 minute")
        await end_of_request(session)
        world.clock.advance("1 minute")
        assert not await (await world.load(ticket)).ause_grant("delete-account")

    async def test_a_login_removes_earlier_grants(self):
        """ASVS 7.5.3: a grant of one user must not apply to the next."""
        world, ticket = await stored_session()
        session = await world.load(ticket)
        session.grant("delete-account")
        await end_of_request(session)
        ticket = await log_in(world, ticket)
        assert not await (await world.load(ticket)).ause_grant("delete-account")

    async def test_a_grant_after_the_login_is_kept(self):
        """ASVS 7.5.3: also in the same request; grants before the last login are removed."""
        world, ticket = await stored_session()
        session = await world.load(ticket)
        session.grant("old")
        session.login("eve")
        session.grant("older")
        session.login("ada")
        session.grant("new")
        await world.concurrent_write(ticket, b=2)  # so that the login is replayed
        await end_of_request(session)
        session = await world.load(ticket_of(session))
        assert [await session.ause_grant(purpose) for purpose in ("old", "older", "new")] == [
            False,
            False,
            True,
        ]

    def test_use_grant_without_an_event_loop(self):
        from sojourn._core.concurrency import run

        world, ticket = run(stored_session())
        session = run(world.load(ticket))
        session.grant("x")
        assert session.use_grant("x")

    @pytest.mark.parametrize("wrong", ["", 7, "\ud800"])
    async def test_a_grant_without_a_valid_purpose_is_refused(self, wrong):
        with pytest.raises(TypeError, match="for a purpose such as"):
            (await World().load(None)).grant(wrong)


class TestRotation:
    async def test_both_tickets_are_valid_until_the_new_one_was_used(self):
        """A9."""
        world, before = await stored_session()
        session = await world.load(before)
        session.rotate()
        session.rotate()
        await end_of_request(session)
        after = ticket_of(session)
        assert after.verifier != before.verifier
        assert copy_of(session).cookie_change is CookieChange.SEND
        assert world.emitted(Rotated) == [Rotated(session.id)]
        for _ in range(
            3
        ):  # the response may have been lost, so the client sends the previous ticket
            world.clock.advance("29 minutes")
            late = await world.load(before)
            assert late["a"] == 1
            assert copy_of(late).cookie_change is CookieChange.SEND
            assert ticket_of(late) == after
            late.rotate()
            await end_of_request(late)
        assert len(world.emitted(Rotated)) == 1

    async def test_without_a_grace_period_the_previous_ticket_is_invalid_at_once(self):
        """Session fixation: a request with the previous ticket must not receive the new one."""
        world, before = await stored_session()
        session = await world.load(before)
        session.rotate(grace_period=False)
        await end_of_request(session)
        after = ticket_of(session)
        assert after.verifier != before.verifier
        assert (await world.load(before)).new
        assert (await world.load(after))["a"] == 1
        assert world.emitted(Reused) == []

    async def test_a_rotation_without_a_grace_period_ends_the_grace_period_of_the_previous_one(
        self,
    ):
        world, first = await stored_session()
        session = await world.load(first)
        session.rotate()
        await end_of_request(session)
        session = await world.load(first)
        session.rotate(grace_period=False)
        await end_of_request(session)
        assert (await world.load(first)).new
        assert (await world.load(ticket_of(session)))["a"] == 1

    async def test_a_rotation_without_a_grace_period_changes_neither_a_new_session_nor_a_login(
        self,
    ):
        world = World()
        session = await world.load(None)
        session.rotate(grace_period=False)
        assert copy_of(session).renewal is None
        session["a"] = 1
        session.login("ada")
        login = copy_of(session).renewal
        session.rotate(grace_period=False)
        assert copy_of(session).renewal is login

    async def test_a_parallel_rotation_without_a_grace_period_invalidates_the_previous_ticket(
        self,
    ):
        """A6, A9: the data of both is kept; only the ticket of the stricter one is valid."""
        world, before = await stored_session()
        strict, lenient = await world.load(before), await world.load(before)
        strict.rotate(grace_period=False)
        lenient["b"] = 2
        lenient.rotate()
        await end_of_request(lenient)
        await end_of_request(strict)
        assert (await world.load(before)).new
        assert (await world.load(ticket_of(lenient))).new
        assert (await world.load(ticket_of(strict)))["b"] == 2

    async def test_the_grace_period_lasts_two_seconds_after_the_new_ticket_was_used(self):
        """A9: requests that were sent before the response arrived are still in flight."""
        world, before = await stored_session()
        session = await world.load(before)
        session.rotate()
        await end_of_request(session)
        await end_of_request(await world.load(ticket_of(session)))
        world.clock.advance(IN_FLIGHT_PERIOD / 1000 - 0.001)
        assert (await world.load(before))["a"] == 1
        world.clock.advance("1 ms")
        assert (await world.load(before)).new
        assert world.emitted(Reused) == [Reused(session.id)]

    async def test_a_second_rotation_is_skipped_during_the_grace_period_of_the_first(self):
        """A9: a double click neither shortens the grace period nor counts as reuse."""
        world, before = await stored_session()
        session = await world.load(before)
        session.rotate()
        await end_of_request(session)
        after = ticket_of(session)
        again = await world.load(after)
        again.rotate()
        await end_of_request(again)
        assert ticket_of(again) == after
        assert (await world.load(before))["a"] == 1
        assert not world.emitted(Reused)
        world.clock.advance(IN_FLIGHT_PERIOD / 1000)
        later = await world.load(after)
        later.rotate()
        await end_of_request(later)
        assert ticket_of(later) != after

    async def test_a_rotate_interval_below_the_grace_period_keeps_the_grace_period(self):
        """A9: requests in flight with the previous ticket succeed, whatever the interval."""
        world, ticket = await stored_session(World(rotate_interval="1 second"))
        world.clock.advance("1 minute")
        replaced = {}
        for _ in range(20):
            session = await world.load(ticket)
            await end_of_request(session)
            if ticket_of(session) != ticket:
                replaced[ticket] = world.clock.now
                ticket = ticket_of(session)
            for former, at in replaced.items():
                if world.clock.now < at + IN_FLIGHT_PERIOD:
                    assert (await world.load(former))["a"] == 1
            world.clock.advance("500 ms")
        assert len(world.emitted(Rotated)) > 1
        assert not world.emitted(Reused)

    async def test_the_previous_ticket_after_the_grace_period_revokes_the_session(self):
        """A9, B-40: it may be stolen; the session also ends for the holder of the new ticket."""
        world, before = await stored_session()
        session = await world.load(before)
        session.rotate()
        await end_of_request(session)
        await end_of_request(await world.load(ticket_of(session)))
        world.clock.advance(IN_FLIGHT_PERIOD / 1000)
        reused = await world.load(before)
        assert reused.new
        assert reused.ended_reason == "reused"
        assert world.emitted(Revoked)[-1].reason == "reused"
        owner = await world.load(ticket_of(session))
        assert (owner.new, owner.ended_reason) == (True, "reused")

    async def test_a_ticket_from_several_rotations_ago_is_reported_as_reused(self):
        """A9, B-40."""
        world, first = await stored_session()
        ticket = first
        for _ in range(5):
            session = await world.load(ticket)
            session.rotate()
            await end_of_request(session)
            ticket = ticket_of(session)
            await end_of_request(await world.load(ticket))
            world.clock.advance(IN_FLIGHT_PERIOD / 1000)
        assert (await world.load(first)).new
        assert world.emitted(Reused)

    async def test_with_revoke_reused_off_a_reused_ticket_keeps_the_session(self):
        world, before = await stored_session(World(revoke_reused=False))
        session = await world.load(before)
        session.rotate()
        await end_of_request(session)
        await end_of_request(await world.load(ticket_of(session)))
        world.clock.advance("1 minute")
        assert (await world.load(before)).new
        assert world.emitted(Reused)
        assert (await world.load(ticket_of(session)))["a"] == 1

    async def test_a_ticket_from_before_a_login_is_not_reported_as_reused(self):
        """Parallel requests of the login page send it and must not revoke the session."""
        world, before = await stored_session()
        after = await log_in(world, before)
        assert (await world.load(before)).new
        assert world.emitted(Rejected)[-1].reason == "replaced"
        assert not world.emitted(Reused)
        assert (await world.load(after)).user == "ada"

    async def test_parallel_rotations_result_in_the_same_ticket(self):
        """A9: the order in which the responses arrive does not matter."""
        world, before = await stored_session()
        one, two = await world.load(before), await world.load(before, other_process=True)
        for session in (one, two):
            session["at"] = id(session)
            session.rotate()
        await end_of_request(one)
        await end_of_request(two)
        assert ticket_of(one) == ticket_of(two)
        assert copy_of(one).cookie_change is copy_of(two).cookie_change is CookieChange.SEND
        assert (await world.load(ticket_of(one)))["at"] == id(two)
        assert len(world.emitted(Rotated)) == 1

    async def test_parallel_rotations_without_other_changes_result_in_the_same_ticket(self):
        world, before = await stored_session()
        one, two = await world.load(before), await world.load(before, other_process=True)
        one.rotate()
        two.rotate()
        await end_of_request(one)
        await end_of_request(two)
        assert ticket_of(one) == ticket_of(two)

    async def test_a_commit_that_meets_a_rotation_is_replayed_and_adopts_the_new_ticket(self):
        """A6, A9."""
        world, before = await stored_session()
        late = await world.load(before)
        late["late"] = True
        session = await world.load(before, other_process=True)
        session.rotate()
        await end_of_request(session)
        await end_of_request(late)
        assert ticket_of(late) == ticket_of(session)
        assert dict(await world.load(ticket_of(session))) == {"a": 1, "late": True}

    async def test_a_websocket_stays_valid_through_several_rotations(self):
        """W5: its ticket is older than that of the page."""
        world, ticket = await stored_session()
        socket = await world.load(ticket)
        copy_of(socket).response_started = True
        for _ in range(3):
            session = await world.load(ticket)
            session.rotate()
            session["n"] = session.get("n", 0) + 1
            await end_of_request(session)
            ticket = ticket_of(session)
            await end_of_request(await world.load(ticket))
            world.clock.advance(IN_FLIGHT_PERIOD / 1000)
        await socket.arefresh()
        assert socket["n"] == 3
        socket["socket"] = True
        await end_of_request(socket)
        assert (await world.load(ticket))["socket"]
        assert copy_of(socket).cookie_change is CookieChange.NONE

    async def test_a_ticket_past_its_grace_period_is_not_rotated(self):
        """A9: a handler that started before the rotation holds an invalid ticket."""
        world, ticket = await stored_session()
        late = await world.load(ticket)
        session = await world.load(ticket)
        session.rotate()
        await end_of_request(session)
        await end_of_request(await world.load(ticket_of(session)))
        await late.arefresh()
        world.clock.advance(IN_FLIGHT_PERIOD / 1000)
        late.rotate()
        late["b"] = 2
        await end_of_request(late)
        assert dict(await world.load(ticket_of(session))) == {"a": 1, "b": 2}
        assert len(world.emitted(Rotated)) == 1

    async def test_a_failing_request_still_rotates(self):
        """A10: destroy and rotate are committed, data is not."""
        world, before = await stored_session()
        session = await world.load(before)
        session["b"] = 2
        session.rotate()
        await end_of_request(session, failed=True)
        assert ticket_of(session).verifier != before.verifier
        assert dict(await world.load(ticket_of(session))) == {"a": 1}

    async def test_a_rotation_in_the_request_of_a_login_changes_nothing(self):
        world, before = await stored_session()
        session = await world.load(before)
        session.login("ada")
        session.rotate()
        await end_of_request(session)
        assert (await world.record(before)).previous_verifier == NO_VERIFIER
        assert not world.emitted(Rotated)

    async def test_rotating_a_new_session_makes_no_store_call(self):
        world = World()
        session = await world.load(None)
        session.rotate()
        await end_of_request(session)
        assert world.store.calls == []

    async def test_after_a_change_of_the_secret_the_previous_ticket_cannot_be_rotated(self):
        world, before = await stored_session()
        session = await world.load(before)
        session.rotate()
        await end_of_request(session)
        world.replace_rotation(
            VerifierChain([b"another secret of the same world"], realm="default")
        )
        late = await world.load(before)
        assert late["a"] == 1
        assert copy_of(late).cookie_change is CookieChange.NONE, "the new ticket cannot be derived"
        late.rotate()
        world.clock.advance("10 minutes")
        late.rotate()
        late["b"] = 2
        await end_of_request(late)
        assert dict(await world.load(ticket_of(session))) == {"a": 1, "b": 2}


class TestAutomaticRotation:
    async def test_a_ticket_older_than_rotate_interval_is_replaced(self):
        """OWASP renewal timeout; A3: not before it is due."""
        world, ticket = await stored_session(World(rotate_interval="10 minutes"))
        world.clock.advance("9 minutes")
        await end_of_request(session := await world.load(ticket))
        assert copy_of(session).cookie_change is CookieChange.NONE
        world.clock.advance("1 minute")
        await end_of_request(session := await world.load(ticket))
        assert copy_of(session).cookie_change is CookieChange.SEND
        assert len(world.emitted(Rotated)) == 1
        await end_of_request(again := await world.load(ticket_of(session)))
        assert copy_of(again).cookie_change is CookieChange.NONE

    async def test_a_failing_request_does_not_rotate_automatically(self):
        """A12: its response may not be sent, so the ticket must stay."""
        world, ticket = await stored_session(World(rotate_interval="10 minutes"))
        world.clock.advance("10 minutes")
        await end_of_request(session := await world.load(ticket), failed=True)
        assert ticket_of(session) == ticket
        assert not world.emitted(Rotated)


class TestLimits:
    async def test_a_login_above_the_limit_revokes_the_oldest_session(self):
        """ASVS 7.1.2."""
        world = World(limit=SessionLimit(2, LimitPolicy.EVICT_OLDEST))
        tickets = []
        for _ in range(3):
            world.clock.advance("1 second")
            _, ticket = await stored_session(world)
            tickets.append(await log_in(world, ticket))
        first = await world.load(tickets[0])
        assert (first.new, first.ended_reason) == (True, "limit")
        assert [(await world.load(ticket)).user for ticket in tickets[1:]] == ["ada", "ada"]
        assert world.emitted(Revoked) == [
            Revoked(tickets[0].session_id.hex(), "limit", None, world.clock())
        ]

    async def test_a_refused_login_above_the_limit_raises_and_writes_nothing(self):
        world = World(limit=SessionLimit(1, LimitPolicy.REFUSE))
        _, ticket = await stored_session(world)
        await log_in(world, ticket)
        _, ticket = await stored_session(world)
        session = await world.load(ticket)
        session.login("ada")
        with pytest.raises(LimitReached, match="fewer than 1 sessions"):
            await session.acommit()
        new = await world.load(None)
        new.login("ada")
        with pytest.raises(LimitReached):
            await new.acommit()
        assert (await world.load(ticket)).user is None
        assert dict(await world.load(ticket)) == {"a": 1}

    async def test_a_refused_login_leaves_no_grant(self):
        """ASVS 7.5.3: the grant belongs to the login that was refused."""
        world = World(limit=SessionLimit(1, LimitPolicy.REFUSE))
        _, ticket = await stored_session(world)
        await log_in(world, ticket)
        for ticket in ((await stored_session(world))[1], None):
            session = await world.load(ticket)
            session.login("ada")
            session.grant("delete-account")
            session["b"] = 2
            with pytest.raises(LimitReached):
                await session.acommit()
            await end_of_request(session)  # as after a handler that caught the error
            again = await world.load(ticket_of(session))
            assert (again.user, again["b"]) == (None, 2)
            assert not await again.ause_grant("delete-account")


class TestRevokingUsers:
    async def test_a_login_that_began_before_the_revocation_is_refused(self):
        """S16: also a login that is being committed."""
        world, ticket = await stored_session()
        session, new = await world.load(ticket), await world.load(None)
        session.login("ada")
        new.login("ada")
        await world.engine.revoker.revoke_indexed("user:ada", "disabled", keep=None, actor=None)
        for each in (session, new):
            await end_of_request(each)
            assert copy_of(each).cookie_change is CookieChange.NONE
        session["b"] = 1
        with pytest.raises(SessionGone):
            await session.acommit()
        assert (await world.load(ticket)).user is None
        later = await log_in(world, ticket)
        assert (await world.load(later)).user == "ada"

    async def test_an_explicit_commit_of_a_login_from_before_the_revocation_raises(self):
        world = World()
        new = await world.load(None)
        new.login("ada")
        await world.engine.revoker.revoke_indexed("user:ada", "disabled", keep=None, actor=None)
        with pytest.raises(SessionGone):
            await new.acommit()

    async def test_a_failing_store_is_reported_and_raised(self):
        """S12."""
        world, ticket = await stored_session()
        await log_in(world, ticket)
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

    async def test_a_session_is_revoked_even_if_its_tombstone_cannot_be_written(self):
        world, ticket = await stored_session()
        world.store.fail("create", times=1)
        assert await world.engine.revoker.revoke(ticket.session_id, "stolen")
        gone = await world.load(ticket)
        assert (gone.new, gone.ended_reason) == (True, None)
        assert world.emitted(StoreFailed)[0].operation == "add_tombstone"


class TestCsrf:
    async def test_reading_a_csrf_token_creates_a_session_with_the_verifier_of_the_token(self):
        """NIST SESS-19, SESS-20."""
        world = World()
        session = await world.load(None)
        token = session.csrf_token
        await end_of_request(session)
        record = await world.record(ticket_of(session))
        assert world.engine.context.csrf.check(token, [record.verifier])
        assert dict(session) == {}

    async def test_a_csrf_token_read_after_a_login_is_valid_in_later_requests(self):
        world, ticket = await stored_session()
        session = await world.load(ticket)
        before = session.csrf_token
        session.login("ada")
        token = session.csrf_token
        await end_of_request(session)
        record = await world.record(ticket)
        assert world.engine.context.csrf.check(token, [record.verifier, record.previous_verifier])
        assert not world.engine.context.csrf.check(
            before, [record.verifier, record.previous_verifier]
        )


class TestEncryption:
    @pytest.mark.parametrize("encrypt", [True, "ticket"])
    async def test_login_rotation_and_refresh_work_with_encrypted_records(self, encrypt):
        """ASVS 11.2.2: the stored record does not contain the data."""
        world = World(encrypt=encrypt)
        _, first = await stored_session(world, note="plain text")
        session = await world.load(first)
        session.login("ada", methods=("password",))
        session["b"] = 2
        await end_of_request(session)
        second = ticket_of(session)
        session = await world.load(second)
        session.rotate()
        await end_of_request(session)
        third = ticket_of(session)
        late = await world.load(second)
        late["late"] = True
        await end_of_request(late)
        socket = await world.load(third)
        copy_of(socket).response_started = True
        session = await world.load(third)
        session.rotate()
        await end_of_request(session)
        fourth = ticket_of(session)
        await socket.arefresh()
        socket["socket"] = 1
        await end_of_request(socket)
        again = await world.load(fourth)
        assert dict(again) == {"note": "plain text", "b": 2, "late": True, "socket": 1}
        assert again.user == "ada"
        record = await world.record(fourth)
        assert b"plain text" not in record.to_bytes()
        assert b"late" not in record.to_bytes()


class TestEdgeCases:
    async def test_a_login_replaces_a_session_id_that_exists(self):
        """ASVS 7.2.3."""
        world = World(encrypt=True)
        session = await world.load(None)
        session.login("ada")
        session["a"] = 1
        taken = copy_of(session).session_id()
        _, other = await stored_session(world)
        await world.memory.create(msgspec.structs.replace(await world.record(other), id=taken))
        await end_of_request(session)
        assert copy_of(session).session_id() != taken
        assert dict(await world.load(ticket_of(session))) == {"a": 1}

    async def test_a_store_without_a_user_index_accepts_logins(self):
        """The index is an optional capability; a login does not need it."""
        world = World()

        class Plain:
            def __init__(self):
                for verb in ("load", "create", "save", "touch", "delete", "purge"):
                    setattr(self, verb, getattr(world.memory, verb))

        world.store = Plain()
        world.engine = world.another_process()
        new = await world.load(None)
        new.login("ada")
        await end_of_request(new)
        ticket = await log_in(world, ticket_of(new), "bob")
        assert (await world.load(ticket)).user == "bob"
        with pytest.raises(ConfigurationError, match="has no index"):
            indexed_store(world.store)

    async def test_revoking_a_user_keeps_the_session_given_as_keep(self):
        world, ticket = await stored_session()
        ticket = await log_in(world, ticket)
        _, other = await stored_session(world)
        await log_in(world, other)
        ended = await world.engine.revoker.revoke_indexed(
            "user:ada", "x", keep=ticket.session_id, actor=None
        )
        assert ended == 1
        assert (await world.load(ticket)).user == "ada"

    async def test_a_reason_that_is_not_a_string_raises_and_revokes_no_session(self):
        world, ticket = await stored_session()
        ticket = await log_in(world, ticket)
        with pytest.raises(TypeError, match="a reason is a text, found 3"):
            await world.engine.revoker.revoke_indexed("user:ada", 3, keep=None, actor=None)
        assert (await world.load(ticket)).user == "ada"

    async def test_revoke_all_revokes_every_session_and_is_reported_once(self):
        """ASVS 7.4.5."""
        world, ticket = await stored_session()
        await world.engine.revoker.revoke_all("incident", actor="ops")
        assert world.emitted(Revoked) == [
            Revoked("", "incident", "ops", world.engine.revoker.not_before)
        ]
        assert (await world.load(ticket)).new

    async def test_an_unreadable_tombstone_gives_no_reason(self):
        """S9."""
        world, ticket = await stored_session()
        await world.engine.revoker.revoke(ticket.session_id, "stolen")
        (tombstone,) = world.memory._records.values()
        world.memory._records[tombstone.id] = msgspec.structs.replace(tombstone, body=b"\xc1")
        assert (await world.load(ticket)).ended_reason is None

    async def test_a_store_that_fails_to_load_the_tombstone_raises(self):
        """A15."""
        world, ticket = await stored_session()
        await world.engine.revoker.revoke(ticket.session_id, "stolen")

        async def then_fail():
            world.store.fail("load", times=1)

        world.store.meanwhile("load", then_fail)
        with pytest.raises(StoreUnavailable):
            await world.load(ticket)

    async def test_a_replaced_ticket_of_an_expired_session_is_not_reported_as_reused(self):
        world, before = await stored_session()
        session = await world.load(before)
        session.rotate()
        await end_of_request(session)
        world.clock.advance("31 minutes")
        assert (await world.load(before)).ended_reason == "expired (idle)"
        assert not world.emitted(Reused)

    async def test_labels_are_checked_for_a_previous_ticket(self):
        world = World(check_labels=("browser",))
        before = await world.create(Browser(browser="B"), a=1)
        session = await world.load(before, Browser(browser="B"))
        session.rotate()
        await end_of_request(session)
        assert (await world.load(before, Browser(browser="other"))).new
        assert (await world.load(before, Browser(browser="B")))["a"] == 1

    async def test_a_rotation_is_written_with_an_amendment_that_changes_nothing(self):
        """The amendment is a claim of an absent key."""
        world, before = await stored_session()
        session = await world.load(before)
        session.rotate()
        base = copy_of(session).record
        assert await world.engine.writer.write(
            copy_of(session), base, ClaimedKey("absent"), world.clock.now
        )
        assert ticket_of(session).verifier != before.verifier

    async def test_a_commit_that_meets_a_rotation_under_an_unknown_secret_sends_no_cookie(self):
        """Its changes are written, but it cannot derive the new ticket."""
        world, before = await stored_session()
        late = await world.load(before)
        late["late"] = 1
        session = await world.load(before)
        own = world.engine.context.rotation
        world.replace_rotation(
            VerifierChain([b"a newer secret of another process"], realm="default")
        )
        session.rotate()
        await end_of_request(session)
        world.replace_rotation(own)
        await end_of_request(late)
        assert copy_of(late).cookie_change is CookieChange.NONE
        assert dict(await world.load(ticket_of(session))) == {"a": 1, "late": 1}

    async def test_a_commit_that_conflicts_twice_adopts_the_new_ticket(self):
        world, before = await stored_session()
        late = await world.load(before)
        late["late"] = 1
        session = await world.load(before)
        session.rotate()
        await end_of_request(session)

        async def another_write():
            await world.concurrent_write(ticket_of(session), b=2)

        async def third_write():
            await world.concurrent_write(ticket_of(session), b=3)

        world.store.meanwhile("save", another_write)  # during the first save of ``late``
        world.store.meanwhile("save", lambda: asyncio.sleep(0))  # during the save of another_write
        world.store.meanwhile("save", third_write)  # during the second save of ``late``
        await end_of_request(late)
        assert ticket_of(late) == ticket_of(session)
        assert dict(await world.load(ticket_of(session))) == {"a": 1, "b": 3, "late": 1}

    async def test_a_websocket_that_adopts_the_ticket_of_a_rotation_sends_no_cookie(self):
        world, before = await stored_session()
        socket = await world.load(before)
        copy_of(socket).response_started = True
        session = await world.load(before)
        session.rotate()
        await end_of_request(session)
        socket["s"] = 1
        await end_of_request(socket)
        assert copy_of(socket).cookie_change is CookieChange.NONE
        assert copy_of(socket).verifier == copy_of(session).verifier

    async def test_a_ticket_is_not_rotated_after_the_response_started(self):
        """A9: the new ticket could not be sent, and the old one would become invalid."""
        world, ticket = await stored_session(World(rotate_interval="10 minutes"))
        world.clock.advance("10 minutes")
        session = await world.load(ticket)
        copy_of(session).mark_response_started()
        await end_of_request(session)
        assert not world.emitted(Rotated)
        assert (await world.load(ticket))["a"] == 1
