"""``sojourn.wsgi``: the middleware for a WSGI application, and its handlers' way to the session.

What lives here: the public names, as ``app = sojourn.wsgi.SessionMiddleware(app, sessions)`` has
them. What must not: code; that is in ``web/wsgi.py``.
"""

from sojourn.web.wsgi import SessionMiddleware, get_session

__all__ = ["SessionMiddleware", "get_session"]
