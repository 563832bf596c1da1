"""Formats times and untrusted texts for pages."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Final

#: Seconds of a unit, the number of seconds from which it is used, and its name.
_UNITS: Final = (
    (365 * 86_400, 2 * 365 * 86_400, "year"),
    (86_400, 2 * 86_400, "day"),
    (3_600, 2 * 3_600, "hour"),
    (60, 60, "minute"),
)

#: The year of an instant that stands for "never".
_NEVER: Final = 9999

#: Controls, formats such as changes of the direction of text, surrogates and unassigned characters.
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"})


def relative_time(instant: datetime, now: datetime) -> str:
    """Return an instant as ``3 minutes ago``, ``in 2 hours`` or ``never``."""
    if instant.year == _NEVER:
        return "never"
    seconds = (instant - now).total_seconds()
    distance = abs(seconds)
    for unit, least, name in _UNITS:
        if distance >= least:
            number = round(distance / unit)
            text = f"{number} {name}{'' if number == 1 else 's'}"
            return f"in {text}" if seconds > 0 else f"{text} ago"
    return "in a moment" if seconds > 0 else "just now"


def absolute_time(instant: datetime) -> str:
    """Return an instant as ``2026-11-28 21:05:12``; empty for ``never``."""
    return "" if instant.year == _NEVER else f"{instant:%Y-%m-%d %H:%M:%S}"


def visible(text: str) -> str:
    r"""Return a text with escapes such as ``\u202e`` in place of invisible characters.

    Otherwise a user name or a label could be displayed like another one.
    """
    return "".join(
        char.encode("unicode_escape").decode("ascii")
        if unicodedata.category(char) in _INVISIBLE
        else char
        for char in text
    )
