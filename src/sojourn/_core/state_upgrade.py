"""StateUpgrade: brings the data of an older state class to the present version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sojourn._core.codec import decode, encode
from sojourn._core.reserved_keys import PREFIX, STATE_VERSION
from sojourn.errors import ConfigurationError

Upgrade = Callable[[int, dict[str, Any]], dict[str, Any]]
"""From the stored version and the data, without reserved keys, to the data of the present class."""


class StateUpgrade(msgspec.Struct, frozen=True, eq=False):
    """The version of the state class, and the function that upgrades older data.

    Data is upgraded when it is read, and stored with the next change. A commit that meets newer
    data upgrades that first, if another process has not done it.

    Attributes:
        version: of the present class, 1 or more. Data without a version has version 0.
        function: the application's; None if no version needs an upgrade.
    """

    version: int
    function: Upgrade | None

    def apply(self, data: dict[str, bytes]) -> dict[str, bytes]:
        """Return data of the present version; the given data if it is not older.

        Raises:
            NotSerializable: the function returned a value that a session cannot store.
            ConfigurationError: the function did not return a dict with string keys.
        """
        found = _version_of(data)
        if self.function is None or found >= self.version:
            return data
        values = {key: decode(value) for key, value in data.items() if not key.startswith(PREFIX)}
        if not values:
            return data
        upgraded: object = self.function(found, values)
        if not isinstance(upgraded, dict) or not all(type(key) is str for key in upgraded):
            raise ConfigurationError(
                f"upgrade expects a function that returns the session's data as a dict with string "
                f"keys, found {type(upgraded).__qualname__} for version {found}; return the dict, "
                "also if it was changed in place"
            )
        result = {key: value for key, value in data.items() if key.startswith(PREFIX)}
        for key, value in upgraded.items():
            result[key] = encode(key, value)
        self.write_version(result)
        return result

    def write_version(self, data: dict[str, bytes]) -> None:
        """Write the version into data that is about to be stored; empty data stays empty."""
        if data and _version_of(data) < self.version:
            data[STATE_VERSION] = encode("", self.version)


def _version_of(data: dict[str, bytes]) -> int:
    stored = data.get(STATE_VERSION)
    version: int = 0 if stored is None else decode(stored)
    return version
