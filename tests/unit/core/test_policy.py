"""Durations as people write them, and the limits that follow.

Read next: ``test_plan.py``.
"""

from datetime import timedelta

import pytest

from sojourn._core.limits import build_policy
from sojourn._core.policy import Limits, Policy, expired, milliseconds
from sojourn.errors import ConfigurationError
from sojourn.record import FOREVER, Record

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


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
        assert build_policy().touch_interval == MINUTE
        assert build_policy(touch_interval="5 s").touch_interval == 5_000
        assert build_policy(timeout="100 s").touch_interval == 10_000

    def test_every_duration_is_checked_under_its_own_name(self):
        for option, name in [
            ("timeout", "timeout"),
            ("absolute_timeout", "absolute_timeout"),
            ("touch_interval", "touch_interval"),
            ("unconfirmed_timeout", "unconfirmed_timeout"),
        ]:
            with pytest.raises(ConfigurationError, match=f"^{name} expects"):
                build_policy(**{option: "soon"})

    @pytest.mark.parametrize("touch", ["30 minutes", "31 minutes"])
    def test_touching_too_rarely_is_refused(self, touch):
        with pytest.raises(ConfigurationError, match="would be logged out"):
            build_policy(touch_interval=touch)

    def test_a_life_shorter_than_a_silence_is_refused_with_the_remedy(self):
        with pytest.raises(ConfigurationError, match="longer absolute_timeout="):
            build_policy(timeout="2 days")
        assert (
            build_policy(timeout="2 days", absolute_timeout=None).ordinary.absolute_timeout is None
        )

    def test_no_absolute_limit_must_be_asked_for(self):
        """ASVS 7.1.1."""
        assert build_policy().ordinary.absolute_at(5) == 5 + 12 * HOUR
        assert build_policy(absolute_timeout=None).ordinary.absolute_at(5) == FOREVER

    def test_an_unconfirmed_session_is_allowed_the_shorter_silence(self):
        assert build_policy().first_idle_timeout() == 30 * MINUTE
        assert build_policy(unconfirmed_timeout="1 minute").first_idle_timeout() == MINUTE
        assert build_policy(unconfirmed_timeout="2 hours").first_idle_timeout() == 30 * MINUTE

    def test_defaults_of_every_kind_of_session(self):
        """ASVS 7.1.1: the limits of logged-in, anonymous and remembered sessions."""
        assert build_policy() == Policy(
            Limits(30 * MINUTE, 12 * HOUR),
            Limits(30 * MINUTE, 12 * HOUR),
            Limits(14 * DAY, 30 * DAY),
            MINUTE,
        )

    def test_each_kind_can_have_limits_of_its_own(self):
        policy = build_policy(
            anonymous_timeout="1 hour",
            anonymous_absolute_timeout="2 hours",
            remember_timeout="3 hours",
            remember_absolute_timeout=None,
        )
        assert policy.limits(None, persistent=False) == Limits(HOUR, 2 * HOUR)
        assert policy.limits("ada", persistent=False) == Limits(30 * MINUTE, 12 * HOUR)
        assert policy.limits("ada", persistent=True) == Limits(3 * HOUR, None)

    def test_being_remembered_never_shortens(self):
        policy = build_policy(timeout="20 days", absolute_timeout=None)
        assert policy.remembered == Limits(20 * DAY, None)
        assert build_policy(timeout="40 days", absolute_timeout="50 days").remembered == Limits(
            40 * DAY, 50 * DAY
        )

    @pytest.mark.parametrize(
        ("preset", "idle", "overall"),
        [("aal1", 30 * DAY, 30 * DAY), ("aal2", HOUR, DAY), ("aal3", 15 * MINUTE, 12 * HOUR)],
    )
    def test_presets_are_the_limits_of_nist(self, preset, idle, overall):
        """NIST SP 800-63B-4 REAUTH-02 to 07, SESS-14."""
        policy = build_policy(preset=preset)
        assert policy.ordinary == policy.anonymous == policy.remembered == Limits(idle, overall)
        assert build_policy(preset=preset, timeout="5 minutes").ordinary == Limits(
            5 * MINUTE, overall
        )

    @pytest.mark.parametrize(
        "beyond",
        [
            {"timeout": "16 minutes"},
            {"absolute_timeout": "13 hours"},
            {"absolute_timeout": None},
            {"remember_timeout": "1 hour"},
            {"remember_absolute_timeout": "1 day"},
        ],
    )
    def test_nothing_goes_beyond_a_preset(self, beyond):
        """NIST SP 800-63B-4 REAUTH-06."""
        (option,) = beyond
        with pytest.raises(ConfigurationError, match=f"preset='aal3' allows no {option}"):
            build_policy(preset="aal3", **beyond)

    def test_an_unknown_preset_is_named(self):
        with pytest.raises(ConfigurationError, match="one of aal1, aal2, aal3, found 'aal4'"):
            build_policy(preset="aal4")

    def test_a_verifier_grows_old(self):
        """A9: by when it was made: with the session, at the login, at the last rotation."""
        policy = build_policy(rotate_interval="100 s")
        assert not build_policy().rotation_due(make(), 10**9, grace=10)
        assert not policy.rotation_due(make(), 100_999, grace=10)
        assert policy.rotation_due(make(), 101_000, grace=10)
        assert not policy.rotation_due(make(authenticated_at=5_000), 104_999, grace=10)
        assert policy.rotation_due(make(authenticated_at=5_000), 105_000, grace=10)
        assert not policy.rotation_due(make(previous_valid_until=9_010), 108_999, grace=10)
        assert policy.rotation_due(make(previous_valid_until=9_010), 109_000, grace=10)

    def test_a_remembered_session_lapses_by_the_ordinary_limits(self):
        """NIST SESS-05."""
        policy = build_policy(timeout="10 s", absolute_timeout="100 s")
        remembered = make(persistent=True, authenticated_at=1_000, seen_at=1_000)
        assert not policy.lapses(make(), 10**9)
        assert not policy.lapses(remembered, 10_999)
        assert policy.lapses(remembered, 11_000)
        fresh = make(persistent=True, authenticated_at=1_000, seen_at=100_500)
        assert not policy.lapses(fresh, 100_999)
        assert policy.lapses(fresh, 101_000)


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
        policy = build_policy(timeout="100 s")  # touched every 10 s
        record = make(idle_timeout=100_000)
        assert not policy.touch_due(record, 10_999)
        assert policy.touch_due(record, 11_000)

    def test_a_record_with_a_shorter_timeout_of_its_own_is_touched_in_time(self):
        """It may have been written under other settings, or be unconfirmed."""
        policy = build_policy()
        assert policy.touch_due(make(), 6_000)
        assert not policy.touch_due(make(), 5_999)
