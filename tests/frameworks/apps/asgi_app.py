"""Bare ASGI applications for the laws of requests, and for real servers."""

import sojourn
from sojourn.testing import HandlerResponse
from tests.frameworks.apps.wsgi_app import headers_of, uninstall

__all__ = ["build", "uninstall"]


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        response = await handlers[scope["path"]](scope.get("session")) or HandlerResponse()
        headers = [(k.encode(), v.encode()) for k, v in headers_of(response).items()]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if isinstance(response.body, bytes):
            await send({"type": "http.response.body", "body": response.body})
            return
        async for part in response.body:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    sessions = sojourn.Sessions(**options)
    return sojourn.asgi.SessionMiddleware(app, sessions), sessions
