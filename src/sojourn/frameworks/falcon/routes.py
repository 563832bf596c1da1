"""The session of single routes: functions, hooks for ``falcon.before``, ``@sessions.route``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final

import falcon

from sojourn.frameworks.falcon.context import set_session
from sojourn.session import Session
from sojourn.web.asgi_exchange import HTTPExchange
from sojourn.web.asgi_scope import CONNECTION
from sojourn.web.installation import OnStoreFailure
from sojourn.web.origin import SAFE_METHODS
from sojourn.web.websocket import WebSocketConnection
from sojourn.web.wsgi import get_session as get_wsgi_session

_CSRF_HEADER: Final = "X-CSRF-Token"


def get_session(req: falcon.Request, policy: OnStoreFailure | None = None) -> Session[Any]:
    """Return the session of a request of ``falcon.App``; load it if necessary.

    Args:
        req: the request.
        policy: what to do if the store fails; None for the installation's choice.

    Raises:
        ConfigurationError: nothing is installed on the application.
        StoreUnavailable: the store failed.
    """
    session = get_wsgi_session(req.env, policy)
    set_session(req, session)
    return session


async def aget_session(req: Any, policy: OnStoreFailure | None = None) -> Session[Any]:
    """Return the session of a request of ``falcon.asgi.App``; see ``get_session``."""
    current: HTTPExchange | WebSocketConnection | None = req.scope.get(CONNECTION)
    if current is None:
        raise falcon.HTTPInternalServerError(
            title="No session", description="call sojourn.install(app) first"
        )
    session = await current.load(policy)
    set_session(req, session)
    return session


def load_session(req: falcon.Request, resp: Any, resource: object, params: Any) -> None:  # noqa: ARG001 - a hook gets them
    """Load the session before a responder: ``@falcon.before(load_session)``."""
    get_session(req)


async def load_session_async(req: Any, resp: Any, resource: object, params: Any) -> None:  # noqa: ARG001 - a hook gets them
    """Load the session before a responder of ``falcon.asgi.App``; see ``load_session``."""
    await aget_session(req)


def require_csrf(req: falcon.Request, resp: Any, resource: object, params: Any) -> None:  # noqa: ARG001 - a hook gets them
    """Require the session's CSRF token in the header ``X-CSRF-Token``; a hook.

    Raises:
        falcon.HTTPForbidden: the token is absent or wrong.
    """
    if req.method not in SAFE_METHODS:
        _check_csrf(req, get_session(req))


async def require_csrf_async(req: Any, resp: Any, resource: object, params: Any) -> None:  # noqa: ARG001 - a hook gets them
    """Require the session's CSRF token; see ``require_csrf``."""
    if req.method not in SAFE_METHODS:
        _check_csrf(req, await aget_session(req))


def _check_csrf(req: Any, session: Session[Any]) -> None:
    if not session.check_csrf(req.get_header(_CSRF_HEADER)):
        raise falcon.HTTPForbidden(
            title="CSRF token missing or wrong",
            description=f"Send session.csrf_token in the header {_CSRF_HEADER}.",
        )


def route(responder: Callable[..., Any], policy: OnStoreFailure | None) -> Callable[..., Any]:
    """Load the session before a responder, such as ``on_get``."""

    @functools.wraps(responder)
    def load_and_call(resource: object, req: Any, *args: Any, **params: Any) -> Any:
        get_session(req, policy)
        return responder(resource, req, *args, **params)

    @functools.wraps(responder)
    async def aload_and_call(resource: object, req: Any, *args: Any, **params: Any) -> Any:
        await aget_session(req, policy)
        return await responder(resource, req, *args, **params)

    return aload_and_call if inspect.iscoroutinefunction(responder) else load_and_call
