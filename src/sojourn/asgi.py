"""The middleware for ASGI applications that ``install`` does not support.

``app = sojourn.asgi.SessionMiddleware(app, sessions)``
"""

from sojourn.web.asgi import SessionMiddleware

__all__ = ["SessionMiddleware"]
