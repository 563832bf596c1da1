"""What differs between Quart before and after 0.23, which has one context for all purposes."""

from __future__ import annotations

from typing import Any, Final

import quart.globals

#: One context, which is the first argument of the application's methods. Before, requests and
#: sockets had one each, and most methods did not take it.
_HAS_ONE_CONTEXT: Final = "request_ctx" not in vars(quart.globals)


def replace_session(session: object, *, websocket: bool) -> None:
    """Let ``quart.session`` be another session in the present request or socket.

    Args:
        session: the session.
        websocket: it is a socket.
    """
    name = "app_ctx" if _HAS_ONE_CONTEXT else "websocket_ctx" if websocket else "request_ctx"
    attributes: dict[str, Any] = getattr(quart.globals, name).__dict__
    attributes["_session" if "_session" in attributes else "session"] = session


def handler_arguments(argument: object, context: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of the methods that handle errors.

    Args:
        argument: the error.
        context: the arguments of ``full_dispatch_request``.
    """
    return (*context, argument) if _HAS_ONE_CONTEXT else (argument,)


def finalize_arguments(result: object, context: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of ``finalize_request``.

    Args:
        result: of a view or a handler.
        context: the arguments of ``full_dispatch_request``.
    """
    return (*context, result) if _HAS_ONE_CONTEXT else (result, *context)
