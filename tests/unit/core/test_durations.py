"""Durations as users write them."""

from datetime import timedelta

import pytest

from sojourn._core.durations import milliseconds
from sojourn.errors import ConfigurationError

MINUTE, HOUR = 60_000, 3_600_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 minutes", 5 * MINUTE), ("5 Minutes ", 5 * MINUTE), ("5m", 5 * MINUTE), ("2h", 2 * HOUR),
        ("1.5 hours", 90 * MINUTE), ("1 day 12 hours", 36 * HOUR), ("1 day, 12 hours", 36 * HOUR),
        ("1h30m", 90 * MINUTE), ("250ms", 250), ("1 week", 168 * HOUR), ("1 ms", 1),
        ("  10 s", 10_000), (10, 10_000), (0.5, 500), (timedelta(hours=1), HOUR),
        (timedelta(milliseconds=1), 1),
    ],
)  # fmt: skip
def test_durations_are_parsed(text, expected):
    assert milliseconds(text, option="timeout") == expected


@pytest.mark.parametrize(
    "wrong",
    [
        "", " ", "5", "minutes", "5 minuten", "five minutes",
        "-5 minutes", "5 minutes ago", "5..5 m",
        "0 minutes", "0.0001 s", "1 m 2", "\u0665 minutes", "9" * 400 + " s", "1e3 s", ",", "5 m;",
        0, -1, 0.0, 0.0001, float("nan"), float("inf"), -float("inf"), 10**30, True, False, None,
        [], b"5 m", timedelta(0), timedelta(seconds=-1), object,
    ],
)  # fmt: skip
def test_an_invalid_duration_is_refused_with_examples(wrong):
    with pytest.raises(ConfigurationError) as caught:
        milliseconds(wrong, option="store_timeout")
    for part in ("store_timeout expects a duration above zero", "'30 minutes'", repr(wrong)):
        assert part in str(caught.value)
