"""Every law has a test that cites it, and every law that a test cites exists.

Reads what pytest collects, not the source text: a test that is not collected proves nothing. The
list of laws is in docs/laws.md, and here once more, so that none is dropped unnoticed.
"""

import re

import pytest

from tools import citations

LAWS = frozenset(
    [f"S{n}" for n in range(1, 19)]
    + [f"A{n}" for n in range(1, 21)]
    + [f"W{n}" for n in range(1, 9)]
)


@pytest.fixture(scope="module")
def cited() -> dict[str, list[str]]:
    """Return, for each law that is cited, the tests that do."""
    return citations.by_name(citations.collected(), citations.laws)


@pytest.mark.parametrize("law", sorted(LAWS, key=lambda law: (law[0], int(law[1:]))))
def test_every_law_is_cited_by_a_test(cited, law):
    assert cited.get(law)


def test_no_test_cites_a_law_that_does_not_exist(cited):
    # Promises that later parts of sojourn will keep have numbers already.
    reserved = {"W9", "W10"}
    assert set(cited) - LAWS - reserved == set()


def test_the_page_of_laws_lists_them_all(repository):
    page = (repository / "docs" / "laws.md").read_text("utf-8")
    assert set(re.findall(r"^\| ([SAW]\d+) \|", page, re.MULTILINE)) == LAWS


@pytest.mark.parametrize(
    ("suite", "kind"),
    [
        *((f"test_applications.py::Test{name}", "A") for name in ("Starlette", "FastAPI")),
        *((f"test_applications.py::Test{name}", "A") for name in ("BareASGI", "BareWSGI")),
        ("test_memory.py::TestMemoryStore", "S"),
        ("test_sqlite.py::TestSQLiteStore", "S"),
    ],
)
def test_each_suite_judges_all_laws_of_its_kind(cited, suite, kind):
    judged = {law for law, tests in cited.items() if any(suite in test for test in tests)}
    # Neither of these stores announces: what is in one process, or in one file, cannot tell others.
    assert {law for law in LAWS - {"S17"} if law[0] == kind} <= judged
