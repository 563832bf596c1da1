"""The session of single routes: a parameter of handlers, ``get_session``, ``@sessions.route``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final

from blacksheep.exceptions import Forbidden
from blacksheep.messages import Request
from blacksheep.server.bindings import Binder

from sojourn.errors import ConfigurationError
from sojourn.session import Session
from sojourn.web.asgi_exchange import HTTPExchange
from sojourn.web.asgi_scope import CONNECTION
from sojourn.web.installation import OnStoreFailure
from sojourn.web.origin import SAFE_METHODS
from sojourn.web.websocket import WebSocketConnection

_CSRF_HEADER: Final = b"X-CSRF-Token"
_CSRF_FIELD: Final = "__RequestVerificationToken"

#: The parameter by which ``route`` gets the request.
_REQUEST: Final = "request"


async def get_session(request: Any, policy: OnStoreFailure | None = None) -> Session[Any]:
    """Return the session of a request or socket; load it if necessary.

    Args:
        request: of BlackSheep; a WebSocket is one, too.
        policy: what to do if the store fails; None for the installation's choice.

    Raises:
        ConfigurationError: nothing is installed on the application.
        StoreUnavailable: the store failed.
    """
    current: HTTPExchange | WebSocketConnection | None = request.scope.get(CONNECTION)
    if current is None:
        raise ConfigurationError(
            "this route needs a session, and the request did not pass a session middleware. Call "
            "sojourn.install(app) before the application starts"
        )
    session = await current.load(policy)
    request.session = session
    return session


class SessionBinder(Binder):
    """Gives handlers the session: ``async def page(session: sojourn.Session)``."""

    type_alias = Session

    def __init__(self, implicit: bool = True) -> None:  # noqa: FBT001, FBT002 - as in BlackSheep's binders
        super().__init__(Session, implicit=implicit)

    async def get_value(self, request: Request) -> Session[Any]:
        """Return the session; load it if necessary."""
        return await get_session(request)


def bind_state(state: type) -> None:
    """Give handlers the session also for the annotation ``Session[Shop]``, with ``state=Shop``."""
    generic: Any = Session
    Binder.aliases.setdefault(generic[state], SessionBinder.from_alias)


async def require_csrf(request: Request) -> None:
    """Require the session's CSRF token with a request that changes something.

    The token is ``session.csrf_token``, in the header ``X-CSRF-Token`` or the form field
    ``__RequestVerificationToken``, the name that BlackSheep's own protection uses.

    Raises:
        Forbidden: the token is absent or wrong.
    """
    if request.method in SAFE_METHODS:
        return
    session = await get_session(request)
    header = request.get_first_header(_CSRF_HEADER)
    token: Any = None if header is None else header.decode("latin-1")
    if token is None:
        form = await request.form() or {}
        token = form.get(_CSRF_FIELD)
    if not session.check_csrf(token):
        raise Forbidden(
            "the CSRF token is missing or wrong; send session.csrf_token as X-CSRF-Token or "
            f"{_CSRF_FIELD}"
        )


def route(handler: Callable[..., Any], policy: OnStoreFailure | None) -> Callable[..., Any]:
    """Load the session before a handler function runs; put it under BlackSheep's decorator."""
    signature = inspect.signature(handler, eval_str=True)
    wants_request = _REQUEST in signature.parameters

    parameters = list(signature.parameters.values())
    if not wants_request:
        required = [each for each in parameters if each.default is each.empty]
        parameters.insert(
            len(required),
            inspect.Parameter(
                _REQUEST, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Request
            ),
        )
    extended = signature.replace(parameters=parameters)

    @functools.wraps(handler)
    async def load_and_call(*args: Any, **kwargs: Any) -> Any:
        given = extended.bind(*args, **kwargs).arguments
        await get_session(given[_REQUEST] if wants_request else given.pop(_REQUEST), policy)
        result = handler(**given)
        return await result if inspect.isawaitable(result) else result

    load_and_call.__signature__ = extended  # type: ignore[attr-defined] # read by inspect.signature
    load_and_call.__annotations__ = {
        **{each.name: each.annotation for each in parameters},
        "return": signature.return_annotation,
    }
    del load_and_call.__wrapped__  # BlackSheep would read its annotations
    return load_and_call
