"""Every law is cited by a test that pytest collects, and every cited law exists."""

import re

import pytest

from tools import citations
from tools.citations import LAWS

# Collecting every test of the repository takes a minute in parallel with other tests.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cited(docstrings) -> dict[str, list[str]]:
    """Return the tests that cite each law."""
    return citations.by_name(docstrings, citations.laws)


@pytest.mark.parametrize("law", sorted(LAWS, key=lambda law: (law[0], int(law[1:]))))
def test_every_law_is_cited_by_a_test(cited, law):
    assert cited.get(law)


def test_every_cited_law_exists(cited):
    # Numbers of laws that are not implemented yet.
    reserved = {"W9", "W10"}
    assert set(cited) - LAWS - reserved == set()


def test_the_page_of_laws_lists_every_law(repository):
    page = (repository / "docs" / "laws.md").read_text("utf-8")
    assert set(re.findall(r"^\| ([SAWN]\d+) \|", page, re.MULTILINE)) == LAWS


@pytest.mark.parametrize(
    ("suite", "kind"),
    [
        *(
            (f"test_applications.py::Test{name}::", "A")
            for name in (
                "Starlette",
                "StarletteWithMiddleware",
                "StarletteDebug",
                "FastAPI",
                "BareASGI",
                "BareWSGI",
            )
        ),
        ("test_stores.py::TestMemoryStore", "S"),
        ("test_stores.py::TestSQLiteStore", "S"),
    ],
)
def test_each_suite_covers_all_laws_of_its_kind(cited, suite, kind):
    covered = {law for law, tests in cited.items() if any(suite in test for test in tests)}
    elsewhere = {"S17"}  # not every store supports broadcast
    assert {law for law in LAWS - elsewhere if law[0] == kind} <= covered
