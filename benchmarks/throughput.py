"""Throughput and latency under uvicorn and gunicorn: `python -m benchmarks.throughput`.

Every server is started once and pinned to one core; the load generator, this process, is pinned to
another. All servers of a kind are measured in turn, round after round, in rotating order. A share
is the median over the rounds of (candidate over its reference in the same round). Then each server
is loaded at half of its own throughput for the latencies.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from array import array
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import tables
from benchmarks.asgi_client import run
from benchmarks.candidates import ALL, Candidate, select
from benchmarks.candidates.candidate import POSTGRESQL_URL_VARIABLE, VALKEY_URL_VARIABLE
from benchmarks.cpu_idle import no_idle_states
from benchmarks.load_generator import Visitor, connect, measure
from benchmarks.processes import choose_cores, run_postgresql, run_server, run_valkey
from benchmarks.server import pin

PATHS = ("/read", "/write")
PERCENTILES = (50.0, 99.0, 99.9)


@dataclass(slots=True)
class Figures:
    """The figures of one server and one path.

    Attributes:
        rounds: requests per second in each round.
        per_second: their median.
        share_of_bare: median of its rounds over the baseline's; 1 for a baseline.
        share_of_least_layer: median of its rounds over the least layer's; None without one.
        full_load: latencies in milliseconds in the closed loop, at `PERCENTILES`.
        half_load: the same at half of its throughput.
    """

    rounds: list[float] = field(default_factory=list)
    per_second: float = 0.0
    share_of_bare: float = 1.0
    share_of_least_layer: float | None = None
    full_load: list[float] = field(default_factory=list)
    half_load: list[float] = field(default_factory=list)


def median_ratio(own: Sequence[float], reference: Sequence[float]) -> float:
    """Return the median of the ratios of each round."""
    return median(mine / other for mine, other in zip(own, reference, strict=True))


def at_percentiles(latencies: array[int]) -> list[float]:
    """Return the latencies at `PERCENTILES`, from sorted nanoseconds to milliseconds."""
    last = len(latencies) - 1
    return [latencies[min(last, int(len(latencies) * p / 100))] / 1e6 for p in PERCENTILES]


class Measurement:
    """All servers and their visitors, measured in turn."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._candidates = candidates
        self._running: list[tuple[Candidate, list[Visitor]]] = []
        self.figures = {c.name: {path: Figures() for path in PATHS} for c in candidates}

    async def start(self, stack: AsyncExitStack) -> None:
        """Start every server and connect its visitors; the stack stops them."""
        server_core, load_core = choose_cores()
        pin(load_core)
        parent = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if any(candidate.needs_valkey for candidate in self._candidates):
            os.environ[VALKEY_URL_VARIABLE] = stack.enter_context(run_valkey(parent, load_core))
        if any(candidate.needs_postgresql for candidate in self._candidates):
            server = stack.enter_context(run_postgresql(load_core))
            os.environ[POSTGRESQL_URL_VARIABLE] = server
        for candidate in self._candidates:
            directory = parent / candidate.name
            directory.mkdir(mode=0o700)
            port = stack.enter_context(run_server(candidate, directory, server_core))
            visitors = await connect(port, keeps_values=candidate.keeps_values)
            self._running.append((candidate, visitors))

    async def measure_full_load(self, rounds: int, seconds: float) -> None:
        """Measure throughput in a closed loop."""
        latencies = self._no_latencies()
        for _ in range(rounds):
            for path in PATHS:
                for candidate, visitors in self._running:
                    result = await measure(
                        visitors,
                        path,
                        seconds=seconds,
                        rate=None,
                        keeps_values=candidate.keeps_values,
                    )
                    self.figures[candidate.name][path].rounds.append(result.per_second)
                    latencies[candidate.name][path].extend(result.latencies)
            self._running.append(self._running.pop(0))
        for candidate in self._candidates:
            for path, figures in self.figures[candidate.name].items():
                all_latencies = array("q", sorted(latencies[candidate.name][path]))
                figures.full_load = at_percentiles(all_latencies)
                figures.per_second = median(figures.rounds)
                if candidate.baseline is not None:
                    figures.share_of_bare = self._share(figures, candidate.baseline, path)
                if candidate.least_layer is not None:
                    least = self._share(figures, candidate.least_layer, path)
                    figures.share_of_least_layer = least

    async def measure_half_load(self, seconds: float) -> None:
        """Measure latencies at half of each server's throughput, in two separate stretches."""
        latencies = self._no_latencies()
        for _ in range(2):
            for path in PATHS:
                for candidate, visitors in self._running:
                    result = await measure(
                        visitors,
                        path,
                        seconds=seconds / 2,
                        rate=self.figures[candidate.name][path].per_second / 2,
                        keeps_values=candidate.keeps_values,
                    )
                    latencies[candidate.name][path].extend(result.latencies)
        for name, by_path in latencies.items():
            for path, values in by_path.items():
                self.figures[name][path].half_load = at_percentiles(array("q", sorted(values)))

    def _no_latencies(self) -> dict[str, dict[str, array[int]]]:
        return {c.name: {path: array("q") for path in PATHS} for c in self._candidates}

    def _share(self, figures: Figures, reference: str, path: str) -> float:
        return median_ratio(figures.rounds, self.figures[reference][path].rounds)


async def measure_all(
    candidates: Sequence[Candidate], *, rounds: int, seconds: float, half_load_seconds: float
) -> dict[str, dict[str, Figures]]:
    """Measure all candidates; return their figures by name and path."""
    async with AsyncExitStack() as stack:
        stack.enter_context(no_idle_states())
        measurement = Measurement(candidates)
        await measurement.start(stack)
        await measurement.measure_full_load(rounds, seconds)
        await measurement.measure_half_load(half_load_seconds)
        return measurement.figures


def main() -> None:
    """Measure, print tables and, with `--json`, write the figures for RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="candidates, comma-separated (default: all)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.25, help="of each stretch")
    parser.add_argument("--half-load-seconds", type=float, default=3.0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    candidates = select(arguments.only, ALL)
    figures: dict[str, dict[str, Figures]] = {}
    # ASGI and WSGI apart, so that a candidate and its baseline are measured within seconds.
    for group in tables.group_by_server(candidates).values():
        figures |= run(
            measure_all(
                group,
                rounds=arguments.rounds,
                seconds=arguments.seconds,
                half_load_seconds=arguments.half_load_seconds,
            )
        )
    plain = {name: {p: asdict(f) for p, f in paths.items()} for name, paths in figures.items()}
    tables.write_json(arguments.json, plain)
    print(tables.throughput_tables(candidates, plain))
    print()
    print(tables.latency_table(candidates, plain))


if __name__ == "__main__":
    main()
