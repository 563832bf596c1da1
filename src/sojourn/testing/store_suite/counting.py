"""Counting live sessions: ``SupportsCount``; laws S1 and S14."""

from __future__ import annotations

from typing import Any, Protocol

from sojourn.record import NO_VERIFIER, TRANSIT_VERSION
from sojourn.store import Count, Store, SupportsCount, SupportsUserIndex
from sojourn.testing.records import HOUR, login, make_record, now, save_login
from sojourn.testing.store_suite.base import StoreTests, close, store_test


class _Store(Store, SupportsCount, Protocol):
    """A store that can count."""


class CountTests(StoreTests):
    """Tests of ``count``."""

    @store_test(requires=SupportsCount)
    async def test_live_sessions_are_counted_exactly(self, store: _Store) -> None:
        """SupportsCount: without tombstones, expired sessions and deleted ones."""
        at = now()
        assert await store.count(at) == 0
        live = [make_record() for _ in range(600)]
        others = [make_record(version=0) for _ in range(7)]
        others += [make_record(seen_at=at - 1000, idle_timeout=10, absolute_at=at)] * 3
        others += [make_record(seen_at=at - 1000, idle_timeout=10) for _ in range(4)]
        for record in (*live, *others):
            await store.create(record)
        if isinstance(store, SupportsUserIndex):
            live.append(login(None, "ada", idp_sid="s-1"))
            await save_login(store, live[-1], 0)
        for record in live[:50]:
            await store.delete(record.id)
        found = await self.sessions(store).acount()
        assert (found, found.is_exact, str(found)) == (len(live) - 50, True, str(len(live) - 50))
        assert await store.count(at + 13 * HOUR) == 0

    @store_test(requires=SupportsCount)
    async def test_sessions_in_transit_are_not_counted(self, store: _Store) -> None:
        """SupportsCount: the store that they belong to counts them."""
        for _ in range(3):
            await store.create(make_record(version=TRANSIT_VERSION + 7, verifier=NO_VERIFIER))
        await store.create(make_record())
        assert await store.count(now()) == 1

    @store_test(requires=SupportsCount)
    async def test_counts_of_realms_are_isolated(self, store: _Store) -> None:
        """S14: one does not count the sessions of the other."""
        other: Any = self.make_store("other")
        for number in range(20):
            await (store if number % 4 else other).create(make_record())
        at = now()
        assert (await store.count(at), await other.count(at)) == (15, 5)
        close(other)

    @store_test(requires=SupportsCount)
    async def test_what_invalidate_all_has_ended_is_not_counted(self, store: _Store) -> None:
        """S5: also if the records still exist."""
        if not isinstance(store, SupportsUserIndex):
            return
        at = now()
        for number in range(20):
            await store.create(make_record(created_at=at - number % 2))
        await store.invalidate_all(at)
        assert await store.count(at) == 10


def check_estimate(found: int, expected: int, *, error: float = 0.1) -> None:
    """Check that a count is an estimate, close to the number of sessions."""
    assert isinstance(found, Count)
    assert not found.is_exact
    assert str(found).startswith("~")
    assert abs(found - expected) <= error * expected, (int(found), expected)
