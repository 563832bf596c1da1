"""Converts instances of subclasses to the types that a session holds, as JSON encoders do."""

from __future__ import annotations

from typing import Any, Final


def to_plain(value: Any) -> Any:
    """Return subclasses of immutable types, such as Django's ``SafeString``, as their base type."""
    # By `type`, because `isinstance` is true for lazy objects, too. Not `str(value)`, which the
    # subclass may override.
    kind = type(value)
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, int) and kind is not bool:
        return int.__int__(value)
    return value


def to_plain_containers(value: Any) -> Any:
    """Return a value with subclasses of dict, list and tuple as their base type, at any depth.

    Such as ``OrderedDict``, ``defaultdict``, ``QueryDict`` and named tuples, as JSON does.
    """
    kind = type(value)
    if issubclass(kind, dict):
        return {to_plain(key): to_plain_containers(each) for key, each in value.items()}
    if issubclass(kind, list | tuple):
        return [to_plain_containers(each) for each in value]
    return to_plain(value)


class _PlainContainers:
    def from_stored(self, value: Any) -> Any:
        return value

    def to_stored(self, value: Any) -> Any:
        return to_plain_containers(value)


#: A ``TypeAdapter``. The handler's own object is compared at the commit: its changes are stored.
PLAIN_CONTAINERS: Final = _PlainContainers()
