"""Limits as a developer writes them, checked and brought together to a ``Policy``.

What lives here: the options about time, their defaults, and the contradictions between them. What
must not: what the limits mean for a session (``policy.py``).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from sojourn._core.policy import PRESETS, Duration, Limits, Policy, milliseconds
from sojourn.errors import ConfigurationError

#: Without options and preset.
IDLE: Final = 30 * 60_000
ABSOLUTE: Final = 12 * 3_600_000

#: "Remember me": longest silence and longest life, the latter from NIST SP 800-63B-4 2.1.3.
REMEMBER_IDLE: Final = 14 * 86_400_000
REMEMBER_ABSOLUTE: Final = 30 * 86_400_000

#: A read never leaves ``seen_at`` older than a minute, whatever the idle timeout.
_TOUCH_LIMIT: Final = 60_000

#: What an option has where it is not given; None says something else, and so may any text.
UNSET: Final[Any] = msgspec.UNSET


def build_policy(
    *,
    timeout: Duration | None = None,
    absolute_timeout: Duration | None = UNSET,
    anonymous_timeout: Duration | None = None,
    anonymous_absolute_timeout: Duration | None = UNSET,
    remember_timeout: Duration | None = None,
    remember_absolute_timeout: Duration | None = UNSET,
    touch_interval: Duration | None = None,
    unconfirmed_timeout: Duration | None = None,
    rotate_interval: Duration | None = None,
    preset: str | None = None,
) -> Policy:
    """Check the options and fill in what depends on others.

    Raises:
        ConfigurationError: a duration makes no sense, or contradicts another or the preset.
    """
    if preset is not None and preset not in tuple(PRESETS):  # compared, as not all have a hash
        raise ConfigurationError(f"preset expects one of {', '.join(PRESETS)}, found {preset!r}")
    most = None if preset is None else PRESETS[preset]
    ordinary = _limits(
        "timeout", timeout, "absolute_timeout", absolute_timeout, most or Limits(IDLE, ABSOLUTE)
    )
    anonymous = _limits(
        "anonymous_timeout",
        anonymous_timeout,
        "anonymous_absolute_timeout",
        anonymous_absolute_timeout,
        ordinary,
    )
    remembered = _limits(
        "remember_timeout",
        remember_timeout,
        "remember_absolute_timeout",
        remember_absolute_timeout,
        most or _longest(Limits(REMEMBER_IDLE, REMEMBER_ABSOLUTE), ordinary),
    )
    if preset is not None and most is not None:
        _within("timeout", "absolute_timeout", ordinary, preset, most)
        _within("remember_timeout", "remember_absolute_timeout", remembered, preset, most)
    return Policy(
        ordinary,
        anonymous,
        remembered,
        _touch(touch_interval, min(ordinary.idle_timeout, anonymous.idle_timeout)),
        _optional(unconfirmed_timeout, "unconfirmed_timeout"),
        _optional(rotate_interval, "rotate_interval"),
    )


def _limits(
    idle_option: str,
    idle: Duration | None,
    absolute_option: str,
    absolute: Duration | None,
    default: Limits,
) -> Limits:
    limits = Limits(
        default.idle_timeout if idle is None else milliseconds(idle, option=idle_option),
        default.absolute_timeout if absolute is UNSET else _optional(absolute, absolute_option),
    )
    if limits.absolute_timeout is not None and limits.absolute_timeout < limits.idle_timeout:
        raise ConfigurationError(
            f"{absolute_option} ({limits.absolute_timeout} ms) must not be shorter than "
            f"{idle_option} ({limits.idle_timeout} ms): the silence allowed would exceed the whole "
            f"life; give a longer {absolute_option}=, or None for no such limit"
        )
    return limits


def _within(
    idle_option: str, absolute_option: str, found: Limits, preset: str, most: Limits
) -> None:
    assert most.absolute_timeout is not None  # noqa: S101 - every preset has one
    if found.absolute_timeout is None or found.absolute_timeout > most.absolute_timeout:
        raise ConfigurationError(
            f"preset={preset!r} allows no {absolute_option} beyond {most.absolute_timeout} ms, "
            f"found {found.absolute_timeout or 'none'}; leave one of the two out"
        )
    if found.idle_timeout > most.idle_timeout:
        raise ConfigurationError(
            f"preset={preset!r} allows no {idle_option} beyond {most.idle_timeout} ms, found "
            f"{found.idle_timeout}; leave one of the two out"
        )


def _longest(one: Limits, other: Limits) -> Limits:
    """Return limits that are nowhere shorter than either: being remembered never shortens."""
    absolute = (
        None
        if one.absolute_timeout is None or other.absolute_timeout is None
        else max(one.absolute_timeout, other.absolute_timeout)
    )
    return Limits(max(one.idle_timeout, other.idle_timeout), absolute)


def _touch(given: Duration | None, idle: int) -> int:
    if given is None:
        return max(1, min(idle // 10, _TOUCH_LIMIT))
    touch = milliseconds(given, option="touch_interval")
    if touch >= idle:
        raise ConfigurationError(
            f"touch_interval ({touch} ms) must be shorter than timeout ({idle} ms), or "
            "active visitors would be logged out; leave it out for a tenth of the timeout"
        )
    return touch


def _optional(value: Duration | None, option: str) -> int | None:
    return None if value is None else milliseconds(value, option=option)
