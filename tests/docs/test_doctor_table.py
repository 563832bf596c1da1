"""The table of findings in docs/doctor.md matches the checks."""

import re

from sojourn.cli.doctor_checks import problems
from tools import doctor_table


def test_the_page_has_every_finding_of_the_checks():
    text = doctor_table.PAGE.read_text("utf-8")
    assert doctor_table.page(text) == text, "run `python -m tools.doctor_table`"


def test_every_finding_has_a_test(repository):
    """A code that no test of the checks names could be deleted without a failure."""
    texts = [path.read_text("utf-8") for path in (repository / "tests/unit/cli").rglob("test_*.py")]
    named = {code for text in texts for code in re.findall(r'"([a-z]+-[a-z-]+)"', text)}
    assert {problem.code for problem in problems()} - named == set()
