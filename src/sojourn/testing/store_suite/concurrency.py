"""Tasks, threads and processes that change one session: laws S5, S10 and S11."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable
from typing import Any

import pytest

from sojourn._core.concurrency import run
from sojourn.record import Record
from sojourn.sessions import Sessions
from sojourn.store import GONE, Conflict, Store
from sojourn.testing.decorators import WAIT_TIMEOUT, in_threads
from sojourn.testing.records import MINUTE, make_record, next_version
from sojourn.testing.store_suite.base import StoreTests, close, store_test
from sojourn.testing.store_suite.worker import start_worker
from sojourn.testing.visitor import Visitor


class ConcurrencyTests(StoreTests):
    """Tests of many callers at once."""

    # No lost updates

    @store_test(loop_only=True)
    async def test_64_tasks_lose_no_update(self, store: Store) -> None:
        """S10: 64 tasks of one process increment one key and set one key each."""
        visitor = await _new_visitor(self.sessions(store))
        await asyncio.gather(*(_write(visitor, f"task{n}") for n in range(64)))
        await _check_complete(visitor, [f"task{n}" for n in range(64)])

    @store_test(loop_only=True)
    async def test_64_tasks_of_8_installations_lose_no_update(self, store: Store) -> None:
        """S10: the installations share the store only, as processes do."""
        visitor = await _new_visitor(self.sessions(store))
        others = [visitor.at(self.sessions(store)) for _ in range(8)]
        names = [f"task{n}" for n in range(64)]
        await asyncio.gather(*(_write(others[n % 8], name) for n, name in enumerate(names)))
        await _check_complete(visitor, names)

    @pytest.mark.parametrize("shared", [True, False], ids=["one installation", "one each"])
    def test_16_threads_lose_no_update(self, shared: bool) -> None:  # noqa: FBT001 - parametrised
        """S10, ASVS 15.4.1: threads of one installation, or with one each."""
        with self.blocking_stores() as (store,):
            visitor = run(_new_visitor(self.sessions(store)))
            names = [f"thread{n}" for n in range(16)]

            def work(name: str) -> None:
                own = visitor if shared else visitor.at(self.sessions(store))
                for number in range(5):
                    run(_write(own, f"{name}-{number}"))

            in_threads(*(functools.partial(work, name) for name in names))
            run(_check_complete(visitor, [f"{name}-{n}" for name in names for n in range(5)]))

    def test_4_processes_lose_no_update(self) -> None:
        """S10: four processes of this machine write to one session at the same time."""
        url = self.store_url()
        with self.default_runner() as do:
            cookie = self._begin(do)
            workers = [self._start_writer(url, cookie, f"p{n}", 25) for n in range(4)]
            for worker in workers:
                output, _ = worker.communicate(timeout=2 * WAIT_TIMEOUT)
                assert worker.returncode == 0
                assert len(output.split()) == 25
            do(self._check(cookie, [f"p{n}-{i}" for n in range(4) for i in range(25)]))

    def test_commits_survive_a_killed_process(self) -> None:
        """S11: every commit that returned before kill -9 is stored."""
        url = self.store_url()
        with self.default_runner() as do:
            cookie = self._begin(do)
            worker = self._start_writer(url, cookie, "victim", 100_000)
            assert worker.stdout is not None
            committed = [int(worker.stdout.readline()) for _ in range(40)]
            worker.kill()
            # communicate() alone would lose the lines that readline() has buffered.
            committed += [int(line) for line in worker.stdout.read().split()]
            worker.communicate()
            assert committed == list(range(len(committed)))
            do(self._check(cookie, [f"victim-{n}" for n in committed], spare=1))

    def _begin(self, do: Any) -> str:
        cookies: list[str | None] = []

        async def begin() -> None:
            store = self.make_store("default")
            cookies.append((await _new_visitor(self.sessions(store))).cookie)
            close(store)

        do(begin())
        return cookies[0] or ""

    def _start_writer(self, url: str, cookie: str, name: str, times: int) -> Any:
        return start_worker(url, cookie, name, times, loop=self.requires_event_loop)

    async def _check(self, cookie: str, names: list[str], *, spare: int = 0) -> None:
        store = self.make_store("default")
        visitor = Visitor(self.sessions(store), cookie=cookie)
        await _check_complete(visitor, names, spare=spare)
        close(store)

    # Deleted records stay deleted

    @store_test(loop_only=True)
    async def test_a_delete_among_tasks_is_final(self, store: Store) -> None:
        """S5: saves, touches and a delete in one tick of the loop, in any order."""
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
            results = await asyncio.gather(*calls)
            assert results[position] is True
            assert await store.load(record.id) is None

    def test_a_delete_among_threads_is_final(self) -> None:
        """S5: also between two steps of a call in another thread."""
        with self.blocking_stores() as (store,):
            for _ in range(50):
                record = make_record()
                run(store.create(record))

                def save(record: Record = record) -> None:
                    current = record
                    while True:
                        result = run(store.save(next_version(current), current.version))
                        if result is GONE:
                            return
                        conflict = isinstance(result, Conflict)
                        current = result.newer if conflict else next_version(current)

                def touch(record: Record = record) -> None:
                    while run(store.touch(record.with_seen_at(record.seen_at + MINUTE))):
                        pass

                def delete(record: Record = record) -> None:
                    run(store.delete(record.id))

                in_threads(save, touch, touch, delete)
                assert run(store.load(record.id)) is None


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


async def _check_complete(visitor: Visitor, names: list[str], *, spare: int = 0) -> None:
    """Check that every key is stored; ``spare``: commits whose result the writer did not report."""
    session = await visitor.load()
    assert [name for name in names if name not in session] == []
    assert [name for name in names if name not in session["nested"]] == []
    assert len(names) <= session["counter"] <= len(names) + spare
