"""The CSRF token of the session in templates, and its check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, current_app, request, session
from werkzeug.exceptions import Forbidden

from sojourn.frameworks.flask.lifecycle import LIFECYCLE, FlaskLifecycle
from sojourn.frameworks.flask.session import FlaskSession


def provide_csrf_token(app: Flask) -> Callable[[], None]:
    """Give templates ``csrf_token()``, unless an extension such as Flask-WTF provides one.

    Returns:
        A function that takes it back.
    """

    def context() -> dict[str, Any]:
        if "csrf" in current_app.extensions or "csrf_token" in current_app.jinja_env.globals:
            return {}
        return {"csrf_token": csrf_token}

    processors = app.template_context_processors[None]
    processors.append(context)
    return lambda: processors.remove(context)


def csrf_token() -> str:
    """Return the token of the present session, for a form."""
    token: str = session.csrf_token  # type: ignore[attr-defined] # it is a FlaskSession
    return token


def is_exempt() -> bool:
    """Return whether the present request needs no token: see ``has_header_only``."""
    lifecycle: FlaskLifecycle | None = request.environ.get(LIFECYCLE)
    return lifecycle is not None and lifecycle.has_header_only()


def check_csrf() -> None:
    """Check the token of the present request: form field ``csrf_token``, header ``X-CSRF-Token``.

    A request that carries the ticket in a header, and no cookie, needs no token.

    Raises:
        Forbidden: there is no token of this session; a response with status 403.
    """
    own: Any = session
    if is_exempt():
        return
    value = request.headers.get("X-CSRF-Token") or request.form.get("csrf_token")
    if not isinstance(own, FlaskSession) or not own.check_csrf(value):
        raise Forbidden("The form has expired. Go back, reload the page and send it again.")
