"""Encode session values as msgpack and decode them: a closed list of types, without code execution.

Sets, dates and decimals are extension types. Equal values have equal bytes, except for the order of
dicts; change detection relies on it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec
from msgspec.msgpack import Ext

from sojourn.errors import NotSerializable

#: Types that msgspec encodes without loss.
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})

#: Types of values that can be changed in place after they were read.
MUTABLE: Final = frozenset({list, dict, set})

#: Containers inside of each other; more are rejected, also a list that contains itself.
MAX_DEPTH: Final = 64

_CONTAINERS: Final = (dict, list, tuple, set, frozenset)

_SET, _FROZENSET, _DATETIME, _DATE, _TIME, _TIMEDELTA, _UUID, _DECIMAL, _BIGINT = range(1, 10)
_MARKUP: Final = 10


class Encoder(Protocol):
    """Encodes the value of a key, as ``encode`` does."""

    def __call__(self, key: str, value: object, /, *, depth: int = 0) -> bytes:
        """Return the encoded value; ``depth`` is the number of containers around it."""
        ...


_encode: Final = msgspec.msgpack.Encoder().encode

_TO_EXT: Final[dict[type, Callable[[Any], Ext]]] = {
    datetime: lambda value: Ext(_DATETIME, value.isoformat().encode()),
    date: lambda value: Ext(_DATE, value.isoformat().encode()),
    time: lambda value: Ext(_TIME, value.isoformat().encode()),
    timedelta: lambda value: Ext(
        _TIMEDELTA, _encode((value.days, value.seconds, value.microseconds))
    ),
    UUID: lambda value: Ext(_UUID, value.bytes),
    Decimal: lambda value: Ext(_DECIMAL, str(value).encode()),
}


def _prepare_markup(value: Any) -> Any:
    """Return text that is safe to insert into HTML as such; any other value itself.

    Templates of Flask escape flashed messages that are not ``Markup``.
    """
    html = getattr(value, "__html__", None)
    if html is None or isinstance(value, type):
        return value
    return Ext(_MARKUP, str(html()).encode())


def _markup(data: bytes) -> str:
    """Return ``Markup``; plain text, which templates escape, in a process without MarkupSafe."""
    text = data.decode()
    try:
        from markupsafe import Markup
    except ImportError:
        return text
    return Markup(text)  # noqa: S704 - it was Markup when it was stored


def encode(key: str, value: object, *, depth: int = 0) -> bytes:
    """Encode one value of a session.

    Args:
        key: the session key, for the error message only.
        value: any value of the types named in ``NotSerializable``.
        depth: the number of containers of the key's value that are around the value.

    Raises:
        NotSerializable: the value, or something inside it, is of another type.
    """
    try:
        try:
            return _encode(value if type(value) in _PLAIN else _prepare(value, "", depth))
        except (OverflowError, UnicodeEncodeError):
            # Rare: an integer of more than 64 bits inside, or a lone surrogate.
            return _encode(_prepare(value, "", depth, thorough=True))
    except _Refused as refused:
        raise NotSerializable(key, refused.path, refused.kind, refused.detail) from None


def checked_encoder(check: Callable[[str, object], object] | None) -> Encoder:
    """Return ``encode``, preceded by the check of a store that cannot hold every value.

    Args:
        check: called with the key and the value; raises ``NotSerializable``. None for no check.
    """
    if check is None:
        return encode

    def encode_checked(key: str, value: object, /, *, depth: int = 0) -> bytes:
        check(key, value)
        return encode(key, value, depth=depth)

    return encode_checked


def decode(data: bytes) -> Any:
    """Decode the result of ``encode``.

    Raises:
        msgspec.DecodeError: the bytes are damaged.
    """
    try:
        return _decode(data)
    except RecursionError:
        raise msgspec.DecodeError("a damaged value, nested too deeply") from None
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError("a damaged value, with text that is not UTF-8") from error


class _Refused(Exception):
    """A value that cannot be encoded, with its path; converted to ``NotSerializable``."""

    def __init__(self, path: str, kind: type, detail: str = "") -> None:
        self.path, self.kind, self.detail = path, kind, detail


def _prepare(value: Any, path: str, depth: int, *, thorough: bool = False) -> Any:
    """Return ``value`` with extension types for the types that msgpack does not have.

    A container of plain values is returned unchanged, after one pass in C over the types of its
    elements.
    """
    kind = type(value)
    if kind in _PLAIN:
        return _prepare_plain(value, path) if thorough else value
    if depth >= MAX_DEPTH and issubclass(kind, _CONTAINERS):
        raise _Refused(path, kind, f"values nested more than {MAX_DEPTH} levels deep")
    deeper = depth + 1
    if kind is dict:
        if not _PLAIN.issuperset(map(type, value)):
            value = {_plain_key(key, path): item for key, item in value.items()}
        if not thorough and _PLAIN.issuperset(map(type, value.values())):
            return value
        return {
            _prepare_key(key, path) if thorough else key: _prepare(
                item, f"{path}[{key!r}]", deeper, thorough=thorough
            )
            for key, item in value.items()
        }
    if kind is list or kind is tuple:
        if not thorough and _PLAIN.issuperset(map(type, value)):
            return value
        return [
            _prepare(item, f"{path}[{index}]", deeper, thorough=thorough)
            for index, item in enumerate(value)
        ]
    if kind is set or kind is frozenset:
        members = sorted(
            _encode(_prepare(item, f"{path}{{...}}", deeper, thorough=thorough)) for item in value
        )
        return Ext(_SET if kind is set else _FROZENSET, _encode(members))
    convert = _TO_EXT.get(kind)
    if convert is not None:
        return convert(value)
    return _prepare_enum(value, path, thorough=thorough)


def _prepare_enum(value: Any, path: str, *, thorough: bool) -> Any:
    """Return the value of a ``StrEnum`` or ``IntEnum`` member, or markup; refuse any other type."""
    plain = _enum_value(value)
    if plain is value:
        plain = _prepare_markup(value)
    if plain is value:
        raise _Refused(path, type(value))
    return _prepare_plain(plain, path) if thorough else plain


def _enum_value(value: Any) -> Any:
    """Return the text or number of a ``StrEnum`` or ``IntEnum`` member, any other value itself."""
    if not isinstance(value, enum.Enum) or not isinstance(value, str | int):
        return value
    return value.value if type(value.value) in _PLAIN else value


def _plain_key(key: Any, path: str) -> Any:
    plain = _enum_value(key)
    if type(plain) not in _PLAIN:
        raise _Refused(path, type(key), f"a dict with keys of type {type(key).__qualname__}")
    return plain


def _prepare_plain(value: Any, path: str) -> Any:
    """Convert wide integers and reject lone surrogates, which msgspec does not encode."""
    if type(value) is int and not -(2**63) <= value < 2**64:
        return Ext(_BIGINT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    if type(value) is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Refused(path, str, "text with a lone surrogate") from None
    return value


def _prepare_key(key: Any, path: str) -> Any:
    """Reject keys of a dict that would need an extension type."""
    if _prepare_plain(key, path) is not key:
        raise _Refused(path, int, "a dict with an integer key of more than 64 bits")
    return key


def _members(data: bytes) -> Any:
    """Decode the members of a set; lists inside become tuples, because members are hashable."""
    return (_hashable(_decode(member)) for member in _decode(data))


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if type(value) is list else value


_FROM_EXT: Final[dict[int, Callable[[bytes], Any]]] = {
    _SET: lambda data: set(_members(data)),
    _FROZENSET: lambda data: frozenset(_members(data)),
    _DATETIME: lambda data: datetime.fromisoformat(data.decode()),
    _DATE: lambda data: date.fromisoformat(data.decode()),
    _TIME: lambda data: time.fromisoformat(data.decode()),
    _TIMEDELTA: lambda data: timedelta(*_decode(data)),
    _UUID: lambda data: UUID(bytes=data),
    _DECIMAL: lambda data: Decimal(data.decode()),
    _BIGINT: lambda data: int.from_bytes(data, "big", signed=True),
    _MARKUP: _markup,
}


def _from_ext(code: int, data: memoryview) -> Any:
    reader = _FROM_EXT.get(code)
    if reader is None:
        raise msgspec.DecodeError(f"unknown extension type {code}: written by a newer sojourn?")
    try:
        return reader(bytes(data))
    except (ValueError, TypeError, ArithmeticError) as error:
        raise msgspec.DecodeError(f"damaged value of extension type {code}") from error


_decode: Final[Callable[[bytes], Any]] = msgspec.msgpack.Decoder(ext_hook=_from_ext).decode
