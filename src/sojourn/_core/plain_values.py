"""Converts instances of subclasses to the types that a session holds, as JSON encoders do."""

from __future__ import annotations

from typing import Any, Final

from sojourn._core.codec import MAX_DEPTH


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


def to_plain_containers(value: Any, depth: int = 0) -> Any:
    """Return a value with subclasses of dict, list and tuple as their base type.

    Such as ``OrderedDict``, ``defaultdict``, ``QueryDict`` and named tuples, as JSON does.

    Args:
        value: any value. What is deeper than a session can hold is returned as it is, for the
            encoder to refuse; so a list that contains itself has an end.
        depth: of the value.
    """
    kind = type(value)
    if depth > MAX_DEPTH:
        return value
    if issubclass(kind, dict):
        return {to_plain(key): to_plain_containers(each, depth + 1) for key, each in value.items()}
    if issubclass(kind, list | tuple):
        return [to_plain_containers(each, depth + 1) for each in value]
    return to_plain(value)


class _PlainContainers:
    def from_stored(self, value: Any) -> Any:
        return value

    def to_stored(self, value: Any) -> Any:
        return to_plain_containers(value)


#: A ``TypeAdapter``. The handler's own object is compared at the commit: its changes are stored.
PLAIN_CONTAINERS: Final = _PlainContainers()
