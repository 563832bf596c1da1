"""CPU time that a session adds to a request, in process: `python -m benchmarks.cpu_time`.

All applications live in one process and are measured in turn, round after round. A figure is the
median over the rounds of (candidate minus its baseline in the same round), so that a disturbance of
the machine hits both. CPU time excludes waiting: a store's own thread is counted, its disk is not.
The garbage collector runs; the objects of the start-up are frozen (`asgi_client.freeze_heap`).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from benchmarks import tables
from benchmarks.asgi_client import CLIENTS, KINDS, ASGIClients, freeze_heap, kinds_of, lifespan, run
from benchmarks.candidates import IN_PROCESS, Candidate, select

CPUTimes = dict[str, dict[str, float]]
"""Candidate name, then kind of request, to microseconds over the baseline; a baseline's in full."""


async def measure(candidates: Sequence[Candidate], *, rounds: int, requests: int) -> CPUTimes:
    """Measure every candidate `rounds` times, about `requests` requests of each kind a time."""
    per_client = max(1, requests // CLIENTS)
    samples: dict[str, dict[str, list[float]]] = {}
    async with AsyncExitStack() as stack:
        parent = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        all_clients = []
        for candidate in candidates:
            directory = parent / candidate.name
            directory.mkdir(mode=0o700)
            app = candidate.build(directory)
            await stack.enter_async_context(lifespan(app))
            clients = ASGIClients(candidate, app)
            await clients.prepare(kinds_of(candidate))
            all_clients.append(clients)
            samples[candidate.name] = {kind: [] for kind in kinds_of(candidate)}
        freeze_heap()
        for _ in range(rounds):
            for kind in KINDS:
                for clients in all_clients:
                    if kind in clients.scopes:
                        cost = await clients.cpu_microseconds(kind, per_client)
                        samples[clients.candidate.name][kind].append(cost)
            all_clients.append(all_clients.pop(0))
    return {candidate.name: _over_baseline(candidate, samples) for candidate in candidates}


def _over_baseline(
    candidate: Candidate, samples: dict[str, dict[str, list[float]]]
) -> dict[str, float]:
    own = samples[candidate.name]
    if candidate.baseline is None:
        return {kind: median(values) for kind, values in own.items()}
    base = samples[candidate.baseline]
    return {
        kind: median(mine - bare for mine, bare in zip(values, base[kind], strict=True))
        for kind, values in own.items()
    }


def main() -> None:
    """Measure, print a table and, with `--json`, write the figures for RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="candidates, comma-separated (default: all)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=1600, help="of each kind in each round")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    candidates = select(arguments.only, IN_PROCESS)
    figures: CPUTimes = run(
        measure(candidates, rounds=arguments.rounds, requests=arguments.requests)
    )
    tables.write_json(arguments.json, figures)
    print(tables.cpu_time_table(candidates, figures))


if __name__ == "__main__":
    main()
