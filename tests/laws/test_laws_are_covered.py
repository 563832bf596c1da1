"""Every law has a test that cites it, and every law that a test cites exists.

Reads what pytest collects, not the source text: a test that is not collected proves nothing. The
list of laws is in docs/laws.md, and here once more, so that none is dropped unnoticed.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tools.mutations import MUTATIONS
from tools.mutations_live import ACROSS
from tools.mutations_lives import LIVES
from tools.mutations_parts import PARTS
from tools.mutations_stores import STORES

LAWS = frozenset(
    [f"S{n}" for n in range(1, 19)]
    + [f"A{n}" for n in range(1, 21)]
    + [f"W{n}" for n in range(1, 9)]
)

COLLECT = """
import json, sys, pytest

class Collector:
    def pytest_collection_finish(self, session):
        found = [[item.nodeid.partition("[")[0], item.function.__doc__ or ""]
                 for item in session.items if hasattr(item, "function")]
        print("COLLECTED" + json.dumps(found))

sys.exit(pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", "tests"],
                     plugins=[Collector()]))
"""


@pytest.fixture(scope="module")
def cited(repository: Path) -> dict[str, set[str]]:
    """Return, for each law that is cited, the tests that do."""
    answer = subprocess.run(
        [sys.executable, "-c", COLLECT], cwd=repository, capture_output=True, text=True, check=False
    )
    line = next(line for line in answer.stdout.splitlines() if line.startswith("COLLECTED"))
    tests: dict[str, set[str]] = defaultdict(set)
    for test, docstring in json.loads(line.removeprefix("COLLECTED")):
        for law in re.findall(r"\b[SAW]\d{1,2}\b", docstring):
            tests[law].add(test)
    return tests


@pytest.mark.parametrize("law", sorted(LAWS, key=lambda law: (law[0], int(law[1:]))))
def test_every_law_is_cited_by_a_test(cited, law):
    assert cited[law]


def test_no_test_cites_a_law_that_does_not_exist(cited):
    # Promises that later parts of sojourn will keep have numbers already.
    reserved = {"W9", "W10"}
    assert set(cited) - LAWS - reserved == set()


def test_the_page_of_laws_lists_them_all(repository):
    page = (repository / "docs" / "laws.md").read_text("utf-8")
    assert set(re.findall(r"^\| ([SAW]\d+) \|", page, re.MULTILINE)) == LAWS


@pytest.mark.parametrize(
    ("suite", "kind"),
    [
        *((f"test_applications.py::Test{name}", "A") for name in ("Starlette", "FastAPI")),
        *((f"test_applications.py::Test{name}", "A") for name in ("BareASGI", "BareWSGI")),
        ("test_memory.py::TestMemoryStore", "S"),
        ("test_sqlite.py::TestSQLiteStore", "S"),
    ],
)
def test_each_suite_judges_all_laws_of_its_kind(cited, suite, kind):
    judged = {law for law, tests in cited.items() if any(suite in test for test in tests)}
    # Neither of these stores announces: what is in one process, or in one file, cannot tell others.
    assert {law for law in LAWS - {"S17"} if law[0] == kind} <= judged


def test_every_law_was_seen_to_fail():
    """`make mutations` breaks each law on purpose; here only that none is left out."""
    assert {law for row in (*MUTATIONS, *LIVES, *ACROSS) for law in row.laws.split()} >= LAWS


@pytest.mark.parametrize(
    "row", [*MUTATIONS, *LIVES, *PARTS, *STORES, *ACROSS], ids=lambda row: row.laws
)
def test_every_deliberate_fault_still_fits_the_code(repository, row):
    """The code that a row of tools/mutations*.py breaks stands there, exactly once."""
    assert (repository / row.file).read_text("utf-8").count(row.text) == 1
