"""SessionMiddleware for the layers of a Litestar application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.middleware._internal.exceptions import ExceptionHandlerMiddleware
from litestar.middleware.session.base import SessionMiddleware as LitestarMiddleware
from litestar.serialization import decode_json, encode_json
from litestar.types import ASGIApp, Empty, Message, Receive, Scope, Send
from litestar.utils import get_serializer_from_scope

from sojourn._core.working_copy import WorkingCopy
from sojourn.errors import NotSerializable
from sojourn.frameworks.litestar.errors import LitestarFramework
from sojourn.frameworks.litestar.login import follow_login, follow_replacement
from sojourn.frameworks.litestar.response_cache import keep_personal_responses_out
from sojourn.web.asgi import SessionMiddleware as ASGISessionMiddleware
from sojourn.web.asgi_exchange import HTTPExchange
from sojourn.web.asgi_scope import CONNECTION
from sojourn.web.installation import WebInstallation
from sojourn.web.ticket_protection import combine_added, find_added

#: The scope key of the installation and the headers that its middleware has sent.
_SENT_HEADERS: Final = "sojourn.litestar.sent"

ASGIFunction: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]


class SessionMiddleware(LitestarMiddleware[Any]):
    """Gives each request and socket of a layer its session.

    A subclass of Litestar's, so that ``FlashPlugin`` and ``SessionAuth`` accept it, and
    ``exclude_opt_key`` and ``scopes`` of the config apply.

    Args:
        app: the next application of the stack.
        backend: of a ``SojournConfig``.
    """

    def __init__(self, app: ASGIApp, backend: Any) -> None:
        super().__init__(app=app, backend=backend)
        # Errors of other middleware are answered inside of this one, so that the responses have the
        # session's headers (laws A10, A13), as Litestar does for its own `SessionAuth`.
        inside: Any = ExceptionHandlerMiddleware(app=app, debug=None)
        prepare = _prepare_responses(inside, backend.config.user_key)
        self._serve = ASGISessionMiddleware(
            prepare, backend.config.sessions, framework=LitestarFramework()
        )
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if not self._started:
            self._started = True
            keep_personal_responses_out(scope["litestar_app"])
        serve: Any = self._serve
        if scope["type"] == ScopeType.HTTP and scope["litestar_app"].before_send:
            _put_hook_last(scope["litestar_app"])
            send = _record_headers(scope, send, serve.web)
        await serve(scope, receive, send)


def _put_hook_last(app: Litestar) -> None:
    """Make ``_protect_ticket`` the last of the application's ``before_send`` hooks.

    They run outside of every middleware. A new list, because responses iterate over the present
    one.
    """
    if app.before_send[-1] is not _protect_ticket:
        others = [hook for hook in app.before_send if hook is not _protect_ticket]
        app.before_send = [*others, _protect_ticket]


def _record_headers(scope: Any, send: Any, web: WebInstallation) -> Any:
    """Return ``send`` that records the headers for ``_protect_ticket``."""

    def send_recorded(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            scope[_SENT_HEADERS] = web, list(message["headers"])
        sending: Awaitable[None] = send(message)
        return sending

    return send_recorded


async def _protect_ticket(message: Any, scope: Any) -> None:
    """Let no cache store a ticket, whatever the other hooks have changed (law A13)."""
    if message["type"] != "http.response.start" or _SENT_HEADERS not in scope:
        return
    web, sent = scope.pop(_SENT_HEADERS)
    added = find_added(web, sent)
    if added and message["headers"] != sent:
        message["headers"] = combine_added(web, message["headers"], added)


def _prepare_responses(app: Any, user_key: str | None) -> ASGIFunction:
    """Return an application that examines its session before each response starts."""

    def serve(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        if scope["type"] != ScopeType.HTTP:
            socket: Awaitable[None] = app(scope, receive, send)
            return socket

        def send_prepared(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = message.copy()  # Litestar's response cache stores the other one
                exchange = scope[CONNECTION]
                if exchange is not None and exchange.session is not None:
                    _prepare(scope, exchange, user_key)
            sending: Awaitable[None] = send(message)
            return sending

        request: Awaitable[None] = app(scope, receive, send_prepared)
        return request

    return serve


def _prepare(scope: Any, exchange: HTTPExchange, user_key: str | None) -> None:
    """Convert what ``set_session`` was given, and follow logins."""
    session, copy = exchange.session, exchange.working_copy
    assert session is not None  # noqa: S101 - the caller has checked it
    assert copy is not None  # noqa: S101 - set with the session
    found = scope.get("session")
    if copy.renewal is not None or copy.revoked:
        user_key = None  # an explicit login of this request, or no session to log in
    if found is session:
        if user_key is not None and copy.changes is not None and _is_modified(copy):
            follow_login(session, copy, user_key)
    elif found is not None and found is not Empty:
        scope["session"] = mapping = to_mapping(found, scope)
        if user_key is not None:
            follow_replacement(session, mapping, user_key)


def _is_modified(copy: WorkingCopy) -> bool:
    try:
        return copy.modified()
    except NotSerializable:  # the commit raises it where it can be answered
        return False


def to_mapping(data: Any, scope: Any) -> Mapping[str, Any]:
    """Return what ``set_session`` was given as a mapping.

    Args:
        data: a mapping is returned as it is; a model or a dataclass is serialized as Litestar's own
            sessions do.
        scope: of the request; has the serializers of its application.
    """
    if isinstance(data, Mapping):
        return data
    mapping: Mapping[str, Any] = decode_json(encode_json(data, get_serializer_from_scope(scope)))
    return mapping
