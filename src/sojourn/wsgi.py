"""The middleware for WSGI applications, and ``get_session`` for their handlers.

``app = sojourn.wsgi.SessionMiddleware(app, sessions)``
"""

from sojourn.web.wsgi import SessionMiddleware, get_session

__all__ = ["SessionMiddleware", "get_session"]
