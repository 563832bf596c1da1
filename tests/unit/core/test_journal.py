"""What is counted and told.

Read next: ``tests/test_events.py``.
"""

import pytest

from sojourn._core.journal import Counters, Journal
from sojourn.errors import StoreUnavailable
from sojourn.events import Dispatcher, Read, Rejected, StoreFailed, Written
from sojourn.record import UnreadableRecord
from tests.unit.core.engine_harness import World, end_of_request

pytestmark = pytest.mark.anyio


async def test_everything_is_counted_once():
    """seed.md: usage() with counts of reads and writes."""
    world = World()
    ticket = await world.begin(a=1)
    session = await world.visit(ticket)
    session["a"] = 2
    await end_of_request(session)
    world.clock.advance("2 minutes")
    await end_of_request(await world.visit(ticket))
    session = await world.visit(ticket)
    session.destroy()
    await end_of_request(session)
    await world.visit(ticket)
    assert world.engine.journal.counters == Counters(
        reads=3, writes=1, creates=1, touches=1, removes=1, rejected=1
    )


def test_failures_are_counted_told_and_raised():
    dispatcher, heard = Dispatcher(), []
    dispatcher.on(StoreFailed, heard.append)
    journal, error = Journal(dispatcher), StoreUnavailable("down")
    with pytest.raises(StoreUnavailable) as caught:
        journal.failed("load", bytes(16), error)
    assert caught.value is error
    assert heard == [StoreFailed("0" * 32, "load", "down")]
    assert journal.counters.failures == 1


def test_a_ticket_that_could_not_be_opened_has_no_id():
    dispatcher, heard = Dispatcher(), []
    dispatcher.on(Rejected, heard.append)
    journal = Journal(dispatcher)
    journal.rejected(b"", "forged")
    journal.unreadable(bytes(16), UnreadableRecord("why"))
    assert heard == [Rejected("", "forged"), Rejected("0" * 32, "unreadable: why")]
    assert journal.counters.rejected == 2


def test_what_could_not_be_told_elsewhere_is_counted():
    """S17: a lost announcement is no error of who wrote."""
    dispatcher, heard = Dispatcher(), []
    dispatcher.on(StoreFailed, heard.append)
    journal = Journal(dispatcher)
    journal.untold("0" * 32, OSError("down"))
    assert heard == [StoreFailed("0" * 32, "announce", "down")]
    assert journal.counters.failures == 1


async def test_what_nobody_hears_is_never_built(monkeypatch):
    """performance.md: few objects for each request."""
    world = World()
    silent = Journal(Dispatcher())
    record = (await world.visit(await world.begin(a=1)))._record
    for kind in (Read, Written):
        monkeypatch.setattr(kind, "__init__", lambda *_: pytest.fail("was built"))
    silent.read(record)
    silent.written(record, attempts=0)
    assert (silent.counters.reads, silent.counters.writes) == (1, 1)
