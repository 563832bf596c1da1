"""Cost of long lists and of many operations in one request: `python -m benchmarks.merging`.

Two parallel requests change one long list that is merged as "union"; one request appends to a
list, adds to a set, or increments entries of a dict, thousands of times. Each takes linear time:
ten times the items take about ten times as long. Memory store, no server; the shortest of several
runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import tables

if TYPE_CHECKING:
    from sojourn import Sessions

SIZES = (400, 4_000)
_RUNS = 5
_MAX_BYTES = 1 << 20
_SECRET = "benchmark of merging 7Jm2Qw9v"

Figures = Mapping[str, Mapping[str, float]]
"""What is measured, then the number of items as text, to milliseconds."""


def union(sessions: Sessions[Any], size: int) -> None:
    """Change a list of `size` items in two parallel requests."""
    with sessions.open() as visit:
        visit.session["tags"] = [f"tag {number}" for number in range(size)]
    cookie = _cookie(visit.response_headers())
    with sessions.open(cookies=cookie) as one:
        one.session["tags"] = [*one.session["tags"], "one"]
        with sessions.open(cookies=cookie) as two:
            two.session["tags"] = [*two.session["tags"], "two"]


def append(sessions: Sessions[Any], size: int) -> None:
    """Append `size` items in one request."""
    with sessions.open() as visit:
        for number in range(size):
            visit.session.append("log", {"n": number})


def add(sessions: Sessions[Any], size: int) -> None:
    """Add `size` members in one request."""
    with sessions.open() as visit:
        for number in range(size):
            visit.session.add("seen", number)


def increment(sessions: Sessions[Any], size: int) -> None:
    """Increment `size` entries of a dict in one request."""
    with sessions.open() as visit:
        for number in range(size):
            visit.session.increment("counts", path=(f"k{number}",))


MEASURED: Mapping[str, Callable[[Sessions[Any], int], None]] = {
    'a "union" of lists that two requests change': union,
    "`append` to a list": append,
    "`add` to a set": add,
    "`increment` of entries in a dict": increment,
}


def _cookie(headers: list[tuple[str, str]]) -> str:
    return next(value.partition(";")[0] for name, value in headers if name.lower() == "set-cookie")


def measure() -> Figures:
    """Return the milliseconds of each operation for each number of items."""
    import sojourn

    sessions = sojourn.Sessions(
        store="memory://", secret=_SECRET, merge={"tags": "union"}, max_bytes=_MAX_BYTES
    )
    figures: dict[str, dict[str, float]] = {}
    for name, act in MEASURED.items():
        figures[name] = {}
        for size in SIZES:
            times = []
            for _ in range(_RUNS):
                start = time.process_time()
                act(sessions, size)
                times.append(time.process_time() - start)
            figures[name][str(size)] = 1000 * min(times)
    return figures


def show(figures: Figures) -> str:
    """Return the figures as a table."""
    header = ["CPU milliseconds", *(f"{size} items" for size in SIZES), "factor"]
    rows = []
    for name, by_size in figures.items():
        few, many = (by_size[str(size)] for size in SIZES)
        rows.append([name, f"{few:.1f}", f"{many:.1f}", f"{many / few:.0f}"])
    return tables.table(header, rows)


def main() -> None:
    """Measure, print a table and, with `--json`, write the figures for RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    figures = measure()
    tables.write_json(arguments.json, figures)
    print(show(figures))


if __name__ == "__main__":
    main()
