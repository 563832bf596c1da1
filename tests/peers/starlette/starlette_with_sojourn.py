"""A plugin of pytest for Starlette's tests: its ``SessionMiddleware`` is sojourn's."""

import starlette.middleware.sessions

from sojourn.frameworks.starlette import SessionMiddleware
from sojourn.stores.memory import MemoryStore


class MemoryMiddleware(SessionMiddleware):
    """A middleware with sessions in memory, because each test has its own application."""

    def __init__(self, app, secret_key, *args, **options):
        super().__init__(app, secret_key, *args, store=MemoryStore(), **options)


starlette.middleware.sessions.SessionMiddleware = MemoryMiddleware
