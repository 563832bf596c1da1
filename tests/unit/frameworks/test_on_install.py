"""``sojourn.on_install``: what it accepts. ``tests/integration/test_seed.py`` tests the calls."""

import pytest

import sojourn
from sojourn.errors import ConfigurationError


@pytest.mark.parametrize("listener", [None, "audit", 5])
def test_a_listener_that_is_no_function_is_refused(listener):
    """A24: otherwise each later ``install`` would fail."""
    with pytest.raises(ConfigurationError, match="on_install expects a function"):
        sojourn.on_install(listener)
