"""``sojourn.asgi``: the middleware for an ASGI application that ``install`` cannot change.

What lives here: the public name, as ``app = sojourn.asgi.SessionMiddleware(app, sessions)`` has it.
What must not: code; that is in ``web/asgi.py``.
"""

from sojourn.web.asgi import SessionMiddleware

__all__ = ["SessionMiddleware"]
