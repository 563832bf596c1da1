"""``manage.py sessions``: the commands of ``sojourn`` for a Django project."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from typing import Any

from django.core.management.base import CommandError

from sojourn.frameworks.django.settings import get_sessions
from sojourn.frameworks.django.typed_bases import BaseCommand
from sojourn.sessions import Sessions


class Command(BaseCommand):
    """List, count and revoke the sessions of this project."""

    help: str = "List, count and revoke sessions: manage.py sessions --help"
    # A command must also work while a check fails, such as one about the sessions.
    requires_system_checks: tuple[str, ...] = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Run with the arguments of ``manage.py``; click parses those of the command."""
        # Django has applied these two already.
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--settings")
        parser.add_argument("--pythonpath")
        _, arguments = parser.parse_known_args(argv[2:])
        sys.exit(_run(arguments, f"{argv[0]} {argv[1]}"))

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Accept what click parses, for ``call_command("sessions", "count")``."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - of the base class
        """Run the command.

        Raises:
            CommandError: its exit code is not 0.
        """
        code = _run(options["arguments"], "sessions")
        if code:
            raise CommandError(f"sessions ended with exit code {code}", returncode=code)


def _run(arguments: list[str], name: str) -> int:
    """Run the command; return its exit code."""
    if find_spec("click") is None:
        sys.stderr.write(
            "Error: the command line needs click, which is not installed: "
            "pip install 'sojourn[cli]'\n"
        )
        return 2
    from sojourn.cli.group import installation_group
    from sojourn.cli.target import Target

    def open_installation() -> tuple[Sessions[Any], None]:
        return get_sessions(), None

    group = installation_group(lambda _: Target(open_installation=open_installation))
    try:
        group.main(args=arguments, prog_name=name)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0
