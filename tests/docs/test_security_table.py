"""The tables of docs/security.md say what the tests say, and every row has its tests.

Reads what pytest collects (``tools/security_table.py``). The last tests make sure that a false
table, a forgotten row and a wrong citation are found.
"""

import pytest

from tools import citations, security_table
from tools.security_flaws import FLAWS
from tools.security_row import Row
from tools.security_rows import ROWS

FIRST = Row("B-1", "a flaw", "an answer")


@pytest.fixture(scope="module")
def tests():
    return security_table.cited()


def test_every_row_has_a_test_or_says_why_not(tests):
    """Nor is a row cited that does not exist, or awaited that could be there."""
    assert security_table.faults(ROWS, tests) == []


def test_the_page_is_what_the_tests_give(tests):
    """Write it again with ``python -m tools.security_table``."""
    text = security_table.PAGE.read_text("utf-8")
    assert security_table.page(text, tests) == text


def test_enough_flaws_of_the_past_are_tested(tests):
    assert [row.id for row in FLAWS] == [f"B-{number}" for number in range(1, 61)]
    assert security_table.tested(FLAWS, tests) >= security_table.ENOUGH


@pytest.mark.parametrize(
    ("docstring", "rows"),
    [
        ("A7, B-32, B-33.", ["B-32", "B-33"]),
        ("B-1 to B-3 as one rule", ["B-1", "B-2", "B-3"]),
        ("A14, ASVS 3.3.1-3.3.3, 14.2.1, B-44", ["B-44", *(f"ASVS 3.3.{n}" for n in (1, 2, 3))]),
        ("ASVS 9, NIST SESS-13, COOK-04; OWASP-2", ["ASVS 9", "SESS-13", "COOK-04", "OWASP-2"]),
        ("S9, RFC 6265bis 5.5, A.6", []),
    ],
)
def test_citations_are_read(docstring, rows):
    found = list(citations.rows(docstring))
    assert [row for row in found if row != "ASVS 14.2.1"] == rows
    assert ("ASVS 14.2.1" in found) is ("14.2.1" in docstring)


@pytest.mark.parametrize(
    ("row", "tests", "fault"),
    [
        (FIRST, {}, "has no test"),
        (FIRST, {"B-1": ["t"], "B-2": ["t"]}, "is no row"),
        (FIRST._replace(ours="", not_ours="why"), {"B-1": ["t"]}, "not to concern us"),
        (FIRST._replace(awaits="timeout"), {}, "drop 'awaits'"),
        (FIRST._replace(awaits="session.destroy"), {"B-1": ["t"]}, "drop 'awaits'"),
        (FIRST._replace(ours="`session.fly`"), {"B-1": ["t"]}, "does not exist"),
        (FIRST._replace(ours=""), {"B-1": ["t"]}, "either"),
    ],
)
def test_a_lie_would_be_found(row, tests, fault):
    assert any(fault in found for found in security_table.faults([row], tests))


@pytest.mark.parametrize(
    "row",
    [FIRST, FIRST._replace(ours="`session.destroy`"), FIRST._replace(awaits="sessions.fly")],
)
def test_the_truth_is_no_fault(row):
    assert security_table.faults([row], {} if row.awaits else {"B-1": ["t"]}) == []
