"""Throughput and latency under uvicorn: `python -m benchmarks.throughput`.

Every server is started once and pinned to one core; the load generator, this process, is pinned
to another. All servers are measured in turn, round after round, in an order that moves on; a
figure is the median over the rounds of (candidate over its baseline in the same round). Then each
is loaded at half of its own throughput for the latencies. How the load is made: load.py.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import report
from benchmarks.candidates import Candidate, choose
from benchmarks.driving import run
from benchmarks.load import Visitor, arrive, measure
from benchmarks.server import pin

PATHS = ("/read", "/write")
PERCENTILES = (50.0, 99.0, 99.9)


@dataclass(slots=True)
class Figures:
    """What one server did with one path.

    Attributes:
        per_second: median of its rounds.
        ratio: median of its rounds against the baseline's; 1 for a baseline.
        full: latencies in milliseconds in the closed loop, at the percentiles.
        paced: the same at half of its throughput.
    """

    per_second: float = 0.0
    ratio: float = 1.0
    full: list[float] = field(default_factory=list)
    paced: list[float] = field(default_factory=list)


def cores() -> tuple[int | None, int | None]:
    """Return a core for the servers and one for the load; None where there are no two to pin."""
    available = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (available[0], available[1]) if len(available) > 1 else (None, None)


@contextmanager
def served(candidate: Candidate, folder: Path, core: int | None) -> Iterator[int]:
    """Run a candidate's server in a process of its own; yield its port."""
    command = [sys.executable, "-m", "benchmarks.server", candidate.name, str(folder)]
    if core is not None:
        command += ["--core", str(core)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.stdout.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def at_percentiles(latencies: array[int]) -> list[float]:
    """Return the latencies at the percentiles, from sorted nanoseconds to milliseconds."""
    last = len(latencies) - 1
    return [latencies[min(last, int(len(latencies) * p / 100))] / 1e6 for p in PERCENTILES]


async def compare(
    candidates: tuple[Candidate, ...], *, rounds: int, seconds: float, paced_seconds: float
) -> dict[str, dict[str, Figures]]:
    """Measure all candidates; return their figures by name and path."""
    server_core, load_core = cores()
    pin(load_core)
    figures = {c.name: {path: Figures() for path in PATHS} for c in candidates}
    speeds: dict[tuple[str, str], list[float]] = {(c.name, p): [] for c in candidates for p in PATHS}
    taken: dict[tuple[str, str], array[int]] = {key: array("q") for key in speeds}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ready: list[tuple[Candidate, list[Visitor]]] = []
        for candidate in candidates:
            own = folder / candidate.name
            own.mkdir(mode=0o700)
            port = stack.enter_context(served(candidate, own, server_core))
            ready.append((candidate, await arrive(port, remembers=candidate.remembers)))
        # 1. Closed loop: throughput.
        for _ in range(rounds):
            for path in PATHS:
                for candidate, visitors in ready:
                    one = await measure(
                        *(visitors, path),
                        seconds=seconds,
                        rate=None,
                        remembers=candidate.remembers,
                    )
                    speeds[candidate.name, path].append(one.per_second)
                    taken[candidate.name, path].extend(one.latencies)
            ready.append(ready.pop(0))
        for (name, path), latencies in taken.items():
            figures[name][path].full = at_percentiles(array("q", sorted(latencies)))
            figures[name][path].per_second = median(speeds[name, path])
        # 2. Half of each one's throughput, in two stretches some time apart: latencies.
        paced: dict[tuple[str, str], array[int]] = {key: array("q") for key in speeds}
        for _ in range(2):
            for path in PATHS:
                for candidate, visitors in ready:
                    one = await measure(
                        *(visitors, path),
                        seconds=paced_seconds / 2,
                        rate=figures[candidate.name][path].per_second / 2,
                        remembers=candidate.remembers,
                    )
                    paced[candidate.name, path].extend(one.latencies)
        for (name, path), latencies in paced.items():
            figures[name][path].paced = at_percentiles(array("q", sorted(latencies)))
    for candidate in candidates:
        if candidate.baseline is not None:
            for path in PATHS:
                pairs = zip(
                    speeds[candidate.name, path], speeds[candidate.baseline, path], strict=True
                )
                figures[candidate.name][path].ratio = median(mine / bare for mine, bare in pairs)
    return figures


def main() -> None:
    """Measure, print tables and, with `--json`, keep the figures for RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="candidates, comma-separated (default: all)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each stretch")
    parser.add_argument("--paced-seconds", type=float, default=6.0, help="at half throughput")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    candidates = choose(arguments.only, frozen=True)
    figures = run(
        compare(
            candidates,
            rounds=arguments.rounds,
            seconds=arguments.seconds,
            paced_seconds=arguments.paced_seconds,
        )
    )
    plain = {name: {p: asdict(f) for p, f in paths.items()} for name, paths in figures.items()}
    report.keep(arguments.json, plain)
    print(report.throughput_table(candidates, plain))
    print()
    print(report.latency_table(candidates, plain))


if __name__ == "__main__":
    main()
