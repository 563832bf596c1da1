"""``flask sessions``: the commands of ``sojourn`` for a Flask application.

Flask imports this module with every command, also in an application without sessions: so it imports
neither Flask nor the adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sojourn.cli.group import Context, Group, installation_group
from sojourn.cli.target import Target
from sojourn.frameworks.install import get

if TYPE_CHECKING:
    from sojourn.sessions import Sessions


def _make_target(context: Context) -> Target:
    """Return the target of the application that ``flask --app`` names."""
    script_info: Any = context.obj

    def open_installation() -> tuple[Sessions[Any], Any]:
        app = script_info.load_app()
        # Functions of a CallbackStore may need it, as in a command with `with_appcontext`.
        context.with_resource(app.app_context())
        return get(app), app

    return Target(open_installation=open_installation)


sessions: Group = installation_group(_make_target)
