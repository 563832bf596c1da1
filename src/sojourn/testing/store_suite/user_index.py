"""The user index: save_login, list_by_index and invalidate_all; laws S6, S9, S14 and S15."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest

from sojourn.record import Record, UnreadableRecord
from sojourn.store import (
    GONE,
    SAVED,
    Conflict,
    LimitPolicy,
    LoginSaved,
    NeedsPurge,
    SessionLimit,
    SupportsBulk,
    SupportsCount,
)
from sojourn.testing.records import (
    HOUR,
    MINUTE,
    login,
    make_body,
    make_record,
    next_version,
    now,
    purge_all,
    save_login,
)
from sojourn.testing.store_suite.base import IndexedStore, StoreTests, close, index_test

NOT_EVICTED: Final = LoginSaved(())


class UserIndexTests(StoreTests):
    """Tests of a store that finds sessions by user."""

    # Indexing

    @index_test
    async def test_a_session_is_listed_after_its_login(self, store: IndexedStore) -> None:
        """S15: for an existing and for a new session, in every store object."""
        other: Any = self.make_store("default")
        anonymous = make_record()
        await store.create(anonymous)
        assert await store.list_by_index("user:ada") == []
        known, new = login(anonymous, "ada", at=1), login(None, "ada", at=2)
        assert await save_login(store, known, 1) == NOT_EVICTED
        for each in (store, other):
            assert await each.list_by_index("user:ada") == [known]
            assert await each.load(known.id) == known
        assert await save_login(other, new, 0) == NOT_EVICTED
        for each in (store, other):
            assert await each.list_by_index("user:ada") == [new, known]  # newest login first
            assert await each.load(new.id) == new
            assert await each.list_by_index("user:ad") == await each.list_by_index("user:ADA") == []
            assert await each.list_by_index("ada") == await each.list_by_index("idp_sid:ada") == []
        close(other)

    @index_test
    async def test_a_session_is_listed_under_all_its_names(self, store: IndexedStore) -> None:
        """S15: its user and its session at an identity provider, with any characters."""
        for user, idp_sid in (("ada", "s-1"), ("a:b' \"%_*\n", ":"), ("ädä", "user:ada"), ("", "")):
            record = login(None, user, idp_sid=idp_sid)
            await save_login(store, record, 0)
            assert await store.list_by_index(f"user:{user}") == [record]
            assert await store.list_by_index(f"idp_sid:{idp_sid}") == [record]
            await store.delete(record.id)
            assert (
                await store.list_by_index(f"user:{user}")
                == await store.list_by_index(f"idp_sid:{idp_sid}")
                == []
            )

    @index_test
    async def test_only_save_login_changes_the_index(self, store: IndexedStore) -> None:
        """S15: create, save and touch do not, even if their record names another user."""
        created = login(None, "ada")
        await store.create(created)
        assert await store.save(login(created, "ada"), 1) is SAVED
        assert await store.list_by_index("user:ada") == []
        record = login(None, "ada", idp_sid="s-1")
        await save_login(store, record, 0)
        saved = next_version(record, body=make_body("ada", "s-1", n=1))
        await store.save(saved, 1)
        await store.touch(saved.with_seen_at(saved.seen_at + MINUTE))
        for name in record.index_names():
            assert await store.list_by_index(name) == [saved.with_seen_at(saved.seen_at + MINUTE)]
        await store.save(login(saved, "eve", idp_sid="s-2"), 2)
        assert [r.id for r in await store.list_by_index("user:ada")] == [record.id]
        assert (
            await store.list_by_index("user:eve") == await store.list_by_index("idp_sid:s-2") == []
        )

    @index_test
    async def test_a_login_of_another_user_moves_the_session(self, store: IndexedStore) -> None:
        """S15: the session is listed under its present names only."""
        record = login(None, "ada", idp_sid="s-1")
        await save_login(store, record, 0)
        moved = login(record, "bob")
        assert await save_login(store, moved, 1) == NOT_EVICTED
        assert await store.list_by_index("user:bob") == [moved]
        assert (
            await store.list_by_index("user:ada") == await store.list_by_index("idp_sid:s-1") == []
        )
        await store.delete(record.id)
        assert await self.index_size(store) == 0

    @index_test
    async def test_ended_sessions_leave_the_index(self, store: IndexedStore) -> None:
        """S15: deleted, purged or evicted; no index entry remains."""
        at = now()
        expired: dict[str, Any] = {"seen_at": at - 3 * HOUR, "created_at": at - 3 * HOUR}
        records = [login(None, "ada", idp_sid=f"s-{n}", at=n) for n in range(3)]
        records.append(login(None, "ada", at=4, **expired))
        for record in records:
            await save_login(store, record, 0)
        assert await self.index_size(store) > 0
        await store.delete(records[2].id)
        last = login(None, "ada", at=5)
        await save_login(store, last, 0, limit=SessionLimit(1, LimitPolicy.EVICT_OLDEST))
        await purge_all(store, at)
        assert await store.list_by_index("user:ada") == [last]
        assert [await store.list_by_index(f"idp_sid:s-{n}") for n in range(3)] == [[], [], []]
        await store.delete(last.id)
        assert await store.list_by_index("user:ada") == []
        assert await self.index_size(store) == 0

    # Results of save_login

    @index_test
    async def test_a_rejected_save_login_changes_nothing(self, store: IndexedStore) -> None:
        """S2, S4, S5: a conflict, an absent record, a taken ID; record and index stay."""
        stored = make_record(version=3)
        await store.create(stored)
        for expected in (0, 1, 2, 4):
            attempt = msgspec.structs.replace(login(stored, "ada"), version=expected + 1)
            assert await save_login(store, attempt, expected) == Conflict(stored)
        deleted = make_record()
        await store.create(deleted)
        await store.delete(deleted.id)
        for record in (deleted, make_record()):
            assert await save_login(store, login(record, "ada"), 1) is GONE
            assert await store.load(record.id) is None
        assert await store.load(stored.id) == stored
        assert await store.list_by_index("user:ada") == []

    @index_test
    async def test_save_login_keeps_the_larger_seen_at(self, store: IndexedStore) -> None:
        """S6: a login whose record was loaded before a touch keeps the touch."""
        record = make_record()
        await store.create(record)
        later = record.seen_at + MINUTE
        await store.touch(record.with_seen_at(later))
        saved = login(record, "ada")
        await save_login(store, saved, 1)
        assert await store.load(record.id) == saved.with_seen_at(later)

    @index_test
    async def test_a_record_with_unreadable_names_is_rejected(self, store: IndexedStore) -> None:
        """S9: save_login raises UnreadableRecord and writes nothing."""
        record = make_record()
        await store.create(record)
        for damaged in (next_version(record, body=b"\x93\xff"), make_record(body=b"\x93\xff")):
            with pytest.raises(UnreadableRecord):
                await save_login(store, damaged, damaged.version - 1)
        assert await store.load(record.id) == record
        assert await store.load(damaged.id) is None

    @index_test
    async def test_damaged_records_are_not_listed(self, store: IndexedStore) -> None:
        """S9: the other records of the user are."""
        damaged, fine = login(None, "ada"), login(None, "ada")
        for record in (damaged, fine):
            await save_login(store, record, 0)
        await self.overwrite(store, damaged.id, b"\x80\x04 no record")
        assert await store.list_by_index("user:ada") == [fine]

    @index_test
    async def test_indexes_of_realms_are_isolated(self, store: IndexedStore) -> None:
        """S14: index, cutoffs and limits of one realm do not affect the other."""
        other: Any = self.make_store("other")
        ours, theirs = login(None, "ada", at=5), login(None, "ada", at=5)
        await save_login(store, ours, 0)
        await store.invalidate_logins("user:ada", 9)
        only = SessionLimit(1, LimitPolicy.REFUSE)
        assert await save_login(other, theirs, 0, limit=only) == NOT_EVICTED
        assert await store.list_by_index("user:ada") == [ours]
        assert await other.list_by_index("user:ada") == [theirs]
        await store.invalidate_all(now() + HOUR)
        assert await other.load(theirs.id) == theirs
        close(other)

    # invalidate_all

    @pytest.mark.parametrize("records", [20, pytest.param(100_000, marks=pytest.mark.slow)])
    @index_test
    async def test_invalidate_all_makes_older_records_absent(
        self, store: IndexedStore, records: int
    ) -> None:
        """S5, S15: in every method of every store object, permanently; newer records stay."""
        other: Any = self.make_store("default")
        at = now()
        old = [login(None, f"user-{n % 7}", created_at=at - 1) for n in range(records - 8)]
        for record in old[:8]:
            await save_login(store, record, 0)
        if isinstance(store, SupportsBulk):
            for start in range(8, records - 8, 1000):
                await store.create_many(old[start : start + 1000])
        else:
            for record in old[8:]:
                await store.create(record)
        await store.invalidate_all(5)
        assert await other.load(old[0].id) == old[0]
        await store.invalidate_all(at)
        await store.invalidate_all(at - HOUR)  # an earlier cutoff has no effect
        new = login(None, "user-1", created_at=at, at=3)
        limit = SessionLimit(1, LimitPolicy.REFUSE)
        assert await save_login(other, new, 0, limit=limit) == NOT_EVICTED
        for each in (store, other):
            for record in old[:10]:
                await _check_absent(each, record)
            assert await each.load(new.id) == new
            assert await each.list_by_index("user:user-1") == [new]
        if isinstance(store, SupportsCount):
            live = await store.count(at)
            if getattr(live, "is_exact", True):
                assert live == 1
            else:  # a sample of many records: it must not count those that the cutoff has ended
                assert live <= len(old) // 100
        if isinstance(store, NeedsPurge):
            assert await purge_all(store, at) == len(old)
        assert await store.save(next_version(new), 1) is SAVED
        assert await store.delete(new.id) is True
        assert await self.index_size(store) == 0
        close(other)


async def _check_absent(store: IndexedStore, record: Record) -> None:
    assert await store.load(record.id) is None
    assert await store.save(next_version(record), 1) is GONE
    assert await store.touch(record.with_seen_at(record.seen_at + MINUTE)) is False
    assert await save_login(store, login(record, "ada"), 1) is GONE
    assert await store.delete(record.id) is False
    assert [
        r
        for name in record.index_names()
        for r in await store.list_by_index(name)
        if r.id == record.id
    ] == []
    assert await store.load(record.id) is None
