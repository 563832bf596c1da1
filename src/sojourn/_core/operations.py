"""Operations on session keys, and their replay on newer values after a concurrent commit.

An assignment or an in-place change is recorded as the value before and after. The difference is
computed only for a replay, so that a commit without a conflict does not pay for it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any, Final, assert_never

import msgspec

from sojourn._core.codec import MUTABLE, decode, encode
from sojourn._core.reserved_keys import AUTH, LEASE
from sojourn._core.state_upgrade import StateUpgrade
from sojourn.errors import NotSerializable

#: The value of an absent key; None is an ordinary value.
ABSENT: Final[Any] = type("Absent", (), {"__repr__": lambda _: "ABSENT", "__slots__": ()})()


class Merge(enum.StrEnum):
    """How a change of a key combines with a concurrent one.

    ``SUM`` adds the difference, ``DICT`` merges by entry, ``DICT_OF_SUM`` adds the difference of
    each entry, also in nested dicts, ``UNION`` adds and removes members, ``APPEND`` keeps the items
    of both, ``LAST`` lets the later commit win. ``EDIT`` is the default of in-place changes: dicts
    merge by entry, sets by member, lists that only grew by appending; other values are replaced.
    """

    LAST = "last"
    SUM = "sum"
    DICT = "dict"
    DICT_OF_SUM = "dict of sum"
    UNION = "union"
    APPEND = "append"
    EDIT = "edit"


#: Aliases: to look a member up in its class costs a thousand instructions.
LAST: Final = Merge.LAST
SUM: Final = Merge.SUM
DICT_OF_SUM: Final = Merge.DICT_OF_SUM

Path = tuple[Any, ...]
"""The keys from a session key's value to a value in nested dicts; empty for the value itself."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """The value changed from ``before`` (None if absent) to ``after``; both are encoded."""

    before: bytes | None
    after: bytes
    merge: Merge


class Default(msgspec.Struct, frozen=True, gc=False):
    """An absent key was set to an encoded value."""

    value: bytes


class Delete(msgspec.Struct, frozen=True, gc=False):
    """The key was removed."""


class Increment(msgspec.Struct, frozen=True, gc=False):
    """A number was added to the value at a path."""

    amount: int | float
    path: Path = ()


class Append(msgspec.Struct, frozen=True, gc=False):
    """Items were appended to the list at a path. ``items`` is an encoded list."""

    items: bytes
    path: Path = ()


class Add(msgspec.Struct, frozen=True, gc=False):
    """Members were added to the set at a path. ``members`` is an encoded set."""

    members: bytes
    path: Path = ()


class Discard(msgspec.Struct, frozen=True, gc=False):
    """Members were removed from the set at a path. ``members`` is an encoded set."""

    members: bytes
    path: Path = ()


Explicit = Increment | Append | Add | Discard
"""An operation that a handler named, as opposed to one that is derived from an assignment."""

Operation = Change | Default | Delete | Explicit


class OperationLog(msgspec.Struct, eq=False, gc=False):
    """The operations of one handler since its last commit.

    Attributes:
        cleared: ``clear`` was called first; keys of concurrent commits are removed, too.
        keys: the operations on each key, in order; operations on different keys commute.
        upgrade: brings newer data to the version of this handler's state class first.
    """

    cleared: bool = False
    keys: dict[str, list[Operation]] = {}
    upgrade: StateUpgrade | None = None

    def replay(self, data: dict[str, bytes]) -> dict[str, bytes]:
        """Return ``data`` with the operations applied."""
        upgrade = self.upgrade
        if self.cleared:
            result = cleared_data(data)
        else:
            result = dict(data if upgrade is None else upgrade.apply(data))
        for key, operations in self.keys.items():
            value = replay(operations, result.get(key))
            if value is not None:
                result[key] = value
            else:
                result.pop(key, None)
        if upgrade is not None:
            upgrade.write_version(result)
        return result


def cleared_data(data: dict[str, bytes]) -> dict[str, bytes]:
    """Return the part of ``data`` that ``clear`` keeps."""
    return {key: data[key] for key in (LEASE, AUTH) if key in data}


def record(log: list[Operation], operation: Operation) -> None:
    """Add an operation to a key's log, merged with the last one if possible."""
    if not log:
        pass
    elif isinstance(operation, Delete) or _replaces(operation):
        log.clear()
    else:
        match log[-1], operation:
            case Change(before, _, Merge.LAST), Change(_, after, _):
                log[-1] = Change(before, after, Merge.LAST)
                return
            case Change(before, one, first), Change(two, after, second) if (
                first is second and one == two  # otherwise a concurrent change came between
            ):
                log[-1] = Change(before, after, first)
                return
            case Increment(one, path), Increment(two, other) if path == other:
                log[-1] = Increment(one + two, path)
                return
            case _:
                pass
    log.append(operation)


def _replaces(operation: Operation) -> bool:
    return isinstance(operation, Change) and operation.merge is LAST


def replay(log: list[Operation], data: bytes | None) -> bytes | None:
    """Apply the operations of one key to a newer value.

    Args:
        log: the operations, in order.
        data: the newer encoded value; None if the key is absent.

    Returns:
        The encoded result; None if the key is absent then. A newer value of a type that an
        operation does not support is replaced: the later commit wins.
    """
    value = ABSENT if data is None else decode(data)
    for operation in log:
        value = _apply(operation, value)
    return None if value is ABSENT else encode("", value)


def _apply(operation: Operation, value: Any) -> Any:
    match operation:
        case Change(before, after, merge):
            return _merge(ABSENT if before is None else decode(before), decode(after), value, merge)
        case Default(default):
            return decode(default) if value is ABSENT else value
        case Delete():
            return ABSENT
        case _:
            return apply_explicit(operation, value)


def apply_explicit(operation: Explicit, value: Any) -> Any:
    """Apply an explicit operation, in place if the value is a container.

    Args:
        operation: a value of a type that it does not support is replaced.
        value: of the session key; ABSENT if there is none. A list or a set only grows or shrinks,
            and is not copied: thousands of operations on one value take linear time.

    Returns:
        The new value of the session key.
    """
    path = operation.path
    if not path:
        return _apply_at_end(operation, value)
    if isinstance(operation, Discard) and not isinstance(value_at(value, path), set):
        return value  # creates nothing
    top = parent = value if isinstance(value, dict) else {}
    for step in path[:-1]:
        child = parent.get(step)
        if not isinstance(child, dict):
            parent[step] = child = {}
        parent = child
    parent[path[-1]] = _apply_at_end(operation, parent.get(path[-1], ABSENT))
    return top


def value_at(value: Any, path: Path) -> Any:
    """Return the value at a path in nested dicts; ABSENT if there is none."""
    for step in path:
        value = value.get(step, ABSENT) if isinstance(value, dict) else ABSENT
    return value


def _apply_at_end(operation: Explicit, value: Any) -> Any:
    match operation:
        case Increment(amount):
            return value + amount if is_number(value) else amount
        case Append(items) if isinstance(value, list):
            value.extend(decode(items))
            return value
        case Add(members) if isinstance(value, set):
            value |= decode(members)
            return value
        case Append(made) | Add(made):
            return decode(made)
        case Discard(members):
            if isinstance(value, set):
                value -= decode(members)
            return value
        case _:  # pragma: no cover - mypy proves the match complete
            assert_never(operation)


def is_number(value: object) -> bool:
    """Return whether a value is an int or a float, but not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _merge(before: Any, after: Any, newer: Any, merge: Merge) -> Any:
    """Apply the change from ``before`` to ``after`` to the value ``newer``."""
    match merge:
        case Merge.LAST:
            return after
        case Merge.SUM if is_number(after) and (newer is ABSENT or is_number(newer)):
            return (0 if newer is ABSENT else newer) + after - (before if is_number(before) else 0)
        case Merge.DICT_OF_SUM if isinstance(after, dict):
            return _merge_dicts(
                before if isinstance(before, dict) else {},
                after,
                newer if isinstance(newer, dict) else {},
                of_sums=True,
            )
        case Merge.UNION if isinstance(after, set) and isinstance(newer, set):
            return _merge_sets(before if isinstance(before, set) else set(), after, newer)
        case Merge.UNION if isinstance(after, list) and isinstance(newer, list):
            return _merge_unique(before if isinstance(before, list) else [], after, newer)
        case Merge.DICT | Merge.EDIT if isinstance(after, dict) and isinstance(newer, dict):
            return _merge_dicts(before if isinstance(before, dict) else {}, after, newer)
        case Merge.APPEND | Merge.EDIT if isinstance(after, list) and isinstance(newer, list):
            start = before if isinstance(before, list) else []
            return newer + after[len(start) :] if same(after[: len(start)], start) else after
        case Merge.EDIT if isinstance(after, set) and isinstance(newer, set):
            return _merge_sets(before if isinstance(before, set) else set(), after, newer)
        case Merge.DICT | Merge.EDIT if isinstance(before, dict) and isinstance(after, dict):
            return _merge_dicts(
                before, after, {}
            )  # deleted concurrently: only the changed entries return
        case _:
            return after


def _merge_dicts(
    before: dict[Any, Any], after: dict[Any, Any], newer: dict[Any, Any], *, of_sums: bool = False
) -> dict[Any, Any]:
    for key in before.keys() - after.keys():
        newer.pop(key, None)
    for key, value in after.items():
        old = before.get(key, ABSENT)
        if old is ABSENT or not same(old, value):
            merge = Merge.EDIT
            if of_sums:
                merge = DICT_OF_SUM if isinstance(value, dict) else SUM
            newer[key] = _merge(old, value, newer.get(key, ABSENT), merge)
    return newer


def _merge_sets(before: set[Any], after: set[Any], newer: set[Any]) -> set[Any]:
    return (newer - (before - after)) | (after - before)


def _merge_unique(before: list[Any], after: list[Any], newer: list[Any]) -> list[Any]:
    """Merge lists as sets that keep their order, in linear time."""
    first = {_identity(item) for item in before}
    last = [_identity(item) for item in after]
    removed = first.difference(last)
    known = first
    kept = []
    for item in newer:
        name = _identity(item)
        if name not in removed:
            kept.append(item)
            known.add(name)
    return kept + [item for name, item in zip(last, after, strict=True) if name not in known]


def _identity(value: Any) -> bytes:
    """Return bytes that are equal for equal values, also for dicts in another order.

    The encoding of a value, because dicts and lists have no hash. ``hash`` of integers is not
    random either: a client could choose integers whose hashes collide.
    """
    return encode("", _canonical(value) if type(value) in MUTABLE else value)


def _canonical(value: Any) -> Any:
    if type(value) is dict:
        return {0: sorted([_identity(key), _identity(item)] for key, item in value.items())}
    if type(value) is list:
        return [_canonical(item) for item in value]
    return value


def same(one: Any, two: Any) -> bool:
    """Return whether two values have equal encodings: NaN and NaN do, 1, 1.0 and True do not."""
    return encode("", one) == encode("", two)


def update_in_place(live: Any, fresh: Any, updated: dict[int, Any] | None = None) -> Any:
    """Update an object that a handler may hold, in place if possible.

    Args:
        live: the handler's object; a container keeps its identity.
        fresh: the new value.
        updated: the new value of each object that was updated already, by ``id``. An object that a
            handler has put in two places stays in both only while their values are equal.

    Returns:
        ``live`` if it was updated in place, otherwise ``fresh``.
    """
    if type(live) is not type(fresh):
        return fresh
    if updated is None:
        updated = {}
    if isinstance(live, dict | list | set):
        known = updated.setdefault(id(live), fresh)
        if known is not fresh:
            return live if _same_plain(known, fresh) else fresh
    if isinstance(live, dict):
        merged = {
            key: update_in_place(live.get(key, ABSENT), item, updated)
            for key, item in fresh.items()
        }
        live.clear()
        live.update(merged)
        return live
    if isinstance(live, list):
        shared = len(live)
        live[:] = [
            update_in_place(live[index], item, updated) if index < shared else item
            for index, item in enumerate(fresh)
        ]
        return live
    if isinstance(live, set):
        live.clear()
        live.update(fresh)
        return live
    return _update_fields(live, fresh, updated)


def _same_plain(one: Any, two: Any) -> bool:
    """Return whether two values are equal; False if they hold objects of a state class."""
    try:
        return same(one, two)
    except NotSerializable:
        return False


def _update_fields(live: Any, fresh: Any, updated: dict[int, Any]) -> Any:
    """Copy the fields of a dataclass, Struct or model; a frozen one is replaced if they differ."""
    kind = type(live)
    fields: Iterable[str] = (
        getattr(kind, "__struct_fields__", ())
        or getattr(kind, "__dataclass_fields__", ())
        or getattr(kind, "__pydantic_fields__", ())
    )
    if not fields or updated.setdefault(id(live), fresh) is not fresh:
        return fresh
    try:
        for name in fields:
            old, new = getattr(live, name), getattr(fresh, name)
            # Equal values are not assigned, so that a frozen object with changes inside is kept.
            if (new := update_in_place(old, new, updated)) is not old and (
                type(new) is not type(old) or new != old
            ):
                setattr(live, name, new)
    except (AttributeError, ValueError):  # pydantic raises the latter for a frozen model
        return fresh
    return live


def check_sums(key: str, value: Any, merge: Merge) -> None:
    """Check that a value can be merged by addition.

    Raises:
        TypeError: it is no number, or a dict of sums has an entry that is none.
    """
    if merge is SUM:
        if not is_number(value):
            raise _not_a_sum(f"session[{key!r}]", SUM, "an int or a float", value)
    elif merge is DICT_OF_SUM:
        if not isinstance(value, dict):
            raise _not_a_sum(
                f"session[{key!r}]", DICT_OF_SUM, "a dict of int and float values", value
            )
        _check_entries(f"session[{key!r}]", value)


def _check_entries(place: str, entries: dict[Any, Any]) -> None:
    for name, entry in entries.items():
        if isinstance(entry, dict):
            _check_entries(f"{place}[{name!r}]", entry)
        elif not is_number(entry):
            raise _not_a_sum(f"{place}[{name!r}]", DICT_OF_SUM, "an int or a float", entry)


def _not_a_sum(place: str, merge: Merge, expected: str, found: Any) -> TypeError:
    return TypeError(
        f'{place} is merged as "{merge.value}", which adds: expected {expected}, found '
        f"{type(found).__qualname__}; store a number, delete the key, or choose another merge"
    )
