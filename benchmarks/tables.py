"""Markdown tables of the figures, and the JSON in which the commands pass figures on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.candidates import Candidate

ABSENT = "-"


def write_json(path: Path | None, figures: Any) -> None:
    """Write figures as JSON to a file; do nothing without a path."""
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


def cpu_time_table(
    candidates: Sequence[Candidate], figures: Mapping[str, Mapping[str, float]]
) -> str:
    """Return the table of cpu_time.py: microseconds, in full for baselines, else added."""
    header = ["CPU µs of a request", "anonymous", "read", "write", "read of 20 kB"]
    return table(header, (_kinds_row(c, figures[c.name]) for c in candidates))


def instructions_table(
    candidates: Sequence[Candidate], counts: Mapping[str, Mapping[str, float]]
) -> str:
    """Return the table of instructions.py, in thousands."""
    header = ["thousand instructions of a request", "anonymous", "read", "write", "read of 20 kB"]
    thousands = {
        name: {kind: value / 1000 for kind, value in kinds.items()}
        for name, kinds in counts.items()
    }
    return table(header, (_kinds_row(c, thousands[c.name]) for c in candidates))


def _kinds_row(candidate: Candidate, values: Mapping[str, float]) -> list[str]:
    sign = "" if candidate.baseline is None else "+"
    kinds = ("anonymous", "read", "write", "large")
    cells = [f"{values[kind]:{sign}.1f}" if kind in values else ABSENT for kind in kinds]
    return [candidate.title, *cells]


def group_by_server(candidates: Sequence[Candidate]) -> dict[str, tuple[Candidate, ...]]:
    """Return the candidates of each server, in their order."""
    servers = dict.fromkeys(candidate.server for candidate in candidates)
    return {server: tuple(c for c in candidates if c.server == server) for server in servers}


def throughput_tables(
    candidates: Sequence[Candidate], figures: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> str:
    """Return a table for each server."""
    groups = group_by_server(candidates).items()
    return "\n\n".join(_throughput_table(server, group, figures) for server, group in groups)


def _throughput_table(
    server: str,
    candidates: Sequence[Candidate],
    figures: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> str:
    """Return requests per second and the shares, for reading and writing."""
    shares = any(candidate.least_layer is not None for candidate in candidates)
    header = [f"under {server}"]
    for path in ("read", "write"):
        header += [f"{path} /s", "of bare", *(["of least layer"] if shares else [])]
    rows = []
    for candidate in candidates:
        cells = [candidate.title]
        for path in ("/read", "/write"):
            one = figures[candidate.name][path]
            share = "1" if candidate.baseline is None else f"{one['share_of_bare']:.2f}"
            cells += [f"{one['per_second']:,.0f}", share]
            if shares:
                least = one["share_of_least_layer"]
                cells.append("" if least is None else f"{least:.2f}")
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
        for load in ("half_load", "full_load"):
            for path in ("/read", "/write"):
                values = figures[candidate.name][path][load]
                cells.append(" / ".join(f"{value:.2f}" for value in values))
        rows.append(cells)
    return table(header, rows)
