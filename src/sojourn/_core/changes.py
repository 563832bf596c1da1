"""ChangeTracker: reads and writes of a session's keys, and the operations that a commit replays.

A key is decoded when it is read. Mutable values are encoded again at the commit and compared with
the bytes from before, so that in-place changes are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from sojourn._core.codec import MAX_DEPTH, MUTABLE, Encoder, decode, encode
from sojourn._core.operations import (
    ABSENT,
    DICT_OF_SUM,
    LAST,
    Add,
    Append,
    Change,
    Default,
    Delete,
    Discard,
    Explicit,
    Increment,
    Merge,
    Operation,
    OperationLog,
    Path,
    apply_explicit,
    check_sums,
    cleared_data,
    is_number,
    record,
    replay,
    update_in_place,
    value_at,
)
from sojourn._core.reserved_keys import PREFIX
from sojourn._core.state_upgrade import StateUpgrade
from sojourn.errors import InvalidState, NotSerializable

#: An alias, because inside ``ChangeTracker`` the name ``set`` is the method.
MemberSet = set[Any]


class TypeAdapter(Protocol):
    """Converts between the typed value of a field and the value that the codec stores."""

    def from_stored(self, value: Any) -> Any:
        """Convert a stored value to the typed value."""
        ...

    def to_stored(self, value: Any) -> Any:
        """Convert a typed value to one that the codec supports."""
        ...


class TrackedObject:
    """An object that a handler may change in place.

    Attributes:
        value: the object.
        encoded: its encoded value when it was last compared.
        adapter: converts it; None for a plain value.
        is_default: the default of an absent key; the session holds it only after a change.
        is_replacement: of a stored value that does not fit; replaces it only after a change.
    """

    __slots__ = ("adapter", "encoded", "is_default", "is_replacement", "value")

    def __init__(
        self,
        value: Any,
        encoded: bytes,
        adapter: TypeAdapter | None,
        *,
        is_default: bool = False,
        is_replacement: bool = False,
    ) -> None:
        self.value = value
        self.encoded = encoded
        self.adapter = adapter
        self.is_default = is_default
        self.is_replacement = is_replacement


class Deferred(msgspec.Struct, eq=False):
    """Explicit operations that were applied to a key's only tracked object, and not to its data.

    Attributes:
        base: the value before them, for the numbers in it; None if it is not a dict.
        operations: in order; also the last ones of the key's log.
        marks: the length, or the number, at each path after its last operation. A different value
            shows that the handler changed the object in place between two operations.
        filled: the paths of lists and sets that these operations, or the one before them, create
            where another request has removed them.
    """

    base: Any
    operations: list[Explicit] = []
    marks: dict[Path, int | float] = {}
    filled: set[Path] = set()


class KeyState(msgspec.Struct, eq=False):
    """The state of a key that was written, or read as a mutable value.

    Attributes:
        data: the encoded value with the operations applied; None if the key is absent.
        log: the uncommitted operations.
        objects: what the handler got for this key and may change in place.
        deferred: operations that ``data`` does not contain yet; None if the next explicit operation
            must not be deferred.
        checker: of a plain value, checks what the handler has changed in place; None for no check.
    """

    data: bytes | None
    log: list[Operation] = []
    objects: list[TrackedObject] = []
    deferred: Deferred | None = None
    checker: TypeAdapter | None = None


class ChangeTracker(msgspec.Struct, eq=False):
    """A session's keys and values, with the uncommitted operations on them.

    Attributes:
        data: each key's encoded value, from the record; not modified.
        merges: how declared keys combine with concurrent changes.
        encoder: encodes values; it rejects those that the store cannot hold.
        states: the keys that were written, or read as a mutable value.
        cleared: ``clear`` was called since the last commit.
        upgrade: brings data to the version of the state class; None without ``state_version``.
    """

    data: dict[str, bytes]
    merges: Mapping[str, Merge]
    encoder: Encoder = encode
    states: dict[str, KeyState] = {}
    cleared: bool = False
    upgrade: StateUpgrade | None = None
    _pending_data: dict[str, bytes] | None = None

    def use_upgrade(self, upgrade: StateUpgrade) -> None:
        """Bring the data to the version of the state class, now and at each replay."""
        self.upgrade = upgrade
        self.data = upgrade.apply(self.data)

    # Reading

    def __contains__(self, key: object) -> bool:
        """Return whether the key exists, without decoding its value."""
        # A mapping answers False for a key of any type.
        state = self.states.get(key)  # type: ignore[call-overload] # accepts any key at run time
        if state is None:
            return key in self.data
        return self._exists(state, key)  # type: ignore[arg-type] # only strings have a state

    def __iter__(self) -> Iterator[str]:
        """Yield the keys: first those of the record, then the added ones."""
        states = self.states
        for key in self.data:
            if key not in states or self._exists(states[key], key):
                yield key
        for key, state in states.items():
            if key not in self.data and self._exists(state, key):
                yield key

    def get(self, key: str) -> Any:
        """Return the value of a key; ``ABSENT`` if there is none."""
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

    def get_typed(self, key: str, adapter: TypeAdapter) -> Any:
        """Return the value of a key, converted by ``adapter``; ``ABSENT`` if there is none."""
        return self._tracked_value(key, self._state(key), adapter)

    def track_default(self, key: str, value: Any, adapter: TypeAdapter | None) -> Any:
        """Return a default for an absent key; it is stored if it is changed in place."""
        state = self._state(key)
        for tracked in state.objects:
            if tracked.adapter is adapter and tracked.is_default:
                return tracked.value
        encoded = self._encode(key, value, adapter)
        state.objects.append(TrackedObject(value, encoded, adapter, is_default=True))
        return value

    def track_replacement(self, key: str, value: Any, adapter: TypeAdapter) -> Any:
        """Return a value for a stored one that does not fit; stored if it is changed in place."""
        tracked = TrackedObject(
            value, self._encode(key, value, adapter), adapter, is_replacement=True
        )
        self._state(key).objects.append(tracked)
        return value

    def get_replacement(self, key: str, adapter: TypeAdapter) -> Any:
        """Return the replacement that is tracked for a key; ``ABSENT`` if there is none."""
        for tracked in self._state(key).objects:
            if tracked.adapter is adapter and tracked.is_replacement:
                return tracked.value
        return ABSENT

    def check_changes(self, key: str, checker: TypeAdapter) -> None:
        """Let a field check the in-place changes of the plain value that the handler got."""
        self._state(key).checker = checker

    def is_tracked(self, key: str, value: Any) -> bool:
        """Return whether a value is an object that the handler got for this key."""
        state = self.states.get(key)
        return state is not None and any(tracked.value is value for tracked in state.objects)

    def plain_values(self) -> dict[str, Any]:
        """Return a copy of every value of the application, as it would be stored now.

        Raises:
            NotSerializable: a value was changed in place so that it cannot be stored.
        """
        self.modified()
        result = {}
        for key in self:
            if not key.startswith(PREFIX):
                state = self.states.get(key)
                data = self.data[key] if state is None else state.data
                assert data is not None  # noqa: S101 - iteration yields the keys that exist
                result[key] = decode(data)
        return result

    def _exists(self, state: KeyState, key: str) -> bool:
        """Return whether a key exists, also if its default was changed in place."""
        if state.data is None:
            self._detect_changes(state, key)
        return state.data is not None

    def _tracked_value(self, key: str, state: KeyState, adapter: TypeAdapter | None) -> Any:
        if len(state.objects) != 1 or state.data is None:
            self._detect_changes(state, key)
        if state.data is None:
            return ABSENT
        for tracked in state.objects:
            if tracked.adapter is adapter:
                return tracked.value
        self._detect_changes(state, key)
        value = decode(state.data)
        if adapter is not None:
            typed = adapter.from_stored(value)
            # Other versions of the class may store other fields; that is not a change.
            encoded = self._encode(key, typed, adapter)
            state.objects.append(TrackedObject(typed, encoded, adapter))
            return typed
        if type(value) in MUTABLE:
            state.objects.append(TrackedObject(value, state.data, None))
        return value

    # Writing

    def set(self, key: str, value: Any, adapter: TypeAdapter | None = None) -> None:
        """Assign a key.

        Raises:
            NotSerializable: the value cannot be stored; nothing was changed.
            TypeError: the value is no number, and the key is merged by addition.
        """
        stored = value if adapter is None else adapter.to_stored(value)
        encoder = self.encoder
        after = encoder(key, stored)
        merge = self.merges.get(key, LAST)
        if merge is not LAST:
            check_sums(key, stored, merge)
        state = self._state(key)
        if state.objects and state.data is not None and _is_mutable(value):
            for tracked in state.objects:
                if tracked.value is value and not tracked.is_default:
                    return  # `session["cart"] = cart` after an in-place change, which is detected
        if state.deferred is not None:
            self._detect_changes(state, key)
        record(state.log, Change(state.data, after, merge))
        state.data = after
        if state.objects:
            state.objects.clear()
            state.checker = None
        if adapter is not None or type(value) in MUTABLE:
            state.objects.append(TrackedObject(value, after, adapter))

    def set_default(self, key: str, value: Any, adapter: TypeAdapter | None = None) -> Any:
        """Return the value of a key; set it to ``value`` if there is none."""
        current = self.get(key)
        if current is not ABSENT:
            return current
        stored = value if adapter is None else adapter.to_stored(value)
        data = self.encoder(key, stored)
        merge = self.merges.get(key)
        if merge is not None:
            check_sums(key, stored, merge)
        state = self._state(key)
        record(state.log, Default(data))
        state.data = data
        self._update_objects(state, key)
        if adapter is not None or type(value) in MUTABLE:
            state.objects.append(TrackedObject(value, data, adapter))
        return value

    def delete(self, key: str) -> None:
        """Remove a key, which must exist."""
        state = self._state(key)
        record(state.log, Delete())
        state.data = None
        state.objects.clear()
        state.deferred = state.checker = None

    def untrack(self, key: str) -> None:
        """Ignore later changes of the objects that the handler got for a key."""
        state = self._state(key)
        _apply_deferred(state)
        state.objects.clear()

    def clear(self) -> None:
        """Remove every key, also those that other requests add before the commit."""
        self.states = {}
        self.data = cleared_data(self.data)
        self.cleared = True

    def increment(self, key: str, amount: float, path: Path = ()) -> int | float:
        """Add to a number (0 if there is none) and return the sum.

        Args:
            key: of the session.
            amount: to add.
            path: from the key's value to the number, in nested dicts.

        Raises:
            TypeError: the value or the amount is not a number.
        """
        if not is_number(amount):
            raise TypeError(f"increment expects an int or a float, found {amount!r}")
        # The codec refuses subclasses, such as NumPy's float64, and a replay encodes the amount.
        amount = int(amount) if isinstance(amount, int) else float(amount)
        current = self._require(key, path, is_number, "a number")
        total: int | float = amount if current is ABSENT else current + amount
        if self.encoder is not encode:
            self.encoder(key, total)
        self._apply(key, Increment(amount, path))
        return total

    def append(self, key: str, items: list[Any], path: Path = ()) -> None:
        """Append items to a list (an empty one if there is none)."""
        self._require(key, path, lambda value: type(value) is list, "a list")
        self._apply(key, Append(self.encoder(key, items, depth=len(path)), path))

    def add(self, key: str, members: MemberSet, path: Path = ()) -> None:
        """Add members to a set (an empty one if there is none)."""
        self._require(key, path, lambda value: type(value) is set, "a set")
        self._apply(key, Add(self.encoder(key, members, depth=len(path)), path))

    def discard(self, key: str, members: MemberSet, path: Path = ()) -> None:
        """Remove members from a set, also those that a parallel request adds before the commit."""
        self._require(key, path, lambda value: type(value) is set, "a set")
        self._apply(key, Discard(self.encoder(key, members, depth=len(path)), path))

    def _require(self, key: str, path: Path, check: Callable[[Any], bool], expected: str) -> Any:
        """Return the value of a key, or at a path in it; ``ABSENT`` if there is none."""
        if path:
            _check_path(key, path)
        current = self.get(key)
        place = f"session[{key!r}]"
        for step in path:
            if current is ABSENT:
                return ABSENT
            if not isinstance(current, dict):
                raise _unexpected(place, current, "a dict")
            current = current.get(step, ABSENT)
            place += f"[{step!r}]"
        if current is not ABSENT and not check(current):
            raise _unexpected(place, current, expected)
        return current

    def _apply(self, key: str, operation: Explicit) -> None:
        """Record an explicit operation and apply it to the value and the tracked objects.

        Many operations on one container take linear time: after the first, the tracked object is
        changed, and it is encoded when its encoding is needed.
        """
        state = self._state(key)
        deferred = state.deferred
        if deferred is not None and _can_defer(state, deferred, operation):
            record(state.log, operation)
            deferred.operations.append(operation)
            apply_explicit(operation, state.objects[0].value)
        else:
            self._detect_changes(state, key)
            record(state.log, operation)
            state.data = replay([operation], state.data)
            self._update_objects(state, key)
            if self.get(key) is ABSENT or len(state.objects) != 1:
                return
            assert state.data is not None  # noqa: S101 - the key has a value
            state.deferred = deferred = Deferred(decode(state.data) if operation.path else None)
        path = operation.path
        mark = _mark(value_at(state.objects[0].value, path))
        if mark is not None:
            deferred.marks[path] = mark
        if not isinstance(operation, Discard):
            deferred.filled.add(path)

    # Committing

    def modified(self) -> bool:
        """Detect in-place changes and return whether there is anything to commit.

        Raises:
            NotSerializable: a value was changed in place so that it cannot be stored.
        """
        changed = self.cleared
        if not self.states:
            return changed
        for key, state in self.states.items():
            if state.objects:
                self._detect_changes(state, key)
            if state.log:
                changed = True
        return changed

    def take_operations(self) -> tuple[OperationLog, dict[str, bytes]]:
        """Return the uncommitted operations and the resulting data; call ``modified`` before.

        Later operations belong to the next commit.
        """
        data = {**self.data}
        upgrade = self.upgrade
        log = OperationLog(self.cleared, {}, upgrade)
        for key, state in self.states.items():
            if state.log:
                log.keys[key] = state.log
                state.log = []
                if state.data is not None:
                    data[key] = state.data
                else:
                    data.pop(key, None)
        if upgrade is not None:
            upgrade.write_version(data)
        if self.cleared:
            self.cleared = False
        self._pending_data = data
        return log, data

    def restore_operations(self, log: OperationLog) -> None:
        """Restore operations whose commit failed, before those that were recorded since."""
        if self.cleared:
            return  # cleared since, which removes the effects of earlier operations
        for key, operations in log.keys.items():
            state = self._state(key)
            later, state.log = state.log, operations
            for operation in later:
                record(state.log, operation)
        self.cleared = log.cleared
        self.rebase(self.data)  # newer data may have arrived without these operations

    def rebase(self, data: dict[str, bytes]) -> None:
        """Replace the data with newer data and keep the uncommitted operations.

        Tracked objects are updated in place.
        """
        if data is self._pending_data and not self.cleared:
            self.data = data  # the usual commit, without a concurrent write: the states are current
            self.drop_states()
            return
        self.modified()
        if self.upgrade is not None:
            data = self.upgrade.apply(data)
        self.data = cleared_data(data) if self.cleared else data
        updated: dict[int, Any] = {}  # of all keys: a handler may have put one object in several
        for key, state in self.states.items():
            newer = self.data.get(key)
            newer = replay(state.log, newer) if state.log else newer
            if newer != state.data:
                state.data = newer
                self._update_objects(state, key, updated)

    def drop_states(self) -> None:
        """Drop the keys that were read or written, if all is in the data.

        Then the end of the request has nothing to compare.
        """
        for state in self.states.values():
            if state.objects or state.log:
                return
        self.states.clear()

    # One key

    def _state(self, key: str) -> KeyState:
        state = self.states.get(key)
        if state is None:
            self.states[key] = state = KeyState(self.data.get(key))
        return state

    def _encode(self, key: str, value: Any, adapter: TypeAdapter | None) -> bytes:
        """Return the encoded value of a tracked object at this moment."""
        return self.encoder(key, value if adapter is None else adapter.to_stored(value))

    def _detect_changes(self, state: KeyState, key: str) -> None:
        """Record the in-place changes of tracked objects as operations."""
        stale = False
        if state.deferred is not None:
            _apply_deferred(state)
        for tracked in state.objects:
            after = self._encode(key, tracked.value, tracked.adapter)
            if after != tracked.encoded:
                if state.checker is not None and tracked.adapter is None:
                    state.checker.from_stored(tracked.value)
                merge = self.merges.get(key, Merge.EDIT)
                before: bytes | None = tracked.encoded
                if tracked.is_replacement:
                    before, merge, tracked.is_replacement = state.data, LAST, False
                if merge is DICT_OF_SUM:
                    check_sums(key, decode(after), merge)
                if tracked.is_default:
                    record(state.log, Default(tracked.encoded))
                    state.data = replay([Default(tracked.encoded)], state.data)
                    tracked.is_default = False
                change = Change(before, after, merge)
                state.data = after if state.data == before else replay([change], state.data)
                record(state.log, change)
                tracked.encoded = after
                stale = stale or after != state.data or len(state.objects) > 1
        if stale:
            self._update_objects(state, key)

    def _update_objects(
        self, state: KeyState, key: str, updated: dict[int, Any] | None = None
    ) -> None:
        """Update tracked objects to the key's value.

        If the key was removed by another request they stay unchanged; a later in-place change
        stores them again.

        Args:
            state: of the key.
            key: of the session.
            updated: see ``update_in_place``; None if no other key is updated.
        """
        if state.data is None:
            return
        kept = []
        for tracked in state.objects:
            if tracked.encoded != state.data:
                fresh = decode(state.data)
                try:
                    fresh = fresh if tracked.adapter is None else tracked.adapter.from_stored(fresh)
                except InvalidState:  # from another version of the class
                    if tracked.is_replacement:
                        kept.append(tracked)
                    continue  # otherwise the next read of the field raises
                tracked.value = update_in_place(tracked.value, fresh, updated)
                tracked.encoded = (
                    state.data
                    if tracked.adapter is None
                    else self._encode(key, tracked.value, tracked.adapter)
                )
                tracked.is_default = tracked.is_replacement = False
            if tracked.adapter is not None or type(tracked.value) in MUTABLE:
                kept.append(tracked)
        state.objects = kept


def _can_defer(state: KeyState, deferred: Deferred, operation: Explicit) -> bool:
    """Return whether applying an operation to the tracked object alone is correct.

    The handler must not have changed it in place where the operation applies: such a change comes
    before the operation. It is the only object, because getting another one ends the deferral.
    """
    path = operation.path
    mark = deferred.marks.get(path)
    if mark is None:
        if not isinstance(operation, Increment):
            return False
        mark = _mark(value_at(deferred.base, path))
    elif not isinstance(operation, Discard) and path not in deferred.filled:
        return False
    return mark == _mark(value_at(state.objects[0].value, path))


def _apply_deferred(state: KeyState) -> None:
    """Apply the deferred operations to the data, which exists: only then are they deferred."""
    deferred, state.deferred = state.deferred, None
    if deferred is not None and deferred.operations:
        data = replay([*deferred.operations], state.data)
        assert data is not None  # noqa: S101 - deferred operations never remove the key
        state.data = state.objects[0].encoded = data


def _mark(value: Any) -> int | float | None:
    """Return the length of a list or set, or a number: what an in-place change probably changes."""
    if type(value) is list or type(value) is set:
        return len(value)
    return value if is_number(value) else None


def _check_path(key: str, path: Path) -> None:
    if len(path) > MAX_DEPTH:
        raise NotSerializable(key, "", dict, f"a path of {len(path)} keys, more than {MAX_DEPTH}")
    encode(key, dict.fromkeys(path))


def _unexpected(place: str, found: Any, expected: str) -> TypeError:
    return TypeError(
        f"{place} holds a value of type {type(found).__qualname__}, expected {expected}"
    )


def _is_mutable(value: Any) -> bool:
    """Return whether a value can be changed in place."""
    kind = type(value)
    return (
        kind in MUTABLE
        or hasattr(kind, "__struct_fields__")
        or hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "__pydantic_fields__")
    )
