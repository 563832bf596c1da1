"""``litestar sessions``: the commands of ``sojourn`` for a Litestar application."""

from __future__ import annotations

from typing import Any

from sojourn.cli.group import Context, installation_group
from sojourn.cli.target import Target
from sojourn.sessions import Sessions


def sessions_group(sessions: Sessions[Any]) -> Any:
    """Return the group of commands of an installation.

    Args:
        sessions: of the plugin.
    """

    def make_target(context: Context) -> Target:
        environment: Any = context.obj  # of Litestar's command line, with the application

        def open_installation() -> tuple[Sessions[Any], Any]:
            return sessions, getattr(environment, "app", None)

        return Target(open_installation=open_installation)

    return installation_group(make_target)
