"""ChangeTracker: the keys of one session as its handler sees them, and what was done to them.

A key is decoded when it is read. A mutable value is kept and compared with its encoded form at the
commit, so changes inside it are noticed. Objects that a handler holds keep their identity when the
session takes in what others wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from sojourn._core.codec import MUTABLE, decode, encode
from sojourn._core.operations import (
    ABSENT,
    LAST,
    Add,
    Append,
    Change,
    Default,
    Delete,
    Discard,
    Increment,
    Merge,
    Operation,
    OperationLog,
    cleared_data,
    is_number,
    record,
    replay,
    update_in_place,
)
from sojourn.errors import InvalidState

#: An alias, because ``ChangeTracker.set`` hides the type's own name.
MemberSet = set[Any]


class TypeAdapter(Protocol):
    """How a typed field looks outside (``from_stored``) and how it is stored (``to_stored``)."""

    def from_stored(self, value: Any) -> Any:
        """Turn a stored value into the typed one."""
        ...

    def to_stored(self, value: Any) -> Any:
        """Turn a typed value into one that the codec knows."""
        ...


class TrackedObject:
    """An object that a handler may change in place, and the bytes it had when last compared."""

    __slots__ = ("adapter", "base", "is_default", "value")

    def __init__(
        self, value: Any, base: bytes, adapter: TypeAdapter | None, *, is_default: bool = False
    ) -> None:
        self.value = value
        self.base = base
        self.adapter = adapter
        #: A default that the session does not hold unless something is put into it.
        self.is_default = is_default

    def to_stored(self, key: str) -> bytes:
        """Encode the object as it is now."""
        return encode(
            key, self.value if self.adapter is None else self.adapter.to_stored(self.value)
        )


class KeyState(msgspec.Struct, eq=False):
    """A key that was written, or read as something that can change in place."""

    data: bytes | None
    log: list[Operation] = []
    objects: list[TrackedObject] = []


class ChangeTracker(msgspec.Struct, eq=False):
    """A session's keys and values, with everything done to them since the last commit.

    Args:
        data: each key's encoded value, as the record has it; never changed.
        merges: how declared keys combine with concurrent changes.
    """

    data: dict[str, bytes]
    merges: Mapping[str, Merge]
    states: dict[str, KeyState] = {}
    cleared: bool = False
    _taken_data: dict[str, bytes] | None = None

    # Reading

    def __contains__(self, key: object) -> bool:
        """Tell whether the key is there, without decoding its value."""
        state = self.states.get(key)  # type: ignore[call-overload]
        return key in self.data if state is None else self._present(state, key)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[str]:
        """Yield the keys: those of the record first, then those that were added."""
        states = self.states
        for key in self.data:
            if key not in states or self._present(states[key], key):
                yield key
        for key, state in states.items():
            if key not in self.data and self._present(state, key):
                yield key

    def get(self, key: str) -> Any:
        """Return the value of a key, ``ABSENT`` if there is none."""
        state = self.states.get(key)
        if state is None:
            data = self.data.get(key)
            if data is None:
                return ABSENT
            value = decode(data)
            if type(value) in MUTABLE:
                self.states[key] = state = KeyState(data)
                state.objects.append(TrackedObject(value, data, None))
            return value
        return self._tracked_value(key, state, None)

    def typed(self, key: str, adapter: TypeAdapter) -> Any:
        """Return the value of a key as ``adapter`` lifts it, ``ABSENT`` if there is none."""
        return self._tracked_value(key, self._state(key), adapter)

    def track_default(self, key: str, value: Any, adapter: TypeAdapter | None) -> Any:
        """Return a default for an absent key; it joins the session if it is changed in place."""
        state = self._state(key)
        for tracked in state.objects:
            if tracked.adapter is adapter and tracked.is_default:
                return tracked.value
        tracked = TrackedObject(value, b"", adapter, is_default=True)
        tracked.base = tracked.to_stored(key)
        state.objects.append(tracked)
        return value

    def _present(self, state: KeyState, key: str) -> bool:
        """Tell whether a key is there, also when an is_default default was just changed."""
        if state.data is None:
            self._flush(state, key)
        return state.data is not None

    def _tracked_value(self, key: str, state: KeyState, adapter: TypeAdapter | None) -> Any:
        if len(state.objects) != 1 or state.data is None:
            self._flush(state, key)
        if state.data is None:
            return ABSENT
        for tracked in state.objects:
            if tracked.adapter is adapter:
                return tracked.value
        self._flush(state, key)
        value = decode(state.data)
        if adapter is not None:
            tracked = TrackedObject(adapter.from_stored(value), b"", adapter)
            # Newer or older code may have stored more or fewer fields: that is no change of ours.
            tracked.base = tracked.to_stored(key)
            state.objects.append(tracked)
            return tracked.value
        if type(value) in MUTABLE:
            state.objects.append(TrackedObject(value, state.data, None))
        return value

    # Writing

    def set(self, key: str, value: Any, adapter: TypeAdapter | None = None) -> None:
        """Assign a key; a declared merge turns the assignment into what was done.

        Raises:
            NotSerializable: the value cannot be kept; nothing was changed.
        """
        after = encode(key, value if adapter is None else adapter.to_stored(value))
        state = self._state(key)
        if state.objects and state.data is not None and _changeable(value):
            for tracked in state.objects:
                if tracked.value is value and not tracked.is_default:
                    return  # `session["cart"] = cart` after a change inside: that one is found
        record(state.log, Change(state.data, after, self.merges.get(key, LAST)))
        state.data = after
        if state.objects:
            state.objects.clear()
        if adapter is not None or type(value) in MUTABLE:
            state.objects.append(TrackedObject(value, after, adapter))

    def set_default(self, key: str, value: Any) -> Any:
        """Return the value of a key, which becomes ``value`` if there is none."""
        current = self.get(key)
        if current is not ABSENT:
            return current
        data = encode(key, value)
        state = self._state(key)
        record(state.log, Default(data))
        state.data = data
        self._refresh_objects(state, key)
        if type(value) in MUTABLE:
            state.objects.append(TrackedObject(value, data, None))
        return value

    def delete(self, key: str) -> None:
        """Remove a key that is there."""
        state = self._state(key)
        record(state.log, Delete())
        state.data = None
        state.objects.clear()

    def untrack(self, key: str) -> None:
        """Stop following the objects handed out for a key: they are their handler's alone now."""
        self._state(key).objects.clear()

    def clear(self) -> None:
        """Remove every key, also those that others add until this is committed."""
        self.states = {}
        self.data = cleared_data(self.data)
        self.cleared = True

    def increment(self, key: str, amount: float) -> int | float:
        """Add to a number (0 where there is none) and return the sum.

        Raises:
            TypeError: the key objects something else, or the amount is no number.
        """
        if not is_number(amount):
            raise TypeError(f"increment expects an int or a float, found {amount!r}")
        current = self._require(key, is_number, "a number", 0)
        total: int | float = current + amount
        self._apply(key, Increment(amount), total)
        return total

    def append(self, key: str, items: list[Any]) -> None:
        """Put items at the end of a list (a new one where there is none)."""
        current = self._require(key, lambda value: type(value) is list, "a list", [])
        self._apply(key, Append(encode(key, items)), [*current, *items])

    def add(self, key: str, members: MemberSet) -> None:
        """Put members into a set (a new one where there is none)."""
        current = self._require(key, lambda value: type(value) is set, "a set", set())
        self._apply(key, Add(encode(key, members)), current | members)

    def discard(self, key: str, members: MemberSet) -> None:
        """Remove members from a set; those that are not in it do not matter."""
        current = self._require(key, lambda value: type(value) is set, "a set", set())
        if key in self:
            self._apply(key, Discard(encode(key, members)), current - members)

    def _require(self, key: str, check: Callable[[Any], bool], what: str, default: Any) -> Any:
        current = self.get(key)
        if current is ABSENT:
            return default
        if not check(current):
            raise TypeError(
                f"session[{key!r}] holds a value of type {type(current).__qualname__}, "
                f"expected {what}"
            )
        return current

    def _apply(self, key: str, operation: Operation, value: Any) -> None:
        """Record an explicit operation and show its result in the objects already handed out."""
        after = encode(key, value)
        state = self._state(key)
        self._flush(state, key)
        record(state.log, operation)
        state.data = after
        self._refresh_objects(state, key)

    # Committing

    def modified(self) -> bool:
        """Find in-place changes and tell whether there is anything to commit.

        Raises:
            NotSerializable: something that cannot be kept was put inside a value.
        """
        changed = self.cleared
        if not self.states:
            return changed
        for key, state in self.states.items():
            if state.objects:
                self._flush(state, key)
            if state.log:
                changed = True
        return changed

    def take_operations(self) -> tuple[OperationLog, dict[str, bytes]]:
        """Hand over what was done, and the data it leads to; call ``modified`` before.

        What is done from now on belongs to the next commit.
        """
        data = {**self.data}
        log = OperationLog(self.cleared)
        for key, state in self.states.items():
            if state.log:
                log.keys[key] = state.log
                state.log = []
                if state.data is not None:
                    data[key] = state.data
                else:
                    data.pop(key, None)
        self.cleared = False
        self._taken_data = data
        return log, data

    def restore_operations(self, log: OperationLog) -> None:
        """Take back operations whose commit failed; they come before what was done since."""
        if self.cleared:
            return  # cleared_data since: what was done before does not matter any more
        for key, operations in log.keys.items():
            state = self._state(key)
            later, state.log = state.log, operations
            for operation in later:
                record(state.log, operation)
        self.cleared = log.cleared
        self.rebase(self.data)  # which may have come without them meanwhile

    def rebase(self, data: dict[str, bytes]) -> None:
        """Continue over newer data, keeping what is not committed yet.

        Objects that the handler objects are brought up to date in place.
        """
        if data is self._taken_data and not self.cleared:
            self.data = data  # the common commit: nobody else wrote, the keys are as they are here
            return
        self.modified()
        self.data = cleared_data(data) if self.cleared else data
        for key, state in self.states.items():
            newer = self.data.get(key)
            newer = replay(state.log, newer) if state.log else newer
            if newer != state.data:
                state.data = newer
                self._refresh_objects(state, key)

    # One key

    def _state(self, key: str) -> KeyState:
        state = self.states.get(key)
        if state is None:
            self.states[key] = state = KeyState(self.data.get(key))
        return state

    def _flush(self, state: KeyState, key: str) -> None:
        """Turn in-place changes of the objects handed out into operations."""
        stale = False
        for tracked in state.objects:
            after = tracked.to_stored(key)
            if after != tracked.base:
                if tracked.is_default:
                    record(state.log, Default(tracked.base))
                    state.data = replay([Default(tracked.base)], state.data)
                    tracked.is_default = False
                change = Change(tracked.base, after, self.merges.get(key, Merge.EDIT))
                state.data = after if state.data == tracked.base else replay([change], state.data)
                record(state.log, change)
                tracked.base = after
                stale = stale or after != state.data or len(state.objects) > 1
        if stale:
            self._refresh_objects(state, key)

    def _refresh_objects(self, state: KeyState, key: str) -> None:
        """Bring the objects handed out up to date with the key's value.

        Where others removed the key they stay as they are: what is changed in them later returns.
        """
        if state.data is None:
            return
        kept = []
        for tracked in state.objects:
            if tracked.base != state.data:
                fresh = decode(state.data)
                try:
                    fresh = fresh if tracked.adapter is None else tracked.adapter.from_stored(fresh)
                except InvalidState:
                    continue  # written by other code: told to whoever reads the field again
                tracked.value = update_in_place(tracked.value, fresh)
                tracked.base = state.data if tracked.adapter is None else tracked.to_stored(key)
                tracked.is_default = False
            if tracked.adapter is not None or type(tracked.value) in MUTABLE:
                kept.append(tracked)
        state.objects = kept


def _changeable(value: Any) -> bool:
    """Whether a value can change in place, so that assigning it again says nothing new."""
    kind = type(value)
    return (
        kind in MUTABLE
        or hasattr(kind, "__struct_fields__")
        or hasattr(kind, "__dataclass_fields__")
    )
