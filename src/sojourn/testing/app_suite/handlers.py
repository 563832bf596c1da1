"""Handlers of the applications that ``AppSuite`` builds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sojourn.session import Session
from sojourn.testing.app_suite.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class HandlerResponse:
    """The response of a handler.

    Attributes:
        status, headers: of the response.
        body: bytes, or an async generator for a streaming response.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b"ok"


Handler = Callable[[Session[Any]], Awaitable[HandlerResponse | None]]
"""Gets the session of the request, None if it has none; None is the response ``ok`` with 200."""


async def ignore(session: Session[Any]) -> None:
    """Do not access the session."""


async def look(session: Session[Any]) -> None:
    """Access the session without a change."""
    session.get("n")


async def write(session: Session[Any]) -> HandlerResponse:
    """Increment a counter and respond with its value."""
    return HandlerResponse(body=str(session.increment("n")).encode())


async def read(session: Session[Any]) -> HandlerResponse:
    """Respond with the value of the counter."""
    return HandlerResponse(body=str(session.get("n")).encode())


async def destroy(session: Session[Any]) -> None:
    """Destroy the session."""
    session.destroy()


async def login(session: Session[Any]) -> None:
    """Log in as ada."""
    session.login("ada", methods=("password",))


async def rotate(session: Session[Any]) -> None:
    """Rotate the ticket."""
    session.rotate()


async def logout(session: Session[Any]) -> None:
    """Log out."""
    session.logout()


async def who(session: Session[Any]) -> HandlerResponse:
    """Respond with the user and the reason why the previous session ended."""
    return HandlerResponse(body=f"{session.user} {session.ended_reason}".encode())


HANDLERS: Final[Mapping[str, Handler]] = {
    "/ignore": ignore,
    "/look": look,
    "/write": write,
    "/read": read,
    "/destroy": destroy,
    "/login": login,
    "/rotate": rotate,
    "/logout": logout,
    "/who": who,
}


def fail_after(act: Handler, how: str) -> Handler:
    """Return a handler that writes, acts, and then fails.

    Args:
        act: called after the write.
        how: "exception" to raise one, otherwise a status of 500 is returned.
    """

    async def handler(session: Session[Any]) -> HandlerResponse:
        session.increment("n")
        await act(session)
        if how == "exception":
            raise LookupError("planned by the test")
        return HandlerResponse(500)

    return handler


async def two_parts(
    checkpoint: Checkpoint, between: Callable[[], object] = lambda: None
) -> AsyncIterator[bytes]:
    """Stream "first", wait at the checkpoint, call ``between``, and stream "last"."""
    yield b"first"
    await checkpoint.wait()
    between()
    yield b"last"
