"""A plugin of pytest: which tests that cite a law or a row failed, and nothing further.

What lives here: what ``mutate.py`` loads into the tests of a fault with ``-p tools.witness``. It
writes a line for the first failing test of each name, and stops as soon as all names have one;
without names, a line for every failing test. What must not: a verdict. A test that fails while it
is set up proves nothing and is no witness.
"""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tools.citations import names

#: The names that a failing test has to cite, separated by commas; what is no citation (a promise in
#: words) is satisfied by any failing test.
WANTED = "MUTATION_NAMES"

#: The file for the witnesses: a line for each, name, tab, test.
FOUND = "MUTATION_WITNESSES"

_wanted = {name for name in os.environ.get(WANTED, "").split(", ") if name}
_missing = set(_wanted)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note a failing test for what it cites."""
    report = yield
    if report.failed and report.when != "setup":
        cited = names(getattr(getattr(item, "function", None), "__doc__", None) or "")
        seen = {name for name in _missing if name in cited or not names(name)}
        with Path(os.environ[FOUND]).open("a", encoding="utf-8") as file:
            file.writelines(f"{name}\t{item.nodeid}\n" for name in (seen if _wanted else {""}))
        _missing.difference_update(seen)
        if _wanted and not _missing:
            item.session.shouldstop = "every name has its witness"
    return report
