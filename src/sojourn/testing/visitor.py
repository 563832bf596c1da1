"""Visitor: somebody who comes back, without a server and without http.

What lives here: a cookie jar for one cookie, and visits that load and commit a session as a request
does. What must not: an application; ``drivers.py`` calls those.

It goes through the installation's gate, so tickets are sealed, found and checked as in a request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from sojourn.session import Session
from sojourn.sessions import Sessions
from sojourn.web.lifecycle import SessionLifecycle

_HOST: Final = b"localhost"


class Visitor:
    """A browser's cookie and what it takes to use it.

    Args:
        sessions: the installation to visit.
        cookie: ``name=value`` to begin with, as in a Cookie header.
        https: over which transport the visits come; the cookie's name depends on it.

    Attributes:
        cookie: ``name=value`` as of now, None while there is none.
    """

    def __init__(
        self, sessions: Sessions[Any], *, cookie: str | None = None, https: bool = False
    ) -> None:
        self.sessions = sessions
        self.cookie = cookie
        self._scheme = "https" if https else "http"

    def __repr__(self) -> str:
        """Tell whether there is a cookie; what it holds opens a session and is not shown."""
        return f"<Visitor {'with' if self.cookie else 'without'} a cookie>"

    def at(self, sessions: Sessions[Any]) -> Visitor:
        """Return the same visitor at another installation, as in another process."""
        return Visitor(sessions, cookie=self.cookie, https=self._scheme == "https")

    def labels(self) -> dict[str, str]:
        """Return what is noted of this visitor when a session begins."""
        return {"browser": "Visitor"}

    def path(self) -> str:
        """Return the path of a visit."""
        return "/"

    async def load(self) -> Session[Any]:
        """Return the session of the cookie, an empty one if the cookie is not valid."""
        lifecycle = await self._begin()
        session = lifecycle.session
        assert session is not None
        return session

    async def _begin(self) -> SessionLifecycle:
        lifecycle = SessionLifecycle(self.sessions.web, self)
        cookies = None if self.cookie is None else self.cookie.encode()
        waiting = lifecycle.begin(self._scheme, _HOST, cookies)
        if waiting is not None:
            await waiting
        return lifecycle

    async def _end(self, lifecycle: SessionLifecycle, *, failed: bool) -> None:
        """Commit, and keep or drop the cookie as a browser does."""
        waiting = lifecycle.fail() if failed else lifecycle.start_response(200)
        if waiting is not None:
            await waiting
        header = lifecycle.set_cookie()
        if header is not None:
            pair = header.decode().partition(";")[0]
            self.cookie = None if pair.endswith("=") else pair

    @asynccontextmanager
    async def visit(self) -> AsyncIterator[Session[Any]]:
        """Load the session for a block, commit at its end; drop the changes if it raises."""
        lifecycle = await self._begin()
        assert lifecycle.session is not None
        try:
            yield lifecycle.session
        except BaseException:
            await self._end(lifecycle, failed=True)
            raise
        await self._end(lifecycle, failed=False)
