"""Exit codes, and the conversion of errors into one line and an exit code."""

from __future__ import annotations

import enum
import os
import sys
from typing import IO, Any

import click

from sojourn.cli.text import one_line
from sojourn.errors import RevocationIncomplete, SojournError, StoreError


class ExitCode(enum.IntEnum):
    """What a command returns to the shell."""

    OK = 0
    #: Nothing was found, or a problem was found.
    NOT_FOUND = 1
    #: An argument or the configuration is wrong.
    USAGE = 2
    #: The store did not answer, or refused.
    STORE_UNAVAILABLE = 3
    #: A revocation was done in part: repeat it.
    REVOCATION_INCOMPLETE = 4
    #: Ctrl-C.
    INTERRUPTED = 130
    #: The reader of the output has gone, as with ``| head`` (128 + SIGPIPE).
    BROKEN_PIPE = 141


class Failure(click.ClickException):
    """Ends a command with one line on the standard error.

    Args:
        message: shown on one line, control characters escaped.
        code: of the process.
    """

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(one_line(message))
        self.exit_code = int(code)  # type: ignore[misc]  # click reads it on the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line."""
        click.echo(f"Error: {self.message}", file=file or sys.stderr)


def failure_of(error: SojournError) -> Failure:
    """Return how a command ends that raised an error of the library."""
    message = str(error)
    if isinstance(error, RevocationIncomplete):
        if error.__cause__ is not None:
            message = f"{message}: {error.__cause__}"
        return Failure(message, ExitCode.REVOCATION_INCOMPLETE)
    if isinstance(error, StoreError):
        return Failure(message, ExitCode.STORE_UNAVAILABLE)
    return Failure(message, ExitCode.USAGE)


def missing_package(name: str) -> Failure:
    """Return how a command ends that needs a package of the extra."""
    return Failure(
        f"the command line needs {name}, which is not installed: pip install 'sojourn[cli]'",
        ExitCode.USAGE,
    )


def discard_output() -> None:
    """Write nothing more to the standard output, whose reader has gone."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
