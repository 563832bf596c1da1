"""Write the tables of docs/security.md: each row with the tests that cite it.

What lives here: reading citations out of the docstrings of collected tests, the faults that make
the page a lie, the tables. What must not: rows (``security_rows.py``, ``security_flaws.py``).

A test cites rows in its docstring: ``B-32``, ``B-1 to B-8``, ``ASVS 3.3.1, 3.3.4``,
``ASVS 3.3.1-3.3.5``, ``SESS-13``. Only what pytest collects counts.

    python -m tools.security_table
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sojourn import Session, Sessions
from sojourn.settings import DEFAULTS
from tools.security_flaws import FLAWS
from tools.security_row import Row
from tools.security_rows import ROWS, STANDARDS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "security.md"

#: How many of the flaws must have a test.
ENOUGH = 50

COLLECT = """
import json, sys, pytest

class Collector:
    def pytest_collection_finish(self, session):
        found = {item.nodeid.partition("[")[0]: item.function.__doc__ or ""
                 for item in session.items if hasattr(item, "function")}
        print("COLLECTED" + json.dumps(found))

sys.exit(pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", "-p", "no:randomly",
                      "tests"], plugins=[Collector()]))
"""

_FLAW = re.compile(r"\bB-(\d+)(?:(?: to |-)B-(\d+))?")
_MEMBER = re.compile(r"`(sessions?\.\w+)")
_NUMBERED = re.compile(r"\b(?:SESS|COOK|REAUTH)-\d\d\b|\bOWASP-\d+\b")
_NUMBER = r"\d+(?:\.\d+)*"
_ASVS = re.compile(rf"\bASVS ({_NUMBER}(?:(?:, |-){_NUMBER})*)")

#: The rows that a citation names, by test.
Tests = Mapping[str, Sequence[str]]


def collected() -> dict[str, str]:
    """Return the docstring of each test that pytest collects, by its name without parameters."""
    answer = subprocess.run(  # noqa: S603 - our own tests
        [sys.executable, "-c", COLLECT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = [line for line in answer.stdout.splitlines() if line.startswith("COLLECTED")]
    if answer.returncode != 0 or not lines:
        errors = [line for line in answer.stdout.splitlines() if line.startswith("ERROR")]
        raise SystemExit("\n".join(["the tests cannot be collected:", *errors, answer.stderr]))
    found: dict[str, str] = json.loads(lines[0].removeprefix("COLLECTED"))
    return found


def citations(docstring: str) -> Iterator[str]:
    """Yield the ID of each row that a docstring cites."""
    for first, last in _FLAW.findall(docstring):
        for number in range(int(first), int(last or first) + 1):
            yield f"B-{number}"
    for listed in _ASVS.findall(" ".join(docstring.split())):
        for part in listed.split(", "):
            yield from _span(*part.split("-"))
    yield from _NUMBERED.findall(docstring)


def _span(first: str, last: str = "") -> Iterator[str]:
    chapter, _, start = first.rpartition(".")
    end = last.rpartition(".")[2] or start
    for number in range(int(start), int(end) + 1):
        yield f"ASVS {chapter}.{number}" if chapter else f"ASVS {number}"


def cited(docstrings: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the tests that cite each row, in the order of their names."""
    tests: dict[str, list[str]] = {}
    for test in sorted(docstrings):
        for row in dict.fromkeys(citations(docstrings[test])):
            tests.setdefault(row, []).append(test)
    return tests


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
        return name in DEFAULTS
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
    tests = cited(collected())
    wrong = faults(ROWS, tests)
    for fault in wrong:
        print(fault)
    PAGE.write_text(page(PAGE.read_text("utf-8"), tests), "utf-8")
    print(count(tests))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
