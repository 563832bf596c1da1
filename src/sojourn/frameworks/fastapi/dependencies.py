"""The session as a dependency of FastAPI, and ``@sessions.route`` for path functions."""

# Without `from __future__ import annotations`: older versions of FastAPI cannot resolve the text of
# annotations of callable objects.

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import Depends
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.openapi.models import SecurityBase as SecurityModel
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from sojourn.frameworks.starlette import middleware_stack
from sojourn.session import Session
from sojourn.web.installation import OnStoreFailure

#: The security scheme in OpenAPI; ``openapi.describe`` replaces it by those of the installation.
SCHEME_NAME: Final = "Session"


class SessionDependency(SecurityBase):
    """A dependency that returns the session of a request or socket, and loads it if necessary.

    ``get_session`` is the usual one. For a typed state:
    ``Annotated[Session[Shop], Depends(get_session)]``.

    Args:
        policy: what to do if the store fails; None for the installation's choice.
    """

    def __init__(self, policy: OnStoreFailure | None = None) -> None:
        self.model: SecurityModel = APIKey.model_validate({"in": APIKeyIn.cookie, "name": "sid"})
        self.scheme_name: str = SCHEME_NAME
        self._policy: OnStoreFailure | None = policy

    async def __call__(self, connection: HTTPConnection) -> Session[Any]:
        """Return the session.

        Raises:
            ConfigurationError: the request did not pass a session middleware.
            StoreUnavailable: the store failed.
        """
        return await middleware_stack.load(connection, self._policy)


get_session: Final = SessionDependency()
"""The dependency of ``SessionDep``: ``Depends(get_session)``."""

SessionDep = Annotated[Session[Any], Depends(get_session)]
"""The session as a parameter of a path function, a dependency or a WebSocket function."""

_PARAMETER = "_sojourn_session"


def route(handler: Callable[..., Any], policy: OnStoreFailure | None) -> Callable[..., Any]:
    """Load the session before a path function runs."""

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
        annotation=Annotated[Session[Any], Depends(SessionDependency(policy))],
    )
    others = [
        p if p.kind is inspect.Parameter.VAR_KEYWORD else p.replace(kind=p.KEYWORD_ONLY)
        for p in signature.parameters.values()
    ]
    load_and_call.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[dependency, *others]
    )
    return load_and_call
