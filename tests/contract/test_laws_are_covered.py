"""Every law has a collected test that cites it, and every law that a test cites exists."""

import re

import pytest

from tools import citations
from tools.citations import LAWS


@pytest.fixture(scope="module")
def cited() -> dict[str, list[str]]:
    """Return the tests that cite each law."""
    return citations.by_name(citations.collected(), citations.laws)


@pytest.mark.parametrize("law", sorted(LAWS, key=lambda law: (law[0], int(law[1:]))))
def test_every_law_is_cited_by_a_test(cited, law):
    assert cited.get(law)


def test_no_test_cites_a_law_that_does_not_exist(cited):
    # Laws of features that do not exist yet have their numbers in the design.
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
def test_each_suite_tests_all_laws_of_its_kind(cited, suite, kind):
    tested = {law for law, tests in cited.items() if any(suite in test for test in tests)}
    # S17 needs broadcasts, which neither of these stores supports.
    assert {law for law in LAWS - {"S17"} if law[0] == kind} <= tested
