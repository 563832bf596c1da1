"""Django: the session engine, and a middleware for the full set of verbs."""

# mypy: disable-error-code="import-untyped"

from django.contrib.sessions.backends.base import CreateError, UpdateError

from sojourn.frameworks.django import auth
from sojourn.frameworks.django.middleware import SessionMiddleware
from sojourn.frameworks.django.request_session import RequestSession
from sojourn.frameworks.django.session_store import SessionStore
from sojourn.frameworks.django.settings import get_sessions
from sojourn.frameworks.django.views import aget_session, get_session

__all__ = [
    "CreateError",
    "RequestSession",
    "SessionMiddleware",
    "SessionStore",
    "UpdateError",
    "aget_session",
    "get_session",
    "get_sessions",
]

auth.connect()
