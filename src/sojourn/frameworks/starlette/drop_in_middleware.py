"""SessionMiddleware with the constructor of Starlette's: a program changes only its import."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, overload

from starlette.datastructures import Secret
from starlette.requests import HTTPConnection, Request

from sojourn._core.coroutine_function import mark_coroutine_function
from sojourn._crypto.secret_key import check_secrets
from sojourn.errors import ConfigurationError, SojournError
from sojourn.frameworks.starlette.dict_session import DictNullSession, DictSession
from sojourn.frameworks.starlette.middleware_stack import call_handler, remove_session_middleware
from sojourn.sessions import Sessions
from sojourn.web import asgi
from sojourn.web.asgi_scope import ASGIApp, Receive, Scope, Send

#: Called once for each middleware, with the application that it serves and the installation. The
#: application is in the scope of the first connection, which is the lifespan where a server has it.
first_connection: Final[list[Callable[[Any, Sessions[Any]], object]]] = []

#: Starlette's default, in seconds: 14 days.
_MAX_AGE: Final = 14 * 24 * 60 * 60

logger: logging.Logger = logging.getLogger("sojourn")


class SessionMiddleware(asgi.SessionMiddleware):
    """The middleware of Starlette's ``SessionMiddleware``, with server-side sessions.

    The first parameters are Starlette's; the options of ``sojourn.install`` follow as keywords.
    ``request.session`` is a ``DictSession``.

    Args:
        app: the application.
        secret_key: as ``secret``. A weak one, such as those of examples, is not used: a warning
            says so, and the generated secret of an embedded store takes its place.
        session_cookie: as ``cookie``.
        max_age: seconds, as ``timeout`` with ``persistent=True``. None: the cookie ends with the
            browser session, and ``timeout`` has its default.
        path: of the cookie.
        same_site: of the cookie.
        https_only: as ``secure``; not given, it is ``"auto"``: Secure on https.
        domain: of the cookie.
        partitioned: of the cookie.
        sessions: an installation to use; the other parameters are then ignored.
        options: of ``sojourn.install``; they take precedence over the parameters above.

    Attributes:
        sessions: the installation, for lists and revocation.

    Raises:
        ConfigurationError: an option is invalid.
    """

    # For mypy: `app` is positional in `Middleware(SessionMiddleware, ...)`, where `options` may not
    # name it a second time.
    @overload
    def __init__(
        self,
        app: ASGIApp,
        /,
        secret_key: str | Secret | None = None,
        session_cookie: str = "session",
        max_age: int | None = _MAX_AGE,
        path: str = "/",
        same_site: Literal["lax", "strict", "none"] = "lax",
        https_only: bool | None = None,  # noqa: FBT001 - as in Starlette
        domain: str | None = None,
        partitioned: bool = False,  # noqa: FBT001, FBT002 - as in Starlette
        *,
        sessions: Sessions[Any] | None = None,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self,
        app: ASGIApp,
        secret_key: str | Secret | None = None,
        session_cookie: str = "session",
        max_age: int | None = _MAX_AGE,
        path: str = "/",
        same_site: Literal["lax", "strict", "none"] = "lax",
        https_only: bool | None = None,  # noqa: FBT001 - as in Starlette
        domain: str | None = None,
        partitioned: bool = False,  # noqa: FBT001, FBT002 - as in Starlette
        *,
        sessions: Sessions[Any] | None = None,
        **options: Any,
    ) -> None: ...
    def __init__(  # type: ignore[misc] # `app` in `options`  # noqa: PLR0917 - of Starlette's
        self,
        app: ASGIApp,
        secret_key: str | Secret | None = None,
        session_cookie: str = "session",
        max_age: int | None = _MAX_AGE,
        path: str = "/",
        same_site: Literal["lax", "strict", "none"] = "lax",
        https_only: bool | None = None,  # noqa: FBT001 - as in Starlette
        domain: str | None = None,
        partitioned: bool = False,  # noqa: FBT001, FBT002 - as in Starlette
        *,
        sessions: Sessions[Any] | None = None,
        **options: Any,
    ) -> None:
        if max_age is not None and not isinstance(max_age, int):
            raise ConfigurationError(
                f"max_age expects a number of seconds or None, found {max_age!r}"
            )
        if sessions is None:
            given: dict[str, Any] = {
                "cookie": session_cookie,
                "path": path,
                "same_site": same_site,
                "partitioned": partitioned,
            }
            if domain is not None:
                given["domain"] = domain
            if https_only is not None:
                given["secure"] = https_only
            if max_age is not None and not {"timeout", "idle_timeout"} & options.keys():
                given["timeout"] = max_age
                given["persistent"] = True
                if max_age <= 0:  # the session ends at once: the shortest timeout here
                    given["timeout"] = given["absolute_timeout"] = 0.001
            if (
                secret_key is not None
                and "secret" not in options
                and _is_strong_secret(str(secret_key))
            ):
                given["secret"] = str(secret_key)
            sessions = Sessions(**{**given, **options})
            sessions.web.lower_case_attributes()
        self.sessions: Sessions[Any] = sessions
        sessions.web.session_class = DictSession
        sessions.web.null_session_class = DictNullSession
        super().__init__(remove_session_middleware(app), sessions, framework=_ScopeFramework())
        if first_connection:
            self.app: ASGIApp = _FirstConnection(self)


class _FirstConnection:
    """Calls the functions of ``first_connection``, and removes itself from the stack.

    Args:
        middleware: the layer outside; its ``app`` is this object until the first connection.

    Attributes:
        app: the next application of the stack.
    """

    def __init__(self, middleware: SessionMiddleware) -> None:
        self.app: ASGIApp = middleware.app
        self._middleware = middleware

    @mark_coroutine_function
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve the first connection."""
        middleware = self._middleware
        if middleware.app is self:
            middleware.app = self.app
            for function in first_connection:
                function(scope.get("app"), middleware.sessions)
        return self.app(scope, receive, send)


def _is_strong_secret(secret_key: str) -> bool:
    try:
        check_secrets(secret_key, source="secret_key")
    except ConfigurationError:
        logger.warning(
            "secret_key is not used, because it can be guessed; an embedded store has a generated "
            "secret. For a store that several machines share, pass at least 16 random bytes"
        )
        return False
    return True


class _ScopeFramework:
    """The requests and error handlers of the application in the scope of each request."""

    def make_request(self, scope: Scope, receive: Receive) -> HTTPConnection:
        """Return the request; the handshake of a WebSocket as what both have in common."""
        return Request(scope, receive) if scope["type"] == "http" else HTTPConnection(scope)

    async def call_handler(self, request: Request, error: SojournError) -> ASGIApp | None:
        """Call the application's handler for an error; return its response, None without one."""
        app = request.scope.get("app")
        handlers: Mapping[Any, Any] = getattr(app, "exception_handlers", {})
        return await call_handler(handlers, request, error)
