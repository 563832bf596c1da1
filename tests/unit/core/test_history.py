"""History: each ended session has one entry; a failing history does not prevent the end."""

import asyncio
import logging

import msgspec
import pytest

from sojourn._core.durations import milliseconds
from sojourn._core.history import History
from sojourn.errors import StoreUnavailable
from sojourn.events import Expired, Revoked, StoreFailed
from sojourn.store import HistoryEntry, LimitPolicy, SessionLimit
from sojourn.testing import FaultyStore
from tests.unit.core.engine_harness import Browser, World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio

LABELS = {"browser": "Lynx"}
LIFETIME = milliseconds("30 days", option="history")


def make_world(**options):
    world = World(**options)
    world.options["history"] = History(
        world.store,
        world.store,
        world.options["dispatcher"],
        lifetime=LIFETIME,
        store_timeout=world.config.store_timeout,
    )
    world.engine = world.another_process()
    return world


async def log_in(world, user="ada"):
    session = await world.load(None, Browser(**LABELS))
    session["a"] = 1
    session.login(user)
    await end_of_request(session)
    world.store.calls.clear()
    return ticket_of(session)


async def history(world):
    page = await world.memory.list_history("", 1_000)
    assert page.unreadable == 0
    return page.entries


def entry(world, ticket, reason, *, created_at, actor=None, user="ada"):
    return HistoryEntry(ticket.session_id, world.clock.now, reason, actor, user, created_at, LABELS)


async def test_a_revoked_session_is_loaded_for_its_entry():
    world = make_world()
    ticket = await log_in(world)
    began = world.clock.now
    world.clock.advance("1 minute")
    assert await world.engine.revoker.revoke(ticket.session_id, "stolen", actor="support")
    expected = entry(world, ticket, "stolen", created_at=began, actor="support")
    assert await history(world) == [expected]
    assert world.store.calls == ["load", "delete", "create", "add_history"]
    world.store.calls.clear()
    assert not await world.engine.revoker.revoke(ticket.session_id, "again")
    assert world.store.calls == ["load", "delete"]
    assert await history(world) == [expected]


async def test_without_the_option_a_revocation_makes_no_further_call():
    world = World()
    ticket = await log_in(world)
    assert await world.engine.revoker.revoke(ticket.session_id, "stolen")
    assert world.store.calls == ["delete", "create"]
    assert await history(world) == []


@pytest.mark.parametrize("verb", ["logout", "destroy", "clear"])
async def test_a_destroyed_session_has_an_entry(verb):
    """Its record is already loaded."""
    world = make_world()
    ticket = await log_in(world)
    began = world.clock.now
    session = await world.load(ticket)
    world.store.calls.clear()
    getattr(session, verb)()
    await end_of_request(session)
    assert world.store.calls == ["delete", "add_history"]
    assert await history(world) == [entry(world, ticket, "destroyed", created_at=began)]


async def test_a_login_of_another_user_after_a_logout_ends_one_session():
    world = make_world()
    ticket = await log_in(world)
    session = await world.load(ticket)
    session.logout()
    session.login("bob")
    await end_of_request(session)
    [ended] = await history(world)
    assert (ended.user, ended.reason) == ("ada", "destroyed")
    session = await world.load(ticket_of(session))
    session.login("eve")  # continues the record, so no session ends
    await end_of_request(session)
    assert len(await history(world)) == 1


async def test_entries_of_all_sessions_of_a_user_are_added_by_one_call():
    """S16: from the listed records."""
    world = make_world()
    tickets = [await log_in(world) for _ in range(5)]
    began = world.clock.now
    await log_in(world, "bob")
    count = await world.engine.revoker.revoke_indexed(
        "user:ada", "disabled", keep=tickets[0].session_id, actor="support"
    )
    assert count == 4
    assert world.store.calls.count("add_history") == 1
    assert "load" not in world.store.calls
    expected = [
        entry(world, ticket, "disabled", created_at=began, actor="support")
        for ticket in tickets[1:]
    ]
    found = await history(world)
    assert sorted(found, key=lambda e: e.session_id) == sorted(expected, key=lambda e: e.session_id)


async def test_revoke_all_adds_one_entry():
    world = make_world()
    for user in ("ada", "bob"):
        await log_in(world, user)
    await world.engine.revoker.revoke_all("restart", actor="ops")
    before = world.emitted(Revoked)[-1].instant
    assert await history(world) == [HistoryEntry(b"", before, "restart", "ops")]


@pytest.mark.parametrize("policy", [LimitPolicy.EVICT_OLDEST, LimitPolicy.EVICT_IDLEST])
async def test_the_entry_of_a_session_evicted_by_a_limit_has_the_user(policy):
    """The store returns only its ID, so other fields are None."""
    world = make_world(limit=SessionLimit(1, policy))
    first = await log_in(world)
    world.clock.advance("1 minute")
    await log_in(world)
    expected = HistoryEntry(first.session_id, world.clock.now, "limit", None, "ada")
    assert await history(world) == [expected]


async def test_entries_are_added_to_a_wrapped_store():
    """Telemetry wraps the store to measure its calls."""
    world = make_world()
    ticket = await log_in(world)
    wrapper = FaultyStore(world.memory)
    world.engine.use_store(wrapper)
    await world.engine.revoker.revoke(ticket.session_id, "stolen")
    assert "add_history" in wrapper.calls
    assert world.store.calls == []


async def test_a_session_revoked_because_of_a_reused_ticket_has_an_entry():
    world = make_world()
    ticket = await log_in(world)
    began = world.clock.now
    session = await world.load(ticket)
    session.rotate()
    await end_of_request(session)
    await end_of_request(await world.load(ticket_of(session)))
    world.clock.advance("3 seconds")
    world.store.calls.clear()
    await world.load(ticket)
    assert await history(world) == [entry(world, ticket, "reused", created_at=began)]
    assert world.store.calls.count("load") == 1


@pytest.mark.parametrize(
    ("time", "limit", "confirmed"),
    [
        ("31 minutes", "idle", True),
        ("13 hours", "absolute", True),
        ("3 minutes", "unconfirmed", False),
    ],
)
async def test_an_expired_session_that_a_request_loads_has_an_entry(time, limit, confirmed):
    world = make_world(unconfirmed_timeout="2 minutes")
    if confirmed:
        ticket, user = await log_in(world), "ada"
    else:
        ticket, user = await world.create(Browser(**LABELS), a=1), None
    began = world.clock.now
    world.clock.advance(time)
    await world.load(ticket)
    await world.load(ticket)  # it is gone
    expected = entry(world, ticket, f"expired: {limit}", created_at=began, user=user)
    assert await history(world) == [expected]


async def test_a_session_whose_expiry_two_processes_detect_has_one_entry():
    world = make_world()
    ticket = await log_in(world)
    world.clock.advance("31 minutes")

    async def expire_in_another_process():
        await world.load(ticket, other_process=True)

    world.store.meanwhile("delete", expire_in_another_process)
    await world.load(ticket)
    assert len(world.emitted(Expired)) == 2
    assert len(await history(world)) == 1


async def test_the_entry_of_an_unreadable_record_has_only_the_known_fields():
    """S9."""
    world = make_world()
    ticket = await log_in(world)
    record = await world.record(ticket)
    world.memory._records[record.id] = msgspec.structs.replace(record, body=b"\xc1")
    assert await world.engine.revoker.revoke(record.id, "stolen")
    [ended] = await history(world)
    assert (ended.user, ended.labels, ended.created_at) == (None, {}, record.created_at)


@pytest.mark.parametrize(
    ("actor", "text"), [("bob", "bob"), (7, "7"), ("a\udcff", "a\\udcff"), (None, None)]
)
async def test_an_actor_is_stored_as_a_string(actor, text):
    world = make_world()
    ticket = await log_in(world)
    assert await world.engine.revoker.revoke(ticket.session_id, "stolen", actor=actor)
    [ended] = await history(world)
    assert ended.actor == text


class TestFailure:
    async def test_a_session_whose_record_cannot_be_loaded_is_revoked(self):
        """A15: its entry has no user."""
        world = make_world()
        ticket = await log_in(world)
        world.store.fail("load", times=1)
        assert await world.engine.revoker.revoke(ticket.session_id, "stolen")
        assert await history(world) == [HistoryEntry(ticket.session_id, world.clock.now, "stolen")]

    async def test_each_failure_is_an_event_and_each_outage_is_two_log_lines(self, caplog):
        """S12: the sessions are revoked."""
        caplog.set_level(logging.INFO, "sojourn")
        world = make_world()
        tickets = [await log_in(world) for _ in range(4)]
        others = [await log_in(world, "bob") for _ in range(3)]
        world.store.fail("add_history")
        for ticket in tickets[:3]:
            assert await world.engine.revoker.revoke(ticket.session_id, "stolen")
            assert await world.record(ticket) is None
        await world.engine.revoker.revoke_indexed("user:bob", "x", keep=None, actor=None)
        for ticket in others:
            assert await world.record(ticket) is None
        failures = world.emitted(StoreFailed)
        assert [event.operation for event in failures] == ["add_history"] * 4
        assert [event.session_id for event in failures[:3]] == [
            ticket.session_id.hex() for ticket in tickets[:3]
        ]
        [line] = caplog.messages
        assert line.startswith("the history of ended sessions cannot be written")
        world.store.heal()
        caplog.clear()
        assert await world.engine.revoker.revoke(tickets[3].session_id, "stolen")
        assert caplog.messages == [
            "the history of ended sessions is written again; 6 entries are missing"
        ]
        assert len(await history(world)) == 1

    async def test_a_log_line_contains_no_user(self, caplog):
        """A18."""
        world = make_world()
        ticket = await log_in(world, "ada.lovelace")
        world.store.fail("add_history")
        assert await world.engine.revoker.revoke(ticket.session_id, "stolen", actor="support")
        assert "lovelace" not in caplog.text  # "ada" occurs in session IDs by chance
        assert "support" not in caplog.text

    async def test_a_hanging_history_does_not_exhaust_the_deadline(self):
        """S12: a request whose session has expired gets an empty session."""
        world = make_world(store_timeout=2.0)
        ticket = await log_in(world)
        world.clock.advance("31 minutes")
        world.store.hang("add_history")
        async with asyncio.timeout(1.9):
            session = await world.load(ticket)
        assert session.ended_reason == "expired (idle)"
        [failed] = world.emitted(StoreFailed)
        assert failed.operation == "add_history"

    async def test_a_hanging_load_does_not_delay_a_revocation(self):
        """S12."""
        world = make_world(store_timeout=2.0)
        ticket = await log_in(world)
        world.store.hang("load", times=1)
        async with asyncio.timeout(1.9):
            assert await world.engine.revoker.revoke(ticket.session_id, "stolen")
        assert len(await history(world)) == 1

    async def test_a_cancelled_revocation_still_adds_its_entry(self):
        """A21."""
        world = make_world()
        ticket = await log_in(world)
        revoked = asyncio.Event()
        world.options["dispatcher"].on(Revoked, lambda _: revoked.set())
        world.store.hang("delete")
        task = asyncio.ensure_future(world.engine.revoker.revoke(ticket.session_id, "stolen"))
        await asyncio.sleep(0)  # the task starts
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        world.store.heal()
        await asyncio.wait_for(revoked.wait(), 5)
        [ended] = await history(world)
        assert (ended.reason, ended.user) == ("stolen", "ada")

    async def test_a_failed_revocation_adds_no_entry(self):
        world = make_world()
        ticket = await log_in(world)
        world.store.fail("delete", times=1)
        with pytest.raises(StoreUnavailable):
            await world.engine.revoker.revoke(ticket.session_id, "stolen")
        assert await history(world) == []
        assert await world.record(ticket) is not None


async def test_records_for_entries_are_loaded_from_the_store_of_the_engine():
    """Telemetry wraps it."""
    world = make_world()
    ticket = await log_in(world)
    wrapper = FaultyStore(world.memory)
    world.engine.use_store(wrapper)
    assert await world.engine.revoker.revoke(ticket.session_id, "stolen")
    assert wrapper.calls == ["load", "delete", "create", "add_history"]
    assert world.store.calls == []
