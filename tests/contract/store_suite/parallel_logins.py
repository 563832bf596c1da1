"""The limit on the sessions of one user under parallel logins: ASVS 7.1.2."""

import asyncio
import functools
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

from sojourn._core.concurrency import run
from sojourn.record import Record
from sojourn.store import (
    LIMIT_REACHED,
    LimitPolicy,
    LoginSaved,
    SaveLoginResult,
    SessionLimit,
    SupportsUserIndex,
)
from sojourn.stores.urls import open_store
from sojourn.testing.decorators import WAIT_TIMEOUT, in_threads
from sojourn.testing.records import HOUR, login, make_record, now, save_login
from sojourn.testing.store_suite.base import IndexedStore, StoreTests, close, store_test
from sojourn.testing.store_suite.session_limits import MAX_SESSIONS, every_policy, eviction_order

_LOGINS: Final = 50

#: The folder from which a worker imports this module.
REPOSITORY: Final = Path(__file__).parents[3]


class ParallelLoginTests(StoreTests):
    """Tests of ``save_login`` with a limit and parallel callers."""

    @every_policy
    @store_test(requires=SupportsUserIndex, loop_only=True)
    async def test_50_tasks_respect_the_limit(
        self, store: IndexedStore, policy: LimitPolicy
    ) -> None:
        """ASVS 7.1.2: logins of one user in one tick of the loop, through two store objects."""
        stores: list[Any] = [store, self.make_store("default")]
        logins = _ParallelLogins(policy)
        await logins.prepare(store)
        await asyncio.gather(*(logins.log_in(stores[n % 2], n) for n in range(_LOGINS)))
        await logins.check(store)
        close(stores[1])

    @every_policy
    def test_50_threads_respect_the_limit(self, policy: LimitPolicy) -> None:
        """ASVS 7.1.2: logins of one user in threads, through two store objects."""
        with self.blocking_stores(2, requires=SupportsUserIndex) as stores:
            logins = _ParallelLogins(policy)
            run(logins.prepare(stores[0]))

            def log_in(n: int) -> None:
                run(logins.log_in(stores[n % 2], n))

            in_threads(*(functools.partial(log_in, n) for n in range(_LOGINS)))
            run(logins.check(stores[0]))

    @every_policy
    def test_4_processes_respect_the_limit(self, policy: LimitPolicy) -> None:
        """ASVS 7.1.2: logins of one user in processes that share only the store."""
        url = self.store_url()
        with self.blocking_stores(requires=SupportsUserIndex) as (store,):
            logins = _ParallelLogins(policy)
            run(logins.prepare(store))
            workers = [_start_worker(url, policy) for _ in range(4)]
            for n, worker in enumerate(workers):
                assert worker.stdout is not None
                assert worker.stdin is not None
                assert worker.stdout.readline() == "ready\n"
                lines = [f"{r.id.hex()} {r.to_bytes().hex()}\n" for r in logins.records[n::4]]
                worker.stdin.writelines(lines)
            for worker in workers:  # closing its standard input starts a worker
                assert worker.stdin is not None
                worker.stdin.close()
            for n, worker in enumerate(workers):
                assert worker.stdout is not None
                results = worker.stdout.read().splitlines()
                worker.stdout.close()
                assert worker.wait(WAIT_TIMEOUT) == 0
                for record, result in zip(logins.records[n::4], results, strict=True):
                    status, *evicted = result.split()
                    assert status in ("saved", str(LIMIT_REACHED))
                    saved = LoginSaved(tuple(map(bytes.fromhex, evicted)))
                    logins.results[record.id] = saved if status == "saved" else LIMIT_REACHED
            run(logins.check(store))


class _ParallelLogins:
    """Logins of one user that happen at the same time, with a limit."""

    def __init__(self, policy: LimitPolicy) -> None:
        self._policy = policy
        at = now()
        self._anonymous = [make_record() for _ in range(_LOGINS // 2)]
        old = at - 3 * HOUR
        self._expired = [login(None, "ada", seen_at=old, created_at=old) for _ in range(2)]
        known = [login(r, "ada", at=at + n) for n, r in enumerate(self._anonymous)]
        new = [
            login(None, "ada", at=at + _LOGINS - n, seen_at=at - 7 * n)
            for n in range(_LOGINS - len(known))
        ]
        self.records = known + new
        random.Random(_LOGINS).shuffle(self.records)
        self.results: dict[bytes, SaveLoginResult] = {}

    async def prepare(self, store: IndexedStore) -> None:
        for record in self._anonymous:
            await store.create(record)
        for record in self._expired:
            await save_login(store, record, 0)

    async def log_in(self, store: IndexedStore, number: int) -> None:
        record, limit = self.records[number], SessionLimit(MAX_SESSIONS, self._policy)
        self.results[record.id] = await save_login(store, record, record.version - 1, limit=limit)

    async def check(self, store: IndexedStore) -> None:
        listed = {record.id for record in await store.list_by_index("user:ada")}
        live = listed - {record.id for record in self._expired}
        assert len(live) == MAX_SESSIONS
        assert len(self.results) == _LOGINS
        saved = [result for result in self.results.values() if isinstance(result, LoginSaved)]
        evicted = Counter(session_id for result in saved for session_id in result.evicted)
        if self._policy is LimitPolicy.REFUSE:
            assert (len(saved), not evicted) == (MAX_SESSIONS, True)
            refused = [r for r in self.results.values() if r is LIMIT_REACHED]
            assert len(refused) == _LOGINS - MAX_SESSIONS
        else:
            assert len(saved) == _LOGINS
            assert set(evicted) == set(self.results) - live
            assert set(evicted.values()) == {1}
            ordered = sorted(self.records, key=eviction_order(self._policy))
            kept = ordered[-(MAX_SESSIONS - 1) :]
            assert {record.id for record in kept} <= live  # the other one is the last login
            for record in self.records:
                assert (await store.load(record.id) is not None) == (record.id in live)


def _start_worker(url: str, policy: LimitPolicy) -> subprocess.Popen[str]:
    """Start a process that runs ``log_in``; its standard input and output are pipes."""
    program = f"import sys; from {__name__} import log_in, run; run(log_in(*sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", program, url, str(policy)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


async def log_in(url: str, policy: str) -> None:
    """Read records ("<id> <bytes>" in hex) until the input ends, then save each as a login.

    Prints "saved" with the IDs of evicted sessions, or the name of the status.
    """
    store: Any = open_store(url, realm="default", timeout=10)
    limit = SessionLimit(MAX_SESSIONS, LimitPolicy(policy))
    print("ready", flush=True)  # noqa: T201 - read by the parent
    for line in sys.stdin.readlines():
        session_id, data = (bytes.fromhex(word) for word in line.split())
        record = Record.from_bytes(session_id, data)
        result = await save_login(store, record, record.version - 1, limit=limit)
        if isinstance(result, LoginSaved):
            print("saved", *(evicted.hex() for evicted in result.evicted))  # noqa: T201 - read by the parent
        else:
            print(result)  # noqa: T201 - read by the parent
