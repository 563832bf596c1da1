"""Options as text, from the settings files of frameworks."""

from __future__ import annotations

import collections.abc
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, cast, get_args, get_origin

from sojourn.config import AllOptions, options_from_mapping, setting_name
from sojourn.errors import ConfigurationError

_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})

#: Options whose text may also be the dotted name of an object, with the characters that
#: distinguish it from a URL and from a path.
_OBJECTS: Final = {"store": ".", "audit": ":"}

#: Types with parameters that state how the text is written.
_CONTAINERS: Final = frozenset(
    {
        collections.abc.Callable,
        collections.abc.Collection,
        collections.abc.Mapping,
        collections.abc.Sequence,
        type,
    }
)


def options_from_settings(settings: Mapping[str, Any], prefix: str) -> AllOptions:
    """Return the options among a framework's settings; text is converted to each option's type.

    Lists are separated by white space or lines; ``merge`` has lines such as ``counter = sum``;
    functions and classes are dotted names. A value that is no text is used as it is.

    Args:
        settings: of the framework; keys without the prefix are ignored.
        prefix: such as ``sojourn.`` or ``SOJOURN_``; in capitals, so are the names of options.

    Raises:
        ConfigurationError: a key names no option, or its text cannot be converted.
    """
    found = options_from_mapping(settings, prefix=prefix)
    return cast(
        "AllOptions",
        {
            name: (
                _convert(name, value, setting_name(prefix, name))
                if isinstance(value, str)
                else value
            )
            for name, value in found.items()
        },
    )


def _convert(name: str, text: str, source: str) -> Any:
    """Return the value of an option that is given as text."""
    text = text.strip()
    if name == "secret":
        return [part for line in text.splitlines() for part in _split(line, ",")]
    types, words = _accepted(AllOptions.__annotations__[name])
    if text in words:
        return text
    if type(None) in types and text.lower() in {"none", ""}:
        return None
    if name in _OBJECTS:
        dotted = _OBJECTS[name] in text and not {"/", "\\", " "}.intersection(text)
        return _resolve(text, source) if dotted else text
    if bool in types:
        return _boolean(text, source, words)
    if collections.abc.Mapping in types:
        return _mapping(text, source)
    if collections.abc.Callable in types or type in types:
        return _resolve(text, source)
    if collections.abc.Sequence in types or collections.abc.Collection in types:
        return text.split()
    if int in types:
        return int(text) if text.isascii() and text.isdigit() else text
    return text


def _accepted(annotation: Any) -> tuple[set[Any], set[str]]:
    """Return the types that an option accepts, and the words among its values."""
    types: set[Any] = set()
    words: set[str] = set()
    pending = [annotation.__origin__]  # of `Annotated`
    while pending:
        part = pending.pop()
        origin = get_origin(part)
        if origin is Literal:
            words.update(word for word in get_args(part) if isinstance(word, str))
            types.update(type(word) for word in get_args(part))
        elif origin in _CONTAINERS:
            types.add(origin)
        elif get_args(part):
            pending.extend(get_args(part))
        else:
            types.add(part)
    return types, words


def _split(text: str, separator: str) -> Iterator[str]:
    return (part.strip() for part in text.split(separator) if part.strip())


def _boolean(text: str, source: str, words: set[str]) -> bool:
    word = text.lower()
    if word not in _TRUE | _FALSE:
        others = "".join(f", {each}" for each in sorted(words))
        raise ConfigurationError(f"{source} expects true or false{others}, found {text!r}")
    return word in _TRUE


def _mapping(text: str, source: str) -> dict[str, str]:
    pairs = [line.partition("=") for line in _split(text, "\n")]
    for key, separator, _ in pairs:
        if not separator:
            raise ConfigurationError(
                f"{source} expects lines such as 'counter = sum', found {key.strip()!r}"
            )
    return {key.strip(): value.strip() for key, _, value in pairs}


def _resolve(text: str, source: str) -> Any:
    try:
        return pkgutil.resolve_name(text)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"{source} expects the dotted name of an object, such as 'shop.errors.answer', found "
            f"{text!r}: {error}"
        ) from error
