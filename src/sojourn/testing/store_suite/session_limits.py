"""The limit on the sessions of one user: ASVS 7.1.2."""

from __future__ import annotations

import asyncio
import functools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import pytest

from sojourn._core.concurrency import run
from sojourn.record import Record
from sojourn.store import (
    LIMIT_REACHED,
    LimitPolicy,
    LoginSaved,
    SaveLoginResult,
    SessionLimit,
    SupportsUserIndex,
)
from sojourn.testing.decorators import WAIT_TIMEOUT, in_threads
from sojourn.testing.records import HOUR, MINUTE, login, make_record, now, save_login
from sojourn.testing.store_suite.base import IndexedStore, StoreTests, close, index_test, store_test
from sojourn.testing.store_suite.user_index import NOT_EVICTED
from sojourn.testing.store_suite.worker import start_worker

_LOGINS: Final = 50
_MAX_SESSIONS: Final = 3

every_policy: pytest.MarkDecorator = pytest.mark.parametrize("policy", list(LimitPolicy))


class LimitTests(StoreTests):
    """Tests of ``save_login`` with a limit."""

    @every_policy
    @index_test
    async def test_a_login_above_the_limit_follows_the_policy(
        self, store: IndexedStore, policy: LimitPolicy
    ) -> None:
        """ASVS 7.1.2: evict the oldest login, evict the longest idle session, or refuse."""
        limit = SessionLimit(_MAX_SESSIONS, policy)
        live: list[Record] = []
        for at, idle in ((5, 9), (9, 3), (2, 7), (7, 5), (1, 8), (3, 1), (8, 2), (6, 6)):
            record = login(None, "ada", at=at, seen_at=now() - idle * MINUTE)
            result = await save_login(store, record, 0, limit=limit)
            if len(live) < _MAX_SESSIONS:
                assert result == NOT_EVICTED
                live.append(record)
            elif policy is LimitPolicy.REFUSE:
                assert result is LIMIT_REACHED
                assert await store.load(record.id) is None
            else:
                evicted = min(live, key=_eviction_order(policy))
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

    @every_policy
    @store_test(requires=SupportsUserIndex, loop_only=True)
    async def test_50_tasks_respect_the_limit(
        self, store: IndexedStore, policy: LimitPolicy
    ) -> None:
        """ASVS 7.1.2: logins of one user in one tick of the loop, through two store objects."""
        stores: list[Any] = [store, self.make_store("default")]
        logins = _ParallelLogins(policy)
        await logins.prepare(store)
        await asyncio.gather(*(logins.log_in(stores[n % 2], n) for n in range(_LOGINS)))
        await logins.check(store)
        close(stores[1])

    @every_policy
    def test_50_threads_respect_the_limit(self, policy: LimitPolicy) -> None:
        """ASVS 7.1.2: logins of one user in threads, through two store objects."""
        with self.blocking_stores(2, requires=SupportsUserIndex) as stores:
            logins = _ParallelLogins(policy)
            run(logins.prepare(stores[0]))

            def log_in(n: int) -> None:
                run(logins.log_in(stores[n % 2], n))

            in_threads(*(functools.partial(log_in, n) for n in range(_LOGINS)))
            run(logins.check(stores[0]))

    @every_policy
    def test_4_processes_respect_the_limit(self, policy: LimitPolicy) -> None:
        """ASVS 7.1.2: logins of one user in processes that share the store only."""
        url = self.store_url()
        with self.blocking_stores(requires=SupportsUserIndex) as (store,):
            logins = _ParallelLogins(policy)
            run(logins.prepare(store))
            workers = [start_worker("login", url, policy, _MAX_SESSIONS) for _ in range(4)]
            for n, worker in enumerate(workers):
                assert worker.stdout is not None
                assert worker.stdin is not None
                assert worker.stdout.readline() == "ready\n"
                lines = [f"{r.id.hex()} {r.to_bytes().hex()}\n" for r in logins.records[n::4]]
                worker.stdin.writelines(lines)
            for worker in workers:  # the end of its input starts a worker
                assert worker.stdin is not None
                worker.stdin.close()
            for n, worker in enumerate(workers):
                assert worker.stdout is not None
                results = worker.stdout.read().splitlines()
                worker.stdout.close()
                assert worker.wait(WAIT_TIMEOUT) == 0
                for record, result in zip(logins.records[n::4], results, strict=True):
                    status, *evicted = result.split()
                    assert status in ("saved", str(LIMIT_REACHED))
                    saved = LoginSaved(tuple(map(bytes.fromhex, evicted)))
                    logins.results[record.id] = saved if status == "saved" else LIMIT_REACHED
            run(logins.check(store))


class _ParallelLogins:
    """Logins of one user that happen at the same time, with a limit."""

    def __init__(self, policy: LimitPolicy) -> None:
        self._policy = policy
        at = now()
        self._anonymous = [make_record() for _ in range(_LOGINS // 2)]
        old = at - 3 * HOUR
        self._expired = [login(None, "ada", seen_at=old, created_at=old) for _ in range(2)]
        known = [login(r, "ada", at=at + n) for n, r in enumerate(self._anonymous)]
        new = [
            login(None, "ada", at=at + _LOGINS - n, seen_at=at - 7 * n)
            for n in range(_LOGINS - len(known))
        ]
        self.records = known + new
        random.Random(_LOGINS).shuffle(self.records)  # noqa: S311 - no cryptography
        self.results: dict[bytes, SaveLoginResult] = {}

    async def prepare(self, store: IndexedStore) -> None:
        for record in self._anonymous:
            await store.create(record)
        for record in self._expired:
            await save_login(store, record, 0)

    async def log_in(self, store: IndexedStore, number: int) -> None:
        record, limit = self.records[number], SessionLimit(_MAX_SESSIONS, self._policy)
        self.results[record.id] = await save_login(store, record, record.version - 1, limit=limit)

    async def check(self, store: IndexedStore) -> None:
        listed = {record.id for record in await store.list_by_index("user:ada")}
        live = listed - {record.id for record in self._expired}
        assert len(live) == _MAX_SESSIONS
        assert len(self.results) == _LOGINS
        saved = [result for result in self.results.values() if isinstance(result, LoginSaved)]
        evicted = Counter(session_id for result in saved for session_id in result.evicted)
        if self._policy is LimitPolicy.REFUSE:
            assert (len(saved), not evicted) == (_MAX_SESSIONS, True)
            refused = [r for r in self.results.values() if r is LIMIT_REACHED]
            assert len(refused) == _LOGINS - _MAX_SESSIONS
        else:
            assert len(saved) == _LOGINS
            assert set(evicted) == set(self.results) - live
            assert set(evicted.values()) == {1}
            ordered = sorted(self.records, key=_eviction_order(self._policy))
            kept = ordered[-(_MAX_SESSIONS - 1) :]
            assert {record.id for record in kept} <= live  # the other one is the last login
            for record in self.records:
                assert (await store.load(record.id) is not None) == (record.id in live)


def _eviction_order(policy: LimitPolicy) -> Callable[[Record], tuple[int, bytes]]:
    """Return the sort key by which sessions are evicted, first to last."""
    if policy is LimitPolicy.EVICT_IDLEST:
        return lambda record: (record.seen_at, record.id)
    return lambda record: (record.authenticated_at, record.id)
