"""Each method of a store, one call at a time: laws S1 to S9 and S14."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
import pytest

from sojourn._core.codec import encode
from sojourn._core.concurrency import run, sleep
from sojourn.errors import ConfigurationError
from sojourn.events import Rejected
from sojourn.record import FOREVER, FORMAT, UnreadableRecord, pack_body
from sojourn.store import (
    GONE,
    SAVED,
    Conflict,
    NeedsPurge,
    RequiresEventLoop,
    Store,
    SupportsServerTime,
    value_check,
)
from sojourn.testing.records import (
    HOUR,
    MINUTE,
    make_body,
    make_record,
    next_version,
    now,
    purge_all,
)
from sojourn.testing.store_suite.base import StoreTests, close, store_test
from sojourn.testing.visitor import Visitor


class ContractTests(StoreTests):
    """Tests of load, create, save, touch, delete and purge."""

    @store_test()
    async def test_load_of_an_absent_record_returns_none(self, store: Store) -> None:
        """S1: for an unknown ID and for a deleted one."""
        assert await store.load(secrets.token_bytes(16)) is None
        record = make_record()
        await store.create(record)
        await store.delete(record.id)
        assert await store.load(record.id) is None

    @store_test()
    async def test_create_never_replaces(self, store: Store) -> None:
        """S2, ASVS 15.4.2: for a taken ID it returns False and keeps the stored record."""
        first = make_record()
        assert await store.create(first) is True
        assert await store.load(first.id) == first
        second = make_record(id=first.id, body=make_body(other=1), seen_at=first.seen_at + 1)
        assert await store.create(second) is False
        assert await store.load(first.id) == first

    @store_test()
    async def test_save_with_the_current_version_replaces(self, store: Store) -> None:
        """S3: body, header and version of the new record are stored."""
        record = make_record()
        await store.create(record)
        for number in range(1, 4):
            saved = next_version(
                record,
                body=make_body(n=number),
                verifier=secrets.token_bytes(32),
                seen_at=record.seen_at + number,
                absolute_at=record.absolute_at + number,
            )
            assert await store.save(saved, record.version) is SAVED
            assert await store.load(record.id) == saved
            assert saved.version == number + 1
            record = saved

    @store_test()
    async def test_save_with_another_version_is_a_conflict(self, store: Store) -> None:
        """S4, ASVS 15.4.2: it returns the stored record and writes nothing."""
        first = make_record()
        stored = next_version(first, body=make_body(n=1))
        await store.create(first)
        await store.save(stored, 1)
        for expected in (1, 3, 2**40):
            attempt = msgspec.structs.replace(
                first, version=expected + 1, body=make_body(n=9), seen_at=first.seen_at + 5
            )
            assert await store.save(attempt, expected) == Conflict(stored)
            assert await store.load(first.id) == stored

    @store_test()
    async def test_save_stores_the_version_of_the_record(self, store: Store) -> None:
        """S3, S4: a migration between stores replaces a record by one of any other version."""
        first = make_record(version=7)
        await store.create(first)
        for version in (2**52 + 7, 2**52 + 8, 8):
            saved = msgspec.structs.replace(first, version=version)
            assert await store.save(saved, first.version) is SAVED
            assert await store.load(first.id) == saved
            assert await store.save(next_version(saved), first.version) == Conflict(saved)
            first = saved

    @store_test()
    async def test_save_and_touch_never_create(self, store: Store) -> None:
        """S5: neither a record that never existed nor a deleted one."""
        absent, deleted = make_record(), make_record()
        await store.create(deleted)
        await store.delete(deleted.id)
        for record in (absent, deleted):
            assert await store.save(next_version(record), 1) is GONE
            assert await store.touch(record.with_seen_at(record.seen_at + 1)) is False
            assert await store.load(record.id) is None

    @store_test()
    async def test_touch_moves_seen_at_forward_only(self, store: Store) -> None:
        """S6: an earlier instant is ignored; data and version do not change."""
        record = make_record()
        await store.create(record)
        later = record.seen_at + MINUTE
        assert await store.touch(record.with_seen_at(later)) is True
        assert await store.load(record.id) == record.with_seen_at(later)
        for earlier in (later - 1, record.seen_at):
            assert await store.touch(msgspec.structs.replace(record, seen_at=earlier)) is True
            assert await store.load(record.id) == record.with_seen_at(later)

    @store_test()
    async def test_touch_with_an_old_record_keeps_newer_data(self, store: Store) -> None:
        """S6: only ``seen_at`` of the given record is used."""
        record = make_record()
        saved = next_version(record, body=make_body(n=1), verifier=secrets.token_bytes(32))
        await store.create(record)
        await store.save(saved, 1)
        assert await store.touch(record.with_seen_at(record.seen_at + MINUTE)) is True
        assert await store.load(record.id) == saved.with_seen_at(record.seen_at + MINUTE)

    @store_test()
    async def test_save_keeps_the_larger_seen_at(self, store: Store) -> None:
        """S6: a save of a record that was loaded before a touch keeps the touch."""
        record = make_record()
        await store.create(record)
        later = record.seen_at + MINUTE
        await store.touch(record.with_seen_at(later))
        saved = next_version(record, body=make_body(n=1))
        assert await store.save(saved, 1) is SAVED
        assert await store.load(record.id) == saved.with_seen_at(later)

    @store_test()
    async def test_delete_is_idempotent(self, store: Store) -> None:
        """S7: it returns True the first time and False afterwards."""
        record, other = make_record(), make_record()
        await store.create(record)
        await store.create(other)
        assert await store.delete(record.id) is True
        assert await store.delete(record.id) is False
        assert await store.delete(secrets.token_bytes(16)) is False
        assert await store.load(other.id) == other

    @store_test()
    async def test_a_deleted_id_can_be_created_again(self, store: Store) -> None:
        """S2, S7: the store keeps no trace of the deleted record."""
        record = make_record()
        await store.create(record)
        await store.delete(record.id)
        other = make_record(id=record.id)
        assert await store.create(other) is True
        assert await store.load(record.id) == other

    # Purge

    @store_test()
    async def test_purge_removes_expired_records_only(self, store: Store) -> None:
        """S8: a record expires in the millisecond of its deadline."""
        at = now()
        alive = [make_record() for _ in range(20)]
        alive.append(make_record(seen_at=at, idle_timeout=HOUR, absolute_at=at + HOUR))
        due = [
            make_record(seen_at=at, idle_timeout=HOUR, absolute_at=at + HOUR - 1),
            make_record(seen_at=at, idle_timeout=HOUR - 1, absolute_at=FOREVER),
        ]
        for record in (*alive, *due):
            await store.create(record)
        await purge_all(store, at + HOUR - 1, limit=7)
        for record in alive[20:]:
            assert await store.load(record.id) == record
        if isinstance(store, NeedsPurge):
            assert [await store.load(record.id) for record in due] == [None, None]
            await purge_all(store, at + HOUR, limit=7)
            assert await store.load(alive[20].id) is None

    @store_test()
    async def test_purge_respects_its_limit_and_finishes(self, store: Store) -> None:
        """S8: repeated calls reach the end of the store."""
        if not isinstance(store, NeedsPurge):
            pytest.skip("the server removes expired records itself")
        at = now()
        old = [make_record(seen_at=at - 3 * HOUR, created_at=at - 3 * HOUR) for _ in range(30)]
        alive = [make_record() for _ in range(30)]
        for record in (*old, *alive):
            await store.create(record)
        assert await purge_all(store, at, limit=7) == 30
        assert [r for r in old if await store.load(r.id)] == []
        assert [r for r in alive if await store.load(r.id) != r] == []
        assert await purge_all(store, at, limit=7) == 0

    @store_test()
    async def test_purge_keeps_records_touched_during_a_scan(self, store: Store) -> None:
        """S8: expiry is decided when a record is removed, not when the scan starts."""
        at = now()
        records = [
            make_record(seen_at=at - HOUR, created_at=at - HOUR, idle_timeout=2 * HOUR)
            for _ in range(40)
        ]
        for record in records:
            await store.create(record)
        later = at + HOUR + MINUTE
        await store.purge(later, 1)
        for record in records:
            await store.touch(record.with_seen_at(later))
        await purge_all(store, later, limit=7)
        gone = [record for record in records if await store.load(record.id) is None]
        assert len(gone) <= 1

    @store_test()
    async def test_a_purge_call_examines_a_bounded_number_of_records(self, store: Store) -> None:
        """S8: with a limit of 3, one call examines at most 30 of 300 live sessions."""
        if not isinstance(store, NeedsPurge):
            pytest.skip("the server removes expired records itself")
        for _ in range(300):
            await store.create(make_record())
        while not (await store.purge(now(), 3)).finished:
            pass
        calls = 1
        while not (await store.purge(now(), 3)).finished:
            calls += 1
            assert calls < 1000
        assert calls >= 10

    @store_test()
    async def test_server_time_is_the_present_in_milliseconds(self, store: Store) -> None:
        """A22: since 1970 UTC, read in each call; the server's clock may differ by an hour."""
        if not isinstance(store, SupportsServerTime):
            pytest.skip("the store has no clock of its own")
        first = await store.server_time()
        assert abs(first - now()) < HOUR, "milliseconds since 1970 UTC are expected"
        await sleep(0.01)
        assert first + 9 <= await store.server_time() < first + MINUTE

    # Bytes

    @store_test()
    async def test_every_field_is_stored(self, store: Store) -> None:
        """S9: the extreme values of each field, and IDs of any 16 bytes."""
        at = now()
        changes: list[dict[str, Any]] = [
            {"id": bytes(16)},
            {"id": b"\xff" * 16},
            {"id": b"\x00\n\r'\";-- \\%_*?[x"},
            {"absolute_at": FOREVER, "idle_timeout": FOREVER - at},
            {"authenticated_at": at},
            {
                "authenticated_at": at,
                "previous_verifier": b"\xff" * 32,
                "previous_valid_until": at + MINUTE,
            },
            {"verifier": bytes(32), "previous_verifier": b"\x00\xff" * 16},
            {"confirmed": False},
            {"persistent": True},
            {"confirmed": False, "persistent": True},
            {"persistent": True, "reauthentication_required": True},
            {"previous_valid_until": at + MINUTE},
            {"previous_verifier": b"\xff" * 32, "previous_valid_until": FOREVER},
            {"version": 2**53 - 1},
            {"version": 255},
            {"version": 256},
            {"body": pack_body(None, {}, {})},
            {"body": pack_body("user-17", {"browser": "B" * 200, "address": "::1"}, {})},
        ]
        for change in changes:
            record = make_record(**change)
            assert await store.create(record) is True, change
            assert await store.load(record.id) == record, change

    @store_test()
    async def test_every_byte_is_stored(self, store: Store) -> None:
        """S9: values of 0 bytes up to the limit, with every byte value.

        As text, of at most two bytes for each character, if the store cannot hold bytes.
        """
        every_byte = bytes(range(256))
        as_text = value_check(store) is not None
        for size in (0, 1, 255, 256, 4095, 4096, 8191, 20_000, self.max_bytes - 200):
            value: Any = (every_byte * (size // 256 + 1))[:size]
            if as_text:
                value = value[: size // 2].decode("latin-1")
            record = make_record(body=pack_body("u", {}, {"k": encode("k", value)}))
            assert await store.create(record) is True
            assert await store.load(record.id) == record
            saved = next_version(record, body=pack_body("u", {}, {"k": encode("k", value[::-1])}))
            assert await store.save(saved, 1) is SAVED
            assert await store.load(record.id) == saved

    @store_test()
    async def test_damaged_records_are_rejected_and_reported(self, store: Store) -> None:
        """S9, B-21: truncated, foreign and newer bytes give an empty session and an event."""
        sessions = self.sessions(store)
        rejected: list[Rejected] = []
        sessions.on(Rejected, rejected.append)
        visitor = Visitor(sessions)
        async with visitor.visit() as session:
            session["key"] = "value"
            session["other"] = list(range(30))
        record = await store.load(bytes.fromhex(session.id))
        assert record is not None
        whole = record.to_bytes()
        newer = bytes([FORMAT + 1]) + whole[1:]
        foreign = b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix" + whole
        damaged = [whole[:size] for size in range(0, len(whole), 3)]
        for data in (*damaged, newer, foreign, b"{}", whole[:126] + b"\xc1" * 40):
            await self.overwrite(store, record.id, data)
            try:
                found = await store.load(record.id)
                assert found is not None
                with pytest.raises(UnreadableRecord):
                    found.contents()
            except UnreadableRecord:
                pass
            rejected.clear()
            session = await visitor.load()
            assert dict(session) == {}
            assert [event.session_id for event in rejected] == [record.session_id]

    # Realms and event loops

    @store_test()
    async def test_realms_are_isolated(self, store: Store) -> None:
        """S14: the same ID in two realms of one server names two records, in every method."""
        other = self.make_store("other")
        at = now()
        ours = make_record()
        theirs = make_record(id=ours.id, body=make_body(theirs=1))
        await store.create(ours)
        assert await other.load(ours.id) is None
        assert await other.save(next_version(ours), 1) is GONE
        assert await other.touch(ours) is False
        assert await other.delete(ours.id) is False
        assert await other.create(theirs) is True
        assert await store.load(ours.id) == ours
        assert await other.load(ours.id) == theirs
        await purge_all(other, at + 24 * HOUR)
        assert await store.load(ours.id) == ours
        await other.delete(ours.id)
        assert await store.load(ours.id) == ours
        close(other)

    def test_a_store_declares_whether_it_requires_an_event_loop(self) -> None:
        """RequiresEventLoop: without a loop a store works or raises ConfigurationError."""
        store = self.make_store("default")
        if isinstance(store, RequiresEventLoop):
            assert (store.requires_event_loop() is not None) == self.requires_event_loop
        if not self.requires_event_loop:
            assert run(store.load(secrets.token_bytes(16))) is None
            close(store)
            return
        assert isinstance(store, RequiresEventLoop), (
            "implement RequiresEventLoop, or WSGI fails at its first request"
        )
        with pytest.raises(ConfigurationError):
            run(store.load(secrets.token_bytes(16)))
