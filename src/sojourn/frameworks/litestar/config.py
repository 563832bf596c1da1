"""SojournConfig: an installation as a session config of Litestar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from litestar.connection import ASGIConnection
from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.middleware import DefineMiddleware
from litestar.middleware.session.base import BaseBackendConfig, BaseSessionBackend
from litestar.types import Empty, Message, Scopes

from sojourn.errors import ConfigurationError
from sojourn.frameworks.litestar import dependency
from sojourn.frameworks.litestar.login import follow_replacement
from sojourn.frameworks.litestar.middleware import SessionMiddleware, to_mapping
from sojourn.sessions import Sessions

if TYPE_CHECKING:
    from typing import Unpack

    from sojourn.config import Options

#: The address of a visitor that a test client sets up.
_TEST_URL: Final = "http://testserver.local/"


class SojournBackend(BaseSessionBackend["SojournConfig"]):
    """The methods by which Litestar's test clients read and write a visitor's session."""

    def __deepcopy__(self, memo: object) -> SojournBackend:
        """Return itself: Litestar copies the middleware of a router that it registers."""
        return self

    def get_session_id(
        self,
        connection: ASGIConnection[Any, Any, Any, Any],  # noqa: ARG002 - of the protocol
    ) -> str | None:
        """Return None: the cookie is a ticket. The public ID is ``session.id``."""
        return None

    async def store_in_message(
        self,
        scope_session: Any,
        message: Message,
        connection: ASGIConnection[Any, Any, Any, Any],
    ) -> None:
        """Make the visitor's session hold data, and add its cookie to a response.

        Args:
            scope_session: what the session holds; ``Empty`` destroys it.
            message: the start of a response.
            connection: its cookies are the visitor's.

        Raises:
            ConfigurationError: the installation sets no cookies.
        """
        transport = self.config.sessions.web.header_transport
        if transport is not None and not transport.cookies:
            raise ConfigurationError(
                "Litestar's test client stores sessions in cookies, and transport='header' sets "
                "none; send the headers of sojourn.testing.open_session(app, ...) instead"
            )
        context = self.config.sessions.open(cookies=connection.cookies, url=_TEST_URL)
        async with context:
            session = context.session
            if cast("object", scope_session) is Empty:
                session.destroy()
            else:
                data = to_mapping(scope_session, connection.scope)
                if self.config.user_key is not None:
                    follow_replacement(session, data, self.config.user_key)
                session.clear(keep_login=True)
                session.update(data)
        headers = MutableScopeHeaders.from_message(message)
        for name, value in context.response_headers():
            headers.add(name, value)

    async def load_from_connection(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> dict[str, Any]:
        """Return what the visitor's session holds.

        Args:
            connection: its cookies are the visitor's.
        """
        context = self.config.sessions.open(cookies=connection.cookies, url=_TEST_URL)
        async with context:
            return context.session.copy()


class SojournConfig(BaseBackendConfig[SojournBackend]):
    """An installation as Litestar's code expects a session config.

    Use it for ``SessionAuth(session_backend_config=...)``, ``TestClient(session_config=...)``, and
    ``middleware=[config.middleware]`` of a router, a controller or a handler.

    Args:
        sessions: the installation; None to create it from the options.
        exclude_opt_key: a route with this key in its ``opt`` has no session.
        scopes: for which the middleware loads a session; None for http and websocket.
        user_key: the key under which the application stores the user who is logged in. When a
            request changes it, the session is bound to that user and gets a new ticket, as by
            ``session.login``. None for applications that call ``session.login``.
        state: a dataclass, ``msgspec.Struct`` or pydantic model for ``session.state``.
        options: the fields of ``sojourn.config.Options``.

    Attributes:
        sessions: the installation.
        key: the name of the cookie over https.
    """

    _backend_class = SojournBackend

    def __init__(
        self,
        sessions: Sessions[Any] | None = None,
        *,
        exclude_opt_key: str = "skip_session",
        scopes: Scopes | None = None,
        user_key: str | None = "user_id",
        state: type | None = None,
        **options: Unpack[Options],
    ) -> None:
        if sessions is None:
            sessions = Sessions(state=state, **options)
        sessions.route_decorator = dependency.route
        cookie = sessions.config.web.cookie
        self.sessions: Sessions[Any] = sessions
        self.user_key: str | None = user_key
        self.key: str = cookie.over_https().name
        self.max_age: int = sessions.config.core.policy.authenticated.idle_timeout // 1000
        self.scopes: Scopes = scopes or {ScopeType.HTTP, ScopeType.WEBSOCKET}
        self.path: str = cookie.path
        self.domain: str | None = cookie.domain
        self.secure: bool = True
        self.httponly: bool = True
        self.samesite: Any = cookie.same_site
        self.exclude: str | list[str] | None = None
        self.exclude_opt_key: str = exclude_opt_key

    @property
    def middleware(self) -> DefineMiddleware:
        """The session middleware, for ``middleware=[...]`` of a layer."""
        return DefineMiddleware(SessionMiddleware, backend=SojournBackend(self))
