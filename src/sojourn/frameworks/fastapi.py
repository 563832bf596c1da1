"""FastAPI integration: ``install``, the dependency ``SessionDep``, and ``@sessions.route``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from sojourn.frameworks import starlette
from sojourn.session import Session
from sojourn.sessions import Sessions
from sojourn.web.installation import OnStoreFailure


def install(app: FastAPI, sessions: Sessions[Any]) -> None:
    """Add the middleware to an application, also while it is being served."""
    starlette.wrap(app, sessions)
    sessions.route_decorator = route


def uninstall(app: FastAPI, sessions: Sessions[Any]) -> None:
    """Remove the middleware."""
    starlette.uninstall(app, sessions)


async def get_session(connection: HTTPConnection) -> Session[Any]:
    """Return the session of a request or socket; a dependency. Load it if necessary.

    For a typed state: ``Annotated[Session[Shop], Depends(get_session)]``.
    """
    return await starlette.load(connection)


SessionDep = Annotated[Session[Any], Depends(get_session)]
"""The session as a parameter of a path function, a dependency or a WebSocket function."""

_PARAMETER = "_sojourn_session"


def route(handler: Callable[..., Any], policy: OnStoreFailure | None) -> Callable[..., Any]:
    """Load the session before a path function runs."""

    async def loaded(connection: HTTPConnection) -> Session[Any]:
        return await starlette.load(connection, policy)

    @functools.wraps(handler)
    async def load_and_call(*args: Any, **kwargs: Any) -> Any:
        del kwargs[_PARAMETER]
        if inspect.iscoroutinefunction(handler):
            return await handler(*args, **kwargs)
        return await run_in_threadpool(handler, *args, **kwargs)

    signature = inspect.signature(handler, eval_str=True)
    # First, so that its policy also applies to a SessionDep of the function. FastAPI passes
    # arguments by name.
    dependency = inspect.Parameter(
        _PARAMETER,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[Session[Any], Depends(loaded)],
    )
    others = [
        p if p.kind is inspect.Parameter.VAR_KEYWORD else p.replace(kind=p.KEYWORD_ONLY)
        for p in signature.parameters.values()
    ]
    load_and_call.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[dependency, *others]
    )
    return load_and_call
