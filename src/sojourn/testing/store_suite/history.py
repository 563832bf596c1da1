"""The history of ended sessions: ``SupportsHistory``."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable
from typing import Any, Literal, Protocol

import pytest

from sojourn.errors import StoreUnavailable
from sojourn.record import Record
from sojourn.store import HistoryEntry, Store, SupportsHistory, SupportsUserIndex
from sojourn.testing.records import (
    HOUR,
    MINUTE,
    login,
    make_record,
    now,
    purge_all,
    save_login,
)
from sojourn.testing.store_suite.availability import outages
from sojourn.testing.store_suite.base import StoreTests, close, store_test

#: Kept for longer than any test takes.
_LIFETIME = 24 * HOUR


class _Store(Store, SupportsHistory, Protocol):
    """A store with a history."""


def make_entry(ended_at: int | None = None, **changes: Any) -> HistoryEntry:
    """Return the entry of a session that has ended.

    Args:
        ended_at: milliseconds since 1970 UTC; None for the current time.
        changes: fields of ``HistoryEntry`` that differ.
    """
    at = now() if ended_at is None else ended_at
    fields: dict[str, Any] = {
        "session_id": secrets.token_bytes(16),
        "ended_at": at,
        "reason": "revoked",
        "actor": "support",
        "user": "ada",
        "created_at": at - HOUR,
        "labels": {"browser": "Lynx", "address": "192.0.2.7"},
    }
    return HistoryEntry(**{**fields, **changes})


async def list_all(
    store: SupportsHistory, limit: int = 100
) -> tuple[list[HistoryEntry], list[int], int]:
    """Return all entries, the number of each page, and the number of unreadable entries."""
    entries: list[HistoryEntry] = []
    sizes: list[int] = []
    unreadable, cursor = 0, ""
    while not sizes or cursor:
        page = await store.list_history(cursor, limit)
        assert len(page.entries) + page.unreadable <= limit
        entries += page.entries
        sizes.append(len(page.entries))
        unreadable += page.unreadable
        cursor = page.cursor
        assert len(sizes) < 10_000, "list_history never reports the last page"
    return entries, sizes, unreadable


class HistoryTests(StoreTests):
    """Tests of ``SupportsHistory``."""

    @store_test(requires=SupportsHistory)
    async def test_an_entry_has_every_field_that_was_added(self, store: _Store) -> None:
        """S9: also unknown ones, other alphabets, and the entry of all sessions."""
        at = now()
        entries = [
            make_entry(at),
            make_entry(at + 1, actor=None, user=None, created_at=0, labels={}),
            make_entry(at + 2, session_id=b"", reason="Ende für alle: ⏻\n\0"),
            make_entry(at + 3, user="u" * 255, labels={"browser": "β" * 500}),
        ]
        assert await store.list_history("", 10) == ([], 0, "")
        await store.add_history(entries, _LIFETIME)
        other: Any = self.make_store("default")
        for each in (store, other):
            assert (await list_all(each))[0] == entries[::-1]
        close(other)

    @store_test(requires=SupportsHistory)
    async def test_entries_are_listed_newest_first_in_pages(self, store: _Store) -> None:
        """Each once; those of one instant in the reverse order of their addition."""
        at = now() - MINUTE
        entries = [make_entry(at + number // 7) for number in range(40)]
        for start in range(0, 40, 8):
            await store.add_history(entries[start : start + 8], _LIFETIME)
        for limit in (1, 3, 7, 39, 40, 41):
            listed, sizes, _ = await list_all(store, limit)
            assert listed == entries[::-1]
            assert max(sizes) <= limit

    @store_test(requires=SupportsHistory)
    async def test_pages_are_stable_while_entries_are_added(self, store: _Store) -> None:
        """An older page contains none of the entries that are added after the first one."""
        at = now() - MINUTE
        entries = [make_entry(at + number) for number in range(10)]
        await store.add_history(entries, _LIFETIME)
        first = await store.list_history("", 4)
        await store.add_history([make_entry(at + number) for number in range(10, 15)], _LIFETIME)
        second = await store.list_history(first.cursor, 4)
        await store.add_history([make_entry()], _LIFETIME)
        third = await store.list_history(second.cursor, 4)
        assert first.entries + second.entries + third.entries == entries[::-1]
        assert third.cursor == ""

    @store_test(requires=SupportsHistory)
    async def test_many_entries_are_added_by_one_call(self, store: _Store) -> None:
        """As when a user with many sessions is revoked."""
        at = now()
        entries = [make_entry(at, actor=str(number)) for number in range(1_500)]
        await store.add_history(entries, _LIFETIME)
        assert (await list_all(store, 1_000))[0] == entries[::-1]

    @pytest.mark.parametrize(
        "cursor", ["x", "-", "1-", "-1", "1", "1-2-3", " 1-1", "1-1\n", "٣-٣", "9" * 30 + "-1"]
    )
    @store_test(requires=SupportsHistory)
    async def test_an_invalid_cursor_is_an_error(self, store: _Store, cursor: str) -> None:
        """Not an empty page, which would seem to be the last one."""
        await store.add_history([make_entry()], _LIFETIME)
        with pytest.raises(ValueError, match="cursor"):
            await store.list_history(cursor, 10)

    @store_test(requires=SupportsHistory)
    async def test_damaged_entries_are_counted(self, store: _Store) -> None:
        """S9: entries of a newer format, too; the others are listed."""
        before, after = make_entry(), make_entry()
        await store.add_history([before], _LIFETIME)
        damaged = [b"", b"\x01", b"\x02\x90", b"\x01\xc1", b"\x01\x90", b"\xff" * 40]
        for data in damaged:
            await self.add_raw_history(store, data)
        await store.add_history([after], _LIFETIME)
        entries, _, unreadable = await list_all(store, 3)
        assert entries == [after, before]
        assert unreadable == len(damaged)

    @store_test(requires=SupportsHistory)
    async def test_purge_removes_entries_after_their_lifetime(self, store: _Store) -> None:
        """S8: not before, and without counting them as records."""
        at = now()
        record = make_record()
        await store.create(record)
        short, long = make_entry(at), make_entry(at + 1)
        await store.add_history([short], 10 * HOUR)
        await store.add_history([long], 20 * HOUR)
        assert await purge_all(store, at + 10 * MINUTE) == 0
        assert (await list_all(store))[0] == [long, short]
        await purge_all(store, at + 11 * HOUR)
        assert (await list_all(store))[0] == [long]
        await purge_all(store, at + 21 * HOUR)
        assert await store.list_history("", 10) == ([], 0, "")

    @store_test(requires=SupportsHistory)
    async def test_an_older_entry_may_be_kept_longer(self, store: _Store) -> None:
        """S8: as after the lifetime was shortened; the later entries are removed before it."""
        at = now()
        long = make_entry(at)
        await store.add_history([long], 20 * HOUR)
        await store.add_history([make_entry(at + 1) for _ in range(30)], 2 * HOUR)
        await purge_all(store, at + 3 * HOUR, limit=7)
        assert (await list_all(store))[0] == [long]
        await purge_all(store, at + 21 * HOUR)
        assert await store.list_history("", 10) == ([], 0, "")

    @store_test(requires=SupportsHistory)
    async def test_a_purge_ends_with_many_expired_entries(self, store: _Store) -> None:
        """S8: no call removes more than its limit, and the entries are removed by several."""
        at = now()
        await store.add_history([make_entry(at) for _ in range(250)], HOUR)
        kept = make_entry(at)
        await store.add_history([kept], 10 * HOUR)
        sizes, finished = [251], False
        while not finished:
            _, finished = await store.purge(at + 2 * HOUR, 120)
            sizes.append(len((await list_all(store, 1_000))[0]))
            assert 0 <= sizes[-2] - sizes[-1] <= 120
            assert len(sizes) < 20, "purge does not end"
        assert (await list_all(store))[0] == [kept]

    @store_test(requires=SupportsHistory)
    async def test_realms_have_histories_of_their_own(self, store: _Store) -> None:
        """S14."""
        other: Any = self.make_store("another")
        entry = make_entry()
        await store.add_history([entry], _LIFETIME)
        assert await other.list_history("", 10) == ([], 0, "")
        await purge_all(other, now() + 100 * _LIFETIME)
        assert (await list_all(store))[0] == [entry]
        close(other)

    @store_test(requires=SupportsHistory)
    async def test_a_history_outlives_the_sessions(self, store: _Store) -> None:
        """``invalidate_all`` keeps the entries of the sessions that ended before."""
        entry = make_entry()
        await store.add_history([entry], _LIFETIME)
        if isinstance(store, SupportsUserIndex):
            await store.invalidate_all(now() + 1)
        await purge_all(store, now() + HOUR)
        assert (await list_all(store))[0] == [entry]

    @store_test(requires=SupportsHistory, loop_only=True)
    async def test_parallel_additions_lose_no_entry(self, store: _Store) -> None:
        """S10: 64 tasks, each with an entry, in two store objects."""
        other: Any = self.make_store("default")
        entries = [make_entry() for _ in range(64)]
        await asyncio.gather(
            *(
                (store, other)[number % 2].add_history([entry], _LIFETIME)
                for number, entry in enumerate(entries)
            )
        )
        listed, _, _ = await list_all(store, 10)
        assert sorted(listed, key=_by_id) == sorted(entries, key=_by_id)
        close(other)

    @store_test(requires=SupportsHistory, loop_only=True)
    async def test_a_session_that_several_revoke_has_one_entry(self, store: _Store) -> None:
        """A7: as two logouts, or a logout while the user is revoked, in two processes."""
        other: Any = self.make_store("default")
        one, another = (self.sessions(each, history="1 day") for each in (store, other))
        ended = set[str]()
        for number in range(8):
            user = f"user-{number}"
            record = login(None, user, idp_sid="s-1") if self._has_users(store) else make_record()
            await self._add(store, record)
            ended.add(record.session_id)
            calls: list[Awaitable[object]] = [
                each.arevoke(record.session_id) for each in (one, another, one, another)
            ]
            if self._has_users(store):
                calls += [each.arevoke_user(user) for each in (another, one)]
            await asyncio.gather(*calls[number % 3 :], *calls[: number % 3])
        listed, _, _ = await list_all(store)
        assert sorted(entry.session_id.hex() for entry in listed) == sorted(ended)
        one.close()  # its broadcasts are sent in the background
        another.close()

    @store_test(requires=SupportsHistory, loop_only=True)
    async def test_a_session_that_a_login_evicts_has_one_entry(self, store: _Store) -> None:
        """A7: also if several processes log the user in at the same time."""
        if not self._has_users(store):
            return
        other: Any = self.make_store("default")
        both = [self.sessions(each, history="1 day", max_sessions=2) for each in (store, other)]

        async def log_in(number: int) -> str:
            async with both[number % 2].open() as visit:
                visit.session.login("ada")
            return str(visit.session.id)

        begun = await asyncio.gather(*map(log_in, range(12)))
        alive = [info.id for info in await both[0].alist_user("ada")]
        listed, _, _ = await list_all(store)
        assert {entry.reason for entry in listed} == {"limit"}
        assert sorted([entry.session_id.hex() for entry in listed] + alive) == sorted(begun)
        for each in both:
            each.close()

    @store_test(requires=SupportsHistory, loop_only=True)
    async def test_a_cancelled_revocation_has_an_entry(self, store: _Store) -> None:
        """A21: it continues to its end."""
        sessions = self.sessions(store, history="1 day")
        records = [make_record() for _ in range(6)]
        for record in records:
            await store.create(record)
        for steps, record in enumerate(records):
            task = asyncio.ensure_future(sessions.arevoke(record.session_id))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        begun = {record.id for record in records[1:]}  # the first call was cancelled before
        ended: list[bytes] = []
        for _ in range(100):
            ended = [entry.session_id for entry in (await list_all(store))[0]]
            if begun <= set(ended):
                break
            await asyncio.sleep(0.02)  # the calls continue in the background
        assert sorted(ended) == sorted(begun)
        sessions.close()

    @outages
    @store_test(requires=SupportsHistory, loop_only=True)
    async def test_an_outage_of_the_history_is_reported_within_the_deadline(
        self, store: _Store, kind: Literal["refuse", "hang"]
    ) -> None:
        """S12: each call returns correctly or raises StoreUnavailable; afterwards calls succeed."""
        await store.add_history([make_entry()], _LIFETIME)
        failures = 0
        with self.outage(kind):
            for call in (
                lambda: store.add_history([make_entry()], _LIFETIME),
                lambda: store.list_history("", 10),
            ):
                try:
                    await asyncio.wait_for(call(), self.deadline + 1)
                except StoreUnavailable:
                    failures += 1
        assert failures, "no call failed during the outage"
        entry = make_entry()
        await store.add_history([entry], _LIFETIME)
        assert (await store.list_history("", 1)).entries == [entry]

    @pytest.mark.parametrize("victim", [0, 7, 19])
    @store_test(requires=SupportsHistory, loop_only=True)
    async def test_a_cancelled_addition_does_not_affect_others(
        self, store: _Store, victim: int
    ) -> None:
        """S13: one of 20 calls in one tick of the loop is cancelled."""
        entries = [make_entry() for _ in range(20)]
        calls = [store.add_history([entry], _LIFETIME) for entry in entries]
        results = await self.cancel_one(calls, victim)
        listed, _, _ = await list_all(store)
        for number, (entry, result) in enumerate(zip(entries, results, strict=True)):
            if number != victim or result is None:
                assert result is None
                assert listed.count(entry) == 1
            else:
                assert isinstance(result, asyncio.CancelledError)
                assert listed.count(entry) <= 1

    @store_test(requires=SupportsHistory)
    async def test_each_call_of_the_history_is_one_round_trip(self, store: _Store) -> None:
        """S18: also to add the entries of many sessions."""

        async def cost(call: Awaitable[object]) -> int:
            before = self.round_trips(store)
            await call
            return self.round_trips(store) - before

        self.round_trips(store)
        await store.add_history([make_entry()], _LIFETIME)  # connects, loads scripts
        await store.list_history("", 10)
        assert await cost(store.add_history([make_entry()], _LIFETIME)) == 1
        assert await cost(store.add_history([make_entry() for _ in range(50)], _LIFETIME)) == 1
        assert await cost(store.list_history("", 20)) == 1

    def _has_users(self, store: _Store) -> bool:
        return isinstance(store, SupportsUserIndex)

    async def _add(self, store: _Store, record: Record) -> None:
        """Store a session, with its user if it has one."""
        if isinstance(store, SupportsUserIndex):
            await save_login(store, record, 0)
        else:
            await store.create(record)


def _by_id(entry: HistoryEntry) -> bytes:
    return entry.session_id
