"""Logins rejected by ``invalidate_logins``: law S16."""

from __future__ import annotations

from typing import Any

from sojourn.store import MAX_LOGIN_DURATION, REVOKED
from sojourn.testing.records import (
    HOUR,
    login,
    make_record,
    next_version,
    now,
    purge_all,
    save_login,
)
from sojourn.testing.store_suite.base import IndexedStore, StoreTests, close, index_test
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
    async def test_a_cutoff_precedes_the_absence_of_the_record(self, store: IndexedStore) -> None:
        """S16: so the core can check a cutoff without storing a record."""
        at = now()
        await store.invalidate_logins("user:ada", at)
        record = login(None, "bob", at=at)
        await save_login(store, record, 0)
        for rejected in (
            login(make_record(), "ada", at=at - 1),  # there is no such record
            login(next_version(next_version(record)), "ada", at=at - 1),  # of another version
        ):
            assert await save_login(store, rejected, rejected.version - 1) is REVOKED
        assert await store.list_by_index("user:ada") == []
        assert await store.list_by_index("user:bob") == [record]

    @index_test
    async def test_cutoffs_are_kept_as_long_as_a_login_takes(self, store: IndexedStore) -> None:
        """S15, S16: at most MAX_LOGIN_DURATION; afterwards purge removes them."""
        at = now()
        for name in ("user:ada", "idp_sid:s-1"):
            await store.invalidate_logins(name, at)
        await purge_all(store, at + MAX_LOGIN_DURATION - 1)
        assert await save_login(store, login(None, "ada", at=at - 1), 0) is REVOKED
        await purge_all(store, at + MAX_LOGIN_DURATION)
        assert await self.index_size(store) == 0
