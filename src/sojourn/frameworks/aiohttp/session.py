"""The session with the members of aiohttp-session's: ``invalidate``, ``changed``, ``empty``."""

from __future__ import annotations

from typing import Any

from sojourn.session import NullSession, Session


class _Members(Session[Any]):
    """The members that both classes add."""

    __slots__ = ()

    @property
    def identity(self) -> str:
        """The public ID of the session; not the value of the cookie."""
        return self.id

    @property
    def created(self) -> int:
        """When the session was created, in seconds since 1970; now, if it is new."""
        created_at = self.created_at
        return self._engine.clock() // 1000 if created_at is None else int(created_at.timestamp())

    @property
    def empty(self) -> bool:
        """Whether the session has no data."""
        return not self

    def changed(self) -> None:
        """Do nothing: changes inside of values are detected."""

    def invalidate(self) -> None:
        """Destroy the session; what is written afterwards starts a new one."""
        self.destroy()


class AiohttpSession(_Members):
    """A visitor's session, as ``request["session"]``."""

    __slots__ = ()


class AiohttpNullSession(_Members, NullSession):
    """The session of a request that continues although the store failed."""

    __slots__ = ()
