"""The session with the members of BlackSheep's own: ``set``, ``to_dict``, ``modified``."""

from __future__ import annotations

from typing import Any

from blacksheep.sessions import Session as SessionOfBlackSheep

from sojourn.session import NullSession, Session


class _Members(  # pyright: ignore[reportIncompatibleMethodOverride] # a mapping's `get` and `update`
    Session[Any], SessionOfBlackSheep
):
    """The members that both classes add."""

    __slots__ = ()

    @property
    def modified(self) -> bool:
        """Whether this request has changed the session."""
        return self._copy.modified()

    def __eq__(self, other: object) -> bool:
        """Compare the content with a mapping or with a session of BlackSheep's own."""
        if isinstance(other, SessionOfBlackSheep) and not isinstance(other, Session):
            return self.copy() == other.to_dict()
        return super().__eq__(other)

    def __hash__(self) -> int:
        """Hash by identity."""
        return super().__hash__()

    def set(self, name: str, value: Any) -> None:
        """Assign a key."""
        self[name] = value

    def to_dict(self) -> dict[str, Any]:
        """Return the content as a plain dict."""
        return self.copy()


class BlackSheepSession(_Members):
    """A visitor's session, as ``request.session``."""

    __slots__ = ()


class BlackSheepNullSession(_Members, NullSession):
    """The session of a request that continues although the store failed."""

    __slots__ = ()
