"""JSON form of a record (format 1): a dict with separate state and metadata.

``docs/stores.md`` describes it for the programs that read it. Conversion only; the text is made by
the functions of ``CallbackStore``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from sojourn._core.codec import MAX_DEPTH, decode, encode
from sojourn._core.reserved_keys import PREFIX, check_key
from sojourn.errors import NotSerializable
from sojourn.record import Record, UnreadableRecord, pack_body

JSONRecord = dict[str, Any]
"""``{"format": 1, "state": {...}, "metadata": {...}}``."""

#: The only known format; dicts of any other format are unreadable (law S9).
FORMAT: Final = 1

#: JSON readers may keep numbers as IEEE 754 doubles, which hold these integers exactly (RFC 7493
#: 2.2).
MAX_INTEGER: Final = 2**53 - 1

_HINT: Final = (
    "This store holds sessions as JSON: expected None, bool, int, float, str, list, tuple or dict "
    "with keys of type str, exactly these types. Convert the value first, such as "
    "value.isoformat(), str(value) or sorted(value)."
)

#: Types that JSON holds for every value; of the numbers and containers it does not hold all.
_PLAIN: Final = frozenset({type(None), bool, str})
_NUMBERS: Final = frozenset({int, float})
_CONTAINERS: Final = frozenset({dict, list, tuple})

_INVALID: Final = (
    msgspec.MsgspecError,
    NotSerializable,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


class _Document(msgspec.Struct, frozen=True):
    """The outer dict."""

    format: int
    state: dict[str, Any]
    metadata: dict[str, Any]


class _Owner(msgspec.Struct, frozen=True):
    """The metadata that belongs to a record's body.

    Attributes:
        user: None before the first login.
        labels: such as ``browser`` and ``address``.
        reserved: the library's own keys, without their prefix.
    """

    user: str | None
    labels: dict[str, str]
    reserved: dict[str, Any]


#: The fields of a record that are not in the metadata under their own name.
_BODY_FIELDS: Final = ("id", "body")

#: The metadata has all of these and no others; another set of fields is another format.
_METADATA_FIELDS: Final = (
    frozenset(Record.__struct_fields__).difference(_BODY_FIELDS).union(_Owner.__struct_fields__)
)


def check_value(key: str, value: object) -> None:
    """Check that JSON can hold a value without loss.

    Raises:
        NotSerializable: it cannot, such as bytes, sets, dates, NaN, integers beyond 2**53 and dicts
            with other keys than strings.
    """
    _check(key, "", value, 0)


def to_json(record: Record) -> JSONRecord:
    """Return a record as a dict that ``json.dumps`` accepts.

    Raises:
        NotSerializable: a value cannot be held, such as a sum that became infinite in a replay.
        UnreadableRecord: the body is damaged or encrypted.
    """
    contents = record.contents()
    state: dict[str, Any] = {}
    reserved: dict[str, Any] = {}
    for key, data in contents.data.items():
        value = decode(data)
        check_value(key, value)
        if key.startswith(PREFIX):
            reserved[key.removeprefix(PREFIX)] = value
        else:
            state[key] = value
    header = msgspec.to_builtins(record)
    for name in _BODY_FIELDS:
        del header[name]
    owner = {"user": contents.user, "labels": contents.labels, "reserved": reserved}
    return {"format": FORMAT, "state": state, "metadata": {**owner, **header}}


def from_json(session_id: bytes, value: object) -> Record:
    """Return the record of a dict that ``to_json`` returned.

    Args:
        session_id: the key of the dict, 16 bytes.
        value: the dict, as read.

    Raises:
        UnreadableRecord: it is damaged, foreign or of a newer format.
    """
    try:
        return _record(session_id, value)
    except _INVALID as error:
        raise UnreadableRecord(
            f"record {session_id.hex()}: expected a dict of JSON format {FORMAT}: {error}"
        ) from error


def _record(session_id: bytes, value: object) -> Record:
    document = msgspec.convert(value, _Document)
    if document.format != FORMAT:
        raise ValueError(f"found format {document.format}")
    if document.metadata.keys() != _METADATA_FIELDS:
        raise ValueError(f"found metadata with the fields {', '.join(sorted(document.metadata))}")
    owner = msgspec.convert(document.metadata, _Owner)
    data = {}
    for key, item in document.state.items():
        check_key(key)  # a foreign writer must not reach the library's own keys
        check_value(key, item)
        data[key] = encode(key, item)
    for key, item in owner.reserved.items():
        check_value(key, item)
        data[PREFIX + key] = encode(key, item)
    body = pack_body(owner.user, owner.labels, data)
    record = msgspec.convert({**document.metadata, "id": session_id, "body": body}, Record)
    if Record.from_bytes(session_id, record.to_bytes()) != record:  # sizes and ranges of the fields
        raise ValueError("a field of the metadata is out of range")
    return record


def _check(key: str, path: str, value: object, depth: int) -> None:
    kind = type(value)
    if kind in _PLAIN:
        return
    if kind in _NUMBERS:
        if reason := _number_fault(value):
            raise _refused(key, path, kind, reason)
    elif kind not in _CONTAINERS:
        raise _refused(key, path, kind)
    elif depth < MAX_DEPTH:  # what is nested deeper is rejected by the codec
        for name, item in _items(key, path, value):
            _check(key, f"{path}[{name!r}]", item, depth + 1)


def _number_fault(value: Any) -> str:
    """Return why a reader of JSON may not get the number as it is; empty if it does."""
    if type(value) is int:
        return "" if -MAX_INTEGER <= value <= MAX_INTEGER else "an integer beyond 2**53 - 1"
    return "" if math.isfinite(value) else f"the float {value!r}"


def _items(key: str, path: str, container: Any) -> Iterable[tuple[object, object]]:
    """Return the entries of a dict, a list or a tuple, each with its key or index."""
    if type(container) is not dict:
        return enumerate(container)
    for name in container:
        if type(name) is not str:
            kind = type(name)
            raise _refused(key, path, kind, f"a dict with keys of type {kind.__qualname__}")
    return container.items()


def _refused(key: str, path: str, kind: type, detail: str = "") -> NotSerializable:
    return NotSerializable(key, path, kind, detail, hint=_HINT)
