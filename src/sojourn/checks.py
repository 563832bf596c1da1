"""Checks: whether one value of an option is of the kind that it must be.

What lives here: small functions that return the value or say what was expected. What must not: what
an option means, and whether two of them go together (``settings.py``).

Raises everywhere: ``ConfigurationError``, with the name of the option and what was found.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

from sojourn._core.policy import milliseconds
from sojourn.errors import ConfigurationError


def flag(chosen: Mapping[str, Any], name: str) -> bool:
    """Return an option that is True or False."""
    value = chosen[name]
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} expects True or False, found {value!r}")
    return value


def seconds(chosen: Mapping[str, Any], name: str) -> float:
    """Return an option that is a duration, in seconds."""
    return milliseconds(chosen[name], option=name) / 1000


def positive(value: Any, name: str, *, most: int = 2**63 - 1) -> int:
    """Return a whole number above zero, and not above what every store can count to."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{name} expects a whole number above zero, found {value!r}")
    if value > most:
        raise ConfigurationError(f"{name} expects {most} at most, found {value!r}")
    return value


def function(clock: Any) -> Callable[[], int] | None:
    """Return a clock, None for the system's."""
    if clock is not None and not callable(clock):
        raise ConfigurationError(
            f"clock expects a function that returns milliseconds since 1970, found {clock!r}"
        )
    return cast("Callable[[], int] | None", clock)


def one_of(chosen: Mapping[str, Any], name: str, allowed: Sequence[str]) -> str:
    """Return an option that is one of some words."""
    value = chosen[name]
    if value not in allowed:
        raise ConfigurationError(f"{name} expects one of {', '.join(allowed)}, found {value!r}")
    return str(value)


def text(chosen: Mapping[str, Any], name: str) -> str | None:
    """Return an option that is text, or None."""
    value = chosen[name]
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{name} expects text, found {value!r}")
    return value


def texts(chosen: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return an option that is a list of texts."""
    value = chosen[name]
    if (
        isinstance(value, str)
        or not isinstance(value, Collection)
        or not all(isinstance(item, str) for item in value)
    ):
        raise ConfigurationError(f"{name} expects a list of texts, found {value!r}")
    return tuple(value)
