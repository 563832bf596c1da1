"""S12: how long a call tries to connect to a server that failed."""

import pytest

from sojourn.stores import reconnection
from sojourn.stores.reconnection import ReconnectionLimit


@pytest.fixture
def now(monkeypatch):
    class Time:
        seconds = 100.0

    monkeypatch.setattr(reconnection.time, "monotonic", lambda: Time.seconds)
    return Time


def test_the_first_connection_may_take_the_whole_deadline(now):
    limit = ReconnectionLimit(0.1, 0.05)
    for _ in range(2):
        assert not limit.was_connected
        assert limit.deadline(102.0, 2.0) == 102.0
    limit.connected(0.01)
    assert limit.was_connected


@pytest.mark.parametrize(
    ("taken", "timeout", "end"),
    [
        (0.01, 2.0, 100.2),  # a tenth
        (0.01, 0.1, 100.05),  # the least
        (0.3, 2.0, 100.6),  # twice the time of the last one
        (1.5, 2.0, 102.0),  # the deadline of the call
    ],
)
def test_later_ones_get_a_part(now, taken, timeout, end):
    limit = ReconnectionLimit(0.1, 0.05)
    limit.connected(taken)
    assert limit.deadline(102.0, timeout) == pytest.approx(end)


def test_a_connection_that_exists_does_not_count_as_a_fast_one(now):
    limit = ReconnectionLimit(0.1, 0.05)
    limit.connected(0.4)
    limit.connected(0.0)
    assert limit.deadline(102.0, 2.0) == pytest.approx(100.4)


def test_one_call_in_thirty_seconds_of_an_outage_gets_the_whole_deadline(now):
    """The network has become slower: otherwise no call would ever succeed."""
    limit = ReconnectionLimit(0.1, 0.05)
    limit.connected(0.01)
    whole = []
    for _ in range(700):
        now.seconds += 0.1
        if limit.deadline(now.seconds + 2.0, 2.0) == now.seconds + 2.0:
            whole.append(round(now.seconds - 100.1))
    assert whole == [30, 60]
    limit.connected(0.5)  # that call connects: the next outage is a new one
    now.seconds += 100
    assert limit.deadline(now.seconds + 2.0, 2.0) == pytest.approx(now.seconds + 1.0)
