"""Every framework with its own or usual session library: `python -m benchmarks.frameworks`.

The overhead of a session library is the time of a request with it minus that of the same
application without sessions, from the throughput of a server that fills its core. Each row starts
the servers of one framework, pinned to one core; the load generator is pinned to another. Rounds
measure them in turn, in rotating order; a figure is the median over the rounds. Writes a section of
RESULTS.md; `--quick` and `--only` write nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from benchmarks import machine, results
from benchmarks.asgi_client import run
from benchmarks.candidates import Candidate, find
from benchmarks.cpu_idle import no_idle_states
from benchmarks.tables import ABSENT, table
from benchmarks.throughput import PATHS, Measurement

RESULTS = Path(__file__).with_name("RESULTS.md")

GOAL = 0.6
"""The share of the peer's overhead that sojourn has to remove."""

_CAPTION = """\
µs of a request without sessions, and what the framework's own or usual session library and sojourn
add, over the same store (Valkey unless the row says otherwise), from the throughput of a server
that fills its core: 48 connections in a closed loop. "Removed": the share of the overhead, in
bold below {goal:.0%}. ASGI under uvicorn, WSGI under gunicorn with 16 threads; aiohttp, Tornado and
Sanic under their own servers."""


_SPLIT_CAPTION = """\
µs that the round trips alone add where less than the goal is removed: one GET for a read, and one
SET more for a write, by redis-py as the peers use it, without a session layer, encryption, expiry
or compare-and-set. "Session layer": what sojourn adds beyond them; it is negative where sojourn's
own connection, which joins the calls of concurrent requests, saves more than the session layer
costs. "Removable": the share of the peer's overhead that a session layer without cost would
remove over redis-py."""


@dataclass(frozen=True, slots=True)
class Row:
    """One framework over one store; the names of its candidates.

    Attributes:
        framework: as the table names it.
        bare: without sessions.
        peer: its own or usual session library; None if there is none that keeps records.
        sojourn: with sojourn over the same store.
        round_trips: the round trips alone, without a session layer; None if they are not measured.
    """

    framework: str
    bare: str
    peer: str | None
    sojourn: str
    round_trips: str | None = None

    def candidates(self) -> tuple[Candidate, ...]:
        """Return the candidates in the order of the table; no least layer is measured here."""
        names = (self.bare, self.peer, self.sojourn, self.round_trips)
        found = [find(name) for name in names if name is not None]
        return tuple(replace(candidate, least_layer=None) for candidate in found)


ROWS = (
    Row("Starlette", "bare", "starsessions-valkey", "sojourn-valkey"),
    Row("FastAPI", "bare-fastapi", "fastapi-redis-sdk", "sojourn-fastapi"),
    Row(
        "Django, Valkey",
        "bare-django",
        "django-cache",
        "sojourn-django-valkey",
        "round-trips-django",
    ),
    Row("Django, SQLite", "bare-django", "django-db", "sojourn-django-sqlite"),
    Row("Flask", "bare-flask", "flask-session", "sojourn-flask-session", "round-trips-flask"),
    Row("Litestar", "bare-litestar", "litestar-valkey", "sojourn-litestar"),
    Row("aiohttp", "bare-aiohttp", "aiohttp-session", "sojourn-aiohttp", "round-trips-aiohttp"),
    Row("Quart", "bare-quart", "quart-session", "sojourn-quart"),
    Row(
        "Pyramid", "bare-pyramid", "pyramid-session-redis", "sojourn-pyramid", "round-trips-pyramid"
    ),
    Row("Sanic", "bare-sanic", None, "sojourn-sanic"),
    Row("Tornado", "bare-tornado", None, "sojourn-tornado"),
    Row("Falcon", "bare-falcon", None, "sojourn-falcon"),
    Row("Bottle", "bare-bottle", None, "sojourn-bottle"),
    Row("BlackSheep", "bare-blacksheep", None, "sojourn-blacksheep"),
)


@dataclass(frozen=True, slots=True)
class Overhead:
    """The measured overhead of one row and one path.

    Attributes:
        bare: microseconds of a request without sessions.
        peer: microseconds that the peer adds; None without one.
        sojourn: microseconds that sojourn adds.
        removed: the share of the peer's overhead that sojourn removes; None without one.
        round_trips: microseconds that the round trips alone add; None if they are not measured.
    """

    bare: float
    peer: float | None
    sojourn: float
    removed: float | None
    round_trips: float | None = None


def overhead(
    bare: Sequence[float],
    peer: Sequence[float] | None,
    sojourn: Sequence[float],
    round_trips: Sequence[float] | None = None,
) -> Overhead:
    """Return the overhead of a row from requests per second, each list by rounds."""
    base = [1e6 / per_second for per_second in bare]

    def added(rates: Sequence[float]) -> list[float]:
        return [1e6 / rate - reference for rate, reference in zip(rates, base, strict=True)]

    own = added(sojourn)
    alone = None if round_trips is None else median(added(round_trips))
    if peer is None:
        return Overhead(median(base), None, median(own), None, alone)
    theirs = added(peer)
    removed = [1 - mine / other for mine, other in zip(own, theirs, strict=True) if other > 0]
    share = median(removed) if removed else None
    return Overhead(median(base), median(theirs), median(own), share, alone)


async def measure_row(row: Row, *, rounds: int, seconds: float) -> dict[str, Overhead]:
    """Measure the candidates of one row; return the overhead by path."""
    async with AsyncExitStack() as stack:
        stack.enter_context(no_idle_states())
        measurement = Measurement(row.candidates())
        await measurement.start(stack)
        await measurement.measure_full_load(rounds, seconds)
    figures = measurement.figures
    return {
        path: overhead(
            figures[row.bare][path].rounds,
            None if row.peer is None else figures[row.peer][path].rounds,
            figures[row.sojourn][path].rounds,
            None if row.round_trips is None else figures[row.round_trips][path].rounds,
        )
        for path in PATHS
    }


def describe(row: Row, figures: dict[str, Overhead]) -> list[str]:
    """Return the cells of a row."""
    cells = [row.framework, ABSENT if row.peer is None else find(row.peer).title.split(",")[0]]
    for path in PATHS:
        one = figures[path]
        peer = ABSENT if one.peer is None else f"{one.peer:,.0f}"
        removed = ABSENT if one.removed is None else f"{one.removed:.0%}"
        if one.removed is not None and one.removed < GOAL:
            removed = f"**{removed}**"
        cells += [f"{one.bare:,.0f}", peer, f"{one.sojourn:,.0f}", removed]
    return cells


def describe_round_trips(row: Row, figures: dict[str, Overhead]) -> list[str]:
    """Return the cells of a row that splits the overhead."""
    cells = [row.framework]
    for path in PATHS:
        one = figures[path]
        if one.round_trips is None:
            return []
        cells += [f"{one.round_trips:,.0f}", f"{one.sojourn - one.round_trips:,.0f}"]
        possible = None if not one.peer else 1 - one.round_trips / one.peer
        cells.append(ABSENT if possible is None else f"{possible:.0%}")
    return cells


def render(rows: Sequence[tuple[Row, dict[str, Overhead]]], *, warning: str) -> str:
    """Return the section of RESULTS.md."""
    header = ["framework", "its session library"]
    for path in ("read", "write"):
        header += [f"{path}: bare", "+ library", "+ sojourn", "removed"]
    split_header = ["framework"]
    for path in ("read", "write"):
        split_header += [f"{path}: round trips alone", "session layer", "removable"]
    split = [cells for row, figures in rows if (cells := describe_round_trips(row, figures))]
    seen = dict.fromkeys(candidate for row, _ in rows for candidate in row.candidates())
    candidates = list(seen)
    parts = [
        results.FRAMEWORKS_BEGIN,
        "## Every framework",
        "\n".join(machine.describe(machine.FRAMEWORK_PACKAGES)),
        *([f"**{warning}**"] if warning else []),
        _CAPTION.format(goal=GOAL),
        table(header, [describe(row, figures) for row, figures in rows]),
        *(["### Where the time goes", _SPLIT_CAPTION, table(split_header, split)] if split else []),
        "### Configuration of the frameworks",
        "\n".join(f"* {each.title}: {each.configuration}" for each in candidates),
    ]
    return "\n\n".join(parts)


def available(row: Row) -> bool:
    """Return whether sojourn has the adapter of a row; print a line if it has not."""
    adapter = find(row.sojourn).adapter
    if not adapter or find_spec(adapter) is not None:
        return True
    print(f"left out: {row.framework}, because there is no {adapter}", file=sys.stderr)
    return False


def main() -> None:
    """Measure every row, print the section, and write it unless the run was restricted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="frameworks as in the table, separated by ';'")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.25, help="of each stretch")
    parser.add_argument("--quick", action="store_true", help="three short rounds; does not write")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 3, 0.1
    wanted = None if arguments.only is None else set(arguments.only.lower().split(";"))
    rows = [row for row in ROWS if wanted is None or row.framework.lower() in wanted]
    if not rows:
        parser.error(f"unknown framework; known: {'; '.join(row.framework for row in ROWS)}")
    warning = machine.describe_load()
    measured = []
    for row in filter(available, rows):
        figures = run(measure_row(row, rounds=arguments.rounds, seconds=arguments.seconds))
        print(" | ".join(describe(row, figures)), flush=True)
        measured.append((row, figures))
    section = render(measured, warning=warning)
    print(section)
    if wanted is None and not arguments.quick:
        RESULTS.write_text(results.with_sections(RESULTS.read_text(), section))
        print(f"written to benchmarks/{RESULTS.name}")


if __name__ == "__main__":
    main()
