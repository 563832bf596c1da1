"""Logins rejected by ``invalidate_logins``: law S16."""

from __future__ import annotations

import asyncio
import functools
import random
from typing import Any

from sojourn._core.concurrency import run
from sojourn.record import Record
from sojourn.store import REVOKED, LoginSaved, SupportsUserIndex
from sojourn.testing.decorators import in_threads
from sojourn.testing.records import (
    HOUR,
    login,
    make_record,
    next_version,
    now,
    purge_all,
    save_login,
)
from sojourn.testing.store_suite.base import IndexedStore, StoreTests, close, index_test, store_test
from sojourn.testing.store_suite.user_index import NOT_EVICTED


class CutoffTests(StoreTests):
    """Tests of cutoffs for the logins of a user."""

    @index_test
    async def test_logins_before_a_cutoff_are_rejected(self, store: IndexedStore) -> None:
        """S16: in every store object; later logins and those under other names are accepted."""
        other: Any = self.make_store("default")
        at = now()
        await store.invalidate_logins("user:ada", at)
        await store.invalidate_logins("idp_sid:s-1", at)
        await store.invalidate_logins("user:ada", at - HOUR)  # an earlier cutoff has no effect
        record = make_record()
        await store.create(record)
        for each in (store, other):
            for rejected in (
                login(record, "ada", at=at - 1),
                login(record, "eve", idp_sid="s-1", at=at - 1),
                login(None, "ada", at=at - 1),
            ):
                assert await save_login(each, rejected, rejected.version - 1) is REVOKED
            assert await each.load(rejected.id) is None
            assert await each.load(record.id) == record
            for name in ("user:ada", "user:eve", "idp_sid:s-1"):
                assert await each.list_by_index(name) == []
            for accepted in (
                login(None, "ada", at=at),
                login(None, "bob", at=at - 1),
                login(None, "eve", idp_sid="s-2", at=at - 1),
                login(None, "s-1", idp_sid="ada", at=at - 1),
            ):
                assert await save_login(each, accepted, 0) == NOT_EVICTED
                await each.delete(accepted.id)
        close(other)

    @index_test
    async def test_a_cutoff_does_not_remove_indexed_sessions(self, store: IndexedStore) -> None:
        """S16: they can be saved and listed until the caller deletes them."""
        record = login(None, "ada", at=now() - 1)
        await save_login(store, record, 0)
        await store.invalidate_logins("user:ada", now())
        saved = next_version(record)
        await store.save(saved, 1)
        assert await store.list_by_index("user:ada") == [saved]
        again = login(saved, "ada", at=record.authenticated_at)
        assert await save_login(store, again, 2) is REVOKED
        assert await store.list_by_index("user:ada") == [saved]

    @index_test
    async def test_cutoffs_are_kept_for_a_day(self, store: IndexedStore) -> None:
        """S15, S16: a login takes less than MAX_LOGIN_DURATION; afterwards purge removes them."""
        at = now()
        for name in ("user:ada", "idp_sid:s-1"):
            await store.invalidate_logins(name, at)
        await purge_all(store, at + 24 * HOUR - 1)
        assert await save_login(store, login(None, "ada", at=at - 1), 0) is REVOKED
        await purge_all(store, at + 24 * HOUR)
        assert await self.index_size(store) == 0

    @store_test(requires=SupportsUserIndex, loop_only=True)
    async def test_no_task_logs_in_after_a_revocation(self, store: IndexedStore) -> None:
        """S16: in any order of logins, cutoff, listing and deletions."""
        other: Any = self.make_store("default")
        generator = random.Random(16)  # noqa: S311 - no cryptography

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

    def test_no_thread_logs_in_after_a_revocation(self) -> None:
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
