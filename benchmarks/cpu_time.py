"""CPU time that a session adds to a request, in process: `python -m benchmarks.cpu_time`.

All applications live in one process and are measured in turn, round after round; a figure is the
median over the rounds of (candidate minus its baseline in the same round), so that what the
machine does meanwhile hits both. CPU time, not waiting: a store's own thread is counted, its disk
is not. The collector runs; what was set up before is frozen (`driving.settle`).
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from benchmarks import tables as report
from benchmarks.asgi_client import CLIENTS, KINDS, Driver, kinds_of, lifespan, run, settle
from benchmarks.candidates.starlette import Candidate, choose

Costs = dict[str, dict[str, float]]
"""Candidate name, then kind of request, to microseconds; of a baseline: all that it takes."""


async def measure(candidates: tuple[Candidate, ...], *, rounds: int, requests: int) -> Costs:
    """Measure every candidate `rounds` times, about `requests` requests of each kind a time."""
    each = max(1, requests // CLIENTS)
    taken: dict[str, dict[str, list[float]]] = {}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        drivers = []
        for candidate in candidates:
            own = folder / candidate.name
            own.mkdir(mode=0o700)
            app = candidate.build(own)
            await stack.enter_async_context(lifespan(app))
            driver = Driver(candidate, app)
            await driver.prepare()
            drivers.append(driver)
            taken[candidate.name] = {kind: [] for kind in kinds_of(candidate)}
        settle()
        for _ in range(rounds):
            for kind in KINDS:
                for driver in drivers:
                    if kind in driver.scopes:
                        cost = await driver.cpu_microseconds(kind, each)
                        taken[driver.candidate.name][kind].append(cost)
            drivers.append(drivers.pop(0))
    return {candidate.name: _over_baseline(candidate, taken) for candidate in candidates}


def _over_baseline(
    candidate: Candidate, taken: dict[str, dict[str, list[float]]]
) -> dict[str, float]:
    own = taken[candidate.name]
    if candidate.baseline is None:
        return {kind: median(values) for kind, values in own.items()}
    base = taken[candidate.baseline]
    return {
        kind: median(mine - bare for mine, bare in zip(values, base[kind], strict=True))
        for kind, values in own.items()
    }


def main() -> None:
    """Measure, print a table and, with `--json`, keep the figures for RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="candidates, comma-separated (default: all)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=1600, help="of each kind in each round")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    candidates = choose(arguments.only)
    costs: Costs = run(measure(candidates, rounds=arguments.rounds, requests=arguments.requests))
    report.keep(arguments.json, costs)
    print(report.costs_table(candidates, costs))


if __name__ == "__main__":
    main()
