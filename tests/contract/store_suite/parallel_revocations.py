"""Revocations of a user among parallel logins: law S16."""

import asyncio
import functools
import random
from typing import Any

from sojourn._core.concurrency import run
from sojourn.record import Record
from sojourn.store import LoginSaved, SupportsUserIndex
from sojourn.testing.decorators import in_threads
from sojourn.testing.records import login, now, save_login
from sojourn.testing.store_suite.base import IndexedStore, StoreTests, close, store_test


class ParallelRevocationTests(StoreTests):
    """Tests of cutoffs with parallel logins."""

    @store_test(requires=SupportsUserIndex, loop_only=True)
    async def test_no_earlier_login_in_a_task_survives_a_revocation(
        self, store: IndexedStore
    ) -> None:
        """S16: in any order of logins, cutoff, listing and deletions."""
        other: Any = self.make_store("default")
        generator = random.Random(16)

        async def log_in(revocation: _Revocation, record: Record) -> None:
            for _ in range(generator.randrange(4)):
                await asyncio.sleep(0)
            await revocation.log_in(generator.choice([store, other]), record)

        for number in range(30):
            revocation = _Revocation(f"user-{number}", now())
            calls = [log_in(revocation, record) for record in revocation.records]
            calls.insert(generator.randrange(len(calls)), revocation.revoke(other))
            await asyncio.gather(*calls)
            await revocation.check(store)
        close(other)

    def test_no_earlier_login_in_a_thread_survives_a_revocation(self) -> None:
        """S16: the same with threads."""
        with self.blocking_stores(2, requires=SupportsUserIndex) as stores:
            for number in range(30):
                revocation = _Revocation(f"user-{number}", now())

                def log_in(n: int, revocation: _Revocation = revocation) -> None:
                    run(revocation.log_in(stores[n % 2], revocation.records[n]))

                def revoke(revocation: _Revocation = revocation) -> None:
                    run(revocation.revoke(stores[1]))

                logins = [functools.partial(log_in, n) for n in range(len(revocation.records))]
                in_threads(*logins, revoke)
                run(revocation.check(stores[0]))


class _Revocation:
    """Logins of one user, half of them before the cutoff, and a revocation."""

    def __init__(self, user: str, before: int) -> None:
        self._name = f"user:{user}"
        self._before = before
        early = [login(None, user, at=before - 1 - n, idp_sid="s") for n in range(4)]
        late = [login(None, user, at=before + n) for n in range(4)]
        self.records = [record for pair in zip(early, late, strict=True) for record in pair]

    async def log_in(self, store: IndexedStore, record: Record) -> None:
        result = await save_login(store, record, 0)
        assert isinstance(result, LoginSaved) or record.authenticated_at < self._before

    async def revoke(self, store: IndexedStore) -> None:
        await store.invalidate_logins(self._name, self._before)
        for record in await store.list_by_index(self._name):
            if record.authenticated_at < self._before:
                await store.delete(record.id)

    async def check(self, store: IndexedStore) -> None:
        accepted = [r for r in self.records if r.authenticated_at >= self._before]
        listed = await store.list_by_index(self._name)
        assert sorted(r.id for r in listed) == sorted(r.id for r in accepted)
        assert all(record in accepted for record in listed)
        for record in self.records:
            assert (await store.load(record.id) is not None) == (record in accepted)
