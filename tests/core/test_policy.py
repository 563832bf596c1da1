"""Durations as people write them, and the limits that follow.

Read next: ``test_plan.py``.
"""

from datetime import timedelta

import pytest

from sojourn.core.policy import Policy, expired, milliseconds
from sojourn.core.record import FOREVER, Record
from sojourn.errors import ConfigurationError

MINUTE, HOUR = 60_000, 3_600_000


def build(**options):
    return Policy.build(**{"idle_timeout": "30 minutes", "absolute_timeout": "12 hours", **options})


def make(**fields):
    return Record(
        **{
            "id": bytes(16),
            "version": 1,
            "seen_at": 1_000,
            "created_at": 1_000,
            "absolute_at": 100_000,
            "idle_timeout": 10_000,
            "verifier": bytes(32),
            "body": b"x",
            **fields,
        }
    )


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
def test_durations_people_write(text, expected):
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
def test_anything_else_is_refused_by_name_with_examples(wrong):
    with pytest.raises(ConfigurationError) as caught:
        milliseconds(wrong, option="store_timeout")
    for part in ("store_timeout expects a duration above zero", "'30 minutes'", repr(wrong)):
        assert part in str(caught.value)


class TestBuild:
    def test_defaults_follow_from_the_timeout(self):
        """api.md: a tenth of the idle timeout, at most 60 s."""
        assert build() == Policy(30 * MINUTE, 12 * HOUR, MINUTE, None)
        assert build(idle_timeout="100 s").touch_interval == 10_000

    def test_every_duration_is_checked_under_its_own_name(self):
        for option, name in [
            ("idle_timeout", "timeout"),
            ("absolute_timeout", "absolute_timeout"),
            ("touch_interval", "touch_interval"),
            ("unconfirmed_timeout", "unconfirmed_timeout"),
        ]:
            with pytest.raises(ConfigurationError, match=f"^{name} expects"):
                build(**{option: "soon"})

    @pytest.mark.parametrize("touch", ["30 minutes", "31 minutes"])
    def test_touching_too_rarely_is_refused(self, touch):
        with pytest.raises(ConfigurationError, match="would be logged out"):
            build(touch_interval=touch)

    def test_a_life_shorter_than_a_silence_is_refused_with_the_remedy(self):
        with pytest.raises(ConfigurationError, match="longer absolute_timeout="):
            build(idle_timeout="2 days")
        assert build(idle_timeout="2 days", absolute_timeout=None).absolute_timeout is None

    def test_no_absolute_limit_must_be_asked_for(self):
        """ASVS 7.1.1."""
        assert build().absolute_at(5) == 5 + 12 * HOUR
        assert build(absolute_timeout=None).absolute_at(5) == FOREVER

    def test_an_unconfirmed_session_is_allowed_the_shorter_silence(self):
        assert build().first_idle_timeout() == 30 * MINUTE
        assert build(unconfirmed_timeout="1 minute").first_idle_timeout() == MINUTE
        assert build(unconfirmed_timeout="2 hours").first_idle_timeout() == 30 * MINUTE


class TestLimits:
    def test_a_session_ends_at_the_very_millisecond(self):
        """A17, ASVS 7.3.1, 7.3.2."""
        assert expired(make(), 10_999) is None
        assert expired(make(), 11_000) == "idle"
        assert expired(make(seen_at=99_000), 99_999) is None
        assert expired(make(seen_at=99_000), 100_000) == "absolute"

    def test_an_unconfirmed_session_says_so(self):
        assert expired(make(confirmed=False), 11_000) == "unconfirmed"

    def test_touch_is_due_after_the_interval(self):
        policy = build(idle_timeout="100 s")  # touched every 10 s
        record = make(idle_timeout=100_000)
        assert not policy.touch_due(record, 10_999)
        assert policy.touch_due(record, 11_000)

    def test_a_record_with_a_shorter_timeout_of_its_own_is_touched_in_time(self):
        """It may have been written under other settings, or be unconfirmed."""
        policy = build()
        assert policy.touch_due(make(), 6_000)
        assert not policy.touch_due(make(), 5_999)
