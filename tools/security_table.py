"""Write the tables of docs/security.md: each row with the tests that cite it.

What lives here: the faults that make the page a lie, and the tables. What must not: rows
(``security_rows.py``, ``security_flaws.py``) and how a test cites them (``citations.py``).

    python -m tools.security_table
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sojourn import Session, Sessions
from sojourn.config import OPTIONS
from tools import citations
from tools.security_flaws import FLAWS
from tools.security_row import Row
from tools.security_rows import ROWS, STANDARDS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "security.md"

#: How many of the flaws must have a test.
ENOUGH = 50

_MEMBER = re.compile(r"`(sessions?\.\w+)")

#: The rows that a citation names, by test.
Tests = Mapping[str, Sequence[str]]


def cited() -> dict[str, list[str]]:
    """Return the tests that cite each row."""
    return citations.by_name(citations.collected(), citations.rows)


def faults(rows: Sequence[Row], tests: Tests) -> list[str]:
    """Return what would make the page a lie, one sentence each."""
    known = {row.id for row in rows}
    unknown = sorted(set(tests) - known)
    found = [f"{name} is cited by {tests[name][0]}, and is no row" for name in unknown]
    if len(known) != len(rows):
        found.append("two rows have one ID")
    for row in rows:
        there = tests.get(row.id, ())
        if row.not_ours and there:
            found.append(f"{row.id} is said not to concern us, and {there[0]} tests it")
        elif row.awaits and exists(row.awaits):
            found.append(f"{row.id} awaits {row.awaits}, which exists: drop 'awaits'")
        elif not (row.not_ours or row.awaits or there):
            found.append(f"{row.id} has no test")
        if not row.awaits:
            missing = [name for name in _MEMBER.findall(row.ours) if not exists(name)]
            found += [f"{row.id} names {name}, which does not exist" for name in missing]
        if bool(row.ours) == bool(row.not_ours):
            found.append(f"{row.id} must say either what we do or why it is not ours")
    return found


def exists(name: str) -> bool:
    """Tell whether a public name is there: a member of a session, of the façade, or an option."""
    owner, dot, member = name.rpartition(".")
    if not dot:
        return name in OPTIONS
    return hasattr({"session": Session, "sessions": Sessions}[owner], member)


def page(text: str, tests: Tests) -> str:
    """Return the page with its tables as they should be."""
    for name, block in (
        ("count", count(tests)),
        ("standards", table(STANDARDS, tests, "asks for")),
        ("flaws", table(FLAWS, tests, "what went wrong")),
    ):
        begin, end = f"<!-- {name}: written by tools/security_table.py -->", f"<!-- /{name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise SystemExit(f"{PAGE.name} has no place for {name!r}: {begin} … {end}")
        text = f"{before}{begin}\n{block}\n{end}{after}"
    return text


def count(tests: Tests) -> str:
    """Say how many rows have a test."""
    standards, flaws = tested(STANDARDS, tests), tested(FLAWS, tests)
    waiting = sum(bool(row.awaits) for row in ROWS)
    foreign = sum(bool(row.not_ours) for row in ROWS)
    text = (
        f"{flaws} of the {len(FLAWS)} flaws and {standards} of the {len(STANDARDS)} requirements "
        f"are answered and tested; {foreign} do not concern a session layer, and say why"
    )
    return text + (f"; {waiting} are not answered yet, and say so." if waiting else ".")


def tested(rows: Iterable[Row], tests: Tests) -> int:
    """Return how many rows are answered and have a test."""
    return sum(bool(tests.get(row.id)) and not row.awaits for row in rows)


def table(rows: Sequence[Row], tests: Tests, heading: str) -> str:
    """Return rows as a table of Markdown."""
    lines = [f"| | {heading} | sojourn | tests |", "|---|---|---|---|"]
    for row in rows:
        if row.not_ours:
            answer, proof = f"not ours: {row.not_ours}", ""
        elif row.awaits:
            answer, proof = f"**not yet**: awaits `{row.awaits}`", ""
        else:
            answer, proof = row.ours, grouped(tests.get(row.id, ()))
        lines.append(f"| {row.id} | {row.asks} | {answer} | {proof} |")
    return "\n".join(lines)


def grouped(tests: Sequence[str]) -> str:
    """Return the names of tests, those of one file together; those of suites once."""
    files: dict[str, dict[str, None]] = {}
    for test in tests:
        file, _, name = test.partition("::")
        files.setdefault(file.removeprefix("tests/"), {})[name.rpartition("::")[2] or name] = None
    return "<br>".join(
        f"{file}: " + ", ".join(f"`{name}`" for name in names) for file, names in files.items()
    )


def main() -> int:
    """Write the page; return 1 if it would lie."""
    tests = cited()
    wrong = faults(ROWS, tests)
    for fault in wrong:
        print(fault)
    PAGE.write_text(page(PAGE.read_text("utf-8"), tests), "utf-8")
    print(count(tests))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
