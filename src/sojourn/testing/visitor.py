"""Visitor: loads and commits a session by its cookie, without an HTTP request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from sojourn._core.session import Session
from sojourn.sessions import Sessions
from sojourn.web.transport import Transport

_HOST: Final = b"localhost"


class Visitor:
    """A cookie jar for one cookie. Tickets are checked as in a request.

    Args:
        sessions: the installation.
        cookie: ``name=value`` to start with, as in a Cookie header.
        https: whether requests use https; the cookie's name depends on it.

    Attributes:
        cookie: the present ``name=value``; None if there is none.
    """

    def __init__(
        self, sessions: Sessions[Any], *, cookie: str | None = None, https: bool = False
    ) -> None:
        self.sessions = sessions
        self.cookie = cookie
        self._transport = Transport.SECURE if https else Transport.LOCAL

    def __repr__(self) -> str:
        """Show whether there is a cookie; its value is a secret."""
        return f"<Visitor {'with' if self.cookie else 'without'} a cookie>"

    def at(self, sessions: Sessions[Any]) -> Visitor:
        """Return a visitor with the same cookie at another installation, as in another process."""
        https = self._transport is Transport.SECURE
        return Visitor(sessions, cookie=self.cookie, https=https)

    def labels(self) -> dict[str, str]:
        """Return the labels that a new session of this visitor gets."""
        return {"browser": "Visitor"}

    async def load(self) -> Session[Any]:
        """Return the session of the cookie; an empty one without a valid cookie."""
        cookies = None if self.cookie is None else self.cookie.encode()
        return await self.sessions.gate.admit(self._transport, _HOST, cookies, self)

    async def commit(self, session: Session[Any], *, failed: bool = False) -> None:
        """Commit the session and store the cookie of the response.

        Args:
            session: from ``load``.
            failed: drop the changes, as after a request that raised an exception.
        """
        gate = self.sessions.gate
        await gate.engine.commit(session, failed=failed)
        header = gate.set_cookie(session, self._transport)
        if header is not None:
            pair = header.decode().partition(";")[0]
            self.cookie = None if pair.endswith("=") else pair

    @asynccontextmanager
    async def visit(self) -> AsyncIterator[Session[Any]]:
        """Load the session for a block and commit after it; drop the changes if it raises."""
        session = await self.load()
        try:
            yield session
        except BaseException:
            await self.commit(session, failed=True)
            raise
        await self.commit(session)
