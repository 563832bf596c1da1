"""CoreContext: reported events and their counts."""

import pytest

from sojourn.errors import StoreUnavailable
from sojourn.events import (
    Created,
    Read,
    Rejected,
    Revoked,
    StoreFailed,
    Touched,
    Written,
)
from sojourn.record import UnreadableRecord
from tests.unit.core.engine_harness import World, end_of_request

pytestmark = pytest.mark.anyio


async def test_every_event_is_counted_once():
    """``usage()`` returns these counts."""
    world = World()
    ticket = await world.create(a=1)
    session = await world.load(ticket)
    session["a"] = 2
    await end_of_request(session)
    world.clock.advance("2 minutes")
    await end_of_request(await world.load(ticket))
    session = await world.load(ticket)
    session.destroy()
    await end_of_request(session)
    await world.load(ticket)
    counts = world.engine.context.dispatcher.counts
    assert {kind: count for kind, count in counts.items() if count} == {
        Read: 3,
        Written: 1,
        Created: 1,
        Touched: 1,
        Revoked: 1,
        Rejected: 1,
    }


def test_a_store_error_is_counted_reported_and_raised():
    world = World()
    context, error = world.engine.context, StoreUnavailable("down")
    with pytest.raises(StoreUnavailable) as caught:
        context.raise_store_error("load", bytes(16), error)
    assert caught.value is error
    assert world.events == [StoreFailed("0" * 32, "load", "down")]
    assert context.dispatcher.counts[StoreFailed] == 1


def test_a_rejected_ticket_that_cannot_be_unsealed_is_reported_without_an_id():
    world = World()
    context = world.engine.context
    context.report_rejected(b"", "forged")
    context.report_unreadable(bytes(16), UnreadableRecord("why"))
    assert world.events == [Rejected("", "forged"), Rejected("0" * 32, "unreadable: why")]
    assert context.dispatcher.counts[Rejected] == 2


async def test_an_event_without_listeners_is_counted_but_not_created(monkeypatch):
    """Fewer objects are created for each request."""
    world = World(listen=False)
    ticket = await world.create(a=1)
    for kind in (Read, Written):
        monkeypatch.setattr(kind, "__init__", lambda *_: pytest.fail("was built"))
    session = await world.load(ticket)
    session["a"] = 2
    await end_of_request(session)
    counts = world.engine.context.dispatcher.counts
    assert (counts[Read], counts[Written]) == (1, 1)
