"""tools/peers.py: outcomes of the peers' tests compared with the listed exceptions."""

from importlib.metadata import version

import pytest
from packaging.requirements import Requirement

from tools.peers import PEERS, compare, read_exceptions, read_suites


@pytest.mark.parametrize(
    ("outcomes", "exceptions", "errors"),
    [
        ({"a": "passed", "b": "skipped"}, {}, []),
        ({"a": "failed"}, {"a": "why"}, []),
        ({"a[1]": "failed", "a[2]": "failed"}, {"a*": "why"}, []),
        ({"a": "failed"}, {}, ["fails: a"]),
        ({"a": "passed"}, {"a": "why"}, ["passes, so it is no exception: a"]),
        ({"a": "passed"}, {"b": "why"}, ["an exception names no test: b"]),
        ({}, {}, ["has no tests"]),
    ],
)
def test_unexpected_outcome_is_an_error(outcomes, exceptions, errors):
    assert compare(outcomes, exceptions)[1] == errors


def test_excepted_failure_is_counted_separately():
    outcomes = {"a": "passed", "b": "failed", "c": "skipped"}
    counts, _ = compare(outcomes, {"b": "why"})
    assert counts == {"passed": 1, "excepted": 1, "skipped": 1}


def test_each_exception_has_a_reason():
    for suite in read_suites([]):
        assert all(reason.strip() for reason in read_exceptions(suite).values())


def test_the_sdists_are_those_of_the_installed_versions():
    """The tests must have the version of the installed package."""
    lines = (PEERS / "requirements.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line.rstrip("\\ ")) for line in lines if "==" in line]
    pinned = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    assert {pin.name for pin in pinned} == {suite.package for suite in read_suites([])}
    for pin in pinned:
        assert pin.specifier.contains(version(pin.name)), pin
