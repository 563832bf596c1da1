"""Keeps responses that depend on a session out of Litestar's response cache."""

from __future__ import annotations

from typing import Any

from litestar import Litestar
from litestar.types import HTTPScope

from sojourn.web.asgi_exchange import HTTPExchange
from sojourn.web.asgi_scope import CONNECTION


class PersonalResponseFilter:
    """A ``cache_response_filter`` that refuses responses whose request accessed its session.

    The cache would give them, and what they show, to other visitors (law A13).

    Args:
        accept: the filter of the application.
    """

    def __init__(self, accept: Any) -> None:
        self.accept = accept

    def __call__(self, scope: HTTPScope, status_code: int) -> bool:
        """Return whether a response may be cached."""
        any_scope: Any = scope
        exchange: HTTPExchange | None = any_scope.get(CONNECTION)
        if exchange is not None:
            copy = exchange.working_copy
            if copy is not None and (
                copy.accessed or any_scope.get("session") is not exchange.session
            ):
                return False
        accepted: bool = self.accept(scope, status_code)
        return accepted


def keep_personal_responses_out(app: Litestar) -> None:
    """Put the filter before that of an application, once."""
    config = app.response_cache_config
    if not isinstance(config.cache_response_filter, PersonalResponseFilter):
        config.cache_response_filter = PersonalResponseFilter(config.cache_response_filter)
