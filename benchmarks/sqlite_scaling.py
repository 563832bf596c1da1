"""SQLite with a million sessions: `python -m benchmarks.sqlite_scaling`.

Two questions. Does a load or a save grow slower with the number of sessions? The store's own calls
are timed one by one on random sessions, at 10,000 and at 1,000,000. Does removing the expired get
in the way? Half of the million expires, at once, and is purged in the process that serves requests
through the ASGI application meanwhile; each request is due at a fixed instant and its latency
counts from there, so that a stall is felt by all that were due during it.

The file is on the disk of the temporary folder, about 450 MB. `--sessions` makes it smaller.
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

FEW = 10_000
AT_ONCE = 500
SAMPLES = 20_000
CLIENTS = 16
REQUESTS_PER_SECOND = 400
MINUTE = 60_000
DAY = 24 * 60 * MINUTE


def now() -> int:
    """Return milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


async def fill(store: Any, count: int) -> list[bytes]:
    """Create so many sessions; every second one has an idle timeout of 30 minutes, not a day."""
    from sojourn.record import Record, pack_body

    data = {key: msgspec.msgpack.encode(value) for key, value in SMALL.items()}
    body = pack_body(None, {}, data)
    seen, random_bytes = now(), random.randbytes
    ids: list[bytes] = []
    for start in range(0, count, AT_ONCE):
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
            for n in range(start, min(start + AT_ONCE, count))
        ]
        if not all(await asyncio.gather(*map(store.create, records))):
            raise AssertionError("a new ID was taken")
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
        self._ending = False

    async def arrive(self) -> None:
        """Give each client its session."""
        for _ in range(CLIENTS):
            exchange = Exchange()
            seed = make_scope("/seed", None)
            await self._app({**seed, "state": {}}, exchange.receive, exchange.send)
            cookie = exchange.cookie()
            self._scopes.append((make_scope("/read", cookie), make_scope("/write", cookie)))

    async def until(self, work: Any) -> tuple[Any, list[int]]:
        """Keep requests coming until some other work is done; return its result, then latencies."""
        latencies: list[int] = []
        self._ending = False
        start = time.perf_counter_ns()
        interval = 1_000_000_000 * CLIENTS // REQUESTS_PER_SECOND
        clients = [
            asyncio.ensure_future(
                self._client(scopes, start + interval * n // CLIENTS, interval, latencies)
            )
            for n, scopes in enumerate(self._scopes)
        ]
        result = await work
        self._ending = True
        await asyncio.gather(*clients)
        return result, latencies

    async def _client(
        self, scopes: tuple[Scope, Scope], due: int, interval: int, latencies: list[int]
    ) -> None:
        exchange, turn = Exchange(), 0
        while not self._ending:
            # A timer that fires late counts as latency: the loop was busy, so a visitor waits.
            await asyncio.sleep(max(0.0, (due - time.perf_counter_ns()) / 1e9))
            scope = scopes[turn]
            await self._app({**scope, "state": {}}, exchange.receive, exchange.send)
            latencies.append(time.perf_counter_ns() - due)
            due, turn = due + interval, 1 - turn


async def measure(path: Path, sessions: int) -> dict[str, Any]:
    """Fill, time, expire, purge; return all figures."""
    import sojourn

    ahead = 0
    app = starlette_app(session_handlers())
    installed: Any = sojourn.install(
        app,
        store=f"sqlite:///{path}",
        secret=SECRET,
        timeout="12 hours",
        clock=lambda: now() + ahead,
    )
    store = installed.store
    ids = await fill(store, FEW)
    few = await time_calls(store, ids)
    started = time.perf_counter()
    ids += await fill(store, sessions - FEW)
    filling = time.perf_counter() - started
    many = await time_calls(store, ids)
    traffic = Traffic(app)
    await traffic.arrive()
    freeze_heap()
    _, calm = await traffic.until(asyncio.sleep(5))
    ahead = 60 * MINUTE
    started = time.perf_counter()
    removed, purging = await traffic.until(installed.apurge())
    seconds = time.perf_counter() - started
    left = await installed.acount()
    installed.close()
    return {
        "few": few,
        "many": many,
        "created_per_second": (sessions - FEW) / filling,
        "removed": removed,
        "left": left,
        "purge_seconds": seconds,
        "calm": percentiles(calm),
        "purging": percentiles(purging),
        "requests": len(purging),
    }


def show(found: dict[str, Any], sessions: int) -> str:
    """Return the figures as two tables and a sentence for each thing that was asked."""
    rows = []
    for verb in ("read", "write"):
        few, many = found["few"][verb], found["many"][verb]
        ratio = many[0] / few[0]
        rows.append(
            [verb, *(f"{v:.1f}" for v in (*few, *many)), f"{ratio:.2f}", _verdict(ratio, 2)]
        )
    calls = tables.table(
        ["µs", f"{FEW:,}: p50", "p99", f"{sessions:,}: p50", "p99", "p50 ratio", "at most 2"], rows
    )
    p99 = found["purging"][1] / 1000
    requests = tables.table(
        ["ms of a request", "p50", "p99", "p99 at most 10"],
        [
            ["calm", *(f"{value / 1000:.2f}" for value in found["calm"]), ""],
            ["while purging", *(f"{v / 1000:.2f}" for v in found["purging"]), _verdict(p99, 10)],
        ],
    )
    summary = (
        f"Purged {found['removed']:,} sessions in {found['purge_seconds']:.1f} s while "
        f"{found['requests']:,} requests were served, every second one a write; "
        f"{found['left']:,} are left. The file has {found['megabytes']:.0f} MB; "
        f"{found['created_per_second']:,.0f} sessions were created in a second."
    )
    return "\n\n".join(["\n".join(machine.describe()), calls, requests, summary])


def _verdict(found: float, goal: float) -> str:
    return "reached" if found <= goal else "**missed**"


def main() -> None:
    """Measure in a temporary folder, print the tables and, with `--json`, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sessions.db"
        found = run(measure(path, arguments.sessions))
        found["megabytes"] = path.stat().st_size / 1e6
    tables.write_json(arguments.json, found)
    print(show(found, arguments.sessions))


if __name__ == "__main__":
    main()
