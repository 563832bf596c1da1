"""CPU time for one call of the PostgreSQL store, in event loops and in threads, and of the server.

The joined round trips alone are measured in turn with the store. CPU time excludes waiting. The
server is on another core; the time of all its processes is counted apart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import msgspec

from benchmarks.asgi_client import freeze_heap
from benchmarks.candidates.candidate import SECRET, STORE_TIMEOUT
from benchmarks.candidates.flask import THREADS
from benchmarks.candidates.joined_round_trips import JoinedRoundTrips
from benchmarks.candidates.postgresql import RELAXED
from benchmarks.load_generator import CONNECTIONS
from benchmarks.postgresql_rows import new_record
from benchmarks.sqlite_scaling import DAY

Times = dict[str, list[float | None]]
"""Microseconds by row of the table, in the order of `COLUMNS`; None where nothing was measured."""

COLUMNS = (
    "one at a time",
    f"{CONNECTIONS} tasks",
    "one thread",
    f"{THREADS} threads",
    f"server, {CONNECTIONS} tasks",
)
"""The clients of a row, the first two in an event loop; last the server's time for the second."""

_CALLS = 9600
_ROUNDS = 5

Call = Callable[[int], Coroutine[Any, Any, None]]
"""Loads or saves the session of a client."""


async def measure_cpu(url: str) -> Times:
    """Measure loads and saves of the store and of the joined round trips alone."""
    import sojourn

    store: Any = sojourn.Sessions(
        store=url + RELAXED, secret=SECRET, store_timeout=STORE_TIMEOUT
    ).store
    least = JoinedRoundTrips(url, relaxed=True)
    await least.open()
    records = [new_record(idle_for=0, idle_timeout=DAY) for _ in range(CONNECTIONS)]
    for record in records:
        assert await store.create(record)
        await least.create(record.id, record.to_bytes())
    versions = [1] * CONNECTIONS
    bodies = [record.to_bytes() for record in records]

    async def load(client: int) -> None:
        assert await store.load(records[client].id) is not None

    async def save(client: int) -> None:
        stored = records[client]
        changed = msgspec.structs.replace(stored, version=stored.version + 1)
        assert (await store.save(changed, stored.version)).name == "SAVED"
        records[client] = changed

    async def least_load(client: int) -> None:
        assert await least.load(records[client].id) is not None

    async def least_save(client: int) -> None:
        assert await least.save(records[client].id, versions[client], bodies[client])
        versions[client] += 1

    rows: dict[str, tuple[Call, bool]] = {
        "joined round trips alone, load": (least_load, False),
        "**sojourn**, load": (load, True),
        "joined round trips alone, save": (least_save, False),
        "**sojourn**, save": (save, True),
    }
    samples: dict[str, list[list[float]]] = {name: [[] for _ in COLUMNS] for name in rows}
    server = _ServerTime(url)
    freeze_heap()
    for _ in range(_ROUNDS):
        for name, (call, has_threads) in rows.items():
            samples[name][0].append(await _in_loop(call, 1, _CALLS // 16))
            before = server.microseconds()
            samples[name][1].append(await _in_loop(call, CONNECTIONS, _CALLS))
            samples[name][4].append((server.microseconds() - before) / _CALLS)
            if has_threads:
                samples[name][2].append(await asyncio.to_thread(_in_threads, call, 1, _CALLS // 16))
                samples[name][3].append(
                    await asyncio.to_thread(_in_threads, call, THREADS, _CALLS // 2)
                )
    await least.close()
    store.close()
    return {
        name: [median(values) if values else None for values in columns]
        for name, columns in samples.items()
    }


class _ServerTime:
    """CPU time of all processes of the server."""

    def __init__(self, url: str) -> None:
        import psutil
        import psycopg

        with psycopg.connect(url) as database:
            self._postmaster = psutil.Process(database.info.backend_pid).parent()

    def microseconds(self) -> float:
        """Return the CPU time of the processes that exist, in steps of the kernel's clock tick."""
        assert self._postmaster is not None
        processes = [self._postmaster, *self._postmaster.children()]
        return 1e6 * sum(sum(each.cpu_times()[:2]) for each in processes)


async def _in_loop(call: Call, clients: int, calls: int) -> float:
    async def client(number: int) -> None:
        for _ in range(calls // clients):
            await call(number)

    started = time.process_time_ns()
    await asyncio.gather(*map(client, range(clients)))
    return (time.process_time_ns() - started) / 1000 / (calls // clients * clients)


def _in_threads(call: Call, clients: int, calls: int) -> float:
    from sojourn._core.concurrency import complete

    def client(number: int) -> None:
        for _ in range(calls // clients):
            complete(call(number))

    with ThreadPoolExecutor(clients) as pool:
        started = time.process_time_ns()
        list(pool.map(client, range(clients)))
        return (time.process_time_ns() - started) / 1000 / (calls // clients * clients)
