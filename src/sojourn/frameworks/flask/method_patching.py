"""Replaces methods of an application, which the framework calls as its attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def replace_methods(app: Any, **replacements: Callable[..., Any]) -> Callable[[], None]:
    """Replace methods of an object by functions.

    Args:
        app: the application.
        replacements: by the name of the method.

    Returns:
        A function that puts the methods back, except those that another extension has replaced
        since.
    """
    attributes: dict[str, Any] = app.__dict__
    before = {name: attributes[name] for name in replacements if name in attributes}
    attributes.update(replacements)

    def undo() -> None:
        for name, function in replacements.items():
            if attributes.get(name) is function:
                del attributes[name]
                if name in before:
                    attributes[name] = before[name]

    return undo
