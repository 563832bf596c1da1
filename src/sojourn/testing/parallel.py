"""The laws of stores with many callers at once: S5, S10 to S13 and S18.

What lives here: tasks, threads and processes on one session, cancelled callers, killed processes,
failing servers, counted round trips. What must not: what a single call does (``storelaws.py``).
"""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Self

import pytest

from sojourn._core.concurrency import run
from sojourn.errors import StoreUnavailable
from sojourn.record import Record
from sojourn.sessions import Sessions
from sojourn.store import GONE, SAVED, Conflict, Store
from sojourn.testing.records import MINUTE, make_body, make_record, next_version, now
from sojourn.testing.running import PATIENCE, in_threads
from sojourn.testing.storekit import StoreKit, both_ways, close, with_loop_only
from sojourn.testing.visitor import Visitor


class ParallelLaws(StoreKit):
    """What holds with many callers at once."""

    # Nothing is lost

    @with_loop_only
    async def test_64_tasks_lose_nothing(self, store: Store) -> None:
        """S10: 64 tasks of one process increment one key and set one each."""
        sessions = self.sessions(store)
        visitor = await _new_visitor(sessions)
        await asyncio.gather(*(_write(visitor, f"task{n}") for n in range(64)))
        await _check_all_there(visitor, [f"task{n}" for n in range(64)])

    @with_loop_only
    async def test_tasks_that_do_not_queue_up_lose_nothing(self, store: Store) -> None:
        """S10: eight installations, as eight processes, meet at the store alone."""
        visitor = await _new_visitor(self.sessions(store))
        others = [visitor.at(self.sessions(store)) for _ in range(8)]
        names = [f"task{n}" for n in range(64)]
        await asyncio.gather(*(_write(others[n % 8], name) for n, name in enumerate(names)))
        await _check_all_there(visitor, names)

    @pytest.mark.parametrize("shared", [True, False], ids=["one installation", "one each"])
    def test_16_threads_lose_nothing(self, shared: bool) -> None:  # noqa: FBT001 - parametrised
        """S10, ASVS 15.4.1: 16 threads, in one process's queue or meeting at the store alone."""
        if self.requires_event_loop:
            pytest.skip("this store works under an event loop only")
        store = self.make_store("default")
        visitor = run(_new_visitor(self.sessions(store)))
        names = [f"thread{n}" for n in range(16)]

        def work(name: str) -> None:
            here = visitor if shared else visitor.at(self.sessions(store))
            for number in range(5):
                run(_write(here, f"{name}-{number}"))

        in_threads(*(functools.partial(work, name) for name in names))
        run(_check_all_there(visitor, [f"{name}-{n}" for name in names for n in range(5)]))
        close(store)

    def test_4_processes_lose_nothing(self) -> None:
        """S10: four processes of this machine write to one session at the same time."""
        url = self.store_url()
        with _Default(self) as visitor:
            workers = [self._start_worker(url, visitor, f"p{n}", 25) for n in range(4)]
            for worker in workers:
                output, _ = worker.communicate(timeout=2 * PATIENCE)
                assert worker.returncode == 0
                assert len(output.split()) == 25
            visitor.do(_check_all_there, [f"p{n}-{i}" for n in range(4) for i in range(25)])

    def test_what_was_committed_survives_a_killed_process(self) -> None:
        """S11: after kill -9 every write whose commit returned is there."""
        url = self.store_url()
        with _Default(self) as visitor:
            worker = self._start_worker(url, visitor, "victim", 100_000)
            assert worker.stdout is not None
            told = [int(worker.stdout.readline()) for _ in range(40)]
            worker.kill()
            told += [int(line) for line in worker.communicate()[0].split()]
            assert told == list(range(len(told)))
            visitor.do(_check_all_there, [f"victim-{n}" for n in told], spare=1)

    def _start_worker(
        self, url: str, visitor: _Default, name: str, times: int
    ) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "sojourn.testing.worker", url, visitor.cookie, name]
        loop = ["--loop"] if self.requires_event_loop else []
        return subprocess.Popen(  # noqa: S603 - our own module
            [*command, str(times), *loop], stdout=subprocess.PIPE, text=True
        )

    # Gone is gone

    @with_loop_only
    async def test_a_delete_among_tasks_is_final(self, store: Store) -> None:
        """S5: saves, touches and a delete in one tick: whatever the order, nothing is left."""
        for position in range(6):
            record = make_record()
            await store.create(record)
            calls: list[Awaitable[Any]] = [
                store.save(next_version(record), 1),
                store.touch(record.with_seen_at(record.seen_at + MINUTE)),
                store.save(next_version(record), 1),
                store.touch(record.with_seen_at(record.seen_at + MINUTE)),
                store.load(record.id),
            ]
            calls.insert(position, store.delete(record.id))
            answers = await asyncio.gather(*calls)
            assert answers[position] is True
            assert await store.load(record.id) is None

    def test_a_delete_among_threads_is_final(self) -> None:
        """S5: also between two steps of the same call of another thread."""
        if self.requires_event_loop:
            pytest.skip("this store works under an event loop only")
        store = self.make_store("default")
        for _ in range(50):
            record = make_record()
            run(store.create(record))

            def save(record: Record = record) -> None:
                current = record
                while True:
                    answer = run(store.save(next_version(current), current.version))
                    if answer is GONE:
                        return
                    current = (
                        answer.newer if isinstance(answer, Conflict) else next_version(current)
                    )

            def touch(record: Record = record) -> None:
                while run(store.touch(record.with_seen_at(record.seen_at + MINUTE))):
                    pass

            in_threads(save, touch, touch, functools.partial(_run, store.delete, record.id))
            assert run(store.load(record.id)) is None
        close(store)

    # One caller's trouble is not another's

    @pytest.mark.parametrize("victim", [0, 7, 19])
    def test_a_cancelled_reader_harms_nobody(self, victim: int) -> None:
        """S13: of 20 loads in one tick one is cancelled; the others answer as if nothing was."""

        async def law(suite: ParallelLaws, store: Store) -> None:
            records = [make_record() for _ in range(20)]
            for record in records:
                await store.create(record)
            tasks = [asyncio.ensure_future(store.load(record.id)) for record in records]
            await asyncio.sleep(0)
            tasks[victim].cancel()
            answers = await _within(suite.deadline, *tasks)
            for number, (answer, record) in enumerate(zip(answers, records, strict=True)):
                if number != victim or not isinstance(answer, asyncio.CancelledError):
                    assert answer == record
            assert await store.load(records[victim].id) == records[victim]

        with_loop_only(law)(self)

    @pytest.mark.parametrize("victim", [0, 7, 19])
    def test_a_cancelled_writer_harms_nobody(self, victim: int) -> None:
        """S13: its own save happened whole or not at all, those of the others happened."""

        async def law(suite: ParallelLaws, store: Store) -> None:
            records = [make_record() for _ in range(20)]
            for record in records:
                await store.create(record)
            saved = [next_version(record, body=make_body(n=1)) for record in records]
            tasks = [asyncio.ensure_future(store.save(record, 1)) for record in saved]
            await asyncio.sleep(0)
            tasks[victim].cancel()
            answers = await _within(suite.deadline, *tasks)
            for number, answer in enumerate(answers):
                stored = await store.load(records[number].id)
                if number == victim and isinstance(answer, asyncio.CancelledError):
                    assert stored in (records[number], saved[number])
                else:
                    assert answer is SAVED
                    assert stored == saved[number]

        with_loop_only(law)(self)

    @pytest.mark.parametrize("kind", ["refuse", "hang"])
    def test_an_outage_is_told_in_time_and_leaves_no_trace(
        self, kind: Literal["refuse", "hang"]
    ) -> None:
        """S12: each call answers rightly or raises within the deadline; then all works again."""

        async def law(suite: ParallelLaws, store: Store) -> None:
            record, other = make_record(), make_record()
            await store.create(record)
            failures = 0
            with suite.outage(kind):
                calls: list[Callable[[], Awaitable[Any]]] = [
                    lambda: store.load(record.id),
                    lambda: store.create(other),
                    lambda: store.save(next_version(record), 1),
                    lambda: store.touch(record.with_seen_at(record.seen_at + 1)),
                    lambda: store.delete(record.id),
                    lambda: store.purge(now(), 10),
                ]
                for call in calls:
                    began = time.monotonic()
                    try:
                        await call()
                    except StoreUnavailable:
                        failures += 1
                    assert time.monotonic() - began < suite.deadline + 1
            assert failures, "the outage made nothing fail"
            # What failed may have happened (its answer was lost), but whole: never half a record.
            assert await store.load(record.id) in (
                record,
                next_version(record),
                next_version(record).with_seen_at(record.seen_at + 1),
                record.with_seen_at(record.seen_at + 1),
                None,
            )
            fresh = make_record()
            assert await store.create(fresh) is True
            assert await store.load(fresh.id) == fresh

        with_loop_only(law)(self)

    # What it costs

    @both_ways
    async def test_each_call_is_one_round_trip(self, store: Store) -> None:
        """S18: load, create, save, touch: one each; a conflict brings the newer record along."""
        record = make_record()

        async def cost(call: Awaitable[object]) -> int:
            before = self.round_trips(store)
            await call
            return self.round_trips(store) - before

        self.round_trips(store)
        assert await cost(store.create(make_record())) <= 3  # connecting, loading scripts
        assert await cost(store.create(record)) == 1
        assert await cost(store.load(record.id)) == 1
        assert await cost(store.save(next_version(record), 1)) == 1
        assert await cost(store.save(next_version(record), 1)) == 1
        assert await cost(store.touch(record.with_seen_at(record.seen_at + MINUTE))) == 1

    @with_loop_only
    async def test_calls_of_one_tick_share_a_round_trip(self, store: Store) -> None:
        """S18: 50 loads asked for in one tick of the loop are one request to the server."""
        records = [make_record() for _ in range(50)]
        self.round_trips(store)
        await asyncio.gather(*(store.create(record) for record in records))
        before = self.round_trips(store)
        assert await asyncio.gather(*(store.load(r.id) for r in records)) == records
        assert self.round_trips(store) - before == 1


class _Default:
    """The visitor of a store that other processes write to, with or without a loop."""

    def __init__(self, suite: StoreKit) -> None:
        self._runner = asyncio.Runner() if suite.requires_event_loop else None
        self._suite = suite
        self._store: Store | None = None
        self.cookie = ""

    def __enter__(self) -> Self:
        async def begin() -> None:
            self._store = self._suite.make_store("default")
            visitor = await _new_visitor(self._suite.sessions(self._store))
            self.cookie = visitor.cookie or ""

        self._drive(begin())
        return self

    def __exit__(self, *_: object) -> None:
        close(self._store)
        if self._runner is not None:
            self._runner.close()

    def do(self, check: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Check what the processes did, through a store object made afterwards."""

        async def look() -> None:
            store = self._suite.make_store("default")
            visitor = Visitor(self._suite.sessions(store), cookie=self.cookie)
            await check(visitor, *args, **kwargs)
            close(store)

        self._drive(look())

    def _drive(self, coroutine: Any) -> None:
        if self._runner is None:
            run(coroutine)
        else:
            self._runner.run(coroutine)


async def _new_visitor(sessions: Sessions[Any]) -> Visitor:
    visitor = Visitor(sessions)
    async with visitor.visit() as session:
        session["counter"] = 0
    return visitor


async def _write(visitor: Visitor, name: str) -> None:
    async with visitor.visit() as session:
        session.increment("counter")
        session[name] = int(name.rpartition("-")[2]) if "-" in name else 0
        session.setdefault("nested", {})[name] = 1


async def _check_all_there(visitor: Visitor, names: list[str], *, spare: int = 0) -> None:
    """Look for every key; ``spare``: how many commits nobody was told of may be there too."""
    session = await visitor.load()
    assert [name for name in names if name not in session] == []
    assert [name for name in names if name not in session["nested"]] == []
    assert len(names) <= session["counter"] <= len(names) + spare


async def _within(seconds: float, *tasks: asyncio.Future[Any]) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), seconds)


def _run(call: Callable[..., Any], *args: Any) -> object:
    return run(call(*args))
