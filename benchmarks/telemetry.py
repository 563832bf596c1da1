"""The cost of telemetry: `make bench-telemetry`.

sojourn over memory and over Valkey, without telemetry and with each kind of it, served at the same
time, pinned to one core and loaded in turn. A share is the median over the rounds of (with
telemetry over without, in the same round). `--quick` takes short measurements and does not write.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks import machine, results, tables
from benchmarks.__main__ import RESULTS
from benchmarks.asgi_client import run
from benchmarks.candidates import find
from benchmarks.candidates.candidate import VALKEY_URL_VARIABLE
from benchmarks.candidates.telemetry import (
    METERS,
    OFF,
    PROMETHEUS,
    SAMPLED_SPANS,
    SPANS,
    TELEMETRY_VARIABLE,
)
from benchmarks.cpu_idle import no_idle_states
from benchmarks.load_generator import Visitor, connect, measure
from benchmarks.processes import choose_cores, run_server, run_valkey
from benchmarks.server import pin
from benchmarks.throughput import PATHS, median_ratio

STORES = ("sojourn-memory", "sojourn-valkey")
GOAL = 0.92
"""The least share of the throughput without telemetry that Prometheus may leave."""

PROCESSES = "prometheus processes"

TITLES = {
    OFF: "off",
    PROMETHEUS: "Prometheus",
    PROCESSES: "Prometheus, `PROMETHEUS_MULTIPROC_DIR`",
    METERS: "OpenTelemetry, meters",
    SPANS: "OpenTelemetry, meters and spans",
    SAMPLED_SPANS: "OpenTelemetry, meters and spans of a tenth of the traces",
}

_CAPTION = """\
48 connections in a closed loop, each with its own session, under uvicorn: requests per second, and
their share of those without telemetry. Metrics are collected in memory, spans are exported in
batches to nowhere; the application has no other telemetry. Goal: Prometheus leaves 92 %."""

_PACKAGES = ("starlette", "uvicorn", "uvloop", "prometheus-client", "opentelemetry-sdk")

Rounds = dict[tuple[str, str, str], list[float]]
"""Store, kind of telemetry and path, to requests per second in each round."""


def environment(kind: str, directory: Path) -> Mapping[str, str]:
    """Return the environment of a server."""
    if kind == PROCESSES:
        shared = {"PROMETHEUS_MULTIPROC_DIR": str(directory)}
        return {**os.environ, TELEMETRY_VARIABLE: PROMETHEUS, **shared}
    return {**os.environ, TELEMETRY_VARIABLE: kind}


@contextmanager
def running(stores: Sequence[str]) -> Iterator[dict[tuple[str, str], int]]:
    """Run a server for each store and kind; yield their ports."""
    server_core, load_core = choose_cores()
    pin(load_core)
    with ExitStack() as stack:
        stack.enter_context(no_idle_states())
        parent = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ[VALKEY_URL_VARIABLE] = stack.enter_context(run_valkey(parent, load_core))
        ports = {}
        for store in stores:
            for number, kind in enumerate(TITLES):
                directory = parent / f"{store}-{number}"
                directory.mkdir(mode=0o700)
                ports[store, kind] = stack.enter_context(
                    run_server(find(store), directory, server_core, environment(kind, directory))
                )
        yield ports


async def measure_all(
    ports: Mapping[tuple[str, str], int], *, rounds: int, seconds: float
) -> Rounds:
    """Measure the servers of each store in turn."""
    visitors: dict[tuple[str, str], list[Visitor]] = {
        key: await connect(port, keeps_values=True) for key, port in ports.items()
    }
    found: Rounds = {(*key, path): [] for key in ports for path in PATHS}
    order = list(visitors)
    for _ in range(rounds):
        for path in PATHS:
            for key in order:
                result = await measure(
                    visitors[key], path, seconds=seconds, rate=None, keeps_values=True
                )
                found[(*key, path)].append(result.per_second)
        order.append(order.pop(0))
    return found


def rows(found: Rounds, store: str) -> list[list[str]]:
    """Return the rows of the table of one store."""
    table = []
    for kind, title in TITLES.items():
        cells = [title]
        for path in PATHS:
            share = median_ratio(found[store, kind, path], found[store, OFF, path])
            cells += [f"{median(found[store, kind, path]):,.0f}", f"{share:.1%}"]
        table.append(cells)
    return table


def find_misses(found: Rounds) -> list[str]:
    """Return a sentence for each share of Prometheus that misses the goal."""
    return [
        f"{find(store).title}, {path}: Prometheus leaves {share:.1%}, goal {GOAL:.0%}"
        for store, kind, path in found
        if kind == PROMETHEUS
        and (share := median_ratio(found[store, kind, path], found[store, OFF, path])) < GOAL
    ]


def render(found: Rounds, stores: Sequence[str], *, warning: str) -> str:
    """Return the section of RESULTS.md."""
    parts = [
        results.TELEMETRY_BEGIN,
        "## Telemetry",
        "\n".join(machine.describe(_PACKAGES)),
        *([f"**{warning}**"] if warning else []),
        _CAPTION,
    ]
    for store in stores:
        header = [find(store).title, "read/s", "of off", "write/s", "of off"]
        parts.append(tables.table(header, rows(found, store)))
    parts.append("\n".join(f"* Goal missed: {miss}" for miss in find_misses(found)))
    return "\n\n".join(filter(None, parts))


def main() -> None:
    """Measure, print the section, and write it unless the run was short."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.25, help="of each stretch")
    parser.add_argument("--quick", action="store_true", help="a rough answer; does not write")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = min(arguments.rounds, 5), 0.1
    warning = machine.describe_load()
    with running(STORES) as ports:
        found = run(measure_all(ports, rounds=arguments.rounds, seconds=arguments.seconds))
    section = render(found, STORES, warning=warning)
    print(section)
    if not arguments.quick:
        RESULTS.write_text(results.with_sections(RESULTS.read_text(), section))
        print(f"written to benchmarks/{RESULTS.name}")


if __name__ == "__main__":
    main()
