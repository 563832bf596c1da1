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


def to_plain_containers(value: Any) -> Any:
    """Return a value with subclasses of dict, list and tuple as their base type.

    Such as ``OrderedDict``, ``defaultdict``, ``QueryDict`` and named tuples, as JSON does.

    Args:
        value: any value. If it is deeper than a session can hold, the rest is returned as it is,
            for the encoder to refuse.
    """
    return _ContainerConversion().convert(value, 0)


class _ContainerConversion:
    """One conversion.

    It ends where the first value is too deep: one that contains itself twice has 2**64 places.
    """

    __slots__ = ("_too_deep",)

    def __init__(self) -> None:
        self._too_deep = False

    def convert(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if not issubclass(kind, dict | list | tuple):
            return to_plain(value)
        self._too_deep = self._too_deep or depth >= MAX_DEPTH
        if self._too_deep:
            return value
        deeper = depth + 1
        if issubclass(kind, dict):
            return {to_plain(key): self.convert(each, deeper) for key, each in value.items()}
        return [self.convert(each, deeper) for each in value]


class _PlainContainers:
    def from_stored(self, value: Any) -> Any:
        return value

    def to_stored(self, value: Any) -> Any:
        return to_plain_containers(value)


#: A ``TypeAdapter``. The handler's own object is compared at the commit: its changes are stored.
PLAIN_CONTAINERS: Final = _PlainContainers()
