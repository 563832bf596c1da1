"""Fixtures: one real PostgreSQL server for the tests of a process, emptied before each of them.

A ``conftest.py`` imports them.
"""

import pytest

from tests.integration.postgresql import Postgres

__all__ = ["postgresql", "shared_postgresql"]


@pytest.fixture(scope="session")
def shared_postgresql():
    server = Postgres()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def postgresql(shared_postgresql):
    shared_postgresql.reset()
    return shared_postgresql
