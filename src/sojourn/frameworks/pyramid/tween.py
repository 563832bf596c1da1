"""The tween that commits inside of Pyramid's exception views, so that these answer its errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sojourn.errors import (
    ConfigurationError,
    RecentAuthRequired,
    SessionRequired,
    SojournError,
)
from sojourn.sessions import Sessions
from sojourn.web.wsgi import EXCHANGE

#: The registry key of the ``Sessions``.
SESSIONS: Final = "sojourn.sessions"

#: The environ key of the ``id`` of the error that ``on_error`` was asked about.
ASKED: Final = "sojourn.asked"

#: Raised by views as a part of the ordinary course: the status of the response decides (law A10).
_ORDINARY: Final = (SessionRequired, RecentAuthRequired)


def commit_tween_factory(handler: Callable[[Any], Any], registry: Any) -> Callable[[Any], Any]:
    """Return the tween of an application; it is under ``EXCVIEW``."""
    sessions: Sessions[Any] | None = registry.get(SESSIONS)
    if sessions is None:
        return handler
    web = sessions.web

    def commit_tween(request: Any) -> Any:
        exchange = request.environ.get(EXCHANGE)
        if exchange is None or exchange.web is not web:
            return handler(request)
        try:
            response = handler(request)
            if exchange.session is not None:
                exchange.commit_response(response.status_int)
        except SojournError as error:
            if isinstance(error, ConfigurationError):
                raise
            if not isinstance(error, _ORDINARY):
                exchange.settle(error)
            answer = ask_application(sessions, request, error)
            if answer is None:
                raise
            exchange.settle(error)
            return answer
        return response

    return commit_tween


def ask_application(sessions: Sessions[Any], request: Any, error: SojournError) -> Any:
    """Return the response of ``on_error``; None if there is none, or if it was asked before."""
    on_error = sessions.web.config.on_error
    if on_error is None or request.environ.get(ASKED) == id(error):
        return None
    request.environ[ASKED] = id(error)
    answer = on_error(request, error)
    return answer if answer is None or request.is_response(answer) else request.get_response(answer)
