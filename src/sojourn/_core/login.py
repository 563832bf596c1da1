"""Renewal: a new verifier for a session, by a login or by a rotation.

What lives here: the two kinds, and pure functions from a record to the one they make of it. What
must not: writing it (``writer.py``) and the verifier's derivation (``chain.py``).

A login means to replace: the former verifier is dead at once, the limits restart (ASVS 7.2.4, NIST
REAUTH-10). A rotation means to keep: the former verifier is good for a grace, until the new one has
been seen (law A9). ``authenticated_at`` grows with each login, so whoever holds an older record of
the session can tell that somebody logged in since: its own ticket is dead then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from sojourn._core.codec import decode, encode
from sojourn._core.operations import AUTH
from sojourn._core.policy import Policy
from sojourn._crypto.tickets import hash_verifier
from sojourn.record import NO_VERIFIER, Contents, Record

#: The beginning of the keys of one-time grants.
GRANT: Final = "\0grant:"

#: How long the former verifier is good after a rotation: what answers take to arrive.
GRACE: Final = 10_000

#: How long after the new one was seen: requests that left before may still be on their way.
STRAGGLERS: Final = 2_000


class Login(msgspec.Struct, frozen=True):
    """Somebody proved who they are.

    Attributes:
        user: as the application names them.
        methods: how, such as ``password`` and ``totp``.
        labels: of the new login, browser and address included.
        at: milliseconds since 1970 UTC, later than any login of the session before.
        remember: the session may outlive the browser.
        verifier: 16 random bytes.
        grants: the keys of those that were given since, which stay.
    """

    user: str
    methods: tuple[str, ...]
    labels: Mapping[str, str]
    at: int
    remember: bool
    verifier: bytes
    grants: set[str] = set()


class Rotation(msgspec.Struct, frozen=True):
    """The verifier is replaced, the session goes on.

    Attributes:
        verifier: the next one, 16 bytes.
        automatic: nobody asked for it, so a failing request need not carry it out.
    """

    verifier: bytes
    automatic: bool


Renewal = Login | Rotation


def logged_in(contents: Contents, login: Login) -> Contents:
    """Return what a session holds once somebody has logged in: its data, and whose it is."""
    data = {
        key: value
        for key, value in contents.data.items()
        if key in login.grants or not key.startswith(GRANT)
    }
    data[AUTH] = encode(AUTH, {"methods": list(login.methods)})
    return Contents(login.user, dict(login.labels), data)


def noted_methods(data: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return how the user of a session proved who they are."""
    noted: Any = decode(data[AUTH]) if AUTH in data else {}
    return tuple(noted.get("methods", ()))


def after_login(record: Record, login: Login, policy: Policy) -> Record:
    """Return a record's header after a login: new verifier, no former one, limits restarted."""
    limits = policy.limits(login.user, login.remember)
    return msgspec.structs.replace(
        record,
        seen_at=max(record.seen_at, login.at),
        authenticated_at=login.at,
        absolute_at=limits.absolute_at(login.at),
        idle_timeout=limits.idle_timeout,
        verifier=hash_verifier(login.verifier),
        previous_verifier=NO_VERIFIER,
        previous_valid_until=0,
        confirmed=True,
        persistent=login.remember,
        reauthentication_required=False,
    )


def after_rotation(record: Record, rotation: Rotation, now: int) -> Record:
    """Return a record's header after a rotation: the former verifier keeps working for a while."""
    return msgspec.structs.replace(
        record,
        verifier=hash_verifier(rotation.verifier),
        previous_verifier=record.verifier,
        previous_valid_until=now + GRACE,
    )
