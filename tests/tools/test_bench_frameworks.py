"""The section of RESULTS.md about frameworks; `make bench` keeps sections of other commands."""

import pytest

from benchmarks import results
from benchmarks.candidates import ALL, FRAMEWORKS
from benchmarks.frameworks import ROWS, describe, describe_round_trips, overhead


def test_the_share_of_the_peers_overhead_is_the_median_of_the_rounds():
    """Bare 100 µs; the peer adds 100 µs, sojourn 25 µs; one round is disturbed."""
    bare = [10_000, 10_000, 5_000]
    found = overhead(bare, [5_000, 5_000, 4_900], [8_000, 8_000, 1_000])
    assert found.bare == pytest.approx(100)
    assert found.peer == pytest.approx(100)
    assert found.sojourn == pytest.approx(25)
    assert found.removed == pytest.approx(0.75)


def test_a_row_without_a_peer_has_no_share():
    found = overhead([10_000], None, [8_000])
    assert (found.peer, found.removed) == (None, None)
    row = next(row for row in ROWS if row.peer is None)
    assert describe(row, dict.fromkeys(("/read", "/write"), found))[1] == "-"


def test_a_share_below_the_goal_is_in_bold():
    row = next(row for row in ROWS if row.peer is not None)
    figures = dict.fromkeys(("/read", "/write"), overhead([10_000], [5_000], [6_000]))
    assert describe(row, figures)[5] == "**33%**"


def test_removable_overhead_is_bounded_by_the_round_trips():
    """The peer adds 100 µs, of which the round trips take 50; sojourn adds 60 µs."""
    row = next(row for row in ROWS if row.round_trips is not None)
    found = overhead([10_000], [5_000], [6_250], [1e6 / 150])
    figures = dict.fromkeys(("/read", "/write"), found)
    assert describe_round_trips(row, figures)[1:] == ["50", "10", "50%"] * 2
    without = dict.fromkeys(("/read", "/write"), overhead([10_000], [5_000], [6_250]))
    assert describe_round_trips(row, without) == []


def test_each_row_names_candidates_of_one_framework_and_server():
    for row in ROWS:
        bare, *others = row.candidates()
        assert bare.baseline is None
        assert {other.baseline for other in others} == {bare.name}
        assert {other.server for other in others} == {bare.server}


def test_names_of_candidates_are_unique():
    names = [candidate.name for candidate in (*ALL, *FRAMEWORKS)]
    assert len(set(names)) == len(names)


def test_make_bench_keeps_sections_and_a_section_command_replaces_its_own():
    page = "# Results\n\nfigures\n"
    postgresql = f"{results.POSTGRESQL_BEGIN}\n\nrows"
    first = results.with_sections(page, postgresql, f"{results.FRAMEWORKS_BEGIN}\n\nold")
    second = results.with_sections(first, f"{results.FRAMEWORKS_BEGIN}\n\nnew")
    expected = f"{results.FRAMEWORKS_BEGIN}\n\nnew\n\n{postgresql}\n"
    assert second == f"# Results\n\nfigures\n\n{expected}"
    kept = results.sections_of(second)
    assert results.with_sections("# Results\n\nother\n", *kept).endswith("other\n\n" + expected)
    assert results.with_sections(page) == page
