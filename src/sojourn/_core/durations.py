"""Durations as users write them, such as ``'5 minutes'``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from sojourn.errors import ConfigurationError
from sojourn.record import FOREVER

Duration = str | int | float | timedelta
"""``'5 minutes'``, ``'2h'``, ``'1 day 12 hours'``, a ``timedelta``, or a number of seconds."""

_UNITS: Final = {
    "ms": 1, "millisecond": 1, "milliseconds": 1,
    "s": 1_000, "sec": 1_000, "secs": 1_000, "second": 1_000, "seconds": 1_000,
    "m": 60_000, "min": 60_000, "mins": 60_000, "minute": 60_000, "minutes": 60_000,
    "h": 3_600_000, "hour": 3_600_000, "hours": 3_600_000,
    "d": 86_400_000, "day": 86_400_000, "days": 86_400_000,
    "w": 604_800_000, "week": 604_800_000, "weeks": 604_800_000,
}  # fmt: skip

_PART: Final = r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*,?"


def milliseconds(value: Duration, *, option: str) -> int:
    """Convert a duration to milliseconds.

    Args:
        value: see ``Duration``.
        option: the option's name, for the message.

    Raises:
        ConfigurationError: it is not a duration, or less than a millisecond.
    """
    match value:
        case bool():
            total = 0.0
        case timedelta():
            total = value.total_seconds() * 1_000
        case int() | float():
            total = value * 1_000
        case str():
            total = _parse(value)
        case _:
            total = 0.0
    if not 1 <= total <= FOREVER:
        raise ConfigurationError(
            f"{option} expects a duration above zero such as '30 minutes', '2h', "
            f"timedelta(hours=2) or a number of seconds, found {value!r}"
        )
    return int(total)


def _parse(text: str) -> float:
    total, position, lowered = 0.0, 0, text.lower()
    pattern = re.compile(_PART, re.ASCII)  # here, not at import
    while position < len(lowered.rstrip()):
        part = pattern.match(lowered, position)
        if part is None or part[2] not in _UNITS:
            return 0.0
        total += float(part[1]) * _UNITS[part[2]]
        position = part.end()
    return total
