"""Visitor: a browser's cookie, and visits that load and commit a session without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from sojourn.session import Session
from sojourn.sessions import Sessions
from sojourn.web.lifecycle import SessionLifecycle

_HOST: Final = b"localhost"

#: The status of a visit that succeeds.
_OK: Final = 200


class _VisitLifecycle(SessionLifecycle):
    """The lifecycle of one visit.

    Args:
        sessions: the installation.
        ticket: sent in the header, if the installation reads no cookies; empty if there is none.
    """

    __slots__ = ("_ticket",)

    def __init__(self, sessions: Sessions[Any], ticket: str) -> None:
        super().__init__(sessions.web)
        self._ticket = ticket

    def header(self, name: str) -> str | None:
        """Return the header with the ticket; None for other headers."""
        headers = self.web.header_transport
        if headers is None or headers.cookies or name != headers.name:
            return None
        return headers.request_header(self._ticket)[1]

    def labels(self) -> dict[str, str]:
        """Return the labels that a new session gets."""
        return {"browser": "Visitor"}


class Visitor:
    """A visitor of an installation; tickets are sealed and checked as in a request.

    Args:
        sessions: the installation to visit.
        cookie: ``name=value`` to start with, as in a Cookie header.
        https: the transport of the visits; the cookie's name depends on it.

    Attributes:
        cookie: the present ``name=value``; None while there is none. With
            ``transport="header"`` the value is the ticket.
    """

    def __init__(
        self, sessions: Sessions[Any], *, cookie: str | None = None, https: bool = False
    ) -> None:
        self.sessions = sessions
        self.cookie = cookie
        self._scheme = "https" if https else "http"

    def __repr__(self) -> str:
        """Show whether there is a cookie; its value is a secret."""
        return f"<Visitor {'with' if self.cookie else 'without'} a cookie>"

    @property
    def ticket(self) -> str:
        """The value of the cookie; empty if there is none."""
        return (self.cookie or "").partition("=")[2]

    def at(self, sessions: Sessions[Any]) -> Visitor:
        """Return a visitor with the same cookie at another installation, as in another process."""
        return Visitor(sessions, cookie=self.cookie, https=self._scheme == "https")

    async def load(self) -> Session[Any]:
        """Return the session of the cookie; an empty one without a valid cookie."""
        return session_of(await self.begin())

    async def begin(self) -> SessionLifecycle:
        """Begin a visit: load the session; ``end`` commits it."""
        lifecycle = _VisitLifecycle(self.sessions, self.ticket)
        cookies = None if self.cookie is None else self.cookie.encode()
        waiting = lifecycle.begin(self._scheme, _HOST, cookies)
        if waiting is not None:
            await waiting
        return lifecycle

    async def end(self, lifecycle: SessionLifecycle, *, failed: bool = False) -> None:
        """Commit the session and store the cookie of the response.

        Args:
            lifecycle: from ``begin``, also of another visitor.
            failed: drop the changes, as after a request that raised an exception.
        """
        waiting = lifecycle.fail() if failed else lifecycle.commit(_OK)
        if waiting is not None:
            await waiting
        header = lifecycle.ticket_header()
        if header is not None:
            name, value = header
            text = value.decode()
            pair = text.partition(";")[0] if name == b"set-cookie" else f"ticket={text}"
            self.cookie = None if pair.endswith("=") else pair

    @asynccontextmanager
    async def visit(self) -> AsyncIterator[Session[Any]]:
        """Load the session for a block and commit after it; drop the changes if it raises."""
        lifecycle = await self.begin()
        try:
            yield session_of(lifecycle)
        except BaseException:
            await self.end(lifecycle, failed=True)
            raise
        await self.end(lifecycle)


def session_of(lifecycle: SessionLifecycle) -> Session[Any]:
    """Return the session of a lifecycle that has begun."""
    session = lifecycle.session
    assert session is not None
    return session
