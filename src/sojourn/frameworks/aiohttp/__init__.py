"""aiohttp integration: ``setup`` and ``get_session``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from sojourn.frameworks.aiohttp.middleware import get_session, new_session
from sojourn.frameworks.aiohttp.middleware import install as install
from sojourn.frameworks.aiohttp.middleware import uninstall as uninstall

if TYPE_CHECKING:
    from typing import Unpack

    from sojourn.config import Options
    from sojourn.sessions import Sessions

__all__ = ["get_session", "new_session", "setup"]


def setup(app: web.Application, **options: Unpack[Options]) -> Sessions[Any]:
    """Give every request and WebSocket of an application a session; as ``sojourn.install``.

    Args:
        app: an application that has not started.
        options: the fields of ``sojourn.config.Options``; all have defaults.

    Returns:
        The installation, also found with ``sojourn.get(app)``.
    """
    from sojourn.frameworks import install as installer

    return installer.install(app, **options)
