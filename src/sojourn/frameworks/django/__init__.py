"""Django: the session engine, and a middleware for the full set of verbs."""

from sojourn.frameworks.django import auth
from sojourn.frameworks.django.middleware import SessionMiddleware
from sojourn.frameworks.django.session_store import CreateError, SessionStore, UpdateError
from sojourn.frameworks.django.settings import get_sessions

__all__ = ["CreateError", "SessionMiddleware", "SessionStore", "UpdateError", "get_sessions"]

auth.connect()
