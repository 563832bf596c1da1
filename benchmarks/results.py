"""RESULTS.md: one table with the peers, the goals, the latencies and how everything was set up.

What lives here: the page as a function of the figures. What must not: measuring, and the form of
single tables (report.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks import tables as report
from benchmarks.candidates.flask import THREADED
from benchmarks.candidates.starlette import CANDIDATES, FROZEN
from benchmarks.candidates.valkey import NETWORKED
from benchmarks.instructions import GOALS

Figures = Mapping[str, Mapping[str, Any]]

INTRODUCTION = """\
# Results

Written by `make bench`; do not edit. How to read it: [README.md](README.md). Trust ratios and
differences within this page; absolute figures belong to this machine.
"""

CAPTION = """\
Rows with "+" are what the session adds to the row without sessions above; those rows show the
whole request. µs: CPU time in process. k: thousand instructions in process. "Of bare": requests
per second under uvicorn, 48 connections each with its own cookie, over those of the application
without sessions; frozen against frozen, Litestar against Litestar.
"""

LOADS = """\
Half load: requests at a fixed rate, half of what the server can do, each counted from the instant
it was due. Full load: a closed loop of 48 connections, where a latency is mostly the queue in front
of one process.\
"""


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure that must not be missed: what, on which side of which number, and how it is."""

    what: str
    at_most: bool
    goal: float
    found: float | None
    unit: str = ""

    def row(self) -> list[str]:
        """Return the cells of its row."""
        sign = "≤" if self.at_most else "≥"
        if self.found is None:
            return [self.what, f"{sign} {self.goal:g}{self.unit}", report.ABSENT, "not measured"]
        reached = self.found <= self.goal if self.at_most else self.found >= self.goal
        found = f"{self.found:.2f}" if self.goal < 5 else f"{self.found:.1f}"
        verdict = "reached" if reached else "**missed**"
        return [self.what, f"{sign} {self.goal:g}{self.unit}", f"{found}{self.unit}", verdict]


def page(
    costs: Figures, instructions: Figures | None, throughput: Figures, *, note: str = ""
) -> str:
    """Return the whole page.

    Args:
        costs: microseconds by candidate and kind of request (costs.py).
        instructions: counts likewise (instructions.py); None if they could not be counted.
        throughput: the fields of `throughput.Figures` by candidate and path.
        note: what a reader must know before trusting the figures.
    """
    uncounted = "" if instructions else "\n**Instructions were not counted: no valgrind here.**\n"
    everything = CANDIDATES + FROZEN + NETWORKED + THREADED
    goals = [goal.row() for goal in _goals(costs, instructions, throughput)]
    configurations = "\n".join(f"* {c.title}: {c.configuration}" for c in everything)
    return "\n".join(
        [
            INTRODUCTION,
            "\n".join(report.machine()),
            *(["", f"**{note}**"] if note else []),
            "",
            "## Side by side",
            uncounted,
            _side_by_side(costs, instructions or {}, throughput),
            "",
            CAPTION,
            "## Goals",
            "",
            report.table(["what", "goal", "found", ""], goals),
            "",
            "## Requests per second",
            "",
            report.throughput_tables(everything, throughput),
            "",
            "## Latencies",
            "",
            LOADS,
            "",
            report.latency_table(everything, throughput),
            "",
            "## Configuration",
            "",
            configurations,
            "",
        ]
    )


def _side_by_side(costs: Figures, instructions: Figures, throughput: Figures) -> str:
    header = ["", "anonymous µs", "read µs", "write µs", "20 kB, read µs"]
    header += ["anonymous k", "read k", "write k", "read of bare", "write of bare"]
    rows = []
    for candidate in CANDIDATES:
        sign = "" if candidate.baseline is None else "+"
        cost = costs[candidate.name]
        counts = instructions.get(candidate.name, {})
        cells = [candidate.title]
        cells += [
            f"{cost[kind]:{sign}.1f}" if kind in cost else report.ABSENT
            for kind in ("anonymous", "read", "write", "large")
        ]
        cells += [
            f"{counts[kind] / 1000:{sign}.1f}" if kind in counts else report.ABSENT
            for kind in ("anonymous", "read", "write")
        ]
        for path in ("/read", "/write"):
            ratio = throughput[candidate.name][path]["ratio"]
            cells.append("1" if candidate.baseline is None else f"{ratio:.2f}")
        rows.append(cells)
    for candidate in (*FROZEN, *NETWORKED):
        if candidate.baseline is not None:
            ratios = [throughput[candidate.name][path]["ratio"] for path in ("/read", "/write")]
            rows.append([candidate.title, *[""] * 7, *(f"{ratio:.2f}" for ratio in ratios)])
    return report.table(header, rows)


def _goals(costs: Figures, instructions: Figures | None, throughput: Figures) -> list[Goal]:
    goals = []
    for kind, most in GOALS.items():
        found = None if instructions is None else instructions["sojourn-memory"][kind] / 1000
        what = f"memory, {kind}, in process over bare"
        goals.append(Goal(what, True, most / 1000, found, unit="k instructions"))
    for name, title, read, write in (
        ("sojourn-memory", "memory", 0.85, 0.75),
        ("sojourn-sqlite", "SQLite", 0.75, 0.50),
    ):
        goals += _ratios(throughput, name, title, read, write)
        found = costs[name]["large"]
        goals.append(Goal(f"{title}, one key of 20 kB, over bare", True, 25, found, unit=" µs"))
    valkey, peer = throughput["sojourn-valkey"], throughput["starsessions-redis"]
    goals += _ratios(throughput, "sojourn-valkey", "Valkey", 0.70, 0.45)
    for path, times in (("/read", 5.0), ("/write", 3.5)):
        found = valkey[path]["ratio"] / peer[path]["ratio"]
        goals.append(Goal(f"Valkey, {path[1:]}, times starsessions", False, times, found))
    found = throughput["sojourn-sqlite"]["/write"]["paced"][2]
    goals.append(Goal("SQLite, write p99.9 at half load", True, 2, found, unit=" ms"))
    return goals


def _ratios(throughput: Figures, name: str, title: str, read: float, write: float) -> list[Goal]:
    """Return the goals for throughput of bare, with the collector as it is and as it can be."""
    return [
        Goal(f"{title}{way}, {path[1:]}, throughput of bare", False, goal, measured[path]["ratio"])
        for ending, way in (("", ""), ("-frozen", ", frozen"), ("-tuned", ", tuned"))
        if (measured := throughput.get(name + ending)) is not None
        for path, goal in (("/read", read), ("/write", write))
    ]
