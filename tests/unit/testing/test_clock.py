"""FakeClock."""

from datetime import timedelta

import pytest

from sojourn.errors import ConfigurationError
from sojourn.testing import FakeClock


def test_the_clock_moves_only_when_advanced():
    clock = FakeClock(1_000)
    assert clock() == clock() == 1_000
    assert clock.advance("5 minutes") == clock() == 301_000
    clock.advance(1.5)
    clock.advance(timedelta(hours=1))
    assert clock() == 3_902_500
    assert repr(clock) == "FakeClock(3902500)"


def test_the_clock_cannot_go_back():
    with pytest.raises(ConfigurationError):
        FakeClock().advance(-1)
