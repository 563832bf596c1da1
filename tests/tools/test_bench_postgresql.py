"""The section of RESULTS.md about PostgreSQL: its candidates, goals and rows."""

import dataclasses

import pytest

from benchmarks.candidates import ALL, FRAMEWORKS, POSTGRESQL, find
from benchmarks.frameworks import Overhead
from benchmarks.postgresql import ASGI, WSGI, Results, list_goals, overhead_rows, render, split_rows
from benchmarks.postgresql_cpu import COLUMNS
from benchmarks.postgresql_rows import Purge, Storage

STORAGE = Storage(
    rows=1000,
    record_bytes=250,
    row_bytes=400,
    index_bytes=60,
    updates=4000,
    hot=0.995,
    wal_bytes=500,
    wal_bytes_after_checkpoint=2000,
    grown=1.0,
)
PURGE = Purge(
    rows=1000, removed=500, seconds=1.0, calm=(900, 2000), purging=(1000, 13_000), requests=400
)


def figures(share):
    return {
        path: {"per_second": 9000.0, "share_of_bare": 0.7, "share_of_least_layer": share}
        for path in ("/read", "/write")
    }


def found():
    overheads = {path: Overhead(100, 400, 100, 0.75) for path in ("/read", "/write")}
    return Results(
        version="18.1",
        asgi={name: figures(0.9) for name in ASGI},
        wsgi={name: overheads for group in WSGI for name in group.sojourn},
        storage=STORAGE,
        purge=PURGE,
        cpu={"load": [10.0, 5.0, None, None, 3.0]},
    )


def test_goals_compare_the_relaxed_share_hot_updates_and_the_p99_over_calm():
    """The bounds: 0.92 and 0.85 of the joined round trips, 99 % HOT, 10 ms more at a purge."""
    read, write, hot, purge = list_goals(found())
    assert (read.holds, write.holds, hot.holds, purge.holds) == (False, True, True, False)
    assert purge.measured == pytest.approx(11)
    slow = dataclasses.replace(found(), storage=dataclasses.replace(STORAGE, hot=0.98))
    assert list_goals(slow)[2].holds is False


def test_the_split_adds_up_to_the_difference_to_the_joined_round_trips():
    microseconds = {
        "sojourn-postgresql-relaxed": 50,
        "least-postgresql-relaxed": 40,
        "sojourn-postgresql-relaxed-tuned": 46,
        "least-postgresql-relaxed-tuned": 39,
        "sojourn-memory": 24,
        "least-memory": 20,
    }
    results = found()
    for name, us in microseconds.items():
        for one in results.asgi[name].values():
            one["per_second"] = 1e6 / us
    rows = {title: values for title, *values in split_rows(results)}
    assert rows["all"] == ["10.0", "10.0"]
    assert rows["session layer"] == ["4.0", "4.0"]
    assert rows["garbage collector"] == ["3.0", "3.0"]
    assert rows["waiting and statements"] == ["3.0", "3.0"]


def test_each_row_shows_the_overhead_of_the_peer_and_of_sojourn():
    peer, durable, relaxed = overhead_rows(found())[:3]
    assert peer[1:4] == ["100", "+400", ""]
    assert durable[1:4] == relaxed[1:4] == ["100", "+100", "75%"]


def test_the_section_names_every_candidate_with_its_configuration():
    section = render(found(), warning="busy")
    assert "**busy**" in section
    assert len(COLUMNS) == 5
    for candidate in POSTGRESQL:
        assert f"* {candidate.title}: {candidate.configuration}" in section


def test_names_are_unique_and_references_exist():
    names = [candidate.name for candidate in (*ALL, *FRAMEWORKS, *POSTGRESQL)]
    assert len(set(names)) == len(names)
    for candidate in POSTGRESQL:
        assert candidate.baseline is not None
        assert find(candidate.baseline).server == candidate.server
        assert candidate.needs_postgresql
