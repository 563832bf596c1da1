"""Overlapping requests and their operations: law A6. ``test_merge_model.py`` checks random ones."""

from collections.abc import Callable
from typing import Any

import pytest

from sojourn.session import Session
from sojourn.testing import Checkpoint
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.decorators import under_loop

Change = Callable[[Session[Any]], object]

START: dict[str, Any] = {
    "n": 10,
    "plain": "old",
    "doomed": "here",
    "cart": {"apple": 1, "deep": {"x": 1}},
    "log": ["a"],
    "tags": {"a"},
    "counts": {"apple": 1},
}

#: The operation of one request, that of a request that commits before it, and the result.
MERGES: dict[str, tuple[Change, Change, dict[str, Any]]] = {
    "different keys": (
        lambda s: s.update(one=1), lambda s: s.update(two=2), {"one": 1, "two": 2},
    ),
    "different paths of one dict": (
        lambda s: s["cart"].update(pear=2),
        lambda s: s["cart"]["deep"].update(y=2),
        {"cart": {"apple": 1, "pear": 2, "deep": {"x": 1, "y": 2}}},
    ),
    "increments": (lambda s: s.increment("n", 3), lambda s: s.increment("n"), {"n": 14}),
    "declared sums": (
        lambda s: s.update(total=s.get("total", 0) + 3),
        lambda s: s.update(total=s.get("total", 0) + 1),
        {"total": 4},
    ),
    "appends": (
        lambda s: s.append("log", "b"), lambda s: s["log"].append("c"), {"log": ["a", "c", "b"]},
    ),
    "adds": (
        lambda s: s.add("tags", "b"), lambda s: s["tags"].add("c"), {"tags": {"a", "b", "c"}},
    ),
    "a discard and an add": (
        lambda s: s.discard("tags", "a"), lambda s: s.add("tags", "c"), {"tags": {"c"}},
    ),
    "a discard of what only the other request has added": (
        lambda s: s.discard("tags", "c"), lambda s: s.add("tags", "c"), {"tags": {"a"}},
    ),
    "a discard from a set that only the other request has created": (
        lambda s: s.discard("labels", "c"), lambda s: s.add("labels", "b", "c"), {"labels": {"b"}},
    ),
    "increments inside a dict": (
        lambda s: s.increment("cart", path=("apple",)),
        lambda s: s.increment("cart", 2, path=("apple",)),
        {"cart": {"apple": 4, "deep": {"x": 1}}},
    ),
    "operations inside dicts that do not exist": (
        lambda s: (s.append("box", 1, path=("a", "log")), s.add("box", 1, path=("tags",))),
        lambda s: (s.append("box", 2, path=("a", "log")), s.discard("box", 1, path=("tags",))),
        {"box": {"a": {"log": [2, 1]}, "tags": {1}}},
    ),
    "counters in a declared dict of sums": (
        lambda s: s["counts"].update(apple=s["counts"].get("apple", 0) + 1),
        lambda s: s["counts"].update(apple=s["counts"].get("apple", 0) + 2, pear=1),
        {"counts": {"apple": 4, "pear": 1}},
    ),
    "the same plain key": (
        lambda s: s.update(plain="later"), lambda s: s.update(plain="first"), {"plain": "later"},
    ),
    "a key deleted here and untouched there": (
        lambda s: s.pop("doomed"), lambda s: s.update(two=2), {"doomed": None, "two": 2},
    ),
    "a key deleted there and untouched here": (
        lambda s: s.update(two=2), lambda s: s.pop("doomed"), {"doomed": None, "two": 2},
    ),
    "a default both want": (
        lambda s: s.setdefault("box", []).append(1),
        lambda s: s.setdefault("box", []).append(2),
        {"box": [2, 1]},
    ),
}  # fmt: skip


class MergingTests(AppTests):
    """Tests of requests that change a session at the same time."""

    @pytest.mark.parametrize("operations", MERGES)
    @under_loop
    async def test_overlapping_operations_are_merged(self, operations: str) -> None:
        """A6: in one process, and between two."""
        for elsewhere in (False, True):
            await self._check_merge(*MERGES[operations], elsewhere=elsewhere)

    async def _check_merge(
        self, first: Change, second: Change, expected: dict[str, Any], *, elsewhere: bool
    ) -> None:
        checkpoint = Checkpoint()
        found: dict[str, Any] = {}

        async def begin(session: Session[Any]) -> None:
            session.update(START)

        async def slow(session: Session[Any]) -> None:
            first(session)
            await checkpoint.wait()

        async def fast(session: Session[Any]) -> None:
            second(session)

        async def show(session: Session[Any]) -> None:
            found.update(session)

        handlers = {"/begin": begin, "/slow": slow, "/fast": fast, "/show": show}
        async with self.serve(handlers, merge={"total": "sum", "counts": "dict of sum"}) as app:
            browser = app.browser()
            await browser.get("/begin")
            running = browser.start("/slow")
            await checkpoint.reached()
            async with app.another() as other:
                place = other if elsewhere else app
                reply = await place.browser(browser.cookie).get("/fast")
                assert reply.status == 200
            checkpoint.release()
            assert (await running.done()).status == 200
            await browser.get("/show")
        untouched = {key: value for key, value in START.items() if key not in expected}
        wanted = {key: value for key, value in expected.items() if value is not None}
        assert found == {**untouched, **wanted}
