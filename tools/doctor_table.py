"""Write the table of findings in docs/doctor.md from the checks of ``sojourn doctor``.

python -m tools.doctor_table
"""

from collections.abc import Iterable
from pathlib import Path

from sojourn.cli.checks import Problem, problems

PAGE = Path(__file__).resolve().parent.parent / "docs" / "doctor.md"
BEGIN = "<!-- findings: written by tools/doctor_table.py -->"
END = "<!-- /findings -->"


def table(found: Iterable[Problem]) -> str:
    """Return the table in Markdown."""
    lines = ["| code | severity | expected | what to do |", "|---|---|---|---|"]
    for problem in found:
        expected, remedy = _cell(problem.expected), _cell(problem.remedy)
        code = f'<span id="{problem.code}"></span>`{problem.code}`'
        lines.append(f"| {code} | {problem.severity.value} | {expected} | {remedy} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Return a text as a cell: no columns, no HTML."""
    parts = text.replace("|", "\\|").split("`")
    plain = [part.replace("<", "&lt;") if at % 2 == 0 else part for at, part in enumerate(parts)]
    return "`".join(plain)


def page(text: str) -> str:
    """Return the page with its table as it should be."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{PAGE.name} has no place for the table: {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{table(problems())}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
