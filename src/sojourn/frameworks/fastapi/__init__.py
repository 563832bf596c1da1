"""FastAPI integration: ``SessionDep``, ``Depends(csrf)``, OpenAPI, and ``@sessions.route``."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from sojourn.frameworks.fastapi import openapi
from sojourn.frameworks.fastapi.csrf_token import Csrf, CsrfToken, csrf
from sojourn.frameworks.fastapi.dependencies import (
    SessionDep,
    SessionDependency,
    get_session,
    route,
)
from sojourn.frameworks.starlette import drop_in_middleware, middleware_stack
from sojourn.sessions import Sessions

__all__ = [
    "Csrf",
    "CsrfToken",
    "SessionDep",
    "SessionDependency",
    "csrf",
    "get_session",
]

drop_in_middleware.first_connection.append(openapi.describe_drop_in)


def install(app: FastAPI, sessions: Sessions[Any]) -> None:
    """Add the middleware to an application, also while it is being served."""
    middleware_stack.wrap(app, sessions)
    sessions.route_decorator = route
    openapi.describe(app, sessions)


def uninstall(app: FastAPI, sessions: Sessions[Any]) -> None:
    """Remove the middleware."""
    middleware_stack.unwrap(app, sessions)
    openapi.restore(app)
