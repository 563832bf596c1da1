"""SQLite with a million sessions: `python -m benchmarks.sqlite_scaling`.

Two questions. Does a load or a save become slower with the number of sessions? The store's calls
are timed one by one on random sessions, at 10,000 and at 1,000,000. Does purging delay requests?
Half of the million expires at once and is purged in the process that serves requests through the
ASGI application meanwhile; each request is due at a fixed instant and its latency counts from it,
so that a stall counts for every request that was due during it.

The file is in the temporary directory and has about 450 MB. `--sessions` makes it smaller.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

import msgspec

from benchmarks import machine, tables
from benchmarks.asgi_client import Exchange, freeze_heap, make_scope, run
from benchmarks.candidates.candidate import SECRET, SMALL, ASGIApp, Scope
from benchmarks.candidates.starlette import session_handlers, starlette_app

SMALL_COUNT = 10_000
CREATE_BATCH = 500
SAMPLES = 20_000
CLIENTS = 16
REQUESTS_PER_SECOND = 400
MINUTE = 60_000
DAY = 24 * 60 * MINUTE


def now() -> int:
    """Return milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


async def fill(store: Any, count: int) -> list[bytes]:
    """Create sessions and return their IDs; every second one expires after 30 minutes."""
    from sojourn.record import Record, pack_body

    data = {key: msgspec.msgpack.encode(value) for key, value in SMALL.items()}
    body = pack_body(None, {}, data)
    seen, random_bytes = now(), random.randbytes
    ids: list[bytes] = []
    for start in range(0, count, CREATE_BATCH):
        records = [
            Record(
                id=random_bytes(16),
                version=1,
                seen_at=seen,
                created_at=seen,
                absolute_at=seen + 7 * DAY,
                idle_timeout=30 * MINUTE if n % 2 else DAY,
                verifier=random_bytes(32),
                body=body,
            )
            for n in range(start, min(start + CREATE_BATCH, count))
        ]
        if not all(await asyncio.gather(*map(store.create, records))):
            raise AssertionError("expected new IDs, found one that is taken")
        ids.extend(record.id for record in records)
    return ids


async def time_calls(store: Any, ids: list[bytes]) -> dict[str, list[float]]:
    """Return p50 and p99, in microseconds, of loads and of saves of random sessions."""
    from sojourn.store import SAVED

    reads, writes = [], []
    freeze_heap()
    for session_id in random.choices(ids, k=SAMPLES):
        started = time.perf_counter_ns()
        record = await store.load(session_id)
        reads.append(time.perf_counter_ns() - started)
        changed = msgspec.structs.replace(record, version=record.version + 1)
        started = time.perf_counter_ns()
        answer = await store.save(changed, record.version)
        writes.append(time.perf_counter_ns() - started)
        if answer is not SAVED:
            raise AssertionError(f"save answered {answer!r}")
    return {"read": percentiles(reads), "write": percentiles(writes)}


def percentiles(nanoseconds: list[int]) -> list[float]:
    """Return p50 and p99 in microseconds."""
    cuts = quantiles(nanoseconds, n=100)
    return [cuts[49] / 1000, cuts[98] / 1000]


class Traffic:
    """Requests to an application at a fixed rate, every second one a write."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._scopes: list[tuple[Scope, Scope]] = []
        self._stopping = False

    async def create_sessions(self) -> None:
        """Create the session of each client."""
        for _ in range(CLIENTS):
            exchange = Exchange()
            seed = make_scope("/seed", None)
            await self._app({**seed, "state": {}}, exchange.receive, exchange.send)
            cookie = exchange.cookie()
            self._scopes.append((make_scope("/read", cookie), make_scope("/write", cookie)))

    async def run_during(self, work: Any) -> tuple[Any, list[int]]:
        """Send requests until an awaitable is done; return its result and the latencies."""
        latencies: list[int] = []
        self._stopping = False
        start = time.perf_counter_ns()
        interval = 1_000_000_000 * CLIENTS // REQUESTS_PER_SECOND
        clients = [
            asyncio.ensure_future(
                self._client(scopes, start + interval * n // CLIENTS, interval, latencies)
            )
            for n, scopes in enumerate(self._scopes)
        ]
        result = await work
        self._stopping = True
        await asyncio.gather(*clients)
        return result, latencies

    async def _client(
        self, scopes: tuple[Scope, Scope], due: int, interval: int, latencies: list[int]
    ) -> None:
        exchange, turn = Exchange(), 0
        while not self._stopping:
            # A timer that fires late counts as latency: the loop was busy, so the visitor waits.
            await asyncio.sleep(max(0.0, (due - time.perf_counter_ns()) / 1e9))
            scope = scopes[turn]
            await self._app({**scope, "state": {}}, exchange.receive, exchange.send)
            latencies.append(time.perf_counter_ns() - due)
            due, turn = due + interval, 1 - turn


async def measure(path: Path, sessions: int) -> dict[str, Any]:
    """Fill the store, time its calls, let half expire, purge it under load; return all figures."""
    import sojourn

    clock_offset = 0
    app = starlette_app(session_handlers())
    installed: Any = sojourn.install(
        app,
        store=f"sqlite:///{path}",
        secret=SECRET,
        timeout="12 hours",
        clock=lambda: now() + clock_offset,
    )
    store = installed.store
    ids = await fill(store, SMALL_COUNT)
    few = await time_calls(store, ids)
    started = time.perf_counter()
    ids += await fill(store, sessions - SMALL_COUNT)
    filling = time.perf_counter() - started
    many = await time_calls(store, ids)
    traffic = Traffic(app)
    await traffic.create_sessions()
    freeze_heap()
    _, calm = await traffic.run_during(asyncio.sleep(5))
    clock_offset = 60 * MINUTE
    started = time.perf_counter()
    removed, purging = await traffic.run_during(installed.apurge())
    seconds = time.perf_counter() - started
    left = await installed.acount()
    installed.close()
    return {
        "few": few,
        "many": many,
        "created_per_second": (sessions - SMALL_COUNT) / filling,
        "removed": removed,
        "left": left,
        "purge_seconds": seconds,
        "calm": percentiles(calm),
        "purging": percentiles(purging),
        "requests": len(purging),
    }


def show(figures: dict[str, Any], sessions: int) -> str:
    """Return the figures as two tables and a summary."""
    rows = []
    for verb in ("read", "write"):
        few, many = figures["few"][verb], figures["many"][verb]
        ratio = many[0] / few[0]
        rows.append(
            [verb, *(f"{v:.1f}" for v in (*few, *many)), f"{ratio:.2f}", _verdict(ratio, 2)]
        )
    calls = tables.table(
        [
            "µs",
            f"{SMALL_COUNT:,}: p50",
            "p99",
            f"{sessions:,}: p50",
            "p99",
            "p50 ratio",
            "at most 2",
        ],
        rows,
    )
    p99 = figures["purging"][1] / 1000
    requests = tables.table(
        ["ms of a request", "p50", "p99", "p99 at most 10"],
        [
            ["calm", *(f"{value / 1000:.2f}" for value in figures["calm"]), ""],
            ["while purging", *(f"{v / 1000:.2f}" for v in figures["purging"]), _verdict(p99, 10)],
        ],
    )
    summary = (
        f"Purged {figures['removed']:,} sessions in {figures['purge_seconds']:.1f} s while "
        f"{figures['requests']:,} requests were served, every second one a write; "
        f"{figures['left']:,} are left. The file has {figures['megabytes']:.0f} MB; "
        f"{figures['created_per_second']:,.0f} sessions were created in a second."
    )
    return "\n\n".join(["\n".join(machine.describe()), calls, requests, summary])


def _verdict(measured: float, bound: float) -> str:
    return "holds" if measured <= bound else "**missed**"


def main() -> None:
    """Measure in a temporary folder, print the tables and, with `--json`, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sessions.db"
        figures = run(measure(path, arguments.sessions))
        figures["megabytes"] = path.stat().st_size / 1e6
    tables.write_json(arguments.json, figures)
    print(show(figures, arguments.sessions))


if __name__ == "__main__":
    main()
