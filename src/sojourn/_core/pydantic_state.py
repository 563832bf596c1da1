"""Fields of a pydantic model as fields of ``session.state``; imported when a model is given.

Each field is validated alone, because each is a session key of its own.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, RootModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError

from sojourn._core.codec import encode
from sojourn._core.operations import Merge
from sojourn.errors import ConfigurationError, InvalidState, NotSerializable

#: The value in the text of a serialization error; it may be personal (A18).
_INPUT_VALUE: Final = re.compile(r"input_value=.*?, (?=input_type=)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PydanticField:
    """One field of a pydantic model; see ``Field`` of the other state classes."""

    model: type[BaseModel]
    name: str
    default: Callable[[], Any] | None
    merge: Merge | None
    plain: bool = False

    def from_stored(self, value: Any) -> Any:
        """Validate a stored value and convert it to the field's type."""
        instance = _incomplete(self.model, {})
        try:
            self.model.__pydantic_validator__.validate_assignment(instance, self.name, value)
        except ValidationError as error:
            raise InvalidState(self.name, type(value), _messages(error)) from None
        return instance.__dict__[self.name]

    def convert(self, value: Any) -> Any:
        """Validate an assigned value, and convert it as the model does."""
        return self.from_stored(value)

    def to_stored(self, value: Any) -> Any:
        """Convert a typed value to one that the codec stores, and validate it.

        Types that the codec stores, such as datetime and set, are kept; a value with another type
        inside is stored as the model writes it to JSON.
        """
        stored = _enum_values(self._dump(value, "python"))
        try:
            encode(self.name, stored)
        except NotSerializable:
            stored = self._dump(value, "json")
        self.from_stored(stored)
        return stored

    def _dump(self, value: Any, mode: Literal["python", "json"]) -> Any:
        instance = _incomplete(self.model, {self.name: value})
        try:
            dumped = self.model.__pydantic_serializer__.to_python(
                instance, mode=mode, include={self.name}, round_trip=True, warnings="error"
            )
        except (PydanticSerializationError, ValueError) as error:
            detail = _INPUT_VALUE.sub("", str(error))
            raise InvalidState(self.name, type(value), detail) from None
        return dumped[self.name]


def read_model_fields(model: type[BaseModel]) -> dict[str, PydanticField]:
    """Return the fields of a pydantic model by name.

    Raises:
        ConfigurationError: the model has something that concerns more than one field.
    """
    decorators = model.__pydantic_decorators__
    found = {
        "model validators": decorators.model_validators or decorators.root_validators,
        "a model serializer": decorators.model_serializers,
        "a root value": issubclass(model, RootModel),
        "frozen=True": model.model_config.get("frozen"),
    }
    for what, present in found.items():
        if present:
            raise ConfigurationError(
                f"state={model.__qualname__}: each field is a session key of its own and is "
                f"validated alone, so a model with {what} cannot be used; use field validators, or "
                "put this model into a field of another one"
            )
    return {name: _read_field(model, name, info) for name, info in model.model_fields.items()}


def _read_field(model: type[BaseModel], name: str, info: FieldInfo) -> PydanticField:
    unsupported = {
        "exclude=True": info.exclude,
        "frozen=True": info.frozen,
        "a default_factory that takes the other fields": info.default_factory_takes_validated_data,
    }
    for what, present in unsupported.items():
        if present:
            raise ConfigurationError(
                f"state={model.__qualname__}: field {name!r} has {what}, which a field of the "
                "session's state cannot have; remove it"
            )

    def default() -> Any:
        return info.get_default(call_default_factory=True)

    merge = next((extra for extra in info.metadata if isinstance(extra, Merge)), None)
    return PydanticField(model, name, None if info.is_required() else default, merge)


def _incomplete(model: type[BaseModel], values: dict[str, Any]) -> BaseModel:
    """Return an instance with only some fields; unlike ``model_construct`` without defaults."""
    instance = model.__new__(model)
    for name, value in (("__dict__", values), *_INTERNAL):
        object.__setattr__(instance, name, value)
    object.__setattr__(instance, "__pydantic_fields_set__", set(values))
    return instance


#: What every instance has besides its fields.
_INTERNAL: Final = (("__pydantic_extra__", None), ("__pydantic_private__", None))


def _messages(error: ValidationError) -> str:
    """Return the texts of a validation error without the values, which may be personal (A18)."""
    return "; ".join(
        f"{'.'.join(map(str, part['loc'][1:]))}: {part['msg']}" if part["loc"][1:] else part["msg"]
        for part in error.errors(include_url=False)
    )


def _enum_values(value: Any) -> Any:
    """Replace the members of enumerations by their values."""
    match value:
        case enum.Enum():
            return value.value
        case dict():
            return {_enum_values(key): _enum_values(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return type(value)(map(_enum_values, value))
        case _:
            return value
