"""Writes, touches, claims and destroys in every order of store calls: laws A6, A7, S4, S5 and S10.

Logins, rotations and revocations are in ``test_identity_interleavings.py``.
"""

import pytest

from sojourn.errors import SessionGone
from sojourn.stores.memory import MemoryStore
from sojourn.testing import Visitor
from tests.contract.multi_process_model import destroy, touch, write
from tests.support.interleave import interleave


async def claim(visitor: Visitor) -> str | None:
    try:
        async with visitor.visit() as session:
            return await session.aclaim("voucher")
    except SessionGone:
        return None


def test_two_writes_are_both_stored(race):
    """A6, S4, S10: in every order the changes of both requests are stored."""

    async def scenario(model):
        one, two = await model.visitors(2, n=0, nested={}, log=[])
        await model.together(write(one, "one"), write(two, "two"))
        data = await model.data()
        assert data["n"] == 2
        assert (data["one"], data["two"]) == ("one", "two")
        assert data["nested"] == {"one": 1, "two": 1}
        assert sorted(data["log"]) == ["one", "two"]

    race.run(scenario, min_orders=(6, 4))


def test_three_writes_are_all_stored(race):
    """A6, S10: in every order."""

    async def scenario(model):
        visitors = await model.visitors(3, n=0, nested={}, log=[])
        names = ("one", "two", "three")
        await model.together(*map(write, visitors, names))
        data = await model.data()
        assert data["n"] == 3
        assert set(data["nested"]) == set(data["log"]) == set(names)

    race.run(scenario, min_orders=(198, 30))


def test_write_and_destroy_end_the_session(race):
    """A7, S5, B-32: the session has ended; a late write sets no cookie."""

    async def scenario(model):
        one, two = await model.visitors(2, n=0, nested={}, log=[])
        cookie = one.cookie
        await model.together(write(one, "one"), destroy(two))
        assert await model.data() == {} or one.cookie != cookie
        assert two.cookie is None
        assert dict(await one.at(two.sessions).load()) == {} or one.cookie != cookie

    race.run(scenario, min_orders=(6, 6))


def test_two_writes_and_destroy_end_the_session(race):
    """A7, S5: also if one writer waits for the other."""

    async def scenario(model):
        one, two, three = await model.visitors(3, n=0, nested={}, log=[])
        await model.together(write(one, "one"), write(two, "two"), destroy(three))
        assert await model.data() == {}

    race.run(scenario, min_orders=(114, 66))


def test_touch_and_destroy_end_the_session(race):
    """A7, S5: a touch does not restore the session."""

    async def scenario(model):
        one, two = await model.visitors(2, n=1)
        await touch(one)  # confirms the session; a later read only touches it
        model.clock.advance(61)
        await model.together(touch(one), destroy(two))
        assert await model.data() == {}
        assert two.cookie is None

    race.run(scenario, min_orders=(6, 6))


def test_one_of_two_claims_gets_the_value(race):
    """A value is claimed exactly once."""

    async def scenario(model):
        one, two = await model.visitors(2, voucher="V", other=1)
        got = await model.together(claim(one), claim(two))
        assert sorted(got, key=str) == [None, "V"]
        assert await model.data() == {"other": 1}

    race.run(scenario, min_orders=(6, 4))


def test_claim_and_destroy_give_the_value_at_most_once(race):
    """A7: a claim does not restore an ended session."""

    async def scenario(model):
        one, two = await model.visitors(2, voucher="V")
        got, _ = await model.together(claim(one), destroy(two))
        assert got in ("V", None)
        assert await model.data() == {}

    race.run(scenario, min_orders=(6, 6))


# Tests of the enumeration


def test_every_order_is_tried_once():
    """Two participants with two steps each have six different orders."""
    seen = set()

    async def two_loads(store, name, order):
        for _ in range(2):
            await store.load(bytes(16))
            order.append(name)

    async def scenario(interleaving):
        order = []
        store = interleaving.wrap(MemoryStore())
        await interleaving.together(two_loads(store, "a", order), two_loads(store, "b", order))
        seen.add("".join(order))

    for threads in (False, True):
        seen.clear()
        assert interleave(scenario, threads=threads) == 6
        assert seen == {"aabb", "abab", "abba", "baab", "baba", "bbaa"}


@pytest.mark.parametrize("threads", [False, True])
def test_a_lost_update_is_found_and_its_order_reported(threads):
    """A read and a write without a comparison of versions."""

    async def write_unchecked(store, cell):
        await store.load(bytes(16))
        seen = cell[0]
        await store.load(bytes(16))
        cell[0] = seen + 1

    async def scenario(interleaving):
        store, cell = interleaving.wrap(MemoryStore()), [0]
        await interleaving.together(write_unchecked(store, cell), write_unchecked(store, cell))
        assert cell == [2]

    with pytest.raises(AssertionError) as found:
        interleave(scenario, threads=threads)
    assert "in schedule 2: 1:load 2:load" in found.value.__notes__[0]


def test_the_exception_of_a_participant_is_raised():
    async def fail(store):
        await store.load(bytes(16))
        raise LookupError("planned by the test")

    async def scenario(interleaving):
        store = interleaving.wrap(MemoryStore())
        await interleaving.together(fail(store), store.load(bytes(16)))

    for threads in (False, True):
        with pytest.raises(LookupError, match="planned by the test"):
            interleave(scenario, threads=threads)


def test_more_orders_than_the_limit_are_an_error():
    async def scenario(interleaving):
        store = interleaving.wrap(MemoryStore())
        await interleaving.together(store.load(bytes(16)), store.load(bytes(16)))

    with pytest.raises(AssertionError, match="more than 1 orders"):
        interleave(scenario, limit=1)
