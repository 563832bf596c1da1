"""Path patterns: the options ``include``, ``exclude`` and others.

In a pattern ``*`` matches any text, including slashes. Exclusion has precedence; without
``include`` every path is included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sojourn.errors import ConfigurationError


class Patterns:
    """Matches paths with one compiled expression for each list.

    Args:
        include: patterns of paths; empty for all.
        exclude: patterns of paths that do not match.
        option: the name of the option ``include``, for the error message.

    Raises:
        ConfigurationError: no path can match a pattern.
    """

    __slots__ = ("_exclude", "_include", "everything")

    def __init__(
        self, include: Sequence[str], exclude: Sequence[str], *, option: str = "include"
    ) -> None:
        self._include = _compile(include, option)
        self._exclude = _compile(exclude, "exclude")
        self.everything: bool = not include and not exclude

    def match(self, path: str) -> bool:
        """Return whether a path matches."""
        if self._exclude is not None and self._exclude.fullmatch(path):
            return False
        return self._include is None or self._include.fullmatch(path) is not None


def _compile(patterns: Sequence[str], option: str) -> re.Pattern[str] | None:
    for pattern in patterns:
        if not pattern.startswith(("/", "*")):
            raise ConfigurationError(
                f"{option} expects paths such as '/account/*', found {pattern!r}; begin it with '/'"
            )
    if not patterns:
        return None
    return re.compile("|".join(map(_expression, patterns)), re.DOTALL)


def _expression(pattern: str) -> str:
    """Return a pattern as a regular expression that matches in linear time (B-57).

    The text between two asterisks is taken where it occurs first, which is sufficient. Atomic
    groups never look for a later place: an endless path would otherwise block the server.
    """
    first, *others = map(re.escape, pattern.split("*"))
    if not others:
        return first
    *inner, last = others
    return first + "".join(f"(?>.*?{text})" for text in inner) + f".*{last}"
