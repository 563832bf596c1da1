"""The limit on the sessions of one user: ASVS 7.1.2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from sojourn.record import Record
from sojourn.store import (
    LIMIT_REACHED,
    LimitPolicy,
    LoginSaved,
    SessionLimit,
)
from sojourn.testing.records import HOUR, MINUTE, login, make_record, now, save_login
from sojourn.testing.store_suite.base import IndexedStore, StoreTests, index_test
from sojourn.testing.store_suite.user_index import NOT_EVICTED

MAX_SESSIONS: Final = 3

every_policy: pytest.MarkDecorator = pytest.mark.parametrize("policy", list(LimitPolicy))


class LimitTests(StoreTests):
    """Tests of ``save_login`` with a limit."""

    @every_policy
    @index_test
    async def test_a_login_above_the_limit_follows_the_policy(
        self, store: IndexedStore, policy: LimitPolicy
    ) -> None:
        """ASVS 7.1.2: evict the oldest login, evict the longest idle session, or refuse."""
        limit = SessionLimit(MAX_SESSIONS, policy)
        live: list[Record] = []
        for at, idle in ((5, 9), (9, 3), (2, 7), (7, 5), (1, 8), (3, 1), (8, 2), (6, 6)):
            record = login(None, "ada", at=at, seen_at=now() - idle * MINUTE)
            result = await save_login(store, record, 0, limit=limit)
            if len(live) < MAX_SESSIONS:
                assert result == NOT_EVICTED
                live.append(record)
            elif policy is LimitPolicy.REFUSE:
                assert result is LIMIT_REACHED
                assert await store.load(record.id) is None
            else:
                evicted = min(live, key=eviction_order(policy))
                assert result == LoginSaved((evicted.id,))
                assert await store.load(evicted.id) is None
                live[live.index(evicted)] = record
            listed = await store.list_by_index("user:ada")
            assert sorted(r.id for r in listed) == sorted(r.id for r in live)
            assert all(record in live for record in listed)

    @index_test
    async def test_a_lowered_limit_evicts_several_sessions(self, store: IndexedStore) -> None:
        """ASVS 7.1.2: the next login evicts all sessions above the limit."""
        records = [login(None, "ada", at=n) for n in range(6)]
        for record in records:
            await save_login(store, record, 0)
        newest = login(None, "ada", at=9)
        result = await save_login(store, newest, 0, limit=SessionLimit(2, LimitPolicy.EVICT_OLDEST))
        assert isinstance(result, LoginSaved)
        assert sorted(result.evicted) == sorted(record.id for record in records[:5])
        assert await store.list_by_index("user:ada") == [newest, records[5]]

    @every_policy
    @index_test
    async def test_only_other_live_sessions_of_the_user_count(
        self, store: IndexedStore, policy: LimitPolicy
    ) -> None:
        """ASVS 7.1.2: not expired or deleted ones, other users' or the one that logs in again."""
        limit = SessionLimit(1, policy)
        old = now() - 3 * HOUR
        expired = login(None, "ada", at=1, seen_at=old, created_at=old)
        deleted, foreign = login(None, "ada"), login(None, "bob", idp_sid="ada")
        for record in (expired, deleted, foreign, login(None, "eve", idp_sid="s-1")):
            assert await save_login(store, record, 0) == NOT_EVICTED
        await store.delete(deleted.id)
        record = login(None, "ada", idp_sid="s-1")
        assert await save_login(store, record, 0, limit=limit) == NOT_EVICTED
        again = login(record, "ada", idp_sid="s-1")
        assert await save_login(store, again, 1, limit=limit) == NOT_EVICTED
        moved = login(again, "ann")
        assert await save_login(store, moved, 2, limit=limit) == NOT_EVICTED
        assert await save_login(store, login(None, "ada"), 0, limit=limit) == NOT_EVICTED
        assert await store.load(foreign.id) == foreign

    @index_test
    async def test_a_refused_login_changes_nothing(self, store: IndexedStore) -> None:
        """S13: LIMIT_REACHED writes neither the record nor the index."""
        record = make_record()
        await store.create(record)
        await save_login(store, login(None, "ada"), 0)
        limit = SessionLimit(1, LimitPolicy.REFUSE)
        assert await save_login(store, login(record, "ada"), 1, limit=limit) is LIMIT_REACHED
        assert await store.load(record.id) == record
        assert len(await store.list_by_index("user:ada")) == 1


def eviction_order(policy: LimitPolicy) -> Callable[[Record], tuple[int, bytes]]:
    """Return the sort key by which sessions are evicted, first to last."""
    if policy is LimitPolicy.EVICT_IDLEST:
        return lambda record: (record.seen_at, record.id)
    return lambda record: (record.authenticated_at, record.id)
