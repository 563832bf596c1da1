"""Groups of commands: imported when used, with errors as one line and an exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, NoReturn

import click

from sojourn.cli.exit_codes import (
    ExitCode,
    failure_of,
    failure_of_system,
    missing_package,
    unexpected_failure,
)
from sojourn.cli.standard_streams import discard_output, prepare_streams
from sojourn.cli.target import Target, shared_options
from sojourn.errors import SojournError

# For modules that must not import click.
Context = click.Context
Group = click.Group

#: Packages of the extra ``sojourn[cli]``.
_REQUIRED: Final = ("rich",)

#: From the name of a command to its module and to the name of the command object in it.
INSTALLATION_COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "list": ("sojourn.cli.listing", "list_command"),
    "show": ("sojourn.cli.show", "show"),
    "revoke": ("sojourn.cli.revocation", "revoke"),
    "revoke-user": ("sojourn.cli.revocation", "revoke_user"),
    "revoke-all": ("sojourn.cli.revocation", "revoke_all"),
    "history": ("sojourn.cli.history", "history"),
    "count": ("sojourn.cli.count", "count"),
    "stats": ("sojourn.cli.stats", "stats"),
    "top": ("sojourn.cli.top", "top"),
    "purge": ("sojourn.cli.purge", "purge"),
    "doctor": ("sojourn.cli.doctor", "doctor"),
    "bench": ("sojourn.cli.bench", "bench"),
}

#: Those that concern no installation.
OTHER_COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "migrate": ("sojourn.cli.migrate", "migrate_command"),
    "schema": ("sojourn.cli.schema", "schema"),
    "secret": ("sojourn.cli.secret", "secret"),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used.

    Args:
        modules: from the name of a command to its module and to the name of the object in it.
    """

    def __init__(self, *args: Any, modules: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*args, **options)
        self.modules: Mapping[str, tuple[str, str]] = {
            name: found for name, found in modules.items() if find_spec(found[0]) is not None
        }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the documentation."""
        return [*self.modules, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name in self.modules:
            module, name = self.modules[cmd_name]
            command: click.Command = getattr(import_module(module), name)
            return command
        return super().get_command(ctx, cmd_name)


class SessionsGroup(LazyGroup):
    """A group that ends with one line and an exit code, whatever its commands raise.

    Args:
        make_target: returns the target of the commands, given the context of the group; it opens
            nothing yet.
        options: of ``LazyGroup``.
    """

    def __init__(
        self, *args: Any, make_target: Callable[[click.Context], Target], **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._make_target = make_target

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options of the group; they change the target."""
        prepare_streams()
        ctx.obj = self._make_target(ctx)
        try:
            return super().parse_args(ctx, args)
        except OSError as error:  # of the help text
            _end_after(error, ctx)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the group's own parameters and the shared ones."""
        return [*shared_options(ctx), *super().get_params(ctx)]

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        for package in _REQUIRED:
            if find_spec(package) is None:
                raise missing_package(package)
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            click.echo(err=True)
            ctx.exit(ExitCode.INTERRUPTED)
        except SojournError as error:
            raise failure_of(error) from error
        except (click.ClickException, click.exceptions.Exit):
            raise
        except OSError as error:
            _end_after(error, ctx)
        except Exception as error:  # a defect, or one of the application's code
            if sys.flags.dev_mode:
                raise
            raise unexpected_failure(error) from error
        finally:
            ctx.obj.close()


def _end_after(error: OSError, ctx: click.Context) -> NoReturn:
    """End a command that the system refused a file or the output."""
    discard_output()
    if error.errno == errno.EPIPE:
        ctx.exit(ExitCode.BROKEN_PIPE)
    raise failure_of_system(error) from error


def installation_group(make_target: Callable[[click.Context], Target]) -> click.Group:
    """Return the group ``sessions`` for the command line of a framework.

    Args:
        make_target: see ``SessionsGroup``.
    """
    return SessionsGroup(
        "sessions",
        make_target=make_target,
        modules=INSTALLATION_COMMANDS,
        no_args_is_help=True,
        help="List, count and revoke the sessions of this application.",
    )
