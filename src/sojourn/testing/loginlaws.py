"""The laws of many logins at once: those that were voided (S16), and those that are too many.

What lives here: marks and limits, one after the other and in tasks, threads and processes. What
must not: what a list holds (``listlaws.py``).
"""

from __future__ import annotations

import asyncio
import functools
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

import pytest

from sojourn._core.concurrency import run
from sojourn.record import Record
from sojourn.store import (
    LIMIT_REACHED,
    REVOKED,
    LimitPolicy,
    LoginSaved,
    SaveLoginResult,
    SessionLimit,
)
from sojourn.testing.logins import another, by_id, login, save_login
from sojourn.testing.records import HOUR, MINUTE, make_record, next_version, now
from sojourn.testing.running import PATIENCE, Way, in_threads
from sojourn.testing.storekit import (
    ListingStore,
    StoreKit,
    both_ways,
    close,
    listing,
    with_loop_only,
)

DONE: Final = LoginSaved(())

_MANY: Final = 50
_MOST: Final = 3

every_policy: pytest.MarkDecorator = pytest.mark.parametrize("evict", list(LimitPolicy))


class LoginLaws(StoreKit):
    """Voided logins and limits."""

    # Voided

    @both_ways
    @listing
    async def test_a_login_that_began_before_is_void(self, store: ListingStore) -> None:
        """S16: in every store object, and it changes nothing; a later one, or another's, is not."""
        other = another(self)
        at = now()
        await store.invalidate_logins("user:ada", at)
        await store.invalidate_logins("idp_sid:s-1", at)
        await store.invalidate_logins("user:ada", at - HOUR)  # takes nothing back
        record = make_record()
        await store.create(record)
        for each in (store, other):
            for void in (
                login(record, "ada", at=at - 1),
                login(record, "eve", idp_sid="s-1", at=at - 1),
                login(None, "ada", at=at - 1),
            ):
                assert await save_login(each, void, void.version - 1) is REVOKED
            assert await each.load(void.id) is None
            assert await each.load(record.id) == record
            for name in ("user:ada", "user:eve", "idp_sid:s-1"):
                assert await each.list_by_index(name) == []
            for good in (
                login(None, "ada", at=at),
                login(None, "bob", at=at - 1),
                login(None, "eve", idp_sid="s-2", at=at - 1),
                login(None, "s-1", idp_sid="ada", at=at - 1),
            ):
                assert await save_login(each, good, 0) == DONE
                await each.delete(good.id)
        close(other)

    @both_ways
    @listing
    async def test_what_is_listed_stays_until_it_is_deleted(self, store: ListingStore) -> None:
        """S16: the mark concerns logins; saves go on, and the list shows whom to end."""
        record = login(None, "ada", at=now() - 1)
        await save_login(store, record, 0)
        await store.invalidate_logins("user:ada", now())
        saved = next_version(record)
        await store.save(saved, 1)
        assert await store.list_by_index("user:ada") == [saved]
        assert (
            await save_login(store, login(saved, "ada", at=record.authenticated_at), 2) is REVOKED
        )
        assert await store.list_by_index("user:ada") == [saved]

    @both_ways
    @listing
    async def test_marks_are_kept_for_a_day_and_not_for_ever(self, store: ListingStore) -> None:
        """S15, S16: no login takes as long, and nothing grows."""
        at = now()
        for name in ("user:ada", "idp_sid:s-1"):
            await store.invalidate_logins(name, at)
        await _purge(store, at + 24 * HOUR - 1)
        assert await save_login(store, login(None, "ada", at=at - 1), 0) is REVOKED
        await _purge(store, at + 24 * HOUR)
        assert await self.index_size(store) == 0

    @with_loop_only
    @listing
    async def test_no_task_is_logged_in_after_all_were_ended(self, store: ListingStore) -> None:
        """S16: whatever the order of their binds, and of the mark, the list and the ends."""
        other = another(self)
        chance = random.Random(16)  # noqa: S311 - no cryptography

        async def begin(round_: _Round, record: Record) -> None:
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            await round_.log_in(chance.choice([store, other]), record)

        for number in range(30):
            round_ = _Round(f"user-{number}", now())
            logins = [begin(round_, record) for record in round_.records]
            logins.insert(chance.randrange(len(logins)), round_.end_all(other))
            await asyncio.gather(*logins)
            await round_.check(store)
        close(other)

    def test_no_thread_is_logged_in_after_all_were_ended(self) -> None:
        """S16: the same among threads."""
        for number, store, other in self._rounds(30):
            round_ = _Round(f"user-{number}", now())
            calls = [
                functools.partial(_run, round_.log_in, (store, other)[n % 2], record)
                for n, record in enumerate(round_.records)
            ]
            in_threads(*calls, functools.partial(_run, round_.end_all, other))
            run(round_.check(store))

    # Too many

    @every_policy
    def test_one_too_many_lets_the_right_one_go(self, way: Way, evict: LimitPolicy) -> None:
        """ASVS 7.1.2: the one of the oldest login, the one idle longest, or none at all."""

        @both_ways
        @listing
        async def law(_: LoginLaws, store: ListingStore) -> None:
            limit = SessionLimit(_MOST, evict)
            alive: list[Record] = []
            for at, idle in ((5, 9), (9, 3), (2, 7), (7, 5), (1, 8), (3, 1), (8, 2), (6, 6)):
                record = login(None, "ada", at=at, seen_at=now() - idle * MINUTE)
                answer = await save_login(store, record, 0, limit=limit)
                if len(alive) < _MOST:
                    assert answer == DONE
                    alive.append(record)
                elif evict is LimitPolicy.REFUSE:
                    assert answer is LIMIT_REACHED
                    assert await store.load(record.id) is None
                else:
                    gone = min(alive, key=_order(evict))
                    assert answer == LoginSaved((gone.id,))
                    assert await store.load(gone.id) is None
                    alive[alive.index(gone)] = record
                assert by_id(await store.list_by_index("user:ada")) == by_id(alive)

        law(self, way)

    @both_ways
    @listing
    async def test_a_lower_limit_lets_several_go(self, store: ListingStore) -> None:
        """ASVS 7.1.2: at the next login; those that fit stay."""
        records = [login(None, "ada", at=n) for n in range(6)]
        for record in records:
            await save_login(store, record, 0)
        newest = login(None, "ada", at=9)
        answer = await save_login(store, newest, 0, limit=SessionLimit(2, LimitPolicy.EVICT_OLDEST))
        assert isinstance(answer, LoginSaved)
        assert sorted(answer.evicted) == sorted(record.id for record in records[:5])
        assert await store.list_by_index("user:ada") == [newest, records[5]]

    @every_policy
    def test_who_has_ended_or_is_here_already_takes_no_place(
        self, way: Way, evict: LimitPolicy
    ) -> None:
        """ASVS 7.1.2: an expired one, a deleted one, another user's, this session's own login."""

        @both_ways
        @listing
        async def law(_: LoginLaws, store: ListingStore) -> None:
            only = SessionLimit(1, evict)
            old = now() - 3 * HOUR
            expired = login(None, "ada", at=1, seen_at=old, created_at=old)
            deleted, foreign = login(None, "ada"), login(None, "bob", idp_sid="ada")
            for record in (expired, deleted, foreign, login(None, "eve", idp_sid="s-1")):
                assert await save_login(store, record, 0) == DONE
            await store.delete(deleted.id)
            record = login(None, "ada", idp_sid="s-1")
            assert await save_login(store, record, 0, limit=only) == DONE
            again = login(record, "ada", idp_sid="s-1")
            assert await save_login(store, again, 1, limit=only) == DONE
            moved = login(again, "ann")
            assert await save_login(store, moved, 2, limit=only) == DONE
            assert await save_login(store, login(None, "ada"), 0, limit=only) == DONE
            assert await store.load(foreign.id) == foreign

        law(self, way)

    @both_ways
    @listing
    async def test_a_login_that_is_refused_leaves_its_session_as_it_was(
        self, store: ListingStore
    ) -> None:
        """S13: LIMIT_REACHED writes nothing, neither of the record nor of the list."""
        record = make_record()
        await store.create(record)
        await save_login(store, login(None, "ada"), 0)
        only = SessionLimit(1, LimitPolicy.REFUSE)
        assert await save_login(store, login(record, "ada"), 1, limit=only) is LIMIT_REACHED
        assert await store.load(record.id) == record
        assert len(await store.list_by_index("user:ada")) == 1

    @every_policy
    def test_50_tasks_leave_as_many_as_may_be(self, evict: LimitPolicy) -> None:
        """ASVS 7.1.2: logins of one user in one tick, through two store objects."""

        @with_loop_only
        @listing
        async def law(suite: LoginLaws, store: ListingStore) -> None:
            other = another(suite)
            crowd = _Crowd(evict)
            await crowd.begin(store)
            logins = [
                crowd.log_in((store, other)[n % 2], record) for n, record in enumerate(crowd.logins)
            ]
            await asyncio.gather(*logins)
            await crowd.check(store)
            close(other)

        law(self)

    @every_policy
    def test_50_threads_leave_as_many_as_may_be(self, evict: LimitPolicy) -> None:
        """ASVS 7.1.2: logins of one user in threads, through two store objects."""
        for _, store, other in self._rounds(1):
            crowd = _Crowd(evict)
            run(crowd.begin(store))
            calls = [
                functools.partial(_run, crowd.log_in, (store, other)[n % 2], record)
                for n, record in enumerate(crowd.logins)
            ]
            in_threads(*calls)
            run(crowd.check(store))

    @every_policy
    def test_4_processes_leave_as_many_as_may_be(self, evict: LimitPolicy) -> None:
        """ASVS 7.1.2: logins of one user in processes that meet at the store alone."""
        url = self.store_url()
        for _, store, _other in self._rounds(1):
            crowd = _Crowd(evict)
            run(crowd.begin(store))
            command = [sys.executable, "-m", "sojourn.testing.loginworker", url, evict, str(_MOST)]
            workers = [
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own module
                for _ in range(4)
            ]
            for n, worker in enumerate(workers):
                assert worker.stdout is not None
                assert worker.stdin is not None
                assert worker.stdout.readline() == "ready\n"
                lines = [f"{r.id.hex()} {r.to_bytes().hex()}\n" for r in crowd.logins[n::4]]
                worker.stdin.writelines(lines)
            for worker in workers:  # all have their work; now they begin
                assert worker.stdin is not None
                worker.stdin.close()
            for n, worker in enumerate(workers):
                assert worker.stdout is not None
                answers = worker.stdout.read().splitlines()
                worker.stdout.close()
                assert worker.wait(PATIENCE) == 0
                for record, answer in zip(crowd.logins[n::4], answers, strict=True):
                    evicted = [bytes.fromhex(word) for word in answer.split()[1:]]
                    full = answer.startswith("full")
                    crowd.answers[record.id] = LIMIT_REACHED if full else LoginSaved(tuple(evicted))
            run(crowd.check(store))

    def _rounds(self, many: int) -> Iterable[tuple[int, ListingStore, ListingStore]]:
        """Yield numbers with two store objects that work without a loop."""
        if self.requires_event_loop:
            pytest.skip("this store works under an event loop only")
        found: list[ListingStore] = []

        @listing
        async def look(suite: LoginLaws, store: ListingStore) -> None:
            found.extend((store, another(suite)))

        run(look(self, self.make_store("default")))
        for number in range(many):
            yield number, found[0], found[1]
        for store in found:
            close(store)


class _Round:
    """Logins of one user, half of which began before everything was to end."""

    def __init__(self, user: str, before: int) -> None:
        self._name = f"user:{user}"
        self._before = before
        early = [login(None, user, at=before - 1 - n, idp_sid="s") for n in range(4)]
        late = [login(None, user, at=before + n) for n in range(4)]
        self.records = [record for pair in zip(early, late, strict=True) for record in pair]

    async def log_in(self, store: ListingStore, record: Record) -> None:
        answer = await save_login(store, record, 0)
        assert answer == DONE or record.authenticated_at < self._before

    async def end_all(self, store: ListingStore) -> None:
        await store.invalidate_logins(self._name, self._before)
        for record in await store.list_by_index(self._name):
            if record.authenticated_at < self._before:
                await store.delete(record.id)

    async def check(self, store: ListingStore) -> None:
        alive = [record for record in self.records if record.authenticated_at >= self._before]
        assert by_id(await store.list_by_index(self._name)) == by_id(alive)
        for record in self.records:
            assert (await store.load(record.id) is not None) == (record in alive)


class _Crowd:
    """One user's logins, all at once, with a limit."""

    def __init__(self, evict: LimitPolicy) -> None:
        self._evict = evict
        at = now()
        self._anonymous = [make_record() for _ in range(_MANY // 2)]
        old = at - 3 * HOUR
        self._expired = [login(None, "ada", seen_at=old, created_at=old) for _ in range(2)]
        begun = [login(r, "ada", at=at + n) for n, r in enumerate(self._anonymous)]
        new = [
            login(None, "ada", at=at + _MANY - n, seen_at=at - 7 * n)
            for n in range(_MANY - len(begun))
        ]
        self.logins = begun + new
        random.Random(_MANY).shuffle(self.logins)  # noqa: S311 - no cryptography
        self.answers: dict[bytes, SaveLoginResult] = {}

    async def begin(self, store: ListingStore) -> None:
        for record in self._anonymous:
            await store.create(record)
        for record in self._expired:
            await save_login(store, record, 0)

    async def log_in(self, store: ListingStore, record: Record) -> None:
        limit = SessionLimit(_MOST, self._evict)
        self.answers[record.id] = await save_login(store, record, record.version - 1, limit=limit)

    async def check(self, store: ListingStore) -> None:
        listed = {record.id for record in await store.list_by_index("user:ada")}
        alive = listed - {record.id for record in self._expired}
        assert len(alive) == _MOST
        done = [answer for answer in self.answers.values() if isinstance(answer, LoginSaved)]
        assert len(self.answers) == _MANY
        evicted = Counter(session_id for answer in done for session_id in answer.evicted)
        if self._evict is LimitPolicy.REFUSE:
            assert (len(done), not evicted) == (_MOST, True)
            assert [a for a in self.answers.values() if a is LIMIT_REACHED] == [LIMIT_REACHED] * (
                _MANY - _MOST
            )
        else:
            assert len(done) == _MANY
            assert set(evicted) == set(self.answers) - alive
            assert set(evicted.values()) == {1}
            best = sorted(self.logins, key=_order(self._evict))[-(_MOST - 1) :]
            assert {record.id for record in best} <= alive  # the last to come is the other
            for record in self.logins:
                assert (await store.load(record.id) is not None) == (record.id in alive)


def _order(evict: LimitPolicy) -> Callable[[Record], tuple[int, bytes]]:
    """Return by what the first to go is chosen."""
    if evict is LimitPolicy.EVICT_IDLEST:
        return lambda record: (record.seen_at, record.id)
    return lambda record: (record.authenticated_at, record.id)


async def _purge(store: ListingStore, at: int) -> None:
    finished = False
    while not finished:
        finished = (await store.purge(at, 500)).finished


def _run(call: Callable[..., Any], *args: Any) -> object:
    return run(call(*args))
