"""The command ``sojourn``: the group of all commands."""

from __future__ import annotations

import logging
from typing import Final

import click

from sojourn.cli.group import INSTALLATION_COMMANDS, OTHER_COMMANDS, SessionsGroup
from sojourn.cli.target import FindInstallation, Target

_HELP: Final = """\
List, count and revoke sessions, check and measure a store.

Name the installation by --app, or by --store (or SOJOURN_STORE) and the secret of the application
(SOJOURN_SECRET or --secret-file). A SQLite database has its secret beside it.

\b
  sojourn list --user ada
  sojourn revoke-user ada --reason "stolen laptop" --actor support
  sojourn --app main:app doctor

Times are in UTC. On a terminal a list is a table; in a pipe it has one session on a line, separated
by tabs. --json prints one JSON document.

\b
Exit codes:
  0    done
  1    nothing was found, or a problem was found
  2    an argument or the configuration is wrong
  3    the store did not answer
  4    a revocation was done in part: repeat it
  70   an unexpected error
  130  interrupted
"""


def run(find_installation: FindInstallation) -> None:
    """Run the command line and end the process with its exit code.

    Args:
        find_installation: returns the ``Sessions`` of an application.
    """
    # A command reports an error once, as its last line; the log would repeat it with a traceback.
    logging.getLogger("sojourn").addHandler(logging.NullHandler())
    group = SessionsGroup(
        "sojourn",
        make_target=lambda _: Target(find_installation),
        modules={**INSTALLATION_COMMANDS, **OTHER_COMMANDS},
        no_args_is_help=True,
        help=_HELP,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    click.version_option(package_name="sojourn", prog_name="sojourn")(group)
    group.main(prog_name="sojourn")
