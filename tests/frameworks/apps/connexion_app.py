"""Applications of Connexion for the laws of requests, and for real servers."""

import connexion
from connexion.middleware import MiddlewarePosition
from starlette.responses import Response, StreamingResponse

import sojourn
from sojourn.testing import HandlerResponse
from tests.frameworks.apps.wsgi_app import uninstall

__all__ = ["build", "uninstall"]


def operation(handler):
    """Return a function of Connexion that calls a handler."""

    async def respond():
        session = connexion.request.scope.get("session")
        response = await handler(session) or HandlerResponse()
        kind = Response if isinstance(response.body, bytes) else StreamingResponse
        return kind(response.body, response.status, headers=dict(response.headers))

    return respond


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    sessions = sojourn.Sessions(**options)
    app = connexion.AsyncApp(__name__)
    app.add_middleware(
        sojourn.asgi.SessionMiddleware, MiddlewarePosition.BEFORE_SECURITY, sessions=sessions
    )
    operations = {
        f"do{number}": operation(handler) for number, handler in enumerate(handlers.values())
    }
    paths = {
        path: {
            "get": {"operationId": name, "responses": {"200": {"description": "any"}}},
            "head": {"operationId": name, "responses": {"200": {"description": "any"}}},
        }
        for path, name in zip(handlers, operations, strict=True)
    }
    specification = {
        "openapi": "3.0.3",
        "info": {"title": "handlers", "version": "1"},
        "paths": paths,
    }
    app.add_api(specification, resolver=connexion.Resolver(operations.__getitem__))
    return app, sessions
