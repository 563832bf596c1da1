"""Text and JSON of the output: escaped text, instants, numbers, documents."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

import click

_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")
_KIBIBYTE: Final = 1024


def printable(text: str) -> str:
    r"""Return text with its control characters as escapes such as ``\x1b``.

    A user's name or a label could otherwise move the cursor, set the title of the terminal or
    reverse the direction of the line. The backslash is escaped, so that the result is unambiguous.
    """
    return "".join(
        letter if letter.isprintable() and letter != "\\" else _escape(letter) for letter in text
    )


def one_line(text: str) -> str:
    """Return text on one line, with its control characters escaped."""
    return printable_message(" ".join(text.split()))


def printable_message(text: str) -> str:
    """Return a message with its control characters escaped; a backslash stays as it is."""
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def format_labels(labels: Any) -> str:
    """Return labels as ``name=value``, ordered by name."""
    return " ".join(f"{printable(name)}={printable(labels[name])}" for name in sorted(labels))


def format_instant(at: datetime | None) -> str:
    """Return an instant in UTC, to the second; ``-`` if there is none."""
    return "-" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def format_number(number: float, *, estimated: bool = False) -> str:
    """Return a number with separators; ``~`` marks an estimate."""
    return f"{'~' if estimated else ''}{number:,.0f}"


def format_bytes(size: float) -> str:
    """Return a size with its unit."""
    for unit in _UNITS[:-1]:
        if size < _KIBIBYTE:
            return f"{size:,.0f} {unit}" if unit == _UNITS[0] else f"{size:,.1f} {unit}"
        size /= _KIBIBYTE
    return f"{size:,.1f} {_UNITS[-1]}"


def iso(at: datetime | None) -> str | None:
    """Return an instant for JSON: ISO 8601 in UTC; None if there is none."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds")


def print_json(document: Any) -> None:
    """Print a JSON document, ASCII alone, so that it contains no control character."""
    click.echo(json.dumps(document, indent=2))


def compact_json(document: Any) -> str:
    """Return a JSON document on one line."""
    return json.dumps(document)
