"""Login and Rotation: header and contents of the record after each."""

import msgspec

from sojourn._core.codec import decode, encode
from sojourn._core.login import (
    UNTIL_SEEN,
    Login,
    Rotation,
    contents_after_login,
    end_of_grace_period,
    record_after_login,
    record_after_rotation,
    stored_methods,
)
from sojourn._core.reserved_keys import AUTH, GRANT
from sojourn._crypto.tickets import hash_verifier
from sojourn.config import build_policy
from sojourn.record import NO_VERIFIER, Contents, Record

HOUR = 3_600_000
POLICY = build_policy(
    timeout="1 hour", absolute_timeout="10 hours", remember_timeout="20 hours",
    remember_absolute_timeout="40 hours",
)  # fmt: skip
RECORD = Record(
    id=bytes(16),
    version=7,
    seen_at=5_000,
    created_at=1_000,
    absolute_at=9_000,
    idle_timeout=3_000,
    verifier=b"v" * 32,
    body=b"body",
    authenticated_at=2_000,
    previous_verifier=b"p" * 32,
    previous_valid_until=6_000,
    confirmed=False,
    persistent=False,
    reauthentication_required=True,
)
LOGIN = Login("ada", ("password", "totp"), {"browser": "B"}, 5_500, False, b"n" * 16)


def test_a_login_invalidates_both_verifiers_and_restarts_the_limits():
    """A9, A17: other fields of the header are kept."""
    assert record_after_login(RECORD, LOGIN, POLICY) == msgspec.structs.replace(
        RECORD,
        seen_at=5_500,
        authenticated_at=5_500,
        absolute_at=5_500 + 10 * HOUR,
        idle_timeout=HOUR,
        verifier=hash_verifier(b"n" * 16),
        previous_verifier=NO_VERIFIER,
        previous_valid_until=0,
        confirmed=True,
        reauthentication_required=False,
    )


def test_a_remembered_login_has_its_own_limits():
    """NIST SESS-05."""
    remembered = msgspec.structs.replace(LOGIN, remember=True)
    record = record_after_login(RECORD, remembered, POLICY)
    assert record.persistent
    assert (record.idle_timeout, record.absolute_at) == (20 * HOUR, 5_500 + 40 * HOUR)


def test_a_login_never_decreases_seen_at():
    """S6."""
    late = msgspec.structs.replace(RECORD, seen_at=8_000)
    assert record_after_login(late, LOGIN, POLICY).seen_at == 8_000


def test_a_rotation_changes_only_the_verifiers():
    """A9, A17."""
    rotated = record_after_rotation(RECORD, Rotation(b"n" * 16, automatic=True))
    assert rotated == msgspec.structs.replace(
        RECORD,
        verifier=hash_verifier(b"n" * 16),
        previous_verifier=RECORD.verifier,
        previous_valid_until=UNTIL_SEEN,
    )


def test_the_grace_period_ends_two_seconds_after_the_first_use_of_the_new_verifier():
    """A9: later uses do not extend it."""
    rotated = record_after_rotation(RECORD, Rotation(b"n" * 16, automatic=True))
    assert end_of_grace_period(rotated, 5_500) == 7_500
    assert end_of_grace_period(RECORD, 3_999) == 5_999
    assert end_of_grace_period(RECORD, 4_001) == RECORD.previous_valid_until


def test_a_login_keeps_the_data_and_removes_grants_of_earlier_logins():
    """ASVS 7.2.4."""
    data = {"a": encode("a", 1), f"{GRANT}old": b"\x01", f"{GRANT}new": b"\x01"}
    login = msgspec.structs.replace(LOGIN, grants={f"{GRANT}new"})
    contents = contents_after_login(Contents("bob", {"idp_sid": "s"}, data), login)
    assert (contents.user, contents.labels) == ("ada", {"browser": "B"})
    assert set(contents.data) == {"a", f"{GRANT}new", AUTH}
    assert decode(contents.data[AUTH]) == {"methods": ["password", "totp"]}


def test_without_a_login_methods_are_empty():
    assert stored_methods({}) == ()
    assert stored_methods({AUTH: encode(AUTH, {})}) == ()
    assert stored_methods({AUTH: encode(AUTH, {"methods": ["otp"]})}) == ("otp",)
