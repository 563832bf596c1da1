"""The tweens that commit the session and let exception views answer its errors (law A23)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sojourn.errors import SojournError
from sojourn.sessions import Sessions
from sojourn.web.error_response import EXPECTED_ERRORS
from sojourn.web.installation import WebInstallation
from sojourn.web.wsgi import EXCHANGE, WSGIExchange, call_on_error

#: The registry key of the ``Sessions``.
SESSIONS: Final = "sojourn.sessions"

Handler = Callable[[Any], Any]


def commit_tween_factory(handler: Handler, registry: Any) -> Handler:
    """Return the tween that commits, when the response is known.

    It is over ``EXCVIEW`` and the tween of ``pyramid_tm``: if the transaction fails, so does the
    request, and its changes are dropped. Exception views are called for errors of the commit.
    """
    sessions: Sessions[Any] | None = registry.get(SESSIONS)
    if sessions is None:
        return handler
    web = sessions.web

    def commit_tween(request: Any) -> Any:
        response = handler(request)
        exchange: WSGIExchange | None = request.environ.get(EXCHANGE)
        status: int | None = getattr(response, "status_int", None)  # not in every `IResponse`
        if (
            exchange is None
            or exchange.web is not web
            or exchange.session is None
            or status is None
        ):
            return response
        try:
            exchange.commit_response(status)
        except SojournError as error:
            exchange.settle(error)
            answer = answer_by_on_error(web, request, error)
            return request.invoke_exception_view(reraise=True) if answer is None else answer
        return response

    return commit_tween


def error_tween_factory(handler: Handler, registry: Any) -> Handler:
    """Return the tween that calls ``on_error`` for errors of views; it is under ``EXCVIEW``."""
    sessions: Sessions[Any] | None = registry.get(SESSIONS)
    if sessions is None:
        return handler
    web = sessions.web

    def error_tween(request: Any) -> Any:
        try:
            return handler(request)
        except SojournError as error:
            exchange: WSGIExchange | None = request.environ.get(EXCHANGE)
            if exchange is None or exchange.web is not web:
                raise
            if not isinstance(error, EXPECTED_ERRORS):
                exchange.settle(error)
            answer = answer_by_on_error(web, request, error)
            if answer is None:
                raise
            exchange.settle(error)
            return answer

    return error_tween


def answer_by_on_error(web: WebInstallation, request: Any, error: SojournError) -> Any:
    """Return the response of ``on_error``; None if there is none, or if it was called before."""
    answer = call_on_error(web, request.environ, request, error)
    return answer if answer is None or request.is_response(answer) else request.get_response(answer)
