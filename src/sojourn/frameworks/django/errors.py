"""Responses to errors of sojourn: ``on_error``, handlers of the project's URLs, built-in ones."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import inspect
from typing import Any, cast

from asgiref.sync import async_to_sync
from django.core.handlers.exception import response_for_exception
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import get_callable, get_resolver, get_urlconf

from sojourn.errors import ConfigurationError, SessionRequired, SojournError, StoreError
from sojourn.frameworks.django.lifecycle import RequestLifecycle
from sojourn.frameworks.django.response import add_headers, answer_unavailable, error_page
from sojourn.web.error_response import unauthorized_response, unavailable_response
from sojourn.web.wsgi_environ import read_header


def find_response(lifecycle: RequestLifecycle, error: SojournError) -> Any:
    """Return the response to an error, an awaitable of it, or None for that of Django."""
    request = lifecycle.request
    on_error = lifecycle.web.config.on_error
    if on_error is None or isinstance(error, ConfigurationError):
        return _default_response(lifecycle, error)
    answer = on_error(request, error)
    if inspect.isawaitable(answer) or _is_asgi(request, answer):
        return _await_response(answer, lifecycle, error)
    return _to_response(answer, request) or _default_response(lifecycle, error)


async def _await_response(
    answer: Any, lifecycle: RequestLifecycle, error: SojournError
) -> HttpResponseBase | None:
    """Return the response that ``on_error`` answers with, or the default."""
    request = lifecycle.request
    if inspect.isawaitable(answer):
        answer = await answer
    if _is_asgi(request, answer):
        return await _call_asgi(answer, cast("Any", request).scope)
    return _to_response(answer, request) or _default_response(lifecycle, error)


def _is_asgi(request: HttpRequest, answer: object) -> bool:
    """Return whether an answer of ``on_error`` is an ASGI application."""
    return (
        callable(answer) and not isinstance(answer, HttpResponseBase) and hasattr(request, "scope")
    )


def _to_response(answer: Any, request: HttpRequest) -> HttpResponseBase | None:
    """Return an answer of ``on_error`` that is a response or a WSGI application; None for None."""
    if answer is None or isinstance(answer, HttpResponseBase):
        return answer
    return _call_wsgi(answer, cast("Any", request).environ)


async def _call_asgi(app: Any, scope: Any) -> HttpResponse:
    """Return the response of an ASGI application."""
    response = HttpResponse()

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            response.status_code = message["status"]
            add_headers(
                response, [(n.decode(), v.decode("latin-1")) for n, v in message["headers"]]
            )
        else:
            response.write(message.get("body", b""))

    await app(scope, receive, send)
    return response


def _call_wsgi(app: Any, environ: Any) -> HttpResponse:
    """Return the response of a WSGI application."""
    response = HttpResponse()

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:  # noqa: ARG001 - PEP 3333
        response.status_code = int(status[:3])
        add_headers(response, headers)
        return response.write

    parts = app(environ, start_response)
    for part in parts:
        response.write(part)
    if hasattr(parts, "close"):
        parts.close()
    return response


def _default_response(lifecycle: RequestLifecycle, error: SojournError) -> HttpResponseBase | None:
    request = lifecycle.request
    accept = read_header(request.META, "HTTP_ACCEPT")
    if isinstance(error, StoreError):
        lifecycle.web.event_log.log_failure(
            "answered 503 because the session store failed: %s", error
        )
        response = _answer_by_handler(request, error)
        return response or error_page(503, unavailable_response(accept))
    if isinstance(error, SessionRequired):
        return error_page(401, unauthorized_response(accept))
    return None


def _answer_by_handler(request: HttpRequest, error: StoreError) -> HttpResponseBase | None:
    """Return the response of ``handler503`` or ``handler500`` of the project's URLs; None without.

    ``handler503(request, exception)`` is called as Django calls ``handler404``.
    """
    urls = get_resolver(get_urlconf()).urlconf_module
    handler: Any = getattr(urls, "handler503", None)
    if handler is not None:
        return cast("HttpResponseBase", get_callable(handler)(request, exception=error))
    handler = getattr(urls, "handler500", None)
    if handler is None:
        return None
    response = cast("HttpResponseBase", get_callable(handler)(request))
    answer_unavailable(response)
    return response


def answer_by_django(request: HttpRequest, error: SojournError) -> HttpResponseBase:
    """Return Django's response to an exception: its page for 500, its log line, its signal."""
    try:
        raise error
    except SojournError as raised:  # Django reads the traceback from the exception in progress
        return cast("HttpResponseBase", response_for_exception(request, raised))


def wait_in_thread(awaitable: Any) -> Any:
    """Wait in a thread for an awaitable, which runs in the event loop that waits for the thread."""

    async def wait() -> Any:
        return await awaitable

    return async_to_sync(wait)()
