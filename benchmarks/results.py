"""The page RESULTS.md as a function of the figures."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from benchmarks import goals, machine, merging, tables, valkey_memory
from benchmarks.candidates import ALL, IN_PROCESS
from benchmarks.valkey_memory import Memory

Figures = Mapping[str, Mapping[str, Any]]

FRAMEWORKS_BEGIN = "<!-- frameworks: written by `make bench-frameworks` -->"
POSTGRESQL_BEGIN = "<!-- postgresql: written by `make bench-postgresql` -->"

TELEMETRY_BEGIN = "<!-- telemetry: written by `make bench-telemetry` -->"

SECTIONS = (FRAMEWORKS_BEGIN, POSTGRESQL_BEGIN, TELEMETRY_BEGIN)
"""The first lines of the parts that other commands write, in their order at the end of the page."""

_INTRODUCTION = """\
# Results

Written by `make bench`; do not edit. [README.md](README.md) describes the method. Ratios and
differences within this page are reliable; absolute figures belong to this machine.
"""

_CAPTION = """\
Rows with "+" show what the session adds to the application without sessions; the rows of those
applications show the whole request. µs: CPU time in process. k: thousand instructions in process.
"""

_SHARES = """\
48 connections in a closed loop, each with its own session. "Of bare": share of the same application
without sessions (Litestar of Litestar, FastAPI of FastAPI, tuned of tuned). "Of least layer": share
of the least layer over the same store.
"""

_LOADS = """\
Half load: requests at a fixed rate, half of what the server can do, each counted from the instant
it was due. Full load: a closed loop of 48 connections, where a latency is mostly the queue in front
of one process.
"""

_MEMORY = """\
Three sessions for each user. MEMORY USAGE counts all keys with the user index; used_memory also
counts the server's hash tables.
"""

_MERGING = """\
CPU time on the memory store, of all requests together. Ten times the items take about ten times as
long.
"""


def render_page(
    cpu_time: Figures,
    instructions: Figures | None,
    throughput: Figures,
    memory: Mapping[str, float],
    merging_figures: merging.Figures,
    *,
    warning: str = "",
) -> str:
    """Return the whole page.

    Args:
        cpu_time: microseconds by candidate and kind of request (cpu_time.py).
        instructions: counts likewise (instructions.py); None if they could not be counted.
        throughput: the fields of `throughput.Figures` by candidate and path.
        memory: the fields of `valkey_memory.Memory`.
        merging_figures: milliseconds by operation and number of items (merging.py).
        warning: shown above the figures.
    """
    rows = [goal.row() for goal in goals.list_goals(cpu_time, instructions, throughput, memory)]
    counts = (
        "**Instructions were not counted: valgrind is not installed.**"
        if instructions is None
        else tables.instructions_table(IN_PROCESS, instructions)
    )
    sections = [
        _INTRODUCTION + "\n" + "\n".join(machine.describe()),
        *([f"**{warning}**"] if warning else []),
        "## Goals",
        tables.table(goals.HEADER, rows),
        "## Cost of a request in process",
        _CAPTION.rstrip(),
        tables.cpu_time_table(IN_PROCESS, cpu_time),
        counts,
        "## Requests per second",
        _SHARES.rstrip(),
        tables.throughput_tables(ALL, throughput),
        "## Latencies",
        _LOADS.rstrip(),
        tables.latency_table(ALL, throughput),
        "## Memory in Valkey",
        _MEMORY.rstrip(),
        valkey_memory.show(Memory(**memory)),
        "## Many operations in one request",
        _MERGING.rstrip(),
        merging.show(merging_figures),
        "## Configuration",
        "\n".join(f"* {c.title}: {c.configuration}" for c in ALL),
    ]
    return "\n\n".join(sections) + "\n"


def sections_of(page: str) -> tuple[str, ...]:
    """Return the sections of a page that other commands than `make bench` wrote."""
    starts = sorted(at for at in map(page.find, SECTIONS) if at >= 0)
    return tuple(page[start:end] for start, end in pairwise([*starts, len(page)]))


def with_sections(page: str, *sections: str) -> str:
    """Return a page with the given sections of other commands replaced; other sections are kept."""
    by_command = {text.partition("\n")[0]: text.strip() for text in (*sections_of(page), *sections)}
    starts = [at for at in map(page.find, SECTIONS) if at >= 0]
    rest = page[: min(starts, default=len(page))].strip()
    parts = [rest, *(by_command[begin] for begin in SECTIONS if begin in by_command)]
    return "\n\n".join(parts) + "\n"
