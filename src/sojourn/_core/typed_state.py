"""Typed state: session keys as attributes of ``session.state``, checked against a class."""

from __future__ import annotations

import copy
import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, NoReturn, Protocol, get_args, get_origin
from uuid import UUID

import msgspec

from sojourn._core.changes import ChangeTracker
from sojourn._core.operations import ABSENT, Merge
from sojourn._core.reserved_keys import PREFIX, check_key
from sojourn._core.state_upgrade import StateUpgrade
from sojourn._core.working_copy import WorkingCopy
from sojourn.errors import ConfigurationError, InvalidState

#: Types that the codec stores without conversion. msgspec accepts sets, too, but rejects them in
#: ``builtin_types``.
_SCALARS: Final = (bytes, datetime, date, time, timedelta, UUID, Decimal)
_CODEC_TYPES: Final = (*_SCALARS, set, frozenset)
_BUILTIN: Final = frozenset({type(None), bool, int, float, str, list, dict, Any, *_CODEC_TYPES})

_MAY_BE_SETS: Final = (
    msgspec.inspect.SetType, msgspec.inspect.FrozenSetType, msgspec.inspect.AnyType,
)  # fmt: skip


InvalidStateFunction = Callable[[str, Any], Any]
"""From a key and the stored value, which does not fit the field, to a value that does."""

OnInvalidState = Literal["error", "default"] | InvalidStateFunction


class StateField(Protocol):
    """One field of a state class: a ``TypeAdapter`` for the session key of the same name.

    Attributes:
        name: of the field and of the key.
        default: returns the value of an absent key; None if the field is required.
        merge: how concurrent assignments combine; None if not declared.
        plain: the typed value is the stored value, without conversion.
    """

    @property
    def name(self) -> str: ...
    @property
    def default(self) -> Callable[[], Any] | None: ...
    @property
    def merge(self) -> Merge | None: ...
    @property
    def plain(self) -> bool: ...

    def from_stored(self, value: Any) -> Any:
        """Check a stored value and convert it to the field's type.

        Raises:
            InvalidState: it does not fit.
        """
        ...

    def convert(self, value: Any) -> Any:
        """Convert an assigned value, if the state class does that; otherwise return it."""
        ...

    def to_stored(self, value: Any) -> Any:
        """Convert a typed value to one that the codec stores, and check its type.

        Raises:
            InvalidState: it does not fit.
        """
        ...


class Field(msgspec.Struct, frozen=True):
    """One field of a dataclass or Struct; see ``StateField``.

    Attributes:
        type: of the values.
        sets: values may contain sets.
    """

    name: str
    type: Any
    default: Callable[[], Any] | None
    plain: bool
    merge: Merge | None
    sets: bool

    def from_stored(self, value: Any) -> Any:
        """Check a stored value and convert it to the field's type."""
        try:
            return msgspec.convert(value, self.type, builtin_types=_SCALARS)
        except msgspec.ValidationError as error:
            raise InvalidState(self.name, type(value), str(error)) from None

    def convert(self, value: Any) -> Any:
        """Return the value: its type must be exact."""
        return value

    def to_stored(self, value: Any) -> Any:
        """Convert a typed value to one that the codec stores, and check its type."""
        try:
            plain = msgspec.to_builtins(value, builtin_types=_CODEC_TYPES)
        except (TypeError, msgspec.MsgspecError, RecursionError) as error:
            raise InvalidState(self.name, type(value), str(error)) from None
        if self.sets:
            plain = _keep_sets(value, plain)
        _check_set(self.name, self.from_stored(plain), value)
        return plain


class StateSpec:
    """The fields of ``session.state``.

    Args:
        cls: a dataclass, ``msgspec.Struct`` or pydantic model; None for untyped state, where every
            key is an attribute.
        on_invalid: what a stored value becomes that does not fit its field: an error, the field's
            default, or what a function returns.
        upgrade: brings older data to the present version of the class; None for no versions.

    Raises:
        ConfigurationError: the class is of another kind, or a field's type cannot be stored.
    """

    __slots__ = ("cls", "fields", "on_invalid", "upgrade")

    def __init__(
        self,
        cls: type | None,
        *,
        on_invalid: OnInvalidState = "error",
        upgrade: StateUpgrade | None = None,
    ) -> None:
        self.cls: type | None = cls
        self.fields: Mapping[str, StateField] = {} if cls is None else _read_fields(cls)
        self.on_invalid: OnInvalidState = on_invalid
        self.upgrade: StateUpgrade | None = upgrade

    def replacement(self, field: StateField, raw: Any) -> Any:
        """Return the value of a field whose stored value does not fit.

        Raises:
            InvalidState: it is an error, the field has no default, or the replacement does not fit.
        """
        if self.on_invalid == "error" or (self.on_invalid == "default" and not field.default):
            field.from_stored(raw)  # raises
        if callable(self.on_invalid):
            value = field.convert(self.on_invalid(field.name, raw))
            field.to_stored(value)
            return value
        assert field.default is not None  # noqa: S101 - without a default it has raised
        return field.default()

    @property
    def merges(self) -> dict[str, Merge]:
        """Merges of the fields that declare one, by name."""
        return {f.name: f.merge for f in self.fields.values() if f.merge is not None}

    def bind(self, copy: WorkingCopy) -> State:
        """Return the state of one working copy."""
        return State(copy, self)


class State:
    """The value of ``session.state``.

    Each field is the session key of the same name. Keys without a field are kept.
    """

    __slots__ = ("_copy", "_spec")

    _copy: WorkingCopy
    _spec: StateSpec

    def __init__(self, copy: WorkingCopy, spec: StateSpec) -> None:
        object.__setattr__(self, "_copy", copy)
        object.__setattr__(self, "_spec", spec)

    def __getattr__(self, name: str) -> Any:
        """Return a key's value, or the field's default.

        Raises:
            AttributeError: no such field, or no value and no default.
            InvalidState: the stored value does not fit the field's type.
        """
        changes = self._copy.access()
        field = self._field(name)
        try:
            if field is None:
                value = changes.get(name)
            elif field.plain:
                value = changes.get(name)
                if value is not ABSENT and _is_other_set(field.from_stored(value), value):
                    value = changes.get_typed(name, field)  # stored by a class with a list
            else:
                value = changes.get_typed(name, field)
        except InvalidState:
            assert field is not None  # noqa: S101 - only fields have types
            return self._replacement(changes, field)
        if value is not ABSENT:
            if field is not None and field.plain and not _frozen(value):
                changes.check_changes(name, field)
            return value
        if field is None or field.default is None:
            raise AttributeError(f"session.state has no value for {name!r}")
        value = field.default()
        if _frozen(value):
            return value
        value = changes.track_default(name, value, None if field.plain else field)
        if field.plain:
            changes.check_changes(name, field)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign a key, checked against the field's type.

        Raises:
            InvalidState: the value does not fit.
            AttributeError: no such field.
        """
        field = self._field(name)
        check_key(name)
        changes = self._copy.edit()
        if field is None:
            changes.set(name, value)
        elif field.plain:
            _check_set(name, field.from_stored(value), value)
            changes.set(name, value)
            changes.check_changes(name, field)
        else:
            if not changes.is_tracked(name, value):
                value = field.convert(value)
            changes.set(name, value, field)

    def __delattr__(self, name: str) -> None:
        """Remove a key; the field has its default again."""
        self._field(name)
        if name not in self._copy.access():
            raise AttributeError(f"session.state has no value for {name!r}")
        self._copy.edit().delete(name)

    def __reduce__(self) -> NoReturn:
        """Raise ``TypeError``: a state belongs to its session."""
        raise TypeError(
            "session.state belongs to its session and cannot be copied or pickled; copy the "
            "content: session.copy()"
        )

    def __dir__(self) -> list[str]:
        """List the fields; the keys if there is no class."""
        if self._spec.fields:
            return list(self._spec.fields)
        return [key for key in self._copy.access() if not key.startswith(PREFIX)]

    def __repr__(self) -> str:
        """Show the session ID; values stay out of logs."""
        return f"<state of session {self._copy.session_id().hex()}>"

    def _replacement(self, changes: ChangeTracker, field: StateField) -> Any:
        """Return the value of a field whose stored value does not fit; stored if it is changed."""
        known = changes.get_replacement(field.name, field)
        if known is not ABSENT:
            return known
        value = self._spec.replacement(field, changes.get(field.name))
        return value if _frozen(value) else changes.track_replacement(field.name, value, field)

    def _field(self, name: str) -> StateField | None:
        field = self._spec.fields.get(name)
        if field is None and self._spec.cls is not None:
            known = ", ".join(self._spec.fields)
            raise AttributeError(
                f"{self._spec.cls.__qualname__} has no field {name!r}; it has {known}"
            )
        return field


def _is_other_set(converted: Any, value: Any) -> bool:
    """Return whether a value was converted to a set: msgspec converts lists."""
    return isinstance(converted, set | frozenset) and type(value) is not type(converted)


def _check_set(name: str, converted: Any, value: Any) -> None:
    """Check that a value was not converted to a set, so that the field returns what it declares.

    Raises:
        InvalidState: it was.
    """
    if _is_other_set(converted, value):
        expected, found = type(converted), type(value)
        detail = f"Expected `{expected.__name__}`, got `{found.__name__}`"
        raise InvalidState(name, found, detail)


#: Attributes of ``State`` that would hide a field.
_RESERVED_NAMES: Final = frozenset(vars(State))


def _frozen(value: Any) -> bool:
    return isinstance(value, str | bytes | int | float | frozenset | type(None) | tuple)


def _read_fields(cls: Any) -> Mapping[str, StateField]:
    if _is_pydantic_model(cls):
        from sojourn._core.pydantic_state import read_model_fields

        return read_model_fields(cls)
    if not isinstance(cls, type) or not (
        dataclasses.is_dataclass(cls) or issubclass(cls, msgspec.Struct)
    ):
        raise ConfigurationError(
            f"state= expects a dataclass, a msgspec.Struct or a pydantic model class, found {cls!r}"
        )
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            f"state={cls.__qualname__}: {error}; define the class and the types of its fields "
            "at the top of a module, and import types outside `if TYPE_CHECKING`"
        ) from None
    fields = {name: _read_field(cls, name, hints[name], make) for name, make in _defaults(cls)}
    for name in fields:
        if name in _RESERVED_NAMES:
            raise ConfigurationError(
                f"state={cls.__qualname__}: session.state itself uses the name {name!r}; rename "
                "the field"
            )
    return fields


def _is_pydantic_model(cls: object) -> bool:
    return isinstance(cls, type) and any(
        base.__name__ == "BaseModel" and base.__module__.partition(".")[0] == "pydantic"
        for base in cls.__mro__
    )


def _defaults(cls: Any) -> list[tuple[str, Callable[[], Any] | None]]:
    if issubclass(cls, msgspec.Struct):
        return [
            (f.name, _default(f.default, f.default_factory, msgspec.NODEFAULT))
            for f in msgspec.structs.fields(cls)
        ]
    return [
        (f.name, _default(f.default, f.default_factory, dataclasses.MISSING))
        for f in dataclasses.fields(cls)
    ]


def _default(value: Any, factory: Any, missing: Any) -> Callable[[], Any] | None:
    if factory is not missing:
        make: Callable[[], Any] = factory
        return make
    # A copy, so that visitors do not share a mutable default (law A16).
    return None if value is missing else lambda: copy.deepcopy(value)


def _read_field(cls: type, name: str, hint: Any, default: Callable[[], Any] | None) -> Field:
    merge = None
    if get_origin(hint) is Annotated:
        merge = next((extra for extra in get_args(hint)[1:] if isinstance(extra, Merge)), None)
    try:
        kinds = list(_walk(msgspec.inspect.type_info(hint), set()))
    except TypeError as error:
        raise _unsupported_type(cls, name, error) from None
    for kind in kinds:
        if isinstance(kind, msgspec.inspect.CustomType):
            raise _unsupported_type(cls, name, kind.cls)
    sets = any(isinstance(kind, _MAY_BE_SETS) for kind in kinds)
    return Field(name, hint, default, _is_plain(hint), merge, sets)


def _unsupported_type(cls: type, name: str, found: object) -> ConfigurationError:
    return ConfigurationError(
        f"state={cls.__qualname__}: the type of field {name!r} cannot be stored: {found}"
    )


def _walk(info: Any, seen: set[int]) -> Iterator[Any]:
    """Yield every type in a msgspec type description, itself first."""
    if id(info) in seen:  # a type may contain itself
        return
    seen.add(id(info))
    yield info
    match info:
        case msgspec.inspect.Type() | msgspec.inspect.Field():
            parts = [getattr(info, name) for name in info.__struct_fields__]
        case tuple():
            parts = list(info)
        case _:
            return
    for part in parts:
        yield from _walk(part, seen)


def _keep_sets(value: Any, plain: Any) -> Any:
    """Replace lists that msgspec made of sets by sets, which are merged by member."""
    match value:
        case set() | frozenset():
            try:
                return set(plain) if isinstance(value, set) else frozenset(plain)
            except TypeError:  # its members became dicts, which are not hashable
                return plain
        case dict():
            values = zip(plain.items(), value.values(), strict=True)
            return {key: _keep_sets(item, stored_key) for (key, stored_key), item in values}
        case list() | tuple():
            return [_keep_sets(item, low) for item, low in zip(value, plain, strict=True)]
    if isinstance(plain, dict):
        kind = type(value)
        names = getattr(kind, "__struct_fields__", ()) or getattr(kind, "__dataclass_fields__", ())
        stored = getattr(kind, "__struct_encode_fields__", names)
        for name, key in zip(names, stored, strict=True):
            if key in plain:
                plain[key] = _keep_sets(getattr(value, name), plain[key])
    return plain


def _is_plain(hint: Any) -> bool:
    """Return whether values of this type are stored without conversion."""
    if hint is None or isinstance(hint, type) or hint is Any:
        return hint in _BUILTIN
    origin = get_origin(hint)
    arguments = get_args(hint)
    if origin is Annotated:
        return _is_plain(arguments[0])
    if origin in (typing.Union, types.UnionType) or origin in _BUILTIN:
        return all(_is_plain(argument) for argument in arguments if argument is not Ellipsis)
    return origin is typing.Literal
