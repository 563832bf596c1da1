"""WorkingCopy: the state of a session that the engine and the web layer use."""

import pytest

from sojourn._core.codec import checked_encoder
from sojourn._core.connection_control import NoConnections
from sojourn._core.json_records import check_value
from sojourn._core.working_copy import CookieChange
from sojourn.errors import NotSerializable, ResponseStarted, StoreUnavailable
from sojourn.record import Contents
from tests.support.working_copies import copy_of
from tests.unit.core.engine_harness import World, end_of_request

pytestmark = pytest.mark.anyio


async def loaded():
    world = World()
    ticket = await world.create(a=1)
    return world, await world.load(ticket)


async def test_a_loaded_copy_has_decoded_nothing():
    _, session = await loaded()
    assert (copy_of(session).changes, copy_of(session).contents, copy_of(session).user) == (
        None,
        None,
        None,
    )
    assert not copy_of(session).created_in_request
    assert not copy_of(await World().load(None)).record
    assert copy_of(session).session_id() == copy_of(session).record.id


async def test_replace_record_updates_a_copy_before_and_after_it_was_decoded():
    _, session = await loaded()
    record = copy_of(session).record
    copy_of(session).replace_record(record, Contents("ada", {}, {"b": b"\x01"}))
    assert list(copy_of(session).decode()) == ["b"]
    assert copy_of(session).user == "ada"
    tracker = copy_of(session).decode()
    copy_of(session).replace_record(record, Contents(None, {}, {"c": b"\x01"}))
    assert copy_of(session).decode() is tracker
    assert list(tracker) == ["c"]


async def test_a_revoked_copy_keeps_its_id_and_sends_no_cookie():
    _, session = await loaded()
    session_id = copy_of(session).session_id()
    copy_of(session).cookie_change = CookieChange.SEND
    copy_of(session).mark_revoked(session_id)
    assert copy_of(session).session_id() == session_id
    assert copy_of(session).cookie_change is CookieChange.NONE
    assert not copy_of(session).has_record(session_id)


async def test_a_reset_copy_has_another_id():
    _, session = await loaded()
    before = copy_of(session).session_id()
    assert copy_of(session).has_record(before)
    copy_of(session).reset()
    assert copy_of(session).session_id() != before
    assert copy_of(session).session_id() == copy_of(session).session_id()
    assert copy_of(session).created_in_request


async def test_neither_session_nor_copy_has_a_dict():
    """A dictionary for each request would cost memory."""
    assert not hasattr(await World().load(None), "__dict__")
    assert not hasattr(copy_of(await World().load(None)), "__dict__")


async def test_modified_is_true_only_if_a_commit_would_write():
    _, session = await loaded()
    assert not copy_of(session).modified()
    assert session["a"] == 1
    assert not copy_of(session).modified()
    session["a"] = 2
    assert copy_of(session).modified()
    _, destroyed = await loaded()
    destroyed.destroy()
    assert copy_of(destroyed).modified()


async def test_a_login_without_data_is_a_change():
    world = World()
    session = await world.load(None)
    session.login("ada")
    assert copy_of(session).modified()


async def test_a_rotation_does_not_authenticate():
    _, session = await loaded()
    session.rotate()
    assert copy_of(session).modified()
    assert not copy_of(session).authenticated()


async def test_no_cookie_is_sent_after_the_response_started():
    """A11."""
    copy = copy_of(await World().load(None))
    copy.cookie_change = CookieChange.CLEAR
    copy.mark_response_started()
    assert copy.cookie_change is CookieChange.NONE
    with pytest.raises(ResponseStarted):
        copy.edit()
    copy.send_cookie()
    assert copy.cookie_change is CookieChange.NONE


async def test_a_destroyed_copy_has_neither_verifier_nor_persistence():
    _, session = await loaded()
    copy_of(session).set_persistence(True)
    session.destroy()
    copy = copy_of(session)
    assert (copy.verifier, copy.persistence, copy.unsaved_id) == (b"", None, b"")
    assert copy.changes is not None, "a commit is due"


async def test_written_is_true_after_a_save_unless_the_ticket_is_new():
    """N3: the near cache finds a record by its ticket."""
    _, session = await loaded()
    assert not copy_of(session).written
    session["a"] = 2
    await end_of_request(session)
    assert copy_of(session).written
    _, session = await loaded()
    session["a"] = 2
    session.rotate()
    await end_of_request(session)
    assert not copy_of(session).written


@pytest.mark.parametrize("after", [True, False])
async def test_written_is_true_after_an_interrupted_commit_that_was_applied(after):
    """A21, N3."""
    world, session = await loaded()
    session["a"] = 2
    world.store.fail("save", after=after, times=1)
    with pytest.raises(StoreUnavailable):
        await session.acommit()
    assert not copy_of(session).written
    await session.arefresh()
    assert session["a"] == 2
    assert copy_of(session).written is after


async def test_connections_receive_the_id_of_a_rotated_session():
    rotated = []

    class Recorded(NoConnections):
        def verifier_rotated(self, session_id):
            rotated.append(session_id)

    world = World()
    world.options["connections"] = Recorded()
    world.engine = world.another_process()
    session = await world.load(await world.create(a=1))
    session.rotate()
    await end_of_request(session)
    assert rotated == [copy_of(session).session_id()]


@pytest.mark.parametrize("rotated", [False, True])
async def test_the_newest_ticket_is_recorded_as_used(rotated):
    """A9: even if another request has changed the session meanwhile."""
    world, session = await loaded()
    session.rotate()
    await end_of_request(session)
    ticket = copy_of(session).ticket()
    session = await world.load(ticket)
    assert copy_of(session).header_dirty
    other = await world.load(ticket)
    other["b"] = 1
    if rotated:
        await end_of_request(other)
        world.clock.advance("5 minutes")  # after the grace period
        other = await world.load(ticket)
        other.rotate()
    else:
        copy_of(other).header_dirty = False
    await end_of_request(other)
    await session.arefresh()
    assert copy_of(session).header_dirty is not rotated


@pytest.mark.parametrize("situation", ["loaded", "refreshed", "destroyed", "committed"])
async def test_a_value_that_the_store_cannot_hold_is_refused_at_the_assignment(situation):
    world, _ = await loaded()
    world.options["encoder"] = checked_encoder(check_value)
    world.engine = world.another_process()
    ticket = await world.create(a=1)
    session = await world.load(ticket)
    if situation == "refreshed":
        await world.concurrent_write(ticket, a=2)
        await world.engine.refresh(session)  # as before a socket's next message
    elif situation == "destroyed":
        session.destroy()
    elif situation == "committed":
        session["a"] = 3
        await end_of_request(session)
    with pytest.raises(NotSerializable, match="as JSON"):
        session["picture"] = b"bytes"


async def test_repr_contains_the_id_and_no_secret():
    """A18: also in debuggers that use `__rich_repr__`; that of msgspec shows every field."""
    world = World()
    ticket = await world.create(a="a value")
    for copy in (copy_of(await world.load(ticket)), world.engine.load_immediately(ticket, None)):
        assert repr(copy) == f"<WorkingCopy of {ticket.session_id.hex()}>"
        assert copy.__rich_repr__() == [("session_id", ticket.session_id.hex())]
        shown = repr(copy) + repr(copy.__rich_repr__())
        for secret in (ticket.verifier, ticket.digest):
            assert repr(secret)[2:-1] not in shown
            assert secret.hex() not in shown
        assert "a value" not in shown
