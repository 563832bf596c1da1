"""Writes the tables of docs/security.md: the rows of security_table.toml and the tests citing them.

python -m tools.security_table
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sojourn import Session, Sessions
from tools import citations, markdown

PAGE = markdown.DOCS / "security.md"
ROWS = Path(__file__).with_suffix(".toml")

_MEMBER = re.compile(r"`(sessions?)\.(\w+)")

#: The node IDs of the tests that cite each row.
Tests = Mapping[str, Sequence[str]]


class Row(NamedTuple):
    """One requirement of a standard, or one known flaw.

    Attributes:
        id: as tests cite it: ``B-32``, ``ASVS 7.2.4``, ``SESS-13``.
        text: the requirement, or the flaw and where it was found.
        answer: the option or call that answers it, or what sojourn guarantees.
        out_of_scope: why it does not apply; then there is no answer, and no test may cite it.
    """

    id: str
    text: str
    answer: str = ""
    out_of_scope: str = ""


#: The rows of the kinds "standard" and "flaw".
Table = Mapping[str, Sequence[Row]]


def read(path: Path = ROWS) -> Table:
    """Return the rows of a data file.

    Raises:
        TypeError: a row has an unknown field, or lacks ``id`` or ``text``.
    """
    tables = tomllib.loads(path.read_text("utf-8"))
    return {kind: [Row(**row) for row in rows] for kind, rows in tables.items()}


def all_rows(table: Table) -> list[Row]:
    """Return the rows of all kinds."""
    return [row for rows in table.values() for row in rows]


def errors(rows: Sequence[Row], tests: Tests) -> list[str]:
    """Return the contradictions between rows, tests and public names, one sentence each."""
    known = {row.id for row in rows}
    unknown = sorted(set(tests) - known)
    found = [f"{tests[name][0]} cites {name}, which is not in the table" for name in unknown]
    if len(known) != len(rows):
        found.append("two rows have the same ID")
    for row in rows:
        citing = tests.get(row.id, ())
        if bool(row.answer) == bool(row.out_of_scope):
            found.append(f"{row.id} must have either an answer or a reason in out_of_scope")
        if row.out_of_scope and citing:
            found.append(f"{row.id} is out of scope, and {citing[0]} cites it")
        if row.answer and not citing:
            found.append(f"{row.id} has no test")
        found += [
            f"{row.id} names {owner}.{member}, which does not exist"
            for owner, member in _MEMBER.findall(row.answer)
            if not hasattr({"session": Session, "sessions": Sessions}[owner], member)
        ]
    return found


def render(text: str, table: Table, tests: Tests) -> str:
    """Return the page's text with its generated blocks replaced."""
    for name, block in (
        ("count", count(table, tests)),
        ("standards", render_rows(table["standard"], tests, "requirement")),
        ("flaws", render_rows(table["flaw"], tests, "flaw")),
    ):
        begin = f"<!-- {name}: written by tools/security_table.py -->"
        text = markdown.replace(text, begin, f"<!-- /{name} -->", block)
    return text


def count(table: Table, tests: Tests) -> str:
    """Return a sentence with the number of tested rows."""
    standards, flaws = table["standard"], table["flaw"]
    out_of_scope = sum(bool(row.out_of_scope) for row in all_rows(table))
    return (
        f"{tested(flaws, tests)} of the {len(flaws)} flaws and {tested(standards, tests)} of the "
        f"{len(standards)} requirements are answered and tested; {out_of_scope} are out of scope, "
        "with the reason."
    )


def tested(rows: Iterable[Row], tests: Tests) -> int:
    """Return the number of rows that have an answer and a test."""
    return sum(bool(row.answer) and bool(tests.get(row.id)) for row in rows)


def render_rows(rows: Sequence[Row], tests: Tests, heading: str) -> str:
    """Return rows as a Markdown table."""
    cells = (
        (
            row.id,
            row.text,
            row.answer or f"out of scope: {row.out_of_scope}",
            group(tests.get(row.id, ())),
        )
        for row in rows
    )
    return markdown.table(("ID", heading, "sojourn", "tests"), cells)


def group(tests: Sequence[str]) -> str:
    """Return test names by file, without class names; files with the same names share a line."""
    names: dict[str, dict[str, None]] = {}
    for test in tests:
        file, _, name = test.partition("::")
        names.setdefault(file.removeprefix("tests/"), {})[name.rpartition("::")[2] or name] = None
    files: dict[tuple[str, ...], list[str]] = {}
    for file, found in names.items():
        files.setdefault(tuple(found), []).append(file)
    return "<br>".join(
        f"{', '.join(sharing)}: " + ", ".join(f"`{name}`" for name in found)
        for found, sharing in files.items()
    )


def main() -> None:
    """Write the page; exit with the errors of the table."""
    table = read()
    tests = citations.by_name(citations.collected(), citations.rows)
    PAGE.write_text(render(PAGE.read_text("utf-8"), table, tests), "utf-8")
    print(count(table, tests))
    if found := errors(all_rows(table), tests):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
