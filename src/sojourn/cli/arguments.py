"""Types of arguments: session IDs, labels, users, instants; the confirmation."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from sojourn.cli.exit_codes import ExitCode, Failure

if TYPE_CHECKING:
    TextType = click.ParamType[str]
    LabelType = click.ParamType[tuple[str, str]]
    InstantType = click.ParamType[datetime]
else:  # click has no type parameters before 8.4
    TextType = LabelType = InstantType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])

_ID_DIGITS: Final = 32

#: Settings of a command whose argument is an ID: a ticket that begins with a hyphen, given by
#: mistake, is then refused as an ID, which does not repeat it, and not as an unknown option.
ID_ARGUMENT: Final = {"ignore_unknown_options": True}


class SessionID(TextType):
    """The public ID of a session. An error does not repeat it: it might be a ticket."""

    name: str = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the ID in lower case."""
        text = str(value).strip().lower()
        if len(text) != _ID_DIGITS or not all(letter in "0123456789abcdef" for letter in text):
            self.fail(
                f"expected the public ID of a session, {_ID_DIGITS} hex digits, found another text "
                f"of {len(text)} characters",
                param,
                ctx,
            )
        return text


class Text(TextType):
    """Text in UTF-8 or in the encoding of the terminal."""

    name: str = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text."""
        text = str(value)
        try:  # the bytes of the argument; the locale C decodes ASCII alone
            return text if text.isascii() or _is_unicode(text) else os.fsencode(text).decode()
        except UnicodeError:
            self.fail("expected text in UTF-8, found other bytes", param, ctx)


class Label(LabelType):
    """A label, as ``name=value``."""

    name: str = "label"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return name and value."""
        name, separator, text = Text().convert(value, param, ctx).partition("=")
        if not name or not separator:
            self.fail("expected name=value, such as browser=Firefox", param, ctx)
        return name, text


class User(Text):
    """A user, as given to ``session.login``."""

    name: str = "user"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the user."""
        from sojourn.record import check_user

        try:
            return check_user(super().convert(value, param, ctx))
        except TypeError as error:
            self.fail(str(error), param, ctx)


class FiniteRange(click.FloatRange):
    """A number within bounds; not ``nan`` or ``inf``."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"expected a finite number, found {number}", param, ctx)
        return number


class Instant(InstantType):
    """A duration before now, or an instant in ISO 8601; without a time zone it is UTC."""

    name: str = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Return the instant."""
        from sojourn._core.durations import milliseconds
        from sojourn.errors import ConfigurationError

        try:
            at = datetime.fromisoformat(str(value))
        except ValueError:
            try:
                before = timedelta(milliseconds=milliseconds(str(value), option="since"))
                return datetime.now(UTC) - before
            except (ConfigurationError, OverflowError):
                self.fail(
                    "expected a duration such as '2 hours', or an instant such as "
                    "'2027-01-31 18:00' (UTC)",
                    param,
                    ctx,
                )
        return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _is_unicode(text: str) -> bool:
    """Return whether the text has no bytes that Python could not decode."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def with_revocation_options(function: F) -> F:
    """Add ``--reason``, ``--actor`` and ``--yes`` to a command."""
    options = (
        click.option(
            "--reason",
            type=Text(),
            default="revoked",
            show_default=True,
            help="Why; for events and the history, and for the visitor's next request (except of "
            "revoke-all).",
        ),
        click.option("--actor", type=Text(), help="Who revokes; for events and the history."),
        click.option("--yes", is_flag=True, help="Confirm without a question."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal; end the command if the answer is no.

    Raises:
        Failure: there is no terminal to ask on.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure(
            f"{question.rstrip('?')}: expected a confirmation, found no terminal to ask on; add "
            "--yes",
            ExitCode.USAGE,
        )
    if not click.confirm(question, err=True):
        raise Failure("nothing was changed", ExitCode.NOT_FOUND)
