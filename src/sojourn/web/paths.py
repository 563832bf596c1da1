"""Patterns: which paths have a session.

What lives here: ``include`` and ``exclude``. What must not: routing; a pattern is a path in which
``*`` stands for anything, slashes too. Exclusion wins; without ``include`` every path is in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sojourn.errors import ConfigurationError


class Patterns:
    """Decides by path; one compiled expression for each list.

    Args:
        include: paths that have a session; empty for all.
        exclude: paths that have none even so.
        option: what the developer calls ``include``, for the message.

    Raises:
        ConfigurationError: a pattern that no path can match.
    """

    __slots__ = ("_exclude", "_include", "everything")

    def __init__(
        self, include: Sequence[str], exclude: Sequence[str], *, option: str = "include"
    ) -> None:
        self._include = _compile(include, option)
        self._exclude = _compile(exclude, "exclude")
        self.everything: bool = not include and not exclude

    def match(self, path: str) -> bool:
        """Tell whether requests for a path have a session."""
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
    parts = (".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
    return re.compile("|".join(parts), re.DOTALL)
