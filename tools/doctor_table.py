"""Write the table of findings in docs/doctor.md from the checks of ``sojourn doctor``.

python -m tools.doctor_table
"""

import re

from sojourn.cli.doctor_checks import problems
from tools import markdown

PAGE = markdown.DOCS / "doctor.md"


def page(text: str) -> str:
    """Return the page with its table as it should be."""
    rows = (
        (
            f'<span id="{problem.code}"></span>`{problem.code}`',
            problem.severity.value,
            _cell(problem.expected),
            _cell(problem.remedy),
        )
        for problem in problems()
    )
    table = markdown.table(("code", "severity", "expected", "what to do"), rows)
    begin = "<!-- findings: written by tools/doctor_table.py -->"
    return markdown.replace(text, begin, "<!-- /findings -->", table)


def _cell(text: str) -> str:
    """Return a text as a cell: no columns, no HTML outside of code."""
    return re.sub("(`[^`]*`)|<", lambda found: found[1] or "&lt;", text.replace("|", "\\|"))


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
