"""ErrorHandling: errors of sojourn reach the error handlers of a Flask application (law A23)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import Forbidden

from sojourn.errors import ConfigurationError, SojournError, StoreError
from sojourn.frameworks.flask.http_errors import http_errors
from sojourn.frameworks.flask.interface import find_lifecycle
from sojourn.frameworks.flask.lifecycle import FlaskLifecycle
from sojourn.frameworks.flask.method_patching import replace_methods
from sojourn.web.cache_headers import RawHeaders
from sojourn.web.framework_exchange import default_response
from sojourn.web.installation import WebInstallation
from sojourn.web.lifecycle import decode_headers
from sojourn.web.origin import refusal_response


class ErrorHandling:
    """Runs the dispatching of requests, and answers errors of sojourn.

    Flask calls the error handlers only for what views and ``before_request`` functions raise.
    Errors of loading and committing are raised outside of them.

    Args:
        web: the web layer of the installation.
    """

    def __init__(self, web: WebInstallation) -> None:
        self._web = web

    def wrap(self, app: Flask) -> Callable[[], None]:
        """Replace two methods of an application by functions that call them.

        Returns:
            A function that puts them back.
        """
        dispatch = app.full_dispatch_request
        handle = app.handle_user_exception

        def full_dispatch_request(*context: Any) -> Response:
            lifecycle = find_lifecycle()
            if lifecycle is None or lifecycle.web is not self._web:
                return dispatch(*context)
            return self._run(app, lifecycle, dispatch, context)

        def handle_user_exception(*arguments: Any) -> Any:
            if isinstance(arguments[-1], StoreError):
                lifecycle = find_lifecycle()
                if lifecycle is not None:
                    lifecycle.store_failed = True
            return handle(*arguments)

        return replace_methods(
            app,
            full_dispatch_request=full_dispatch_request,
            handle_user_exception=handle_user_exception,
        )

    def _run(
        self,
        app: Any,
        lifecycle: FlaskLifecycle,
        dispatch: Callable[..., Response],
        context: tuple[Any, ...],
    ) -> Response:
        """Dispatch a request.

        Args:
            app: the application.
            lifecycle: of the request.
            dispatch: Flask's method.
            context: its arguments: none in Flask 3.1, the context from 3.2 on.
        """
        try:
            if lifecycle.load_error is not None:
                raise lifecycle.load_error  # noqa: TRY301 - Flask needs it as the current error
            if lifecycle.refusal is not None:
                return self._refuse(app, lifecycle, context)
            response = dispatch(*context)
        except SojournError as error:
            return self._answer(app, lifecycle, error, context)
        except BaseException as error:
            try:
                lifecycle.settle(error)
            except StoreError as failure:
                lifecycle.web.event_log.log_failure(
                    "the session of a failed request could not be committed: %s", failure
                )
            raise
        if not lifecycle.responded:  # its session was not loaded, so Flask does not save it
            lifecycle.add_to(response)
        return response

    def _refuse(self, app: Any, lifecycle: FlaskLifecycle, context: tuple[Any, ...]) -> Response:
        """Respond with 403, before any function of the application runs but its error handlers."""
        assert lifecycle.refusal is not None  # noqa: S101 - the caller has checked it
        refused = Forbidden(response=_response(app, 403, refusal_response(lifecycle.refusal)))
        result = app.handle_user_exception(*context, refused)
        response: Response = app.finalize_request(*context, result, from_error_handler=True)
        if not lifecycle.responded:
            lifecycle.add_to(response)
        return response

    def _answer(
        self,
        app: Any,
        lifecycle: FlaskLifecycle,
        error: SojournError,
        context: tuple[Any, ...],
    ) -> Response:
        """Respond to an error: by ``on_error``, the application's handlers, or the default.

        Raises:
            SojournError: there is no response to it; Flask makes one, as for any other error.
        """
        try:
            lifecycle.settle(error)
        except StoreError as failure:
            error = failure
        if isinstance(error, ConfigurationError):
            raise error
        lifecycle.store_failed = lifecycle.store_failed or isinstance(error, StoreError)
        on_error = self._web.config.on_error
        result = None if on_error is None else on_error(request, error)
        if result is None:
            result = _call_handlers(app, error, context)
        if result is None:
            result = _default_response(app, lifecycle, error)
        if result is None:
            raise error
        response: Response = app.finalize_request(*context, result, from_error_handler=True)
        if not lifecycle.responded:
            lifecycle.add_to(response)
        return response


def _call_handlers(app: Any, error: SojournError, context: tuple[Any, ...]) -> Any:
    """Return the response of the application's handler; None if it has none.

    For the class of the error or a base class of it, or for the status of the response.
    """
    try:
        return app.handle_user_exception(*context, error)
    except SojournError as raised:
        if raised is not error:
            raise
    for alternative in http_errors(error):
        result = app.handle_http_exception(*context, alternative)
        if result is not alternative:
            return result
    return None


def _default_response(app: Any, lifecycle: FlaskLifecycle, error: SojournError) -> Response | None:
    """Return 503 if the store failed, 401 without a required session; None otherwise."""
    answer = default_response(lifecycle, error, request.headers.get("Accept"))
    if answer is None:
        return None
    response: Response = app.response_class(answer.body, answer.status, answer.headers)
    return response


def _response(app: Any, status: int, parts: tuple[RawHeaders, bytes]) -> Response:
    headers, body = parts
    response: Response = app.response_class(body, status, decode_headers(headers))
    return response
