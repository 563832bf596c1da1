"""Visitor: somebody who comes back, without a server and without http.

What lives here: a cookie jar for one cookie, and visits that load and commit a session as a request
does. What must not: an application; ``drivers.py`` calls those.

It goes through the installation's gate, so tickets are sealed, found and checked as in a request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from sojourn._core.session import Session
from sojourn.sessions import Sessions
from sojourn.web.transport import Transport

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
        self._transport = Transport.SECURE if https else Transport.LOCAL

    def __repr__(self) -> str:
        """Tell whether there is a cookie; what it holds opens a session and is not shown."""
        return f"<Visitor {'with' if self.cookie else 'without'} a cookie>"

    def at(self, sessions: Sessions[Any]) -> Visitor:
        """Return the same visitor at another installation, as in another process."""
        https = self._transport is Transport.SECURE
        return Visitor(sessions, cookie=self.cookie, https=https)

    def labels(self) -> dict[str, str]:
        """Return what is noted of this visitor when a session begins."""
        return {"browser": "Visitor"}

    async def load(self) -> Session[Any]:
        """Return the session that the cookie opens, an empty one if it opens none."""
        cookies = None if self.cookie is None else self.cookie.encode()
        return await self.sessions.gate.admit(self._transport, _HOST, cookies, self)

    async def commit(self, session: Session[Any], *, failed: bool = False) -> None:
        """Write what was done, and keep or forget the cookie as a browser would."""
        gate = self.sessions.gate
        await gate.engine.commit(session, failed=failed)
        header = gate.set_cookie(session, self._transport)
        if header is not None:
            pair = header.decode().partition(";")[0]
            self.cookie = None if pair.endswith("=") else pair

    @asynccontextmanager
    async def visit(self) -> AsyncIterator[Session[Any]]:
        """Load the session for a block, commit at its end; drop the changes if it raises."""
        session = await self.load()
        try:
            yield session
        except BaseException:
            await self.commit(session, failed=True)
            raise
        await self.commit(session)
