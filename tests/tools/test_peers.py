"""The comparison of the peers' tests with their exceptions."""

import pytest

from tools.peers import Suite, compare, read_exceptions, read_suites

SUITE = Suite("minnow", "minnow", [])


@pytest.mark.parametrize(
    ("outcomes", "exceptions", "errors"),
    [
        ({"a": "passed", "b": "skipped"}, {}, []),
        ({"a": "failed"}, {"a": "why"}, []),
        ({"a[1]": "failed", "a[2]": "failed"}, {"a*": "why"}, []),
        ({"a": "failed"}, {}, ["minnow: fails: a"]),
        ({"a": "passed"}, {"a": "why"}, ["minnow: passes, so it is no exception: a"]),
        ({"a": "passed"}, {"b": "why"}, ["minnow: an exception names no test: b"]),
        ({}, {}, ["minnow: has no tests"]),
    ],
)
def test_an_outcome_that_the_exceptions_do_not_state_is_an_error(outcomes, exceptions, errors):
    assert compare(SUITE, outcomes, exceptions).errors == errors


def test_an_excepted_failure_is_counted_for_itself():
    outcomes = {"a": "passed", "b": "failed", "c": "skipped"}
    counts = compare(SUITE, outcomes, {"b": "why"}).counts
    assert counts == {"passed": 1, "excepted": 1, "skipped": 1}


def test_each_exception_has_a_reason():
    for suite in read_suites([]):
        assert all(read_exceptions(suite).values())
