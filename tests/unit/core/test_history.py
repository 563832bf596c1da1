"""Each way to end a session leaves one entry in the history, and a failing history ends nothing."""

import asyncio
import logging

import msgspec
import pytest

from sojourn._core.history import History
from sojourn._core.policy import milliseconds
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
    session = await world.visit(None, Browser(**LABELS))
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


async def test_without_the_option_there_is_no_further_call():
    world = World()
    ticket = await log_in(world)
    assert await world.engine.revoker.revoke(ticket.session_id, "stolen")
    assert world.store.calls == ["delete", "create"]
    assert await history(world) == []


@pytest.mark.parametrize("verb", ["logout", "destroy", "clear"])
async def test_a_visitor_ends_the_session(verb):
    """The record is known, so it is not loaded."""
    world = make_world()
    ticket = await log_in(world)
    began = world.clock.now
    session = await world.visit(ticket)
    world.store.calls.clear()
    getattr(session, verb)()
    await end_of_request(session)
    assert world.store.calls == ["delete", "add_history"]
    assert await history(world) == [entry(world, ticket, "destroyed", created_at=began)]


async def test_a_login_of_another_user_after_a_logout_ends_one_session():
    world = make_world()
    ticket = await log_in(world)
    session = await world.visit(ticket)
    session.logout()
    session.login("bob")
    await end_of_request(session)
    [ended] = await history(world)
    assert (ended.user, ended.reason) == ("ada", "destroyed")
    session = await world.visit(ticket_of(session))
    session.login("eve")  # continues the record, so no session ends
    await end_of_request(session)
    assert len(await history(world)) == 1


async def test_sessions_of_a_user_are_added_by_one_call():
    """S16: with the records that were listed."""
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


async def test_revoking_all_adds_one_entry():
    world = make_world()
    for user in ("ada", "bob"):
        await log_in(world, user)
    await world.engine.revoker.revoke_all("restart", actor="ops")
    before = world.emitted(Revoked)[-1].instant
    assert await history(world) == [HistoryEntry(b"", before, "restart", "ops")]


@pytest.mark.parametrize("policy", [LimitPolicy.EVICT_OLDEST, LimitPolicy.EVICT_IDLEST])
async def test_a_login_above_the_limit_names_the_user_of_the_evicted_session(policy):
    """The store returns only its ID, so the rest is unknown."""
    world = make_world(limit=SessionLimit(1, policy))
    first = await log_in(world)
    world.clock.advance("1 minute")
    await log_in(world)
    expected = HistoryEntry(first.session_id, world.clock.now, "limit", None, "ada")
    assert await history(world) == [expected]


async def test_another_store_keeps_the_history():
    """As it happens when telemetry wraps the store: its calls are measured."""
    world = make_world()
    ticket = await log_in(world)
    wrapper = FaultyStore(world.memory)
    world.engine.use_store(wrapper)
    await world.engine.revoker.revoke(ticket.session_id, "stolen")
    assert "add_history" in wrapper.calls
    assert world.store.calls == []


async def test_a_reused_ticket_revokes_the_session():
    world = make_world()
    ticket = await log_in(world)
    began = world.clock.now
    session = await world.visit(ticket)
    session.rotate()
    await end_of_request(session)
    await end_of_request(await world.visit(ticket_of(session)))
    world.clock.advance("3 seconds")
    world.store.calls.clear()
    await world.visit(ticket)
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
async def test_an_expiry_that_a_request_notices(time, limit, confirmed):
    world = make_world(unconfirmed_timeout="2 minutes")
    if confirmed:
        ticket, user = await log_in(world), "ada"
    else:
        ticket, user = await world.begin(Browser(**LABELS), a=1), None
    began = world.clock.now
    world.clock.advance(time)
    await world.visit(ticket)
    await world.visit(ticket)  # it is gone
    expected = entry(world, ticket, f"expired: {limit}", created_at=began, user=user)
    assert await history(world) == [expected]


async def test_an_expiry_that_two_processes_notice_is_one_entry():
    world = make_world()
    ticket = await log_in(world)
    world.clock.advance("31 minutes")

    async def expire_elsewhere():
        await world.visit(ticket, elsewhere=True)

    world.store.meanwhile("delete", expire_elsewhere)
    await world.visit(ticket)
    assert len(world.emitted(Expired)) == 2
    assert len(await history(world)) == 1


async def test_a_record_whose_user_cannot_be_read():
    """S9: its entry has what is known."""
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
async def test_an_actor_is_stored_as_text(actor, text):
    world = make_world()
    ticket = await log_in(world)
    assert await world.engine.revoker.revoke(ticket.session_id, "stolen", actor=actor)
    [ended] = await history(world)
    assert ended.actor == text


class TestFailure:
    async def test_an_unknown_record_is_revoked_nevertheless(self):
        """A15: the entry has no user, because the record could not be loaded."""
        world = make_world()
        ticket = await log_in(world)
        world.store.fail("load", times=1)
        assert await world.engine.revoker.revoke(ticket.session_id, "stolen")
        assert await history(world) == [HistoryEntry(ticket.session_id, world.clock.now, "stolen")]

    async def test_each_failure_is_an_event_and_each_outage_two_log_lines(self, caplog):
        """S12: the sessions end."""
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

    async def test_a_log_line_names_no_user(self, caplog):
        """A18."""
        world = make_world()
        ticket = await log_in(world, "ada.lovelace")
        world.store.fail("add_history")
        assert await world.engine.revoker.revoke(ticket.session_id, "stolen", actor="support")
        assert "ada" not in caplog.text
        assert "support" not in caplog.text

    async def test_a_hanging_history_does_not_use_up_the_deadline(self):
        """S12: a request whose session has expired gets an empty one."""
        world = make_world(store_timeout=0.4)
        ticket = await log_in(world)
        world.clock.advance("31 minutes")
        world.store.hang("add_history")
        async with asyncio.timeout(0.3):
            session = await world.visit(ticket)
        assert session.ended_reason == "expired (idle)"
        [failed] = world.emitted(StoreFailed)
        assert failed.operation == "add_history"

    async def test_a_hanging_load_does_not_delay_a_revocation(self):
        """S12."""
        world = make_world(store_timeout=0.4)
        ticket = await log_in(world)
        world.store.hang("load", times=1)
        async with asyncio.timeout(0.3):
            assert await world.engine.revoker.revoke(ticket.session_id, "stolen")
        assert len(await history(world)) == 1

    async def test_a_cancelled_revocation_leaves_its_entry(self):
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

    async def test_a_failed_revocation_leaves_no_entry(self):
        world = make_world()
        ticket = await log_in(world)
        world.store.fail("delete", times=1)
        with pytest.raises(StoreUnavailable):
            await world.engine.revoker.revoke(ticket.session_id, "stolen")
        assert await history(world) == []
        assert await world.record(ticket) is not None


async def test_entries_are_added_to_the_store_that_serves_the_engine():
    """As telemetry wraps it; the record for the entry is loaded from it, too."""
    world = make_world()
    ticket = await log_in(world)
    wrapper = FaultyStore(world.memory)
    world.engine.use_store(wrapper)
    assert await world.engine.revoker.revoke(ticket.session_id, "stolen")
    assert wrapper.calls == ["load", "delete", "create", "add_history"]
    assert world.store.calls == []
