"""Engine: load, commit, refresh, destroy and claim, and the store calls of each.

Races are deterministic: `World.store` runs a coroutine before a call (``meanwhile``) or suspends a
call (``hang``).
"""

import asyncio

import pytest

from sojourn._core import engine as engine_module
from sojourn._core.durations import milliseconds
from sojourn._core.working_copy import CookieChange
from sojourn._crypto.tickets import Ticket
from sojourn.errors import (
    NotSerializable,
    ResponseStarted,
    SessionConflict,
    SessionGone,
    SessionTooLarge,
    StoreUnavailable,
)
from sojourn.events import Created, Expired, Read, Rejected, Revoked, Rotated, StoreFailed, Written
from tests.support.small_stores import PlainStore
from tests.support.working_copies import copy_of
from tests.unit.core.engine_harness import Browser, World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio


async def stored_session(**data):
    world = World()
    ticket = await world.create(**data)
    world.store.calls.clear()
    world.events.clear()
    return world, ticket


class TestLoad:
    async def test_a_request_without_a_ticket_makes_no_store_call(self):
        """A1."""
        world = World()
        session = await world.load(None)
        assert session.new
        await end_of_request(session)
        assert world.store.calls == []

    async def test_a_request_that_only_reads_makes_one_store_call(self):
        """A3, S18."""
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        assert session["a"] == 1
        await end_of_request(session)
        assert world.store.calls == ["load"]
        assert copy_of(session).cookie_change is CookieChange.NONE
        assert world.emitted(Read)[0].version == 1

    async def test_an_unknown_id_is_never_adopted(self):
        """A8, B-22, B-23, B-24."""
        world = World()
        ticket = Ticket(bytes(16), bytes(16))
        session = await world.load(ticket)
        assert world.emitted(Rejected)[0].reason == "unknown"
        session["a"] = 1
        await end_of_request(session)
        assert copy_of(session).session_id() != ticket.session_id
        assert await world.memory.load(ticket.session_id) is None

    async def test_a_ticket_with_a_wrong_verifier_loads_no_data(self):
        """Only the verifier grants access: the session ID is public."""
        world, ticket = await stored_session(a=1)
        session = await world.load(Ticket(ticket.session_id, bytes(16)))
        assert dict(session) == {}
        assert world.emitted(Rejected)[0].reason == "replaced"
        assert await world.data(ticket) == {"a": 1}

    @pytest.mark.parametrize(
        ("advance", "limit"), [("30 minutes", "idle"), ("12 hours", "absolute")]
    )
    async def test_an_expired_session_is_deleted_and_reported(self, advance, limit):
        """A17, ASVS 7.3.1, REAUTH-08."""
        world, ticket = await stored_session(a=1)
        world.clock.advance(advance)
        session = await world.load(ticket)
        assert dict(session) == {}
        assert await world.record(ticket) is None
        assert world.emitted(Expired)[0].limit == limit

    async def test_loads_do_not_extend_the_absolute_limit(self):
        """B-37: touches extend the idle limit, nothing extends the absolute limit."""
        world, ticket = await stored_session(a=1)
        for _ in range(60):
            world.clock.advance("14 minutes")
            await end_of_request(await world.load(ticket))
            if await world.record(ticket) is None:
                break
        lived = world.clock.now - (milliseconds("12 hours", option="") + 1_767_225_600_000)
        assert 0 <= lived < milliseconds("14 minutes", option="")

    @pytest.mark.parametrize("verb", ["load", "delete"])
    async def test_a_failing_store_raises_instead_of_returning_an_empty_session(self, verb):
        """A15."""
        world, ticket = await stored_session(a=1)
        world.clock.advance("1 hour")
        world.store.fail(verb)
        with pytest.raises(StoreUnavailable):
            await world.load(ticket)
        assert world.emitted(StoreFailed)[0].operation == verb
        assert await world.data(ticket) == {"a": 1}

    async def test_an_unreadable_record_counts_as_absent_and_is_reported(self):
        """S9."""
        from sojourn.record import UnreadableRecord

        world, ticket = await stored_session(a=1)
        world.store.fail("load", error=UnreadableRecord("newer"))
        assert dict(await world.load(ticket)) == {}
        assert world.emitted(Rejected)[0].reason == "unreadable: newer"

    @pytest.mark.parametrize(
        ("shown", "admitted"), [({"browser": "A"}, True), ({"browser": "B"}, False), ({}, False)]
    )
    async def test_configured_labels_must_match_those_of_the_client(self, shown, admitted):
        world = World(check_labels=("browser",))
        ticket = await world.create(Browser(browser="A", address="1"), a=1)
        session = await world.load(ticket, Browser(**shown))
        assert bool(session) is admitted
        assert bool(await world.load(ticket)) is False
        assert [event.reason for event in world.emitted(Rejected)][-1] == "labels"


class TestCreate:
    async def test_the_first_write_creates_one_record_and_sends_the_cookie(self):
        """A2, S18."""
        world = World()
        session = await world.load(None)
        session["a"] = 1
        await end_of_request(session)
        await end_of_request(session)
        assert world.store.calls == ["create"]
        assert copy_of(session).cookie_change is CookieChange.SEND
        assert not session.new
        assert [event.session_id for event in world.emitted(Created)] == [session.id]
        assert await world.data(ticket_of(session)) == {"a": 1}

    @pytest.mark.parametrize(
        "act",
        [
            lambda s: s.clear(),
            lambda s: (s.__setitem__("a", 1), s.pop("a")),
            lambda s: s.pop("user", None),
            lambda s: s.discard("tags", 1),
            lambda s: s.destroy(),
            lambda s: (s.__setitem__("a", 1), s.clear()),
            lambda s: (s.__setitem__("a", 1), s.destroy()),
            lambda s: s.get("a", []).append(1),
            lambda s: s.flashes(),
        ],
    )
    async def test_a_new_session_that_ends_empty_creates_no_record(self, act):
        """A1, B-53: a thousand anonymous logouts leave no record."""
        world = World()
        session = await world.load(None)
        act(session)
        await end_of_request(session)
        assert world.store.calls == []
        assert copy_of(session).cookie_change is CookieChange.NONE

    async def test_a_session_id_that_exists_is_replaced_and_its_record_is_kept(self, monkeypatch):
        """S2, ASVS 7.2.3, B-26: the random source is stubbed."""
        world, victim = await stored_session(secret=1)
        session = await world.load(None)
        copy_of(session).unsaved_id = victim.session_id
        session["a"] = 1
        await end_of_request(session)
        assert world.store.calls == ["create", "create"]
        assert await world.data(victim) == {"secret": 1}
        assert await world.data(ticket_of(session)) == {"a": 1}
        assert session.id != victim.session_id.hex()

    async def test_a_login_replaces_a_taken_id_in_a_store_without_an_index(self):
        """S2, ASVS 7.2.3."""
        world, victim = await stored_session(secret=1)
        plain = PlainStore()
        taken = await world.record(victim)
        plain.records[victim.session_id] = taken
        world.engine.use_store(plain)
        session = await world.load(None)
        copy_of(session).unsaved_id = victim.session_id
        session.login("ada")
        await end_of_request(session)
        assert plain.records[victim.session_id] is taken
        assert (await world.load(ticket_of(session))).user == "ada"

    async def test_a_random_source_that_repeats_itself_raises_a_conflict(self, monkeypatch):
        world, victim = await stored_session(secret=1)
        monkeypatch.setattr(engine_module, "mint_id", lambda: victim.session_id)
        session = await world.load(None)
        copy_of(session).unsaved_id = victim.session_id
        session["a"] = 1
        with pytest.raises(SessionConflict):
            await end_of_request(session)
        assert await world.data(victim) == {"secret": 1}
        assert copy_of(session).cookie_change is CookieChange.NONE
        monkeypatch.undo()
        await end_of_request(session)
        assert await world.data(ticket_of(session)) == {"a": 1}

    async def test_a_failed_create_keeps_the_changes_for_the_next_commit(self):
        """A15, S12: no cookie is sent and no part is stored."""
        world = World()
        session = await world.load(None)
        session.increment("n")
        world.store.fail("create", times=1)
        with pytest.raises(StoreUnavailable):
            await end_of_request(session)
        assert copy_of(session).cookie_change is CookieChange.NONE
        assert session.new
        copy_of(session).response_started = False
        await end_of_request(session)
        assert await world.data(ticket_of(session)) == {"n": 1}

    async def test_data_above_max_bytes_is_refused_and_nothing_is_stored(self):
        """B-55."""
        world = World(max_bytes=100)
        session = await world.load(None)
        session["big"], session["small"] = "x" * 200, 1
        with pytest.raises(SessionTooLarge) as caught:
            await end_of_request(session)
        assert caught.value.largest[0][0] == "big"
        assert world.store.calls == []
        session["big"] = ""
        await end_of_request(session)
        assert await world.data(ticket_of(session)) == {"big": "", "small": 1}

    async def test_two_tasks_of_one_handler_create_one_record(self):
        """A background task commits beside the response; the changes of both are stored."""
        world = World()
        session = await world.load(None)
        world.store.hang("create", times=1)
        session["a"] = 1
        one = asyncio.create_task(session.acommit())
        await asyncio.sleep(0)
        session["b"] = 2
        two = asyncio.create_task(session.acommit())
        await asyncio.sleep(0)
        world.store.heal()
        await asyncio.gather(one, two)
        assert world.store.calls == ["create", "save"]
        assert await world.data(ticket_of(session)) == {"a": 1, "b": 2}

    async def test_a_session_destroyed_during_its_create_is_deleted(self):
        """A7."""
        world = World()
        session = await world.load(None)
        session["a"] = 1
        world.store.hang("create", times=1)
        commit = asyncio.create_task(session.acommit())
        await asyncio.sleep(0)
        session.destroy()
        world.store.heal()
        await commit
        assert session.new
        await end_of_request(session)
        assert await world.memory.count(world.clock.now) == 0

    async def test_a_default_changed_in_place_after_the_response_started_creates_no_record(self):
        """W8, A11: the commit raises, because no assignment could be refused."""
        from dataclasses import field, make_dataclass

        cls = make_dataclass("Shop", [("cart", list, field(default_factory=list))])
        world = World(state=cls)
        session = await world.load(None)
        await end_of_request(session)
        session.state.cart.append(1)
        with pytest.raises(ResponseStarted):
            await end_of_request(session)
        assert world.store.calls == []


class TestSave:
    async def test_a_request_that_writes_makes_one_load_and_one_save_without_a_cookie(self):
        """A4, S18."""
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        session["a"] = 2
        await end_of_request(session)
        assert world.store.calls == ["load", "save"]
        assert copy_of(session).cookie_change is CookieChange.NONE
        assert world.emitted(Written)[0].version == 2

    async def test_a_failing_request_drops_its_changes(self):
        """A10."""
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        session["a"] = 2
        await end_of_request(session, failed=True)
        assert await world.data(ticket) == {"a": 1}
        assert world.store.calls == ["load"]

    async def test_a_failing_request_rotates_although_a_value_cannot_be_stored(self):
        """A10: the value, which was changed in place, is dropped."""
        world, ticket = await stored_session(values=[])
        session = await world.load(ticket)
        session["values"].append(object())
        session.rotate()
        await end_of_request(session, failed=True)
        assert [event.session_id for event in world.emitted(Rotated)] == [session.id]
        assert [event.version for event in world.emitted(Written)] == [2]
        assert await world.data(ticket_of(session)) == {"values": []}

    async def test_a_value_that_another_task_makes_unserializable_is_reported(self):
        """A6: it was changed in place while the store was awaited; the rest is saved."""
        world, ticket = await stored_session(values=[])
        session = await world.load(ticket)
        values = session["values"]
        session["a"] = 1

        async def change_in_place():
            values.append(object())
            await world.concurrent_write(ticket, b=2)  # the values are compared after the commit

        world.store.meanwhile("save", change_in_place)
        with pytest.raises(NotSerializable, match=r"session\['values'\]\[0\]"):
            await session.acommit()
        assert await world.data(ticket) == {"values": [], "a": 1, "b": 2}

    async def test_an_error_handler_loses_no_update_after_a_value_that_cannot_be_stored(self):
        """A6: of a request that changed the session before the failing one rotated it."""
        world, ticket = await stored_session(values=[])
        session = await world.load(ticket)
        session["values"].append(object())
        session.rotate()
        other = await world.load(ticket, other_process=True)
        other["a"] = 1
        await end_of_request(other)
        await end_of_request(session, failed=True)
        session["b"] = 2
        await session.acommit()
        assert await world.data(ticket_of(session)) == {"values": [], "a": 1, "b": 2}

    async def test_an_amendment_reports_a_value_that_cannot_be_stored(self):
        world, ticket = await stored_session(values=[], once=1)
        session = await world.load(ticket)
        session["values"].append(object())
        with pytest.raises(NotSerializable, match=r"session\['values'\]\[0\]"):
            await world.engine.amend(session, engine_module.ClaimedKey("once"))

    async def test_changes_committed_explicitly_are_kept_by_a_failing_request(self):
        """A12."""
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        session["a"] = 2
        await session.acommit()
        session["a"] = 3
        await end_of_request(session, failed=True)
        assert await world.data(ticket) == {"a": 2}

    async def test_objects_stay_tracked_after_a_commit(self):
        world, ticket = await stored_session(cart={})
        session = await world.load(ticket)
        cart = session["cart"]
        cart["a"] = 1
        await session.acommit()
        cart["b"] = 2
        await session.acommit()
        assert await world.data(ticket) == {"cart": {"a": 1, "b": 2}}

    async def test_objects_stay_tracked_after_a_conflict(self):
        """A6."""
        world, ticket = await stored_session(cart={"items": []})
        session = await world.load(ticket)
        items = session["cart"]["items"]
        items.append("mine")
        await world.concurrent_write(ticket, cart={"items": ["theirs"], "new": 1})
        await session.acommit()
        assert items == ["theirs", "mine"]
        items.append("later")
        await session.acommit()
        assert await world.data(ticket) == {
            "cart": {"items": ["theirs", "mine", "later"], "new": 1}
        }

    async def test_objects_stay_tracked_after_a_refresh(self):
        world, ticket = await stored_session(cart={})
        session = await world.load(ticket)
        cart = session["cart"]
        await world.concurrent_write(ticket, cart={"theirs": 1})
        await session.arefresh()
        cart["mine"] = 2
        await end_of_request(session)
        assert await world.data(ticket) == {"cart": {"theirs": 1, "mine": 2}}

    async def test_changes_during_a_store_call_are_kept(self):
        """Even if the commit in progress meets a conflict."""
        world, ticket = await stored_session(n=0, cart={})
        session = await world.load(ticket)
        cart = session["cart"]
        session.increment("n")

        async def meanwhile():
            session.increment("n")
            cart["mine"] = 1
            await world.concurrent_write(ticket, n=10, cart={"theirs": 1})

        world.store.meanwhile("save", meanwhile)
        await session.acommit()
        assert (await world.data(ticket))["n"] == 11
        assert session["n"] == 12
        await end_of_request(session)
        assert await world.data(ticket) == {"n": 12, "cart": {"theirs": 1, "mine": 1}}

    @pytest.mark.parametrize("conflict", [False, True])
    async def test_operations_of_a_failed_save_are_applied_once_by_the_next_commit(self, conflict):
        """S12: no increment is counted twice."""
        world, ticket = await stored_session(n=0)
        session = await world.load(ticket)
        session.increment("n")
        if conflict:
            await world.concurrent_write(ticket, n=10)
        world.store.fail("save", times=1)
        with pytest.raises(StoreUnavailable) as caught:
            await session.acommit()
        assert caught.value.args
        assert session["n"] == 1
        session.increment("n")
        await session.acommit()
        assert (await world.data(ticket))["n"] == (12 if conflict else 2)

    async def test_data_that_exceeds_max_bytes_after_a_conflict_is_not_written(self):
        world = World(max_bytes=300)
        ticket = await world.create(a="x" * 150)
        session = await world.load(ticket)
        session["b"] = "y" * 80
        await world.concurrent_write(ticket, c="z" * 80)
        with pytest.raises(SessionTooLarge):
            await session.acommit()
        assert set(await world.data(ticket)) == {"a", "c"}
        session["a"] = ""
        await session.acommit()
        assert set(await world.data(ticket)) == {"a", "b", "c"}

    async def test_a_commit_cancelled_while_it_waits_for_the_lock_keeps_its_changes(self):
        """A11, S13: the changes are committed at the end of the stream."""
        world, ticket = await stored_session(n=0)
        session, other = await world.load(ticket), await world.load(ticket)
        other.increment("n")
        world.store.hang("save", times=1)
        first = asyncio.create_task(other.acommit())
        await asyncio.sleep(0)
        session.increment("n")
        second = asyncio.create_task(session.acommit())
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        assert second.cancelled()
        world.store.heal()
        await first
        await end_of_request(session)
        assert await world.data(ticket) == {"n": 2}

    async def test_two_tasks_of_one_handler_that_commit_lose_no_change(self):
        world, ticket = await stored_session(n=0, cart={})
        session = await world.load(ticket)
        cart = session["cart"]
        session.increment("n")
        world.store.hang("save", times=1)
        one = asyncio.create_task(session.acommit())
        await asyncio.sleep(0)
        cart["a"] = 1
        session.increment("n")
        two = asyncio.create_task(session.acommit())
        await asyncio.sleep(0)
        cart["b"] = 2
        world.store.heal()
        await asyncio.gather(one, two)
        await end_of_request(session)
        assert await world.data(ticket) == {"n": 2, "cart": {"a": 1, "b": 2}}

    async def test_a_request_longer_than_the_idle_timeout_writes_a_session_that_is_in_use(self):
        """A7: expiry is decided on the stored record, not on the one loaded an hour ago."""
        world, ticket = await stored_session(a=1)
        stream = await world.load(ticket)
        for _ in range(4):
            world.clock.advance("15 minutes")
            await end_of_request(await world.load(ticket))
        stream["b"] = 2
        await end_of_request(stream)
        assert await world.data(ticket) == {"a": 1, "b": 2}
        assert world.emitted(Expired) == []

    async def test_a_session_that_expired_during_the_request_is_deleted_without_a_write(self):
        """A7, A17."""
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        session["a"] = 2
        world.clock.advance("31 minutes")
        await end_of_request(session)
        assert await world.record(ticket) is None
        assert "save" not in world.store.calls
        assert world.emitted(Expired)[0].limit == "idle"
        assert copy_of(session).cookie_change is CookieChange.NONE
        assert copy_of(session).revoked

    async def test_a_commit_raises_if_the_session_expired_and_was_deleted_meanwhile(self):
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        session["a"] = 2
        world.clock.advance("31 minutes")
        await world.memory.delete(ticket.session_id)
        with pytest.raises(SessionGone):
            await session.acommit()

    async def test_a_store_that_fails_while_expiry_is_rechecked_keeps_the_changes(self):
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        session["b"] = 2
        world.clock.advance("29 minutes")
        await end_of_request(await world.load(ticket))
        world.clock.advance("2 minutes")
        world.store.fail("load", times=1)
        with pytest.raises(StoreUnavailable):
            await session.acommit()
        await session.acommit()
        assert await world.data(ticket) == {"a": 1, "b": 2}


class TestTouch:
    async def test_a_read_touches_the_record_when_a_touch_is_due(self):
        """A3, S6."""
        world, ticket = await stored_session(a=1)
        world.clock.advance("59 seconds")
        await end_of_request(await world.load(ticket))
        assert "touch" not in world.store.calls
        world.clock.advance("1 second")
        session = await world.load(ticket)
        await end_of_request(session)
        await end_of_request(session)
        assert world.store.calls.count("touch") == 1
        record = await world.record(ticket)
        assert (record.version, record.seen_at) == (1, world.clock.now)

    async def test_a_touch_of_a_revoked_session_creates_no_record(self):
        """A7, S5."""
        world, ticket = await stored_session(a=1)
        world.clock.advance("2 minutes")
        session = await world.load(ticket)
        await world.engine.revoker.revoke(ticket.session_id, "stolen")
        await end_of_request(session)
        assert await world.record(ticket) is None
        assert copy_of(session).revoked

    async def test_a_failing_touch_is_reported_and_raised(self):
        world, ticket = await stored_session(a=1)
        world.clock.advance("2 minutes")
        session = await world.load(ticket)
        world.store.fail("touch")
        with pytest.raises(StoreUnavailable):
            await end_of_request(session)
        assert world.emitted(StoreFailed)[0].operation == "touch"

    async def test_a_late_touch_does_not_end_a_session_that_other_requests_use(self):
        """A7."""
        world, ticket = await stored_session(a=1)
        stream = await world.load(ticket)
        for _ in range(4):
            world.clock.advance("15 minutes")
            await end_of_request(await world.load(ticket))
        world.clock.advance("2 minutes")
        await end_of_request(stream)
        assert (await world.record(ticket)).seen_at == world.clock.now
        assert world.emitted(Expired) == []

    async def test_a_late_touch_of_an_expired_session_deletes_it(self):
        world, ticket = await stored_session(a=1)
        stream = await world.load(ticket)
        world.clock.advance("1 hour")
        await end_of_request(stream)
        assert await world.record(ticket) is None
        assert copy_of(stream).revoked
        assert len(world.emitted(Expired)) == 1

    async def test_a_session_destroyed_during_a_touch_stays_destroyed(self):
        world, ticket = await stored_session(a=1)
        world.clock.advance("2 minutes")
        session = await world.load(ticket)

        async def meanwhile():
            session.destroy()

        world.store.meanwhile("touch", meanwhile)
        await world.engine.commit(session)
        assert session.new
        await end_of_request(session)
        assert await world.record(ticket) is None


class TestConfirmation:
    async def world(self):
        world = World(unconfirmed_timeout="5 minutes")
        return world, await world.create(a=1)

    async def test_a_session_is_not_confirmed_before_a_client_returns_its_cookie(self):
        """Crawlers never return it."""
        world = World(unconfirmed_timeout="5 minutes")
        session = await world.load(None)
        session["a"] = 1
        await end_of_request(session)
        session["a"] = 2  # a stream that continues
        await end_of_request(session)
        await end_of_request(session)
        record = await world.record(ticket_of(session))
        assert not record.confirmed
        assert record.idle_timeout == milliseconds("5 minutes", option="")
        world.clock.advance("6 minutes")
        assert dict(await world.load(ticket_of(session))) == {}
        assert world.emitted(Expired)[0].limit == "unconfirmed"

    @pytest.mark.parametrize("failed", [False, True])
    async def test_the_first_request_with_the_cookie_confirms_the_session_once(self, failed):
        world, ticket = await self.world()
        session = await world.load(ticket)
        session["a"] = 2
        await end_of_request(session, failed=failed)
        record = await world.record(ticket)
        assert record.confirmed
        assert record.idle_timeout == milliseconds("30 minutes", option="")
        assert await world.data(ticket) == {"a": 1 if failed else 2}
        world.store.calls.clear()
        await end_of_request(await world.load(ticket))
        assert world.store.calls == ["load"]

    async def test_a_request_that_only_reads_confirms_the_session(self):
        world, ticket = await self.world()
        await end_of_request(await world.load(ticket))
        assert (await world.record(ticket)).confirmed

    async def test_a_failing_request_confirms_after_a_conflict_without_its_own_changes(self):
        world, ticket = await self.world()
        session = await world.load(ticket)
        session["a"] = 2
        await world.concurrent_write(ticket, b=3)
        await end_of_request(session, failed=True)
        assert await world.data(ticket) == {"a": 1, "b": 3}

    async def test_a_session_created_after_a_destroy_is_not_confirmed(self):
        world, ticket = await self.world()
        session = await world.load(ticket)
        session.destroy()
        session["b"] = 1
        await end_of_request(session)
        await end_of_request(session)
        assert not (await world.record(ticket_of(session))).confirmed


class TestRefresh:
    async def test_a_refresh_loads_parallel_changes_and_keeps_pending_ones(self):
        """W3."""
        world, ticket = await stored_session(n=1, a=1)
        session = await world.load(ticket)
        session.increment("n")
        await world.concurrent_write(ticket, n=10, b=2)
        await session.arefresh()
        assert dict(session) == {"n": 11, "a": 1, "b": 2}
        await end_of_request(session)
        assert await world.data(ticket) == {"n": 11, "a": 1, "b": 2}

    async def test_a_refresh_of_a_session_that_was_not_accessed_loads_parallel_changes(self):
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        await world.concurrent_write(ticket, a=2)
        assert await world.engine.refresh(session)
        assert session["a"] == 2

    async def test_a_refresh_without_a_newer_version_updates_seen_at_only(self):
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        world.clock.advance("2 minutes")
        await end_of_request(await world.load(ticket))
        await session.arefresh()
        assert copy_of(session).record.seen_at == world.clock.now

    async def test_a_refresh_of_a_new_session_makes_no_store_call(self):
        world = World()
        session = await world.load(None)
        await session.arefresh()
        assert world.store.calls == []

    @pytest.mark.parametrize("how", ["revoked", "expired", "unreadable", "damaged", "login"])
    async def test_a_refresh_of_an_ended_session_raises(self, how):
        """A7."""
        import msgspec

        from sojourn.record import UnreadableRecord

        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        assert session["a"] == 1
        record = await world.record(ticket)
        match how:
            case "revoked":
                await world.engine.revoker.revoke(ticket.session_id, "stolen")
            case "expired":
                world.clock.advance("31 minutes")
            case "unreadable":
                world.store.fail("load", error=UnreadableRecord("newer"))
            case "damaged":
                broken = msgspec.structs.replace(record, version=2, body=b"\xc1")
                await world.memory.save(broken, 1)
            case "login":
                other = msgspec.structs.replace(record, version=2, authenticated_at=1)
                await world.memory.save(other, 1)
        with pytest.raises(SessionGone, match=copy_of(session).session_id().hex()):
            await session.arefresh()
        assert dict(session) == {}
        with pytest.raises(SessionGone):
            await session.arefresh()
        assert not await world.engine.refresh(session)

    async def test_a_refresh_that_fails_keeps_pending_changes(self):
        """A15."""
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        session["a"] = 2
        world.store.fail("load", times=1)
        with pytest.raises(StoreUnavailable):
            await session.arefresh()
        assert session["a"] == 2
        await end_of_request(session)
        assert await world.data(ticket) == {"a": 2}

    async def test_a_refresh_with_a_record_older_than_a_parallel_commit_changes_nothing(self):
        """The deadline of a WebSocket refreshes the session while its handler commits."""
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        session["a"] = 2

        async def meanwhile():
            await session.acommit()

        stale = world.store.load

        async def load(session_id):
            record = await stale(session_id)
            await meanwhile()
            return record

        world.store.load = load
        assert await world.engine.refresh(session)
        assert session["a"] == 2
        assert copy_of(session).record.version == 2

    async def test_a_failed_commit_during_a_refresh_keeps_its_operations(self):
        world, ticket = await stored_session(n=0)
        session = await world.load(ticket)
        session.increment("n")
        await world.concurrent_write(ticket, n=10)

        async def meanwhile():
            await world.engine.refresh(session)
            raise StoreUnavailable("down")

        world.store.meanwhile("save", meanwhile)
        with pytest.raises(StoreUnavailable):
            await session.acommit()
        assert session["n"] == 11
        await session.acommit()
        assert await world.data(ticket) == {"n": 11}

    @pytest.mark.parametrize("ended", [False, True])
    async def test_a_session_destroyed_during_a_refresh_stays_destroyed(self, ended):
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)

        async def meanwhile():
            if ended:
                copy_of(session).mark_revoked(copy_of(session).session_id())
            else:
                session.destroy()

        world.store.meanwhile("load", meanwhile)
        assert await world.engine.refresh(session) is not ended
        assert copy_of(session).record is None


class TestDestroyAndRevoke:
    async def test_destroy_deletes_the_record_and_clears_the_cookie(self):
        """A7, ASVS 7.4.1, SESS-12, B-35."""
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        session.destroy()
        assert dict(session) == {}
        await end_of_request(session)
        assert await world.record(ticket) is None
        assert copy_of(session).cookie_change is CookieChange.CLEAR
        assert world.emitted(Revoked) == [
            Revoked(ticket.session_id.hex(), "destroyed", None, world.clock())
        ]

    async def test_a_failing_request_still_destroys_the_session(self):
        """A10: data written after the destroy is dropped."""
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        session.destroy()
        session["b"] = 1
        await end_of_request(session, failed=True)
        assert world.store.calls == ["load", "delete"]
        assert await world.memory.count(world.clock.now) == 0

    async def test_data_written_after_a_destroy_creates_another_session(self):
        """A9, B-25."""
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        old = session.id
        session.destroy()
        session["b"] = 2
        await end_of_request(session)
        assert session.id != old
        assert copy_of(session).cookie_change is CookieChange.SEND
        assert await world.record(ticket) is None
        assert await world.data(ticket_of(session)) == {"b": 2}
        assert ticket_of(session).verifier != ticket.verifier

    async def test_destroying_twice_in_one_request_clears_the_cookie(self):
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        session.destroy()
        session["b"] = 2
        session.destroy()
        await end_of_request(session)
        assert await world.memory.count(world.clock.now) == 0
        assert copy_of(session).cookie_change is CookieChange.CLEAR

    async def test_only_the_request_that_deleted_the_session_clears_the_cookie(self):
        """A7: a late response must not clear the cookie of a newer session."""
        world, ticket = await stored_session(a=1)
        one, two = await world.load(ticket), await world.load(ticket)
        one.destroy()
        two.destroy()
        await end_of_request(one)
        await end_of_request(two)
        assert (copy_of(one).cookie_change, copy_of(two).cookie_change) == (
            CookieChange.CLEAR,
            CookieChange.NONE,
        )

    async def test_a_destroy_that_fails_raises_and_can_be_retried(self):
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        session.destroy()
        world.store.fail("delete", times=1)
        with pytest.raises(StoreUnavailable):
            await end_of_request(session)
        assert copy_of(session).cookie_change is CookieChange.NONE
        await end_of_request(session)
        assert await world.record(ticket) is None

    @pytest.mark.parametrize("act", ["write", "touch", "claim", "refresh", "exclusive"])
    async def test_a_late_request_cannot_restore_a_revoked_session(self, act):
        """A7, B-32, B-33, B-38: no record and no cookie; only calls that need the record raise."""
        world, ticket = await stored_session(a=1)
        late = await world.load(ticket)
        assert late["a"] == 1
        await world.engine.revoker.revoke(ticket.session_id, "logout elsewhere")
        match act:
            case "write":
                late["a"] = 2
            case "touch":
                world.clock.advance("2 minutes")
            case "claim":
                with pytest.raises(SessionGone):
                    await late.aclaim("a")
            case "refresh":
                with pytest.raises(SessionGone):
                    await late.arefresh()
            case "exclusive":
                with pytest.raises(SessionGone):
                    async with late.exclusive():
                        pass
        await end_of_request(late)
        late["b"] = 3  # dropped as well
        await end_of_request(late)
        with pytest.raises(SessionGone):
            await late.acommit()
        assert await world.memory.count(world.clock.now) == 0
        assert copy_of(late).cookie_change is CookieChange.NONE
        assert world.store.calls.count("create") == 1, "only the tombstone is created"
        assert late.id == ticket.session_id.hex()

    async def test_a_session_created_and_revoked_in_one_request_sends_no_cookie(self):
        """A7: its ticket would be invalid."""
        world = World()
        session = await world.load(None)
        session["a"] = 1
        await session.acommit()
        await world.engine.revoker.revoke(copy_of(session).session_id(), "revoked")
        session["a"] = 2
        await end_of_request(session)
        assert copy_of(session).cookie_change is CookieChange.NONE

    async def test_revoking_an_unknown_id_reports_nothing(self):
        world = World()
        assert not await world.engine.revoker.revoke(bytes(16), "x")
        assert world.emitted(Revoked) == []

    async def test_a_session_destroyed_during_a_save_stays_destroyed(self):
        """A7."""
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        session["a"] = 2

        async def meanwhile():
            session.destroy()
            session["new"] = 1

        world.store.meanwhile("save", meanwhile)
        await session.acommit()
        assert dict(session) == {"new": 1}
        await end_of_request(session)
        assert await world.record(ticket) is None
        assert session.id != ticket.session_id.hex()
        assert await world.data(ticket_of(session)) == {"new": 1}

    async def test_a_session_destroyed_while_its_commit_waits_for_the_lock_is_not_saved(self):
        world, ticket = await stored_session(a=1)
        one, two = await world.load(ticket), await world.load(ticket)
        one["a"], two["a"] = 2, 3
        world.store.hang("save", times=1)
        first = asyncio.create_task(one.acommit())
        await asyncio.sleep(0)
        second = asyncio.create_task(two.acommit())
        await asyncio.sleep(0)
        two.destroy()
        world.store.heal()
        await asyncio.gather(first, second)
        assert world.store.calls.count("save") == 1
        await end_of_request(two)
        assert await world.record(ticket) is None


class TestClaim:
    async def test_one_of_parallel_claims_receives_the_value(self):
        """ASVS 10.1.2: such as OAuth states, nonces and vouchers."""
        world, ticket = await stored_session(code="x", other=1)
        claimers = [await world.load(ticket, other_process=n % 2 == 0) for n in range(20)]
        got = await asyncio.gather(*(one.aclaim("code") for one in claimers))
        assert sorted(filter(None, got)) == ["x"]
        assert await world.data(ticket) == {"other": 1}
        assert all("code" not in one for one in claimers)

    async def test_a_value_claimed_between_load_and_save_is_not_claimed_again(self):
        world, ticket = await stored_session(code="x")
        one, two = await world.load(ticket), await world.load(ticket, other_process=True)
        got = []

        async def meanwhile():
            got.append(await two.aclaim("code"))

        world.store.meanwhile("save", meanwhile)
        got.append(await one.aclaim("code", "nothing"))
        assert got == ["x", "nothing"]

    async def test_a_claim_commits_pending_changes_and_can_claim_them(self):
        world, ticket = await stored_session(a=1)
        session = await world.load(ticket)
        session["code"], session["b"] = [1], 2
        assert await session.aclaim("code") == [1]
        assert await world.data(ticket) == {"a": 1, "b": 2}

    async def test_a_claim_of_a_new_session_is_returned(self):
        world = World()
        session = await world.load(None)
        assert await session.aclaim("code", "none") == "none"
        session["code"], session["b"] = 1, 2
        assert await session.aclaim("code") == 1
        assert await world.data(ticket_of(session)) == {"b": 2}

    async def test_a_claim_raises_if_the_store_fails(self):
        world, ticket = await stored_session(code="x")
        session = await world.load(ticket)
        world.store.fail("save", times=1)
        with pytest.raises(StoreUnavailable):
            await session.aclaim("code")
        assert await session.aclaim("code") == "x"

    async def test_an_object_read_before_its_claim_is_no_longer_stored(self):
        world, ticket = await stored_session(oauth={"nonce": 1})
        session = await world.load(ticket)
        held = session["oauth"]
        assert await session.aclaim("oauth") == {"nonce": 1}
        assert held == {"nonce": 1}
        held["used"] = True
        await end_of_request(session)
        assert await world.data(ticket) == {}

    async def test_claims_from_threads_without_an_event_loop(self):
        from sojourn._core.concurrency import run

        def in_thread():
            world = World()
            ticket = run(world.create(code="x"))
            session = run(world.load(ticket))
            session["a"] = 1
            session.commit()
            session.refresh()
            return session.claim("code"), session.claim("code", "none"), dict(session)

        assert await asyncio.to_thread(in_thread) == ("x", "none", {"a": 1})


async def test_events_errors_and_reprs_contain_no_secret():
    """A18: neither a verifier nor the text of a ticket."""
    world, ticket = await stored_session(a=1)
    session = await world.load(ticket)
    session["a"] = 2
    await session.acommit()
    await world.load(Ticket(ticket.session_id, bytes(16)))
    session.destroy()
    await end_of_request(session)
    errors = []
    for act in (session.acommit, session.arefresh):
        try:
            await act()
        except SessionGone as error:
            errors.append(error)
    shown = " ".join(
        [*map(repr, world.events), *map(str, errors), repr(session), repr(world.engine.store)]
    )
    assert ticket.verifier.hex() not in shown
    assert repr(ticket.verifier) not in shown
    dump = b"".join(record.to_bytes() for record in world.memory._records.values())
    assert ticket.verifier not in dump
