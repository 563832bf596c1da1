"""Visitor."""

import pytest

from sojourn._core.concurrency import run
from sojourn.sessions import Sessions
from sojourn.testing import Visitor


def test_a_visitor_stores_and_removes_its_cookie():
    visitor = Visitor(Sessions(store="memory://"))

    async def fail():
        async with visitor.visit() as session:
            session["n"] = 2
            raise LookupError

    async def scenario():
        async with visitor.visit() as session:
            session["n"] = 1
        assert visitor.cookie is not None
        with pytest.raises(LookupError):
            await fail()
        assert dict(await visitor.load()) == {"n": 1}
        async with visitor.visit() as session:
            session.destroy()
        assert visitor.cookie is None
        assert dict(await visitor.load()) == {}

    run(scenario())
    assert repr(visitor) == "<Visitor without a cookie>"
