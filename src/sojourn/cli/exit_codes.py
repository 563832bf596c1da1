"""Exit codes, and the conversion of errors into one line and an exit code."""

from __future__ import annotations

import contextlib
import enum
import sys
from pathlib import Path
from typing import IO, Any

import click

from sojourn.cli.formatting import one_line
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
    #: An error that no part of the command expects, or a full disk.
    INTERNAL_ERROR = 70
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
        self.exit_code: int = int(code)  # type: ignore[misc]  # click reads it on the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line. The exit code stays if the standard error cannot be written."""
        with contextlib.suppress(OSError):
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


def unexpected_failure(error: Exception) -> Failure:
    """Return how a command ends after an error that no part of it expects."""
    import traceback

    where = traceback.extract_tb(error.__traceback__)[-1]
    return Failure(
        f"unexpected {type(error).__qualname__} at {Path(where.filename).name}:{where.lineno}; set "
        "PYTHONDEVMODE=1 to see the traceback",
        ExitCode.INTERNAL_ERROR,
    )


def failure_of_system(error: OSError) -> Failure:
    """Return how a command ends that the system refused a file or the output."""
    name = "" if error.filename is None else f"{error.filename}: "
    return Failure(f"{name}{error.strerror or error}", ExitCode.INTERNAL_ERROR)
