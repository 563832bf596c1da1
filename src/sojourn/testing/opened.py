"""OpenSession: a session that a test begins before a request, and looks at afterwards.

What lives here: what the tests of an application need of its sessions, by the application itself or
by its ``Sessions``. What must not: a framework's test client (``plugin.py`` knows one).
"""

from __future__ import annotations

from typing import Any

from sojourn._core.concurrency import run
from sojourn.frameworks.install import get
from sojourn.sessions import SessionInfo, Sessions
from sojourn.testing.visitor import Visitor


class OpenSession:
    """One session in the store of an application; made by ``open_session``.

    Attributes:
        sessions: the installation it belongs to.
        id: the public ID.
    """

    def __init__(self, visitor: Visitor, session_id: str) -> None:
        self._visitor = visitor
        self.sessions: Sessions[Any] = visitor.sessions
        self.id = session_id

    def __repr__(self) -> str:
        """Show the public ID."""
        return f"<OpenSession {self.id}>"

    @property
    def cookies(self) -> dict[str, str]:
        """The cookie that opens it, for a test client: ``TestClient(app, cookies=…)``."""
        name, _, value = (self._visitor.cookie or "").partition("=")
        return {name: value}

    def info(self) -> SessionInfo | None:
        """Return what lists show of it; None once it has ended."""
        return self.sessions.get(self.id)

    async def ainfo(self) -> SessionInfo | None:
        """Return what lists show of it; see ``info``."""
        return await self.sessions.aget(self.id)

    def data(self) -> dict[str, Any]:
        """Return the keys and values as the next request would find them; empty once it ended."""
        return run(self.adata(), instead="open_session.adata()")

    async def adata(self) -> dict[str, Any]:
        """Return the keys and values; see ``data``."""
        return dict(await self._visitor.load())

    def update(self, **data: Any) -> None:
        """Set keys, as a request of the same visitor elsewhere would."""
        run(self.aupdate(**data), instead="open_session.aupdate()")

    async def aupdate(self, **data: Any) -> None:
        """Set keys; see ``update``."""
        async with self._visitor.visit() as session:
            session.update(data)


def open_session(app: Any, *, https: bool = False, **data: Any) -> OpenSession:
    """Begin a session with data, as if a visitor had been there before.

    Args:
        app: an application that ``sojourn.install`` was called for, or a ``Sessions``.
        https: the requests will come over https, where the cookie has another name.
        data: its keys and values.

    Raises:
        ConfigurationError: nothing is installed on the application, or a value cannot be kept.
    """
    return run(aopen_session(app, https=https, **data), instead="aopen_session()")


async def aopen_session(app: Any, *, https: bool = False, **data: Any) -> OpenSession:
    """Begin a session with data; see ``open_session``."""
    sessions = app if isinstance(app, Sessions) else get(app)
    visitor = Visitor(sessions, https=https)
    async with visitor.visit() as session:
        session.update(data or {"_": None})
    if not data:  # a session begins with its first write, and may be emptied afterwards
        async with visitor.visit() as session:
            del session["_"]
    return OpenSession(visitor, session.id)
