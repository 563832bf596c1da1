"""Keys of session data that the library reserves, and the check of an application's keys."""

from __future__ import annotations

from typing import Final

#: Reserved keys begin with NUL; applications cannot use them.
PREFIX: Final = "\0"

#: Messages of ``session.flash``.
FLASHES: Final = PREFIX + "flash"

#: Marks a session that was created for its CSRF token.
CSRF: Final = PREFIX + "csrf"

#: Marks a session that was created without data, as Django's ``create`` does.
CREATED: Final = PREFIX + "created"

#: The lease of ``session.exclusive``: ``clear`` keeps it.
LEASE: Final = PREFIX + "lease"

#: The methods of the last login: ``clear`` keeps it.
AUTH: Final = PREFIX + "auth"

#: The version of the state class that wrote the data (``state_version``).
STATE_VERSION: Final = PREFIX + "state"

#: Prefix of one-time grants; a login removes those that were given before it.
GRANT: Final = PREFIX + "grant:"


def check_key(key: str) -> None:
    """Check that an application may use a key.

    Raises:
        TypeError: it is not a string.
        ValueError: it is reserved, or has a lone surrogate and cannot be encoded.
    """
    if type(key) is not str:
        raise TypeError(f"session keys are strings, found {key!r}; use str(key)")
    if PREFIX in key and key.startswith(PREFIX):
        raise ValueError(
            f"session keys that begin with NUL are reserved, found {key!r}; choose another"
        )
    if not key.isascii() and any("\ud800" <= letter <= "\udfff" for letter in key):
        raise ValueError(f"session keys cannot hold a lone surrogate, found {key!r}; remove it")
