"""The laws of stores that list users, one call at a time: S15, and what ``invalidate_all`` promises.

What lives here: what ``bind``, ``find`` and ``invalidate_all`` must do. What must not: voided logins and
limits, where the order of many callers matters (``loginlaws.py``).
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

import msgspec
import pytest

from sojourn.errors import StoreUnavailable
from sojourn.record import Record, UnreadableRecord
from sojourn.store import (
    GONE,
    SAVED,
    Conflict,
    LimitPolicy,
    LoginSaved,
    NeedsPurge,
    SessionLimit,
    SupportsCount,
)
from sojourn.testing.logins import another, by_id, login, make_body, purge_all, save_login
from sojourn.testing.records import HOUR, MINUTE, make_record, next_version, now
from sojourn.testing.running import Way
from sojourn.testing.storekit import (
    ListingStore,
    StoreKit,
    both_ways,
    close,
    listing,
    with_loop_only,
)

DONE: Final = LoginSaved(())


class ListLaws(StoreKit):
    """Lists of a user's sessions."""

    # From login to end

    @both_ways
    @listing
    async def test_a_session_is_listed_once_its_login_returns(self, store: ListingStore) -> None:
        """S15: one that had begun, and one that begins with it; in every store object."""
        other = another(self)
        anonymous = make_record()
        await store.create(anonymous)
        assert await store.list_by_index("user:ada") == []
        known, new = login(anonymous, "ada", at=1), login(None, "ada", at=2)
        assert await save_login(store, known, 1) == DONE
        for each in (store, other):
            assert await each.list_by_index("user:ada") == [known]
            assert await each.load(known.id) == known
        assert await save_login(other, new, 0) == DONE
        for each in (store, other):
            assert await each.list_by_index("user:ada") == [new, known]  # the newest login is first
            assert await each.load(new.id) == new
            assert await each.list_by_index("user:ad") == await each.list_by_index("user:ADA") == []
            assert await each.list_by_index("ada") == await each.list_by_index("idp_sid:ada") == []
        close(other)

    @both_ways
    @listing
    async def test_a_session_is_listed_under_all_its_names(self, store: ListingStore) -> None:
        """S15: its user and its session at an identity provider, whatever their letters."""
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

    @both_ways
    @listing
    async def test_only_bind_changes_a_list(self, store: ListingStore) -> None:
        """S15: not create, save or touch, whatever user their record names."""
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

    @both_ways
    @listing
    async def test_a_login_by_somebody_else_moves_the_session(self, store: ListingStore) -> None:
        """S15: it is in the list of its user of now alone, and under its names of now alone."""
        record = login(None, "ada", idp_sid="s-1")
        await save_login(store, record, 0)
        moved = login(record, "bob")
        assert await save_login(store, moved, 1) == DONE
        assert await store.list_by_index("user:bob") == [moved]
        assert (
            await store.list_by_index("user:ada") == await store.list_by_index("idp_sid:s-1") == []
        )
        await store.delete(record.id)
        assert await self.index_size(store) == 0

    @both_ways
    @listing
    async def test_what_has_ended_is_listed_no_more(self, store: ListingStore) -> None:
        """S15: deleted, forgotten or gone for another session; no entry stays behind."""
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

    @pytest.mark.parametrize("lives", [400, pytest.param(10_000, marks=pytest.mark.slow)])
    def test_random_lives_leave_nothing_behind(self, way: Way, lives: int) -> None:
        """S15: at each step the lists are those of the living; at the end nothing is left."""

        @both_ways
        @listing
        async def law(suite: ListLaws, store: ListingStore) -> None:
            world = _World(store, random.Random(lives))  # noqa: S311 - no cryptography
            for number in range(lives):
                await world.begin()
                for _ in range(world.chance.randrange(6)):
                    await world.step()
                if number % max(lives // 100, 1) == 0:
                    await world.check()
            await world.check()
            if not isinstance(store, NeedsPurge):
                await world.delete_all()
            await purge_all(store, now() + 48 * HOUR)
            assert await suite.index_size(store) == 0

        law(self, way)

    # What bind answers

    @both_ways
    @listing
    async def test_a_bind_that_does_not_fit_changes_nothing(self, store: ListingStore) -> None:
        """S2, S4, S5: another version, nothing there, a taken ID; the record and lists stay."""
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

    @both_ways
    @listing
    async def test_a_bind_keeps_the_larger_seen_at(self, store: ListingStore) -> None:
        """S6: a login that began before a touch does not take the touch back."""
        record = make_record()
        await store.create(record)
        later = record.seen_at + MINUTE
        await store.touch(record.with_seen_at(later))
        bound = login(record, "ada")
        await save_login(store, bound, 1)
        assert await store.load(record.id) == bound.with_seen_at(later)

    @both_ways
    @listing
    async def test_a_record_without_readable_names_is_not_bound(self, store: ListingStore) -> None:
        """S9: nobody could find it afterwards."""
        record = make_record()
        await store.create(record)
        for damaged in (next_version(record, body=b"\x93\xff"), make_record(body=b"\x93\xff")):
            with pytest.raises(UnreadableRecord):
                await save_login(store, damaged, damaged.version - 1)
        assert await store.load(record.id) == record
        assert await store.load(damaged.id) is None

    @both_ways
    @listing
    async def test_a_damaged_record_hides_no_other(self, store: ListingStore) -> None:
        """S9: it opens nothing, so it is left out of the list, which is read all the same."""
        damaged, fine = login(None, "ada"), login(None, "ada")
        for record in (damaged, fine):
            await save_login(store, record, 0)
        await self.plant(store, damaged.id, b"\x80\x04 no record")
        assert await store.list_by_index("user:ada") == [fine]

    @both_ways
    @listing
    async def test_lists_of_two_realms_are_two(self, store: ListingStore) -> None:
        """S14: neither list, nor mark, nor limit of one realm is known in the other."""
        other = another(self, "other")
        ours, theirs = login(None, "ada", at=5), login(None, "ada", at=5)
        await save_login(store, ours, 0)
        await store.invalidate_logins("user:ada", 9)
        only = SessionLimit(1, LimitPolicy.REFUSE)
        assert await save_login(other, theirs, 0, limit=only) == DONE
        assert await store.list_by_index("user:ada") == [ours]
        assert await other.list_by_index("user:ada") == [theirs]
        await store.invalidate_all(now() + HOUR)
        assert await other.load(theirs.id) == theirs
        close(other)

    @pytest.mark.parametrize("kind", ["refuse", "hang"])
    def test_an_outage_of_lists_is_told_in_time(self, kind: Literal["refuse", "hang"]) -> None:
        """S12: each call answers or raises within the deadline; then all works again."""

        @with_loop_only
        @listing
        async def law(suite: ListLaws, store: ListingStore) -> None:
            record = login(None, "ada")
            failures = 0
            with suite.outage(kind):
                calls: list[Callable[[], Awaitable[Any]]] = [
                    lambda: save_login(store, record, 0),
                    lambda: store.list_by_index("user:ada"),
                    lambda: store.invalidate_logins("user:ada", 5),
                    lambda: store.invalidate_all(5),
                ]
                for call in calls:
                    began = time.monotonic()
                    try:
                        await call()
                    except StoreUnavailable:
                        failures += 1
                    assert time.monotonic() - began < suite.deadline + 1
            assert failures, "the outage made nothing fail"
            found = await store.list_by_index("user:ada")
            assert found == ([] if await store.load(record.id) is None else [record])
            fresh = login(None, "bob")
            assert await save_login(store, fresh, 0) == DONE
            assert await store.list_by_index("user:bob") == [fresh]

        law(self)

    # All at once

    @pytest.mark.parametrize("many", [20, pytest.param(100_000, marks=pytest.mark.slow)])
    def test_all_can_be_made_absent_at_once(self, way: Way, many: int) -> None:
        """S15, S5: in every call of every store object, for ever; newer ones live."""

        @both_ways
        @listing
        async def law(suite: ListLaws, store: ListingStore) -> None:
            other = another(suite)
            at = now()
            old = [login(None, f"user-{n % 7}", created_at=at - 1) for n in range(many - 8)]
            for record in old[:8]:
                await save_login(store, record, 0)
            for record in old[8:]:
                await store.create(record)
            await store.invalidate_all(5)
            assert await other.load(old[0].id) == old[0]
            await store.invalidate_all(at)
            await store.invalidate_all(at - HOUR)  # does not bring them back
            new = login(None, "user-1", created_at=at, at=3)
            assert (
                await save_login(other, new, 0, limit=SessionLimit(1, LimitPolicy.REFUSE)) == DONE
            )
            for each in (store, other):
                for record in old[:10]:
                    await _check_absent(each, record)
                assert await each.load(new.id) == new
                assert await each.list_by_index("user:user-1") == [new]
            if isinstance(store, SupportsCount):
                assert await store.count(at) == 1
            if isinstance(store, NeedsPurge):
                assert await purge_all(store, at) == len(old)
            assert await store.save(next_version(new), 1) is SAVED
            assert await store.delete(new.id) is True
            assert await suite.index_size(store) == 0
            close(other)

        law(self, way)


async def _check_absent(store: ListingStore, record: Record) -> None:
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


class _World:
    """Sessions that live at random, and what the store should have of them."""

    def __init__(self, store: ListingStore, chance: random.Random) -> None:
        self.store, self.chance = store, chance
        self.alive: dict[bytes, Record] = {}
        self.named: dict[bytes, tuple[str, ...]] = {}

    async def begin(self) -> None:
        """Begin a session, as a visitor's or with its login; some expire soon."""
        changes: dict[str, Any] = {}
        if isinstance(self.store, NeedsPurge) and self.chance.random() < 0.2:
            changes = {"created_at": now() - HOUR, "seen_at": now() - HOUR}
        record = make_record(**changes)
        if self.chance.random() < 0.5:
            await self.store.create(record)
            self._keep(record)
        else:
            record = self._login(None, **changes)
            assert isinstance(await save_login(self.store, record, 0), LoginSaved)
            self._keep(record, record.index_names())

    async def step(self) -> None:
        """Let one of the living do something, or let the expired be forgotten."""
        if not self.alive:
            return
        record = self.alive[self.chance.choice(list(self.alive)[-50:])]
        match self.chance.choice(["bind", "bind", "save", "touch", "delete", "delete", "purge"]):
            case "bind":
                bound = self._login(record)
                assert isinstance(await save_login(self.store, bound, record.version), LoginSaved)
                self._keep(bound, bound.index_names())
            case "save":
                saved = next_version(record)
                assert await self.store.save(saved, record.version) is SAVED
                self._keep(saved)
            case "touch":
                touched = record.with_seen_at(record.seen_at + 1)
                assert await self.store.touch(touched) is True
                self._keep(touched)
            case "delete":
                assert await self.store.delete(record.id) is True
                self._forget(record)
            case _ if self.chance.random() < 0.1 and isinstance(self.store, NeedsPurge):
                await purge_all(self.store, now())
                for expired in [r for r in self.alive.values() if r.expires_at <= now()]:
                    self._forget(expired)

    async def check(self) -> None:
        """Compare every list with what it should be."""
        names = {name for names in self.named.values() for name in names}
        for name in {*names, "user:nobody"}:
            due = [self.alive[i] for i, listed in self.named.items() if name in listed]
            assert by_id(await self.store.list_by_index(name)) == by_id(due)

    async def delete_all(self) -> None:
        """End everybody."""
        for record in list(self.alive.values()):
            await self.store.delete(record.id)
            self._forget(record)

    def _login(self, record: Record | None, **changes: Any) -> Record:
        idp_sid = self.chance.choice([None, f"s-{self.chance.randrange(30)}"])
        return login(record, f"user-{self.chance.randrange(20)}", idp_sid=idp_sid, **changes)

    def _keep(self, record: Record, names: tuple[str, ...] | None = None) -> None:
        self.alive[record.id] = record
        if names is not None:
            self.named[record.id] = names

    def _forget(self, record: Record) -> None:
        del self.alive[record.id]
        self.named.pop(record.id, None)
