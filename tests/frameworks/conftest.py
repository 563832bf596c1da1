"""Fixtures of the framework tests, and the marker of those that `make test` omits."""

import pytest

from tests.contract.request_suite import RequestSuite
from tests.support.postgresql_fixtures import postgresql, shared_postgresql
from tests.support.valkey_fixtures import shared_valkey, valkey

__all__ = ["postgresql", "shared_postgresql", "shared_valkey", "valkey"]

#: The law suites that `make test` runs; those of the other frameworks run in `make test-all`, and
#: so do those over SQLite and Valkey (``test_laws_over_stores.py``). Each has about 200 tests.
EVERYDAY = frozenset({"TestAiohttp", "TestDjango", "TestDjangoWSGI", "TestFlask", "TestLitestar"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the law suites that `make test` omits as slow, before slow tests are deselected."""
    for item in items:
        suite = getattr(item, "cls", None)
        if (
            suite is not None
            and issubclass(suite, RequestSuite)
            and suite.__module__.startswith("tests.frameworks.test_")
            and suite.__module__ != "tests.frameworks.test_laws_over_stores"
            and suite.__name__ not in EVERYDAY
        ):
            item.add_marker(pytest.mark.slow)
