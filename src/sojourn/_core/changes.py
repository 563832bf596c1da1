"""ChangeTracker: the keys of one session as its handler sees them, over the encoded data of its record.

What lives here: lazy decoding for each key, the detection of in-place changes, and the log of
operations since the last commit. What must not: records, stores, and the public face of a session
(``session.py``).

A key is decoded when it is read; a value that can change in place is kept, and compared with its
encoded form when a commit asks. Objects that a handler holds keep their identity when the session
takes in what others wrote. Read next: ``operations.py``.
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
    Log,
    Merge,
    Operation,
    emptied,
    is_number,
    reconcile,
    record,
    replay,
)
from sojourn.errors import InvalidState

#: An alias, because ``ChangeTracker.set`` hides the type's own name.
Members = set[Any]


class Shape(Protocol):
    """How a typed field looks outside (``lift``) and how it is stored (``lower``)."""

    def lift(self, value: Any) -> Any:
        """Turn a stored value into the typed one."""
        ...

    def lower(self, value: Any) -> Any:
        """Turn a typed value into one that the codec knows."""
        ...


class TrackedObject:
    """An object that a handler may change in place, and the bytes it had when last compared."""

    __slots__ = ("base", "live", "offered", "shape")

    def __init__(
        self, live: Any, base: bytes, shape: Shape | None, *, offered: bool = False
    ) -> None:
        self.live = live
        self.base = base
        self.shape = shape
        #: A default that the session does not hold unless something is put into it.
        self.offered = offered

    def lower(self, key: str) -> bytes:
        """Encode the object as it is now."""
        return encode(key, self.live if self.shape is None else self.shape.lower(self.live))


class KeyState(msgspec.Struct, eq=False):
    """A key that was written, or read as something that can change in place."""

    data: bytes | None
    log: list[Operation] = []
    holds: list[TrackedObject] = []


class ChangeTracker(msgspec.Struct, eq=False):
    """A session's keys and values, with everything done to them since the last commit.

    Args:
        data: each key's encoded value, as the record has it; never changed.
        merges: how declared keys combine with concurrent changes.
    """

    _data: dict[str, bytes]
    _merges: Mapping[str, Merge]
    _cells: dict[str, KeyState] = {}
    _cleared: bool = False
    _taken: dict[str, bytes] | None = None

    # Reading

    def __contains__(self, key: object) -> bool:
        """Tell whether the key is there, without decoding its value."""
        cell = self._cells.get(key)  # type: ignore[call-overload]
        return key in self._data if cell is None else self._present(cell, key)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[str]:
        """Yield the keys: those of the record first, then those that were added."""
        cells = self._cells
        for key in self._data:
            if key not in cells or self._present(cells[key], key):
                yield key
        for key, cell in cells.items():
            if key not in self._data and self._present(cell, key):
                yield key

    def get(self, key: str) -> Any:
        """Return the value of a key, ``ABSENT`` if there is none."""
        cell = self._cells.get(key)
        if cell is None:
            data = self._data.get(key)
            if data is None:
                return ABSENT
            value = decode(data)
            if type(value) in MUTABLE:
                self._cells[key] = cell = KeyState(data)
                cell.holds.append(TrackedObject(value, data, None))
            return value
        return self._held(key, cell, None)

    def typed(self, key: str, shape: Shape) -> Any:
        """Return the value of a key as ``shape`` lifts it, ``ABSENT`` if there is none."""
        return self._held(key, self._cell(key), shape)

    def offer(self, key: str, value: Any, shape: Shape | None) -> Any:
        """Return a default for an absent key; it joins the session if it is changed in place."""
        cell = self._cell(key)
        for hold in cell.holds:
            if hold.shape is shape and hold.offered:
                return hold.live
        hold = TrackedObject(value, b"", shape, offered=True)
        hold.base = hold.lower(key)
        cell.holds.append(hold)
        return value

    def _present(self, cell: KeyState, key: str) -> bool:
        """Tell whether a key is there, also when an offered default was just changed."""
        if cell.data is None:
            self._flush(cell, key)
        return cell.data is not None

    def _held(self, key: str, cell: KeyState, shape: Shape | None) -> Any:
        if len(cell.holds) != 1 or cell.data is None:
            self._flush(cell, key)
        if cell.data is None:
            return ABSENT
        for hold in cell.holds:
            if hold.shape is shape:
                return hold.live
        self._flush(cell, key)
        value = decode(cell.data)
        if shape is not None:
            hold = TrackedObject(shape.lift(value), b"", shape)
            # Newer or older code may have stored more or fewer fields: that is no change of ours.
            hold.base = hold.lower(key)
            cell.holds.append(hold)
            return hold.live
        if type(value) in MUTABLE:
            cell.holds.append(TrackedObject(value, cell.data, None))
        return value

    # Writing

    def set(self, key: str, value: Any, shape: Shape | None = None) -> None:
        """Assign a key; a declared merge turns the assignment into what was done.

        Raises:
            NotSerializable: the value cannot be kept; nothing was changed.
        """
        after = encode(key, value if shape is None else shape.lower(value))
        cell = self._cell(key)
        if cell.holds and cell.data is not None and _changeable(value):
            for hold in cell.holds:
                if hold.live is value and not hold.offered:
                    return  # `session["cart"] = cart` after a change inside: that one is found
        record(cell.log, Change(cell.data, after, self._merges.get(key, LAST)))
        cell.data = after
        if cell.holds:
            cell.holds.clear()
        if shape is not None or type(value) in MUTABLE:
            cell.holds.append(TrackedObject(value, after, shape))

    def set_default(self, key: str, value: Any) -> Any:
        """Return the value of a key, which becomes ``value`` if there is none."""
        current = self.get(key)
        if current is not ABSENT:
            return current
        data = encode(key, value)
        cell = self._cell(key)
        record(cell.log, Default(data))
        cell.data = data
        self._refresh_holds(cell, key)
        if type(value) in MUTABLE:
            cell.holds.append(TrackedObject(value, data, None))
        return value

    def delete(self, key: str) -> None:
        """Remove a key that is there."""
        cell = self._cell(key)
        record(cell.log, Delete())
        cell.data = None
        cell.holds.clear()

    def release(self, key: str) -> None:
        """Stop following the objects handed out for a key: they are their handler's alone now."""
        self._cell(key).holds.clear()

    def clear(self) -> None:
        """Remove every key, also those that others add until this is committed."""
        self._cells = {}
        self._data = emptied(self._data)
        self._cleared = True

    def increment(self, key: str, amount: float) -> int | float:
        """Add to a number (0 where there is none) and return the sum.

        Raises:
            TypeError: the key holds something else, or the amount is no number.
        """
        if not is_number(amount):
            raise TypeError(f"increment expects an int or a float, found {amount!r}")
        current = self._expect(key, is_number, "a number", 0)
        total: int | float = current + amount
        self._do(key, Increment(amount), total)
        return total

    def append(self, key: str, items: list[Any]) -> None:
        """Put items at the end of a list (a new one where there is none)."""
        current = self._expect(key, lambda value: type(value) is list, "a list", [])
        self._do(key, Append(encode(key, items)), [*current, *items])

    def add(self, key: str, members: Members) -> None:
        """Put members into a set (a new one where there is none)."""
        current = self._expect(key, lambda value: type(value) is set, "a set", set())
        self._do(key, Add(encode(key, members)), current | members)

    def discard(self, key: str, members: Members) -> None:
        """Remove members from a set; those that are not in it do not matter."""
        current = self._expect(key, lambda value: type(value) is set, "a set", set())
        if key in self:
            self._do(key, Discard(encode(key, members)), current - members)

    def _expect(self, key: str, check: Callable[[Any], bool], what: str, default: Any) -> Any:
        current = self.get(key)
        if current is ABSENT:
            return default
        if not check(current):
            raise TypeError(
                f"session[{key!r}] holds a value of type {type(current).__qualname__}, "
                f"expected {what}"
            )
        return current

    def _do(self, key: str, operation: Operation, value: Any) -> None:
        """Record an explicit operation and show its result in the objects already handed out."""
        after = encode(key, value)
        cell = self._cell(key)
        self._flush(cell, key)
        record(cell.log, operation)
        cell.data = after
        self._refresh_holds(cell, key)

    # Committing

    def changed(self) -> bool:
        """Find in-place changes and tell whether there is anything to commit.

        Raises:
            NotSerializable: something that cannot be kept was put inside a value.
        """
        changed = self._cleared
        if not self._cells:
            return changed
        for key, cell in self._cells.items():
            if cell.holds:
                self._flush(cell, key)
            if cell.log:
                changed = True
        return changed

    def take(self) -> tuple[Log, dict[str, bytes]]:
        """Hand over what was done, and the data it leads to; call ``changed`` before.

        What is done from now on belongs to the next commit.
        """
        data = {**self._data}
        log = Log(self._cleared)
        for key, cell in self._cells.items():
            if cell.log:
                log.keys[key] = cell.log
                cell.log = []
                if cell.data is not None:
                    data[key] = cell.data
                else:
                    data.pop(key, None)
        self._cleared = False
        self._taken = data
        return log, data

    def give_back(self, log: Log) -> None:
        """Take back operations whose commit failed; they come before what was done since."""
        if self._cleared:
            return  # emptied since: what was done before does not matter any more
        for key, operations in log.keys.items():
            cell = self._cell(key)
            later, cell.log = cell.log, operations
            for operation in later:
                record(cell.log, operation)
        self._cleared = log.cleared
        self.rebase(self._data)  # which may have come without them meanwhile

    def rebase(self, data: dict[str, bytes]) -> None:
        """Continue over newer data, keeping what is not committed yet.

        Objects that the handler holds are brought up to date in place.
        """
        if data is self._taken and not self._cleared:
            self._data = data  # the common commit: nobody else wrote, the keys are as they are here
            return
        self.changed()
        self._data = emptied(data) if self._cleared else data
        for key, cell in self._cells.items():
            newer = self._data.get(key)
            newer = replay(cell.log, newer) if cell.log else newer
            if newer != cell.data:
                cell.data = newer
                self._refresh_holds(cell, key)

    # One key

    def _cell(self, key: str) -> KeyState:
        cell = self._cells.get(key)
        if cell is None:
            self._cells[key] = cell = KeyState(self._data.get(key))
        return cell

    def _flush(self, cell: KeyState, key: str) -> None:
        """Turn in-place changes of the objects handed out into operations."""
        stale = False
        for hold in cell.holds:
            after = hold.lower(key)
            if after != hold.base:
                if hold.offered:
                    record(cell.log, Default(hold.base))
                    cell.data = replay([Default(hold.base)], cell.data)
                    hold.offered = False
                change = Change(hold.base, after, self._merges.get(key, Merge.EDIT))
                cell.data = after if cell.data == hold.base else replay([change], cell.data)
                record(cell.log, change)
                hold.base = after
                stale = stale or after != cell.data or len(cell.holds) > 1
        if stale:
            self._refresh_holds(cell, key)

    def _refresh_holds(self, cell: KeyState, key: str) -> None:
        """Bring the objects handed out up to date with the key's value.

        Where others removed the key they stay as they are: what is changed in them later returns.
        """
        if cell.data is None:
            return
        kept = []
        for hold in cell.holds:
            if hold.base != cell.data:
                fresh = decode(cell.data)
                try:
                    fresh = fresh if hold.shape is None else hold.shape.lift(fresh)
                except InvalidState:
                    continue  # written by other code: told to whoever reads the field again
                hold.live = reconcile(hold.live, fresh)
                hold.base = cell.data if hold.shape is None else hold.lower(key)
                hold.offered = False
            if hold.shape is not None or type(hold.live) in MUTABLE:
                kept.append(hold)
        cell.holds = kept


def _changeable(value: Any) -> bool:
    """Whether a value can change in place, so that assigning it again says nothing new."""
    kind = type(value)
    return (
        kind in MUTABLE
        or hasattr(kind, "__struct_fields__")
        or hasattr(kind, "__dataclass_fields__")
    )
