"""Applications of FastAPI for the laws of requests, and for real servers."""

from fastapi import FastAPI

import sojourn
from tests.frameworks.apps.starlette_app import endpoint, uninstall

__all__ = ["build", "uninstall"]


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    app = FastAPI()
    for path, handler in handlers.items():
        app.add_api_route(path, endpoint(handler), methods=["GET", "HEAD"])
    return app, sojourn.install(app, **options)
