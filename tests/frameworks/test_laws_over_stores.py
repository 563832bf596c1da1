"""The laws of requests for each framework over SQLite, Valkey and PostgreSQL.

The classes are derived from the law suites in ``test_<framework>.py``, which use the memory store.
"""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.contract.request_suite import RequestSuite
from tests.support.application_stores import OverPostgres, OverSQLite, OverValkey

#: The modules with the law suites of the frameworks.
MODULES = (
    "tests.contract.test_applications",
    *sorted(
        f"tests.frameworks.{path.stem}"
        for path in Path(__file__).parent.glob("test_*.py")
        if path != Path(__file__) and "RequestSuite" in path.read_text("utf-8")
    ),
)

#: The suites that ``make test`` runs; ``make test-all`` runs all.
EVERYDAY = frozenset({"TestFastAPIOverSQLite"})


def suites():
    """Yield each law suite by its name."""
    for name in MODULES:
        for found in vars(import_module(name)).values():
            if (
                isinstance(found, type)
                and issubclass(found, RequestSuite)
                and found.__module__ == name
                and found.__name__.startswith("Test")
            ):
                yield found


for suite in suites():
    for store in (OverSQLite, OverValkey, OverPostgres):
        title = f"{suite.__name__}{store.__name__}"
        combined = type(title, (store, suite), {"__doc__": suite.__doc__, "__module__": __name__})
        marks = getattr(sys.modules[suite.__module__], "pytestmark", [])
        for mark in [*(marks if isinstance(marks, list) else [marks])]:
            combined = mark(combined)
        globals()[title] = combined if title in EVERYDAY else pytest.mark.slow(combined)
del suite, store, combined
