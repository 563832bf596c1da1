"""Merging against a sequential model: random operations of two visits, committed in random order.

The model is a plain dict. The operations of each commit are applied to it as ``docs/session.md``
describes them, without versions or replays. Every value is unique.
"""

import contextlib
import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sojourn._core.codec import decode
from sojourn._core.concurrency import run
from sojourn.errors import StoreUnavailable
from sojourn.sessions import Sessions
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore, Visitor
from sojourn.testing.visitor import session_of
from tests.support.working_copies import copy_of

SECRET = b"the-model-7Jm2Qw9vXc4Rk1"
MERGES = {
    "sum": "sum",
    "union": "union",
    "log": "append",
    "map": "dict",
    "last": "last",
    "sums": "dict of sum",
}

BASE = {
    "n": 1,
    "d": {"a": 0, "b": 0, "deep": {"a": 0, "b": 0}},
    "l": [0],
    "t": {"a", "b"},
    "p": 0,
    "sum": 5,
    "union": {"a"},
    "log": [0],
    "map": {"a": 0},
    "last": {"a": 0},
    "counts": {"a": 1, "deep": {}},
    "logs": {"log": [0], "tags": {0}},
    "sums": {"a": 5},
}

Effect = Callable[[dict[str, Any]], object]
"""The effect of an operation on the model."""


class Actor:
    """One visit, and the effects of its operations since the last commit."""

    def __init__(self, visitor: Visitor) -> None:
        self.visitor = visitor
        self.visit = run(visitor.begin())
        self.session = session_of(self.visit)
        self.pending: list[Effect] = []
        self.fresh: set[Any] = set()

    def do(self, name: str, number: int) -> None:
        effect = OPERATIONS[name](self, number)
        if effect is not None:
            self.pending.append(effect)

    def commit(self, stored: dict[str, Any]) -> None:
        run(self.visitor.end(self.visit))
        self.apply(stored)
        self.pending.clear()
        self.fresh.clear()

    def apply(self, data: dict[str, Any]) -> dict[str, Any]:
        for effect in self.pending:
            effect(data)
        return data

    def dict_at(self, *path: str) -> dict[str, Any] | None:
        """Return a dict inside the session; None if there is none."""
        place: Any = self.session
        for key in path:
            place = place.get(key)
            if not isinstance(place, dict):
                return None
        return place


def nested(data: dict[str, Any], *path: str) -> dict[str, Any]:
    """Return the dict at a path of the model; create it if it is missing."""
    for key in path:
        data = data.setdefault(key, {})
    return data


def set_plain(actor: Actor, number: int) -> Effect:
    key = ("p", "q")[number % 2]
    actor.session[key] = number
    return lambda data: data.__setitem__(key, number)


def set_typed(actor: Actor, number: int) -> Effect:
    key, value = [("d", {"a": number}), ("l", [number]), ("t", {number}), ("n", number)][number % 4]
    actor.session[key] = copy.deepcopy(value)
    actor.fresh.update({"a", number})
    return lambda data: data.__setitem__(key, copy.deepcopy(value))


def delete(actor: Actor, number: int) -> Effect | None:
    keys = sorted(actor.session)
    if not keys:
        return None
    key = keys[number % len(keys)]
    del actor.session[key]
    return lambda data: data.pop(key, None)


def clear(actor: Actor, number: int) -> Effect:
    actor.session.clear()
    return lambda data: data.clear()


def increment(actor: Actor, number: int) -> Effect:
    actor.session.increment("n", number)
    return lambda data: data.__setitem__("n", data.get("n", 0) + number)


def append(actor: Actor, number: int) -> Effect:
    actor.session.append("l", number)
    return lambda data: data.setdefault("l", []).append(number)


def add(actor: Actor, number: int) -> Effect:
    actor.session.add("t", number)
    actor.fresh.add(number)
    return lambda data: data.setdefault("t", set()).add(number)


def discard(actor: Actor, number: int) -> Effect:
    member = "ab"[number % 2]
    actor.session.discard("t", member)
    return lambda data: data["t"].discard(member) if "t" in data else None


def increment_at_path(actor: Actor, number: int) -> Effect:
    path = [("a",), ("b",), ("deep", "n")][number % 3]
    actor.session.increment("counts", number, path=path)
    return lambda data: _increment(nested(data, "counts", *path[:-1]), path[-1], number)


def append_at_path(actor: Actor, number: int) -> Effect:
    actor.session.append("logs", number, path=("log",))
    return lambda data: nested(data, "logs").setdefault("log", []).append(number)


def add_at_path(actor: Actor, number: int) -> Effect:
    actor.session.add("logs", number % 5, path=("tags",))
    return lambda data: nested(data, "logs").setdefault("tags", set()).add(number % 5)


def discard_at_path(actor: Actor, number: int) -> Effect:
    actor.session.discard("logs", number % 5, path=("tags",))
    return lambda data: data.get("logs", {}).get("tags", set()).discard(number % 5)


def count_in_place(actor: Actor, number: int) -> Effect:
    counts = actor.session.setdefault("sums", {})
    key = "ab"[number % 2]
    counts[key] = counts.get(key, 0) + number
    return lambda data: _increment(nested(data, "sums"), key, number)


def assign_counts(actor: Actor, number: int) -> Effect:
    counts = actor.session.get("sums", {})
    actor.session["sums"] = {**counts, "c": counts.get("c", 0) + number}
    return lambda data: _increment(nested(data, "sums"), "c", number)


def increment_sum(actor: Actor, number: int) -> Effect:
    key = "abc"[number % 3]
    actor.session.increment("sums", number, path=(key,))
    return lambda data: _increment(nested(data, "sums"), key, number)


def _increment(data: dict[str, Any], key: str, number: int) -> None:
    data[key] = data.get(key, 0) + number


def set_default(actor: Actor, number: int) -> Effect | None:
    key, value = [("q", number), ("d", {}), ("l", [number]), ("t", set())][number % 4]
    if key in actor.session:
        actor.session.setdefault(key, copy.deepcopy(value))
        return None
    actor.session.setdefault(key, copy.deepcopy(value))
    return lambda data: data.setdefault(key, copy.deepcopy(value))


def set_nested(actor: Actor, number: int) -> Effect | None:
    path = [("d",), ("d", "deep"), ("map",)][number % 3]
    place = actor.dict_at(*path)
    if place is None:
        return None
    key = "abc"[number % 7 % 3]
    place[key] = number
    actor.fresh.add((*path, key))
    return lambda data: nested(data, *path).__setitem__(key, number)


def delete_nested(actor: Actor, number: int) -> Effect | None:
    path = [("d",), ("d", "deep"), ("map",)][number % 3]
    place = actor.dict_at(*path)
    key = ["a", "b", "deep"][number % 7 % 3]
    # If this visit set the key since its last commit, the deletion would only undo that.
    if place is None or key not in place or actor.fresh & {(*path, key), "a"}:
        return None
    del place[key]
    # A dict that was deleted meanwhile is restored with its changes; here it is empty.
    return lambda data: nested(data, *path).pop(key, None)


def extend_list(actor: Actor, number: int) -> Effect | None:
    if "l" not in actor.session:
        return None
    actor.session["l"].append(number)
    return _append_or_restore("l", number, list(actor.session["l"]))


def replace_item(actor: Actor, number: int) -> Effect | None:
    if not actor.session.get("l"):
        return None
    actor.session["l"][0] = number
    whole = list(actor.session["l"])
    return lambda data: data.__setitem__("l", list(whole))


def extend_set(actor: Actor, number: int) -> Effect | None:
    if "t" not in actor.session:
        return None
    actor.session["t"].add(number)
    return _add_or_restore("t", number, set(actor.session["t"]))


def shrink_set(actor: Actor, number: int) -> Effect | None:
    member = "ab"[number % 2]
    if member not in actor.session.get("t", ()):
        return None
    actor.session["t"].discard(member)
    whole = set(actor.session["t"])
    return lambda data: data.setdefault("t", set(whole)).discard(member)


def declared_sum(actor: Actor, number: int) -> Effect:
    actor.session["sum"] = actor.session.get("sum", 0) + number
    return lambda data: data.__setitem__("sum", data.get("sum", 0) + number)


def declared_union(actor: Actor, number: int) -> Effect:
    actor.session["union"] = actor.session.get("union", set()) | {number}
    return _add_or_restore("union", number, set(actor.session["union"]))


def declared_append(actor: Actor, number: int) -> Effect:
    actor.session["log"] = [*actor.session.get("log", []), number]
    return _append_or_restore("log", number, list(actor.session["log"]))


def declared_dict(actor: Actor, number: int) -> Effect:
    key = "abc"[number % 3]
    actor.session["map"] = {**actor.session.get("map", {}), key: number}
    actor.fresh.add(("map", key))
    return lambda data: nested(data, "map").__setitem__(key, number)


def declared_last(actor: Actor, number: int) -> Effect | None:
    if "last" not in actor.session:
        return None
    actor.session["last"][f"k{number % 3}"] = number
    whole = dict(actor.session["last"])
    return lambda data: data.__setitem__("last", dict(whole))


def _append_or_restore(key: str, item: int, whole: list[Any]) -> Effect:
    """Append; a list that was deleted meanwhile is restored as this visit read it."""
    return lambda data: data[key].append(item) if key in data else data.update({key: list(whole)})


def _add_or_restore(key: str, member: int, whole: set[Any]) -> Effect:
    return lambda data: data[key].add(member) if key in data else data.update({key: set(whole)})


OPERATIONS: dict[str, Callable[[Actor, int], Effect | None]] = {
    function.__name__: function
    for function in (
        *(set_plain, set_typed, delete, clear, increment, append, add, discard, set_default),
        *(set_nested, delete_nested, extend_list, replace_item, extend_set, shrink_set),
        *(declared_sum, declared_union, declared_append, declared_dict, declared_last),
        *(increment_at_path, append_at_path, add_at_path, discard_at_path),
        *(count_in_place, assign_counts, increment_sum),
    )
}

STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),
        # Clear is rare, because it hides other effects.
        st.sampled_from([*(3 * sorted({*OPERATIONS} - {"clear", "delete"})), "clear", "delete"]
                        + 4 * ["commit"] + 2 * ["refresh", "fail"]),
        st.integers(0, 100),
    ),
    max_size=30,
)  # fmt: skip


def begin(base: dict[str, Any]) -> tuple[FaultyStore, Visitor]:
    store = FaultyStore(MemoryStore())
    sessions = Sessions(store=store, secret=SECRET, merge=MERGES, clock=FakeClock())
    visitor = Visitor(sessions)

    async def start() -> None:
        async with visitor.visit() as session:
            session.update(copy.deepcopy(base), always=1)

    run(start())
    return store, visitor


def play(steps: list[tuple[int, str, int]]) -> None:
    store, visitor = begin(BASE)
    model = {**copy.deepcopy(BASE), "always": 1}
    actors = [Actor(visitor), Actor(visitor)]
    numbers = itertools.count(1)
    for who, what, variant in [*steps, (0, "commit", 0), (1, "commit", 0)]:
        actor = actors[who]
        if what == "commit":
            store.calls.clear()
            actor.commit(model)
            if store.calls:  # without changes the stored record is not read
                assert dict(actor.session) == model
        elif what == "refresh":
            run(actor.session.arefresh())
            assert dict(actor.session) == actor.apply(copy.deepcopy(model))
        elif what == "fail":
            store.fail("save", times=1)
            with contextlib.suppress(StoreUnavailable):  # there may be no change to save
                run(visitor.end(actor.visit))
            store.heal()
        else:
            actor.do(what, 101 * next(numbers) + variant)
    assert dict(run(visitor.load())) == model


DOUBLED = [
    *((0, "declared_sum", 0), (1, "declared_sum", 0), (1, "commit", 0), (0, "refresh", 0)),
    *((1, "add", 0), (1, "commit", 0), (0, "declared_sum", 0)),
]
"""A sum, a refresh with the sum of another visit, and another sum: none is counted twice."""


@settings(max_examples=300)
@given(STEPS)
@example(DOUBLED)
def test_two_visits_merge_like_the_model(steps):
    """A6: the operations of the later commit are applied to the result of the earlier one."""
    play(steps)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=5_000)
@given(STEPS)
def test_two_visits_merge_like_the_model_with_more_examples(steps):
    """A6."""
    play(steps)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 100)), max_size=15))
@example([("set_plain", 0)])
def test_a_commit_without_conflict_equals_a_replay(operations):
    """A6: it writes the result of a replay on its own base."""
    _, visitor = begin(BASE)
    actor = Actor(visitor)
    base = dict(copy_of(actor.session).decode().data)
    for number, (name, variant) in enumerate(operations, 1):
        actor.do(name, 101 * number + variant)
    view = copy_of(actor.session).decode()
    if not view.modified():
        return
    log, data = view.take_operations()
    replayed = log.replay(base)
    assert {key: decode(value) for key, value in replayed.items()} == {
        key: decode(value) for key, value in data.items()
    }
