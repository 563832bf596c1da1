"""open_session: create a session before a request and inspect it afterwards."""

from __future__ import annotations

from http.cookiejar import Cookie, CookieJar
from typing import Any

from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError
from sojourn.frameworks.install import get
from sojourn.sessions import SessionInfo, Sessions
from sojourn.testing.visitor import Visitor


class OpenSession:
    """One session in the store of an application; made by ``open_session``.

    Attributes:
        sessions: the installation.
        id: the public session ID.
    """

    def __init__(self, visitor: Visitor, session_id: str) -> None:
        self._visitor = visitor
        self.sessions: Sessions[Any] = visitor.sessions
        self.id = session_id

    def __repr__(self) -> str:
        """Show the public session ID."""
        return f"<OpenSession {self.id}>"

    @property
    def cookies(self) -> dict[str, str]:
        """The session cookie, for a test client: ``TestClient(app, cookies=session.cookies)``."""
        name, _, value = (self._visitor.cookie or "").partition("=")
        return {name: value}

    @property
    def headers(self) -> dict[str, str]:
        """The header with the ticket, for a client of ``transport="header"``.

        Raises:
            ConfigurationError: the installation reads no header.
        """
        transport = self.sessions.web.header_transport
        if transport is None:
            raise ConfigurationError(
                "open_session(...).headers needs transport='header'; use .cookies instead"
            )
        name, value = transport.request_header(self._visitor.ticket)
        return {name: value}

    def add_to_jar(self, jar: CookieJar, host: str = "localhost") -> None:
        """Add the session cookie to a cookie jar, such as that of WebTest's ``TestApp``.

        WebTest's own ``set_cookie`` adds quotes to values, which a browser would not.

        Args:
            jar: ``browser.cookiejar`` in WebTest, ``session.cookies`` in requests.
            host: of the requests.
        """
        for name, value in self.cookies.items():
            jar.set_cookie(
                Cookie(
                    version=0,
                    name=name,
                    value=value,
                    port=None,
                    port_specified=False,
                    domain=host if "." in host else f"{host}.local",  # as CookieJar spells it
                    domain_specified=False,
                    domain_initial_dot=False,
                    path="/",
                    path_specified=True,
                    secure=name.startswith("__"),
                    expires=None,
                    discard=True,
                    comment=None,
                    comment_url=None,
                    rest={},
                )
            )

    def info(self) -> SessionInfo | None:
        """Return ``Sessions.get`` of this session; None after it ended."""
        return self.sessions.get(self.id)

    async def ainfo(self) -> SessionInfo | None:
        """Return ``Sessions.get`` of this session; see ``info``."""
        return await self.sessions.aget(self.id)

    def data(self) -> dict[str, Any]:
        """Return the keys and values that the next request would read; empty after the end."""
        return run(self.adata(), instead="open_session.adata()")

    async def adata(self) -> dict[str, Any]:
        """Return the keys and values; see ``data``."""
        return dict(await self._visitor.load())

    def update(self, **data: Any) -> None:
        """Set keys, as another request of the same visitor would."""
        run(self.aupdate(**data), instead="open_session.aupdate()")

    async def aupdate(self, **data: Any) -> None:
        """Set keys; see ``update``."""
        async with self._visitor.visit() as session:
            session.update(data)


def open_session(app: Any, *, https: bool = False, **data: Any) -> OpenSession:
    """Create a session that holds data.

    Args:
        app: an application that ``sojourn.install`` was called for, or a ``Sessions``.
        https: whether requests will use https; the cookie's name depends on it.
        data: keys and values.

    Raises:
        ConfigurationError: nothing is installed on the application, or a value is not supported.
    """
    return run(aopen_session(app, https=https, **data), instead="aopen_session()")


async def aopen_session(app: Any, *, https: bool = False, **data: Any) -> OpenSession:
    """Create a session that holds data; see ``open_session``."""
    sessions = app if isinstance(app, Sessions) else get(app)
    visitor = Visitor(sessions, https=https)
    async with visitor.visit() as session:
        session.update(data or {"_": None})
    if not data:  # the first write creates a session, which may be emptied afterwards
        async with visitor.visit() as session:
            del session["_"]
    return OpenSession(visitor, session.id)
