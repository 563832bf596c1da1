"""The private side of a session: what the engine and the web layer rely on.

Read next: ``test_session.py``.
"""

import pytest

from sojourn._core.session import Session
from sojourn._core.working_copy import CookieChange
from sojourn.record import Contents
from tests.unit.core.engine_harness import World

pytestmark = pytest.mark.anyio


async def visits():
    world = World()
    ticket = await world.begin(a=1)
    return world, await world.visit(ticket)


async def test_begins_with_nothing_decoded():
    _, session = await visits()
    assert (session._view, session._contents, session._user) == (None, None, None)
    assert session._returned
    assert not (await World().visit(None))._returned


async def test_adopts_before_and_after_it_was_opened():
    _, session = await visits()
    record = session._record
    session._adopt(record, Contents("ada", {}, {"b": b"\x01"}))
    assert list(session._open()) == ["b"]
    assert session._user == "ada"
    view = session._open()
    session._adopt(record, Contents(None, {}, {"c": b"\x01"}))
    assert session._open() is view
    assert list(view) == ["c"]


async def test_an_ended_one_keeps_its_id_and_sends_no_cookie():
    _, session = await visits()
    session_id = session._raw_id()
    session._cookie = CookieChange.SEND
    session._end(session_id)
    assert session._raw_id() == session_id
    assert session._cookie is CookieChange.NONE
    assert not session._has(session_id)


async def test_a_forgotten_one_has_another_id():
    _, session = await visits()
    before = session._raw_id()
    assert session._has(before)
    session._forget()
    assert session._raw_id() != before
    assert session._raw_id() == session._raw_id()
    assert not session._returned


async def test_is_small():
    """performance.md: no dictionary for each request."""
    assert not hasattr(await World().visit(None), "__dict__")
    assert Session.__slots__ == ()


async def test_is_touched_by_what_a_commit_would_write_and_by_nothing_else():
    _, session = await visits()
    assert not session._touched()
    assert session["a"] == 1
    assert not session._touched()
    session["a"] = 2
    assert session._touched()
    _, destroyed = await visits()
    destroyed.destroy()
    assert destroyed._touched()
