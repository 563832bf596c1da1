"""Reads which laws and security rows each collected test cites in its docstring.

A docstring cites laws as ``A7, W3`` and rows as ``B-32``, ``ASVS 3.3.1, 3.3.4``, ``SESS-13``.
"""

import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Every law of docs/laws.md.
LAWS = frozenset(
    f"{kind}{number}"
    for kind, count in {"S": 18, "A": 24, "W": 8, "N": 5}.items()
    for number in range(1, count + 1)
)

#: Precedes the docstrings in the output of pytest.
_COLLECTED = "COLLECTED"

_LAW = re.compile(r"\b[SAWN]\d{1,2}\b")
_ROW = re.compile(r"\bB-\d+\b|\b(?:SESS|COOK|REAUTH)-\d\d\b|\bOWASP-\d+\b")
_ASVS = re.compile(r"\bASVS (\d+(?:\.\d+)*(?:,\s+\d+(?:\.\d+)*)*)")


def docstring(item: pytest.Item) -> str:
    """Return the docstring of a test; empty for an item that is no function."""
    return getattr(getattr(item, "function", None), "__doc__", None) or ""


def docstrings(items: Iterable[pytest.Item]) -> dict[str, str]:
    """Return the docstring of each test, by node ID without parameters."""
    return {item.nodeid.partition("[")[0]: docstring(item) for item in items}


def collected(without: Iterable[str] = ()) -> dict[str, str]:
    """Return the docstring of each test that pytest collects, except in some files.

    Raises:
        SystemExit: the tests cannot be collected.
    """
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", __name__]
    command += ["-p", "no:cacheprovider", "-p", "no:randomly", "tests"]
    command += [f"--ignore={file}" for file in without]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - this repository's tests
    if answer.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"the tests cannot be collected:\n{answer.stdout}{answer.stderr}")
    _, _, text = answer.stdout.partition(_COLLECTED)
    found: dict[str, str] = json.loads(text.partition("\n")[0])
    return found


def pytest_collection_finish(session: pytest.Session) -> None:
    """Print the docstrings: this module is a plugin of the pytest that ``collected`` starts."""
    print(_COLLECTED + json.dumps(docstrings(session.items)))


def laws(text: str) -> list[str]:
    """Return the laws that a docstring cites."""
    return _LAW.findall(text)


def rows(text: str) -> list[str]:
    """Return the IDs of the security rows that a docstring cites."""
    chapters = (listed.split(",") for listed in _ASVS.findall(text))
    asvs = [f"ASVS {number.strip()}" for numbers in chapters for number in numbers]
    return _ROW.findall(text) + asvs


@functools.cache
def names(text: str) -> frozenset[str]:
    """Return the laws and security rows that a docstring cites."""
    return frozenset({*laws(text), *rows(text)})


def by_name(
    docstrings: Mapping[str, str], cited: Callable[[str], Iterable[str]]
) -> dict[str, list[str]]:
    """Return the sorted node IDs of the tests that cite each law or row."""
    tests: dict[str, list[str]] = {}
    for test in sorted(docstrings):
        for name in dict.fromkeys(cited(docstrings[test])):
            tests.setdefault(name, []).append(test)
    return tests
