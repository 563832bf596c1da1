"""Reads which laws and security rows each collected test cites in its docstring.

A docstring cites laws as ``A7, W3`` and rows as ``B-32``, ``B-1 to B-8``, ``ASVS 3.3.1, 3.3.4``,
``ASVS 3.3.1-3.3.5``, ``SESS-13``.
"""

import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Every law of docs/laws.md.
LAWS = frozenset(
    [f"S{n}" for n in range(1, 19)]
    + [f"A{n}" for n in range(1, 25)]
    + [f"W{n}" for n in range(1, 9)]
    + [f"N{n}" for n in range(1, 6)]
)

_COLLECT = """
import json, sys, pytest

class Collector:
    def pytest_collection_finish(self, session):
        found = {item.nodeid.partition("[")[0]: item.function.__doc__ or ""
                 for item in session.items if hasattr(item, "function")}
        print("COLLECTED" + json.dumps(found))

sys.exit(pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", "-p", "no:randomly",
                      "tests"], plugins=[Collector()]))
"""

_LAW = re.compile(r"\b[SAWN]\d{1,2}\b")
_FLAW = re.compile(r"\bB-(\d+)(?:(?: to |-)B-(\d+))?")
_NUMBERED = re.compile(r"\b(?:SESS|COOK|REAUTH)-\d\d\b|\bOWASP-\d+\b")
_NUMBER = r"\d+(?:\.\d+)*"
_ASVS = re.compile(rf"\bASVS ({_NUMBER}(?:(?:, |-){_NUMBER})*)")


@functools.cache
def collected() -> Mapping[str, str]:
    """Return the docstring of each test that pytest collects, by node ID without parameters.

    Raises:
        SystemExit: the tests cannot be collected.
    """
    answer = subprocess.run(  # noqa: S603 - runs this repository's tests
        [sys.executable, "-c", _COLLECT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = [line for line in answer.stdout.splitlines() if line.startswith("COLLECTED")]
    if answer.returncode != 0 or not lines:
        errors = [line for line in answer.stdout.splitlines() if line.startswith("ERROR")]
        raise SystemExit("\n".join(["the tests cannot be collected:", *errors, answer.stderr]))
    found: dict[str, str] = json.loads(lines[0].removeprefix("COLLECTED"))
    return found


def laws(docstring: str) -> list[str]:
    """Return the laws that a docstring cites."""
    return _LAW.findall(docstring)


def rows(docstring: str) -> Iterator[str]:
    """Yield the IDs of the security rows that a docstring cites."""
    for first, last in _FLAW.findall(docstring):
        for number in range(int(first), int(last or first) + 1):
            yield f"B-{number}"
    for listed in _ASVS.findall(" ".join(docstring.split())):
        for part in listed.split(", "):
            yield from _expand_range(*part.split("-"))
    yield from _NUMBERED.findall(docstring)


def _expand_range(first: str, last: str = "") -> Iterator[str]:
    chapter, _, start = first.rpartition(".")
    end = last.rpartition(".")[2] or start
    for number in range(int(start), int(end) + 1):
        yield f"ASVS {chapter}.{number}" if chapter else f"ASVS {number}"


@functools.cache
def names(docstring: str) -> frozenset[str]:
    """Return the laws and security rows that a docstring cites."""
    return frozenset({*laws(docstring), *rows(docstring)})


def by_name(
    docstrings: Mapping[str, str], cited: Callable[[str], Iterable[str]]
) -> dict[str, list[str]]:
    """Return the node IDs of the tests that cite each law or row, sorted.

    Args:
        docstrings: of tests, by node ID.
        cited: ``laws``, ``rows`` or ``names``.
    """
    tests: dict[str, list[str]] = {}
    for test in sorted(docstrings):
        for name in dict.fromkeys(cited(docstrings[test])):
            tests.setdefault(name, []).append(test)
    return tests
