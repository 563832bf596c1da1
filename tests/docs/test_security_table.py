"""docs/security.md: each row of the security table has tests, and the page lists them."""

import pytest

from tools import citations, security_table
from tools.security_table import Row

# Collecting every test of the repository takes a minute in parallel with other tests.
pytestmark = pytest.mark.timeout(300)

#: The minimum number of flaws with a test.
MIN_TESTED_FLAWS = 50

ROW = Row("B-1", "a flaw", "an answer")


@pytest.fixture(scope="module")
def table():
    return security_table.read()


@pytest.fixture(scope="module")
def tests(docstrings):
    return citations.by_name(docstrings, citations.rows)


def test_every_row_has_a_test_or_a_reason(table, tests):
    """No test cites a row that does not exist or is out of scope."""
    assert security_table.errors(security_table.all_rows(table), tests) == []


def test_page_matches_the_generated_table(table, tests):
    """If this fails, run ``make security-table``."""
    text = security_table.PAGE.read_text("utf-8")
    assert security_table.render(text, table, tests) == text


def test_enough_known_flaws_are_tested(table, tests):
    assert [row.id for row in table["flaw"]] == [f"B-{number}" for number in range(1, 61)]
    assert security_table.tested(table["flaw"], tests) >= MIN_TESTED_FLAWS


@pytest.mark.parametrize(
    ("docstring", "rows"),
    [
        ("A7, B-32, B-33.", ["B-32", "B-33"]),
        ("A14, ASVS 3.3.1,\n 14.2.1, B-44", ["B-44", "ASVS 3.3.1", "ASVS 14.2.1"]),
        ("ASVS 9, NIST SESS-13, COOK-04; OWASP-2", ["ASVS 9", "SESS-13", "COOK-04", "OWASP-2"]),
        ("S9, RFC 6265bis 5.5, A.6", []),
    ],
)
def test_citations_are_read(docstring, rows):
    assert sorted(citations.rows(docstring)) == sorted(rows)


@pytest.mark.parametrize(
    ("rows", "tests", "error"),
    [
        ([ROW], {}, "has no test"),
        ([ROW], {"B-1": ["t"], "B-2": ["t"]}, "not in the table"),
        ([ROW, ROW], {"B-1": ["t"]}, "same ID"),
        ([ROW._replace(answer="", out_of_scope="why")], {"B-1": ["t"]}, "out of scope, and"),
        ([ROW._replace(answer="`session.fly`")], {"B-1": ["t"]}, "does not exist"),
        ([ROW._replace(answer="")], {"B-1": ["t"]}, "either"),
        ([ROW._replace(out_of_scope="why")], {"B-1": ["t"]}, "either"),
    ],
)
def test_an_error_in_the_table_is_found(rows, tests, error):
    assert any(error in found for found in security_table.errors(rows, tests))


@pytest.mark.parametrize(
    ("row", "tests"),
    [
        (ROW, {"B-1": ["t"]}),
        (ROW._replace(answer="`session.destroy`"), {"B-1": ["t"]}),
        (ROW._replace(answer="", out_of_scope="why"), {}),
    ],
)
def test_a_correct_row_is_no_error(row, tests):
    assert security_table.errors([row], tests) == []


def test_a_row_with_an_unknown_field_is_refused(tmp_path):
    file = tmp_path / "table.toml"
    file.write_text('standard = []\n[[flaw]]\nid = "B-1"\ntext = "x"\nanswers = "y"\n', "utf-8")
    with pytest.raises(TypeError, match="answers"):
        security_table.read(file)


def test_files_with_the_same_tests_share_a_line():
    tests = ["tests/a.py::TestA::test_x", "tests/b.py::TestB::test_x", "tests/c.py::test_y[1]"]
    assert security_table.group(tests) == "a.py, b.py: `test_x`<br>c.py: `test_y[1]`"
