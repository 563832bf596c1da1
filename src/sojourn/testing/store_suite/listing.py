"""Visiting every record: ``SupportsListing``; laws S9 and S14."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import pytest

from sojourn.errors import ConfigurationError
from sojourn.record import Record
from sojourn.sessions import Sessions
from sojourn.store import (
    CutoffPage,
    ListPage,
    Store,
    SupportsCutoffListing,
    SupportsListing,
    SupportsUserIndex,
)
from sojourn.testing.records import MINUTE, login, make_record, next_version, now, save_login
from sojourn.testing.store_suite.base import StoreTests, close, store_test


class _Store(Store, SupportsListing, Protocol):
    """A store that can be scanned."""


#: Cursors of no store: neither an ID, nor of SCAN, nor of one of two stores.
_INVALID_CURSORS: Final = ("zz", "0" * 31, "zz:1", "nonsense", "0" * 32 + "\n", "\udc80", ":")

listing_test: store_test = store_test(requires=SupportsListing)


class ListingTests(StoreTests):
    """Tests of ``list_page`` and ``list_cutoffs``."""

    @listing_test
    async def test_a_scan_visits_every_record(self, store: _Store) -> None:
        """SupportsListing: also expired ones, tombstones and those of a user; for any page size."""
        assert await _scan(store.list_page, 10) == []
        at = now()
        # A server that expires keys keeps them for a minute.
        expired = make_record(seen_at=at - 1000, idle_timeout=10, absolute_at=at)
        records = [make_record(id=bytes(16)), make_record(id=b"\xff" * 16), expired]
        records += [make_record(version=0), *(make_record() for _ in range(20))]
        for record in records:
            await store.create(record)
        if isinstance(store, SupportsUserIndex):
            records.append(login(None, "ada", idp_sid="s-1"))
            await save_login(store, records[-1], 0)
        for limit in (1, 7, 1000):
            assert _by_id(await _scan(store.list_page, limit)) == _by_id(records)

    @listing_test
    async def test_a_scan_visits_what_exists_from_its_begin_to_its_end(self, store: _Store) -> None:
        """SupportsListing: while others are created, saved and deleted between two pages."""
        kept = [make_record() for _ in range(30)]
        deleted = [make_record() for _ in range(30)]
        for record in (*kept, *deleted):
            await store.create(record)
        found: dict[bytes, Record] = {}
        cursor = ""
        for number in range(1000):
            page = await store.list_page(cursor, 5)
            found.update(_by_id(page.records))
            cursor = page.cursor
            if not cursor:
                break
            await store.create(make_record())
            if number < len(deleted):
                await store.delete(deleted[number].id)
                await store.save(next_version(kept[number]), 1)
        assert not cursor, "the scan does not end"
        assert [record for record in kept if record.id not in found] == []

    @listing_test
    async def test_a_cursor_is_valid_in_another_process(self, store: _Store) -> None:
        """SupportsListing: a scan that was interrupted is continued by another store object."""
        records = [make_record() for _ in range(40)]
        for record in records:
            await store.create(record)
        first = await store.list_page("", 7)
        other: Any = self.make_store("default")
        found, cursor = list(first.records), first.cursor
        while cursor:
            page = await other.list_page(cursor, 7)
            found += page.records
            cursor = page.cursor
        assert _by_id(found) == _by_id(records)
        close(other)

    @listing_test
    async def test_scans_of_realms_are_isolated(self, store: _Store) -> None:
        """S14: one lists neither the records nor the cutoffs of the other."""
        other: Any = self.make_store("other")
        ours, theirs = make_record(), make_record()
        await store.create(ours)
        await other.create(theirs)
        assert _by_id(await _scan(store.list_page, 10)) == {ours.id: ours}
        assert _by_id(await _scan(other.list_page, 10)) == {theirs.id: theirs}
        if isinstance(store, SupportsUserIndex) and isinstance(other, SupportsCutoffListing):
            await store.invalidate_all(5)
            await store.invalidate_logins("user:ada", 7)
            assert await _cutoffs(other) == ({}, 0)
        close(other)

    @listing_test
    async def test_a_scan_counts_unreadable_records(self, store: _Store) -> None:
        """S9: and returns the others."""
        damaged, fine = make_record(), make_record()
        for record in (damaged, fine):
            await store.create(record)
        await self.overwrite(store, damaged.id, b"\x80\x04 no record")
        records: list[Record] = []
        unreadable, cursor, is_last = 0, "", False
        while not is_last:  # a cluster has a page for each primary at least
            page = await store.list_page(cursor, 100)
            records += page.records
            unreadable += page.unreadable
            cursor, is_last = page.cursor, not page.cursor
        assert (records, unreadable) == ([fine], 1)

    @listing_test
    async def test_a_scan_omits_what_invalidate_all_has_ended(self, store: _Store) -> None:
        """S5: also if the records still exist."""
        if not isinstance(store, SupportsUserIndex):
            return
        at = now()
        old = [make_record(created_at=at - 1) for _ in range(20)]
        new = make_record(created_at=at)
        for record in (*old, new):
            await store.create(record)
        await store.invalidate_all(at)
        assert _by_id(await _scan(store.list_page, 3)) == {new.id: new}

    @listing_test
    async def test_records_are_listed_by_id(self, store: _Store) -> None:
        """SupportsListing: each once, unless the store states that its list has no order."""
        if not self.lists_by_id:
            pytest.skip("this store lists records without an order")
        records = sorted((make_record() for _ in range(30)), key=lambda record: record.id)
        for record in records:
            await store.create(record)
        for limit in (1, 7, 30, 1000):
            page = await store.list_page("", limit)
            assert page.records == records[:limit]
            assert await _scan(store.list_page, limit) == records

    @listing_test
    async def test_a_page_can_be_read_again(self, store: _Store) -> None:
        """SupportsListing: its cursor is not used up."""
        for _ in range(40):
            await store.create(make_record())
        cursor, is_last = "", False
        while not is_last:
            page, again = [await store.list_page(cursor, 10) for _ in range(2)]
            assert _by_id(page.records) == _by_id(again.records)
            assert page.cursor == again.cursor
            cursor, is_last = page.cursor, not page.cursor

    @listing_test
    @pytest.mark.parametrize("cursor", _INVALID_CURSORS)
    async def test_an_invalid_cursor_is_refused(self, store: _Store, cursor: str) -> None:
        """SupportsListing: damaged ones, and those of other kinds of stores."""
        await store.create(make_record())
        with pytest.raises(ValueError, match="cursor"):
            await store.list_page(cursor, 10)

    @listing_test
    async def test_pages_of_live_sessions_are_complete(self, store: _Store) -> None:
        """S9: ``sessions.list_page`` shows each live session once, and nothing else."""
        at = now()
        live = [make_record(seen_at=at - n % 2 * MINUTE) for n in range(60)]
        others = [make_record(version=0) for _ in range(20)]
        others += [
            make_record(seen_at=at - 1000, idle_timeout=10, absolute_at=at) for _ in range(20)
        ]
        for record in (*live, *others):
            await store.create(record)
        sessions = self.sessions(store)
        since = datetime.fromtimestamp((at - 1000) / 1000, UTC)
        for limit in (7, 1000):
            shown = await _session_ids(sessions, limit)
            assert sorted(shown) == sorted(record.session_id for record in live)
            if self.lists_by_id:
                assert shown == sorted(shown)
            recent = await _session_ids(sessions, limit, since=since)
            assert sorted(recent) == sorted(record.session_id for record in live[::2])

    @listing_test
    async def test_filters_by_user_and_label_combine(self, store: _Store) -> None:
        """S15: a user's sessions in pages, newest login first, if the store has an index."""
        sessions = self.sessions(store)
        if not isinstance(store, SupportsUserIndex):
            with pytest.raises(ConfigurationError, match="has no index of users"):
                await sessions.alist_page(user="ada")
            return
        at = now()
        records = [
            login(None, "ada" if n % 3 else "bob", idp_sid=f"s-{n % 2}", at=at - n)
            for n in range(18)
        ]
        for record in records:
            await save_login(store, record, 0)
        of_ada = [record.session_id for n, record in enumerate(records) if n % 3]
        both = [record.session_id for n, record in enumerate(records) if n % 3 and n % 2]
        for limit in (1, 4, 100):
            assert await _session_ids(sessions, limit, user="ada") == of_ada
            found = await _session_ids(sessions, limit, user="ada", labels={"idp_sid": "s-1"})
            assert found == both
            labelled = await _session_ids(sessions, limit, labels={"idp_sid": "s-1"})
            assert sorted(labelled) == sorted(record.session_id for record in records[1::2])
        with pytest.raises(ValueError, match="cursor"):
            await sessions.alist_page((await sessions.alist_page(limit=1)).cursor, user="ada")

    @listing_test
    async def test_cutoffs_are_visited(self, store: _Store) -> None:
        """S16: by name, or as the number of those of which the store has a digest only."""
        if not isinstance(store, SupportsUserIndex) or not isinstance(store, SupportsCutoffListing):
            return
        assert await _cutoffs(store) == ({}, 0)
        names = {f"user:user-{n}": 1000 + n for n in range(20)} | {"idp_sid:s-1": 5}
        for name, before in names.items():
            await store.invalidate_logins(name, before)
        await store.invalidate_all(99)
        named, unnamed = await _cutoffs(store)
        assert named.pop("") == 99
        assert (named, unnamed) in ((names, 0), ({}, len(names)))


async def _scan(call: Callable[[str, int], Awaitable[ListPage]], limit: int) -> list[Record]:
    """Return what a whole scan visits."""
    found: list[Record] = []
    cursor, is_last = "", False
    while not is_last:
        page = await call(cursor, limit)
        found += page.records
        cursor, is_last = page.cursor, not page.cursor
    return found


async def _session_ids(sessions: Sessions[Any], limit: int, **filters: Any) -> list[str]:
    """Return the IDs on all pages of live sessions."""
    found: list[str] = []
    cursor, is_last = "", False
    while not is_last:
        page = await sessions.alist_page(cursor, limit, **filters)
        assert len(page.sessions) <= limit
        found += [info.id for info in page.sessions]
        cursor, is_last = page.cursor, not page.cursor
    return found


async def _cutoffs(store: SupportsCutoffListing) -> tuple[dict[str, int], int]:
    """Return the named cutoffs, and the number of the others."""
    page = CutoffPage([], 0, "")
    named, unnamed, is_last = dict[str, int](), 0, False
    while not is_last:
        page = await store.list_cutoffs(page.cursor, 3)
        named.update(page.cutoffs)
        unnamed += page.unnamed
        is_last = not page.cursor
    return named, unnamed


def _by_id(records: list[Record]) -> dict[bytes, Record]:
    return {record.id: record for record in records}
