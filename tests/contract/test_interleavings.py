"""Every order of two or three participants' store calls, for tasks and threads, on each store.

Each scene sets up, lets its participants run in one order and checks the law; ``interleave`` goes
through all orders. Read next: ``company.py``, and ``test_lives_interleaved.py`` for users.
"""

import pytest

from sojourn.errors import SessionGone
from sojourn.stores.memory import MemoryStore
from sojourn.testing import Visitor, interleave
from tests.contract.multi_process_model import destroy, touch, write


async def claim(visitor: Visitor) -> str | None:
    try:
        async with visitor.visit() as session:
            return await session.aclaim("voucher")
    except SessionGone:
        return None


def test_write_and_write_both_survive(setting):
    """A6, S4, S10: in every order both requests' changes are there."""

    async def scene(company):
        one, two = await company.visitors(2, n=0, nested={}, log=[])
        await company.together(write(one, "one"), write(two, "two"))
        data = await company.data()
        assert data["n"] == 2
        assert (data["one"], data["two"]) == ("one", "two")
        assert data["nested"] == {"one": 1, "two": 1}
        assert sorted(data["log"]) == ["one", "two"]

    setting.play(scene, fewest=(6, 4))


def test_three_writes_all_survive(setting):
    """A6, S10: the same with three."""

    async def scene(company):
        visitors = await company.visitors(3, n=0, nested={}, log=[])
        names = ("one", "two", "three")
        await company.together(*map(write, visitors, names))
        data = await company.data()
        assert data["n"] == 3
        assert set(data["nested"]) == set(data["log"]) == set(names)

    setting.play(scene, fewest=(198, 30))


def test_write_and_destroy_leave_nothing(setting):
    """A7, S5, B-32: whoever is first, the session has ended and no cookie is sent for a new one."""

    async def scene(company):
        one, two = await company.visitors(2, n=0, nested={}, log=[])
        cookie = one.cookie
        await company.together(write(one, "one"), destroy(two))
        assert await company.data() == {} or one.cookie != cookie
        assert two.cookie is None
        assert dict(await one.at(two.sessions).load()) == {} or one.cookie != cookie

    setting.play(scene, fewest=(6, 6))


def test_writes_and_destroy_leave_nothing(setting):
    """A7, S5: nor with two writers, of whom one may be waiting for the other."""

    async def scene(company):
        one, two, three = await company.visitors(3, n=0, nested={}, log=[])
        await company.together(write(one, "one"), write(two, "two"), destroy(three))
        assert await company.data() == {}

    setting.play(scene, fewest=(114, 66))


def test_touch_and_destroy_leave_nothing(setting):
    """A7, S5: marking a session as seen does not bring it back."""

    async def scene(company):
        one, two = await company.visitors(2, n=1)
        await touch(one)  # the cookie came back once: from now on reading only touches
        company.clock.advance(61)
        await company.together(touch(one), destroy(two))
        assert await company.data() == {}
        assert two.cookie is None

    setting.play(scene, fewest=(6, 6))


def test_one_of_two_claimers_gets_the_value(setting):
    """A claimed value goes to exactly one of all who claim it."""

    async def scene(company):
        one, two = await company.visitors(2, voucher="V", other=1)
        got = await company.together(claim(one), claim(two))
        assert sorted(got, key=str) == [None, "V"]
        assert await company.data() == {"other": 1}

    setting.play(scene, fewest=(6, 4))


def test_claim_and_destroy_give_the_value_once_or_not(setting):
    """A7: a claim that meets the end of its session gives the value or nothing, and no record."""

    async def scene(company):
        one, two = await company.visitors(2, voucher="V")
        got, _ = await company.together(claim(one), destroy(two))
        assert got in ("V", None)
        assert await company.data() == {}

    setting.play(scene, fewest=(6, 6))


# The enumeration itself


def test_every_order_is_tried_once():
    """Two participants of two steps have six orders, and each is another one."""
    seen = set()

    async def two_loads(store, name, order):
        for _ in range(2):
            await store.load(bytes(16))
            order.append(name)

    async def scene(stage):
        order = []
        store = stage.wrap(MemoryStore())
        await stage.together(two_loads(store, "a", order), two_loads(store, "b", order))
        seen.add("".join(order))

    for threads in (False, True):
        seen.clear()
        assert interleave(scene, threads=threads) == 6
        assert seen == {"aabb", "abab", "abba", "baab", "baba", "bbaa"}


@pytest.mark.parametrize("threads", [False, True])
def test_a_lost_update_is_found_and_its_order_named(threads):
    """What the engine prevents: reading and writing without comparing versions."""

    async def careless(store, cell):
        await store.load(bytes(16))
        seen = cell[0]
        await store.load(bytes(16))
        cell[0] = seen + 1

    async def scene(stage):
        store, cell = stage.wrap(MemoryStore()), [0]
        await stage.together(careless(store, cell), careless(store, cell))
        assert cell == [2]

    with pytest.raises(AssertionError) as found:
        interleave(scene, threads=threads)
    assert "in schedule 2: 1:load 2:load" in found.value.__notes__[0]


def test_a_participant_that_fails_fails_the_scene():
    async def fail(store):
        await store.load(bytes(16))
        raise LookupError("as planned")

    async def scene(stage):
        store = stage.wrap(MemoryStore())
        await stage.together(fail(store), store.load(bytes(16)))

    for threads in (False, True):
        with pytest.raises(LookupError, match="as planned"):
            interleave(scene, threads=threads)


def test_too_many_orders_are_an_error():
    async def scene(stage):
        store = stage.wrap(MemoryStore())
        await stage.together(store.load(bytes(16)), store.load(bytes(16)))

    with pytest.raises(AssertionError, match="more than 1 orders"):
        interleave(scene, limit=1)
