"""Starlette integration: ``install``, ``@sessions.route``, and a drop-in ``SessionMiddleware``."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette

from sojourn.frameworks.starlette import middleware_stack
from sojourn.frameworks.starlette.dict_session import DictSession
from sojourn.frameworks.starlette.drop_in_middleware import SessionMiddleware
from sojourn.sessions import Sessions

__all__ = ["DictSession", "SessionMiddleware"]


def install(app: Starlette, sessions: Sessions[Any]) -> None:
    """Add the middleware to an application, also while it is being served."""
    middleware_stack.wrap(app, sessions)
    sessions.route_decorator = middleware_stack.route


def uninstall(app: Starlette, sessions: Sessions[Any]) -> None:
    """Remove the middleware. The installation is inactive already."""
    middleware_stack.unwrap(app, sessions)
