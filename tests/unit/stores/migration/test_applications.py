"""The laws of requests (A) while sessions are served from two stores."""

import pytest

from tests.contract import test_applications as adapters
from tests.frameworks import test_flask as flask_adapter
from tests.support.application_stores import OverMigration


@pytest.mark.slow
class TestStarlette(OverMigration, adapters.TestStarlette):
    """A1 to A24: new sessions are created in the new store."""


@pytest.mark.slow
class TestFlask(OverMigration, flask_adapter.TestFlask):
    """A1 to A24: new sessions are created in the new store."""


@pytest.mark.slow
class TestStarletteWhilePreparing(OverMigration, adapters.TestStarlette):
    """A1 to A24: new sessions are created in the old store."""

    prepare = True


@pytest.mark.slow
class TestFlaskWhilePreparing(OverMigration, flask_adapter.TestFlask):
    """A1 to A24: new sessions are created in the old store."""

    prepare = True
