"""The texts of the device page, which an application replaces to translate it."""

from __future__ import annotations

import string
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sojourn.errors import ConfigurationError

#: By name. ``error_<status>`` is the heading and ``error_<status>_detail`` the text of the page of
#: an error. Those that are empty here say in English what is wrong with the request.
DEFAULT_TEXTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "language": "en",
        "skip": "Skip to the content",
        "title": "Your devices",
        "introduction": "You are logged in on these devices. Log out each one that you do not "
        "recognise or no longer use.",
        "only_this": "You are logged in on this device only.",
        "unknown_device": "Unknown device",
        "this_device": "This device",
        "last_active": "Last active",
        "logged_in": "Logged in",
        "first_seen": "First visit",
        "address": "Address",
        "connections": "Open connections",
        "log_out": "Log out",
        "log_out_device": "Log out {device}",
        "log_out_others": "Log out all other devices",
        "more": "{count} more devices are logged in. Log out all other devices to end these, too.",
        "confirm_device": "Log out this device?",
        "confirm_device_detail": "It loses access at once. To use it again, log in there.",
        "confirm_others": "Log out all other devices?",
        "confirm_others_detail": "You stay logged in on this device only.",
        "cancel": "Cancel",
        "done_device": "The device was logged out.",
        "done_others": "All other devices were logged out.",
        "reason": "logged out from another device",
        "back": "Back to your devices",
        "error_400": "",
        "error_400_detail": "",
        "error_401": "You are not logged in",
        "error_401_detail": "Log in to see your devices.",
        "error_401_recent": "Log in again",
        "error_401_recent_detail": "To log out other devices, confirm that it is you.",
        "error_403": "",
        "error_403_detail": "",
        "error_404": "This device is not logged in",
        "error_404_detail": "Maybe it was logged out already. Go back to your devices.",
        "error_405": "",
        "error_405_detail": "",
        "error_409": "This is the device that you use",
        "error_409_detail": "Log out other devices here. Log out this one in the application.",
        "error_413": "",
        "error_413_detail": "",
        "error_415": "",
        "error_415_detail": "",
        "error_503": "Your devices cannot be shown now",
        "error_503_detail": "Try again in a moment. A logout that was in progress may be "
        "incomplete.",
    }
)


def check_texts(given: Mapping[str, str]) -> Mapping[str, str]:
    """Return the default texts with those that were given in their place.

    Raises:
        ConfigurationError: a name is unknown, or a value is not a text with the same fields.
    """
    for name, text in given.items():
        default = DEFAULT_TEXTS.get(name)
        if default is None:
            raise ConfigurationError(
                f"texts has no text {name!r}; known are {', '.join(DEFAULT_TEXTS)}"
            )
        found: object = text  # callers without a type checker may give anything
        if not isinstance(found, str):
            raise ConfigurationError(f"texts[{name!r}] expects a text, found {found!r}")
        if not _fields(text) <= _fields(default):
            raise ConfigurationError(
                f"texts[{name!r}] may contain {_fields(default) or 'no fields in braces'}, found "
                f"{text!r}"
            )
    return {**DEFAULT_TEXTS, **given}


def _fields(text: str) -> set[str]:
    try:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError:
        return {text}  # unbalanced braces, which no default has
