"""The session as a dependency of a handler, and ``@sessions.route``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final

from litestar.concurrency import sync_to_thread
from litestar.types import Scope

from sojourn.errors import ConfigurationError
from sojourn.session import Session
from sojourn.web.asgi_exchange import HTTPExchange
from sojourn.web.asgi_scope import CONNECTION
from sojourn.web.installation import OnStoreFailure
from sojourn.web.websocket import WebSocketConnection

#: The reserved parameter of Litestar by which ``route`` gets the scope.
_SCOPE: Final = "scope"

#: The first parameter of a controller's method, which Python binds.
_SELF: Final = "self"


async def load(scope: Any, policy: OnStoreFailure | None = None) -> Session[Any]:
    """Return the session of a request or socket; load it if necessary.

    Args:
        scope: of the request or socket.
        policy: what to do if the store fails; None for the installation's choice.

    Raises:
        ConfigurationError: the request did not pass a session middleware.
        StoreUnavailable: the store failed.
    """
    current: HTTPExchange | WebSocketConnection | None = scope.get(CONNECTION)
    if current is None:
        raise ConfigurationError(
            "this route needs a session, and the request did not pass a session middleware. Give "
            "the application plugins=[SojournPlugin()], or the route "
            "middleware=[SojournConfig(...).middleware]; a route with opt skip_session has none"
        )
    return await current.load(policy)


async def get_session(scope: Scope) -> Session[Any]:
    """Return the session of a request or socket; a dependency. Load it if necessary."""
    return await load(scope)


def route(handler: Callable[..., Any], policy: OnStoreFailure | None) -> Callable[..., Any]:
    """Load the session before a handler runs: a function, or a method of a controller.

    Put it under Litestar's decorator. A handler that is not asynchronous runs in a thread.
    """
    signature = inspect.signature(handler, eval_str=True)
    wants_scope = _SCOPE in signature.parameters

    @functools.wraps(handler)
    async def load_and_call(*controller: Any, **kwargs: Any) -> Any:
        await load(kwargs[_SCOPE] if wants_scope else kwargs.pop(_SCOPE), policy)
        if inspect.iscoroutinefunction(handler):
            return await handler(*controller, **kwargs)
        return await sync_to_thread(handler, *controller, **kwargs)

    parameters = [
        each if name == _SELF else each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, each in signature.parameters.items()
    ]
    if not wants_scope:
        parameters.append(
            inspect.Parameter(_SCOPE, inspect.Parameter.KEYWORD_ONLY, annotation=Scope)
        )
    load_and_call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined] # read by inspect.signature
    load_and_call.__annotations__ = {
        **{each.name: each.annotation for each in parameters},
        "return": signature.return_annotation,
    }
    return load_and_call
