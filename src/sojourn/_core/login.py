"""Login and Rotation, which replace the verifier of a session, and their effect on a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from sojourn._core.codec import decode, encode
from sojourn._core.policy import IN_FLIGHT_PERIOD, Policy
from sojourn._core.reserved_keys import AUTH, GRANT
from sojourn._crypto.tickets import hash_verifier
from sojourn.record import FOREVER, NO_VERIFIER, Contents, Record

#: The end of the grace period while no request has presented the new verifier. The response with it
#: may have been lost, so the client may return with the previous one at any time.
UNTIL_SEEN: Final = FOREVER

#: ``authenticated_at`` of a login whose instant is not known: never recent, and earlier than any
#: revocation.
UNKNOWN_LOGIN: Final = 1


class Login(msgspec.Struct, frozen=True):
    """A user proved their identity.

    The previous verifier is invalid at once, and the limits restart (ASVS 7.2.4, NIST REAUTH-10).
    ``authenticated_at`` of the record grows with each login, so the holder of an older record can
    detect that a login has replaced its ticket.

    Attributes:
        user: as the application names them.
        methods: of authentication, such as ``password`` and ``totp``.
        labels: of the new login, browser and address included.
        at: milliseconds since 1970 UTC, later than any earlier login of the session.
        remember: the session may outlive the browser.
        verifier: 16 random bytes.
        grants: keys of grants given after this login, which it does not remove.
        restored: the user did not prove their identity in this request: a token of "remember me"
            did.
        checked_at: of a restored login, when it was accepted; the limits count from there. ``at``
            is then when the user proved their identity, which may be long ago. 0 for others.
    """

    user: str
    methods: tuple[str, ...]
    labels: Mapping[str, str]
    at: int
    remember: bool
    verifier: bytes
    grants: set[str] = set()
    restored: bool = False
    checked_at: int = 0


class Rotation(msgspec.Struct, frozen=True):
    """The verifier is replaced; user, data and limits stay.

    The previous verifier stays valid until its successor was seen, and two seconds longer (law A9).

    Attributes:
        verifier: the next one, 16 bytes.
        automatic: due by ``rotate_interval``, so a failing request does not carry it out.
        grace_period: the previous verifier stays valid for a while; see ``Session.rotate``.
    """

    verifier: bytes
    automatic: bool
    grace_period: bool = True


Renewal = Login | Rotation


def contents_after_login(contents: Contents, login: Login) -> Contents:
    """Return a session's contents after a login: its data, user, labels and methods."""
    data = {
        key: value
        for key, value in contents.data.items()
        if key in login.grants or not key.startswith(GRANT)
    }
    data[AUTH] = encode(AUTH, {"methods": list(login.methods)})
    return Contents(login.user, dict(login.labels), data)


def stored_methods(data: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the authentication methods of the last login, as stored in a session's data."""
    stored: Any = decode(data[AUTH]) if AUTH in data else {}
    return tuple(stored.get("methods", ()))


def record_after_login(record: Record, login: Login, policy: Policy) -> Record:
    """Return a record's header after a login: new verifier, no previous one, limits restarted."""
    limits = policy.limits(login.user, login.remember)
    start = max(login.at, login.checked_at)
    return msgspec.structs.replace(
        record,
        seen_at=max(record.seen_at, start),
        authenticated_at=login.at,
        absolute_at=limits.absolute_at(start),
        idle_timeout=limits.idle_timeout,
        verifier=hash_verifier(login.verifier),
        previous_verifier=NO_VERIFIER,
        previous_valid_until=0,
        confirmed=True,
        persistent=login.remember,
        reauthentication_required=login.restored,
    )


def with_persistence(
    record: Record,
    user: str | None,
    persistent: bool,  # noqa: FBT001 - as the field
    policy: Policy,
) -> Record:
    """Return a record's header with the limits of a persistent session, or without them.

    The absolute limit counts from the creation or the login, so it is not restarted (law A17).
    """
    limits = policy.limits(user, persistent)
    absolute_at = limits.absolute_at(max(record.created_at, record.authenticated_at))
    if persistent:
        absolute_at = max(record.absolute_at, absolute_at)
    return msgspec.structs.replace(
        record,
        persistent=persistent,
        absolute_at=absolute_at,
        idle_timeout=limits.idle_timeout if record.confirmed else record.idle_timeout,
        reauthentication_required=persistent and record.reauthentication_required,
    )


def record_after_rotation(record: Record, rotation: Rotation) -> Record:
    """Return a record's header after a rotation: the previous verifier starts its grace period."""
    if not rotation.grace_period:
        return msgspec.structs.replace(
            record,
            verifier=hash_verifier(rotation.verifier),
            previous_verifier=NO_VERIFIER,
            previous_valid_until=0,
        )
    return msgspec.structs.replace(
        record,
        verifier=hash_verifier(rotation.verifier),
        previous_verifier=record.verifier,
        previous_valid_until=UNTIL_SEEN,
    )


def end_of_grace_period(record: Record, now: int) -> int:
    """Return the end of the grace period if the current verifier was seen at ``now``."""
    return min(record.previous_valid_until, now + IN_FLIGHT_PERIOD)
