"""The command ``sojourn``, also ``python -m sojourn``."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sojourn.sessions import Sessions

#: Packages of the extra ``sojourn[cli]``.
_REQUIRED: Final = ("click", "rich")

_DJANGO_HANDLER: Final = "django.core.handlers.base.BaseHandler"


def main() -> None:
    """Run the command line."""
    for package in _REQUIRED:
        if find_spec(package) is None:
            sys.stderr.write(
                f"Error: the command line needs {package}, which is not installed: "
                "pip install 'sojourn[cli]'\n"
            )
            sys.exit(2)
    try:
        from sojourn.cli.main import run

        run(_find_installation)
    except KeyboardInterrupt:  # while modules were imported
        sys.exit(130)


def _find_installation(app: Any) -> Sessions[Any]:
    """Return the installation of an application; that of a Django project by its handler."""
    from sojourn.frameworks.install import get

    bases = {f"{base.__module__}.{base.__qualname__}" for base in type(app).__mro__}
    if _DJANGO_HANDLER in bases:
        sessions: Sessions[Any] = import_module("sojourn.frameworks.django").get_sessions()
        return sessions
    return get(app)


if __name__ == "__main__":
    main()
