"""Policy: when expiry, touch and rotation are due."""

from sojourn._core.login import UNTIL_SEEN
from sojourn._core.policy import Limits, Policy, expired
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


def policy(*, idle=30 * MINUTE, absolute=12 * HOUR, touch_interval=MINUTE, **fields):
    limits = Limits(idle, absolute)
    return Policy(limits, limits, Limits(14 * DAY, 30 * DAY), touch_interval, **fields)


class TestPolicy:
    def test_an_unconfirmed_session_has_the_shorter_idle_timeout(self):
        assert policy(idle=30).initial_idle_timeout() == 30
        assert policy(idle=30, unconfirmed_timeout=10).initial_idle_timeout() == 10
        assert policy(idle=30, unconfirmed_timeout=40).initial_idle_timeout() == 30

    def test_each_kind_of_session_has_its_own_limits(self):
        """ASVS 7.1.1."""
        authenticated, anonymous, remembered = Limits(1, 2), Limits(3, 4), Limits(5, None)
        found = Policy(authenticated, anonymous, remembered, 1)
        assert found.limits(None, persistent=False) == anonymous
        assert found.limits(None, persistent=True) == remembered
        assert found.limits("ada", persistent=False) == authenticated
        assert found.limits("ada", persistent=True) == remembered

    def test_without_an_absolute_limit_a_session_never_expires_absolutely(self):
        assert Limits(1, 12 * HOUR).absolute_at(5) == 5 + 12 * HOUR
        assert Limits(1, None).absolute_at(5) == FOREVER

    def test_a_rotation_is_due_at_the_age_of_the_verifier(self):
        """A9: since the creation, the login, or the first use after the last rotation."""
        rotating = policy(rotate_interval=100_000)
        assert not policy().rotation_due(make(), 10**9)
        assert not rotating.rotation_due(make(), 100_999)
        assert rotating.rotation_due(make(), 101_000)
        assert not rotating.rotation_due(make(authenticated_at=5_000), 104_999)
        assert rotating.rotation_due(make(authenticated_at=5_000), 105_000)
        assert not rotating.rotation_due(make(previous_valid_until=11_000), 108_999)
        assert rotating.rotation_due(make(previous_valid_until=11_000), 109_000)

    def test_no_rotation_is_due_in_the_grace_period_of_the_last(self):
        """A9: at its end the next one may happen."""
        rotating = policy(rotate_interval=100)
        rotated = make(previous_valid_until=9_010)
        assert not rotating.rotation_due(rotated, 9_009)
        assert rotating.rotation_due(rotated, 9_010)

    def test_no_rotation_is_due_until_the_new_verifier_was_used(self):
        """A9: whatever its age."""
        assert not policy(rotate_interval=100).rotation_due(
            make(previous_valid_until=UNTIL_SEEN), 10**15
        )

    def test_a_remembered_session_requires_reauthentication_after_the_limits_of_a_login(self):
        """NIST SESS-05."""
        short = policy(idle=10_000, absolute=100_000)
        remembered = make(persistent=True, authenticated_at=1_000, seen_at=1_000)
        assert not short.reauthentication_required(make(), 10**9)
        assert not short.reauthentication_required(remembered, 10_999)
        assert short.reauthentication_required(remembered, 11_000)
        fresh = make(persistent=True, authenticated_at=1_000, seen_at=100_500)
        assert not short.reauthentication_required(fresh, 100_999)
        assert short.reauthentication_required(fresh, 101_000)


class TestLimits:
    def test_a_session_expires_at_the_millisecond_of_its_deadline(self):
        """A17, ASVS 7.3.1, 7.3.2."""
        assert expired(make(), 10_999) is None
        assert expired(make(), 11_000) == "idle"
        assert expired(make(seen_at=99_000), 99_999) is None
        assert expired(make(seen_at=99_000), 100_000) == "absolute"

    def test_an_unconfirmed_session_expires_with_the_limit_unconfirmed(self):
        assert expired(make(confirmed=False), 11_000) == "unconfirmed"

    def test_a_touch_is_due_after_the_interval(self):
        found = policy(idle=100_000, touch_interval=10_000)
        record = make(idle_timeout=100_000)
        assert not found.touch_due(record, 10_999)
        assert found.touch_due(record, 11_000)

    def test_a_record_with_a_shorter_idle_timeout_is_touched_earlier(self):
        """It may have been written with other options, or be unconfirmed."""
        found = policy()
        assert found.touch_due(make(), 6_000)
        assert not found.touch_due(make(), 5_999)
