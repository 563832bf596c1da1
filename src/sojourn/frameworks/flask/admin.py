"""Flask: the admin application as a blueprint, with ``flask.session`` and Flask-Login's user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask import Blueprint, Response, current_app, request

from sojourn.admin.request import FORM, MAX_FORM_BYTES, AdminRequest
from sojourn.admin.web_application import WebApplication
from sojourn.frameworks.flask.interface import SessionInterface
from sojourn.frameworks.flask.lifecycle import LIFECYCLE
from sojourn.session import NullSession, Session

#: Methods that the application answers itself, if only with 405.
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


def blueprint(
    application: WebApplication,
    *,
    name: str = "sessions_admin",
    url_prefix: str = "/admin/sessions",
) -> Blueprint:
    """Return a blueprint with the pages of an admin application or a device page.

    ``app.register_blueprint(blueprint(sojourn.admin.app(sessions, allow=is_admin)))``

    ``allow`` is called in the context of the request, so that ``flask.g`` and Flask-Login's
    ``current_user`` work. With ``CSRFProtect`` of Flask-WTF, exempt the blueprint: the pages check
    a CSRF token of their own.

    Args:
        application: what ``sojourn.admin.app`` returns.
        name: of the blueprint.
        url_prefix: of the pages.
    """
    pages = Blueprint(name, __name__, url_prefix=url_prefix)

    def view(path: str = "") -> Response:
        needs_session = application.needs_session(f"/{path}")
        response = application.respond(read_request(path, needs_session=needs_session))
        return Response(response.body, int(response.status), response.complete_headers())

    pages.add_url_rule("/", "index", view, methods=_METHODS)
    pages.add_url_rule("/<path:path>", "page", view, methods=_METHODS)
    return pages


def read_request(path: str, *, needs_session: bool) -> AdminRequest:
    """Return the present request of Flask.

    Args:
        path: below the mount, without its first slash.
        needs_session: False leaves the session unloaded, so that caches may keep the response.
    """
    session = _load_session() if needs_session else None
    return AdminRequest(
        method=request.method,
        path=f"/{path}",
        mount=(request.script_root + request.path.removesuffix(path)).rstrip("/"),
        query_string=request.query_string.decode("ascii", "replace"),
        headers={key.lower(): value for key, value in request.headers.items()},
        scheme=request.scheme,
        session=session,
        user=None if session is None or isinstance(session, NullSession) else session.user,
        connection=request,
        form=_read_form(),
    )


def _load_session() -> Session[Any] | None:
    interface = current_app.session_interface
    if not isinstance(interface, SessionInterface) or not interface.web.active:
        return None
    return interface.load(request.environ.get(LIFECYCLE), None)


def _read_form() -> Mapping[str, str]:
    length = request.content_length  # None for a body of chunks, which may be endless
    if request.mimetype != FORM or length is None or length > MAX_FORM_BYTES:
        return {}
    return request.form.to_dict()
