"""ErrorHandling: errors of sojourn reach the error handlers of a Quart application (law A23)."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from quart import Quart, Response, has_request_context, request
from werkzeug.exceptions import Forbidden

from sojourn.errors import ConfigurationError, SojournError, StoreError
from sojourn.frameworks.flask.http_errors import http_errors
from sojourn.frameworks.flask.method_patching import replace_methods
from sojourn.frameworks.quart.context import finalize_arguments, handler_arguments
from sojourn.frameworks.quart.interface import find_lifecycle
from sojourn.frameworks.quart.lifecycle import QuartLifecycle
from sojourn.web.asgi_scope import Message
from sojourn.web.cache_headers import RawHeaders
from sojourn.web.framework_exchange import default_response
from sojourn.web.installation import WebInstallation
from sojourn.web.lifecycle import decode_headers
from sojourn.web.origin import refusal_response


class ErrorHandling:
    """Runs the dispatching of requests, and answers errors of sojourn.

    The twin of Flask's ``ErrorHandling``, whose steps it repeats with ``await``.

    Args:
        web: the web layer of the installation.
    """

    def __init__(self, web: WebInstallation) -> None:
        self._web = web

    def wrap(self, app: Quart) -> Callable[[], None]:
        """Replace two methods of an application by functions that call them.

        Returns:
            A function that puts them back.
        """
        dispatch = app.full_dispatch_request
        handle = app.handle_user_exception

        async def full_dispatch_request(*context: Any) -> Any:
            lifecycle = find_lifecycle()
            if lifecycle is None or lifecycle.web is not self._web:
                return await dispatch(*context)
            return await self._run(app, lifecycle, dispatch, context)

        async def handle_user_exception(*arguments: Any) -> Any:
            if isinstance(arguments[-1], StoreError) and has_request_context():
                lifecycle = find_lifecycle()
                if lifecycle is not None:
                    lifecycle.store_failed = True
            return await handle(*arguments)

        return replace_methods(
            app,
            full_dispatch_request=full_dispatch_request,
            handle_user_exception=handle_user_exception,
        )

    async def _run(
        self,
        app: Any,
        lifecycle: QuartLifecycle,
        dispatch: Callable[..., Awaitable[Any]],
        context: tuple[Any, ...],
    ) -> Any:
        """Dispatch a request.

        Args:
            app: the application.
            lifecycle: of the request.
            dispatch: Quart's method.
            context: its arguments.
        """
        try:
            if lifecycle.load_error is not None:
                raise lifecycle.load_error  # noqa: TRY301 - answered as those of views
            if lifecycle.refusal is not None:
                return await self._refuse(app, lifecycle, context)
            response = await dispatch(*context)
        except SojournError as error:
            return await self._answer(app, lifecycle, error, context)
        except BaseException as error:
            try:
                await lifecycle.settle(error)
            except StoreError as failure:
                lifecycle.web.event_log.log_failure(
                    "the session of a failed request could not be committed: %s", failure
                )
            raise
        if not lifecycle.responded:  # its session was not loaded, so Quart does not save it
            await lifecycle.add_to(response)
        return response

    async def _refuse(
        self, app: Any, lifecycle: QuartLifecycle, context: tuple[Any, ...]
    ) -> Response:
        """Respond with 403, before any function of the application runs but its error handlers."""
        assert lifecycle.refusal is not None  # noqa: S101 - the caller has checked it
        refused = Forbidden()
        result = await app.handle_user_exception(*handler_arguments(refused, context))
        if result is refused:
            result = _response(app, 403, refusal_response(lifecycle.refusal))
        return await _finalize(app, lifecycle, result, context)

    async def _answer(
        self,
        app: Any,
        lifecycle: QuartLifecycle,
        error: SojournError,
        context: tuple[Any, ...],
    ) -> Response:
        """Respond to an error: by ``on_error``, the application's handlers, or the default.

        Raises:
            SojournError: there is no response to it; Quart makes one, as for any other error.
        """
        try:
            await lifecycle.settle(error)
        except StoreError as failure:
            error = failure
        if isinstance(error, ConfigurationError):
            raise error
        lifecycle.store_failed = lifecycle.store_failed or isinstance(error, StoreError)
        on_error = self._web.config.on_error
        result = None if on_error is None else on_error(request, error)
        if inspect.isawaitable(result):
            result = await result
        if _is_asgi(result):
            result = await _call_asgi(app, result)
        if result is None:
            result = await _call_handlers(app, error, context)
        if result is None:
            result = _default_response(app, lifecycle, error)
        if result is None:
            raise error
        return await _finalize(app, lifecycle, result, context)


async def _finalize(
    app: Any, lifecycle: QuartLifecycle, result: Any, context: tuple[Any, ...]
) -> Response:
    """Return the response after the application's ``after_request`` functions."""
    arguments = finalize_arguments(result, context)
    response: Response = await app.finalize_request(*arguments, from_error_handler=True)
    if not lifecycle.responded:
        await lifecycle.add_to(response)
    return response


async def _call_handlers(app: Any, error: SojournError, context: tuple[Any, ...]) -> Any:
    """Return the response of the application's handler; None if it has none.

    For the class of the error or a base class of it, or for the status of the response.
    """
    try:
        return await app.handle_user_exception(*handler_arguments(error, context))
    except SojournError as raised:
        if raised is not error:
            raise
    for alternative in http_errors(error):
        result = await app.handle_http_exception(*handler_arguments(alternative, context))
        if result is not alternative:
            return result
    return None


def _default_response(app: Any, lifecycle: QuartLifecycle, error: SojournError) -> Response | None:
    """Return 503 if the store failed, 401 without a required session; None otherwise."""
    answer = default_response(lifecycle, error, request.headers.get("Accept"))
    if answer is None:
        return None
    response: Response = app.response_class(answer.body, answer.status, dict(answer.headers))
    return response


def _is_asgi(result: object) -> bool:
    """Return whether an object is an ASGI application; Quart accepts none as a response."""
    return inspect.iscoroutinefunction(result) or inspect.iscoroutinefunction(
        getattr(type(result), "__call__", None)  # noqa: B004 - the method itself
    )


async def _call_asgi(app: Any, response: Any) -> Response:
    """Return the response of an ASGI application to the present request."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await response(dict(request.scope), receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return _response(app, sent[0]["status"], (list(sent[0].get("headers", ())), body))


def _response(app: Any, status: int, parts: tuple[RawHeaders, bytes]) -> Response:
    headers, body = parts
    response: Response = app.response_class(body, status, dict(decode_headers(headers)))
    return response
