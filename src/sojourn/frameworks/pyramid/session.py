"""PyramidSession: the session of a request with the members of Pyramid's ``ISession``."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final
from uuid import UUID

from pyramid.interfaces import ISession  # type: ignore[import-untyped] # it has no types
from zope.interface import classImplements  # type: ignore[import-untyped] # it has no types

from sojourn.session import NullSession, Session

#: The key of the CSRF token of ``get_csrf_token``, as in Pyramid's own sessions.
CSRF_KEY: Final = "_csrft_"

#: The prefix of the keys of flash queues, as in Pyramid's own sessions.
_FLASH: Final = "_f_"

#: The prefix of ``SessionAuthenticationHelper`` unless it is given another.
DEFAULT_AUTH_PREFIX: Final = "auth."


class PyramidSession(Session[Any]):
    """A session with Pyramid's protocol, ``pyramid.interfaces.ISession``, beside sojourn's verbs.

    The user that ``SessionAuthenticationHelper`` and ``SessionAuthenticationPolicy`` remember is
    the user of the session: ``remember`` logs in, ``forget`` logs out.

    Attributes:
        userid_key: under which these store the user.
    """

    __slots__ = ()

    userid_key: ClassVar[str] = DEFAULT_AUTH_PREFIX + "userid"

    # The user of Pyramid's authentication helper

    def __getitem__(self, key: str) -> Any:
        """Return the value of a key; see ``Session``."""
        return self._remembered() if key == self.userid_key else super().__getitem__(key)

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return the value of a key, ``default`` if there is none."""
        if key == self.userid_key:
            return self._remembered() if key in self else default
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        """Return whether a key exists."""
        return self.user is not None if key == self.userid_key else super().__contains__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        """Assign a key; that of the authentication helper logs in."""
        if key == self.userid_key:
            self.login(value if isinstance(value, str | int) else str(value))
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        """Delete a key; that of the authentication helper logs out.

        The session is destroyed, and its other keys continue in a new one, because ``forget``
        leaves them alone.
        """
        if key != self.userid_key or self.user is None:
            super().__delitem__(key)
            return
        kept = {k: v for k, v in self.copy().items() if k not in {key, CSRF_KEY}}
        self.destroy()
        self.update(kept)

    def _remembered(self) -> Any:
        """Return the user, as the value that was given to ``remember``.

        Raises:
            KeyError: there is none.
        """
        user = self.user
        if user is None:
            if super().__contains__(self.userid_key):  # a login that was refused
                return None
            raise KeyError(self.userid_key)
        value = super().get(self.userid_key)
        return value if str(value) == user else user

    def login(
        self,
        user: str | int | UUID,
        *,
        methods: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        remember: bool = False,
    ) -> None:
        """Bind the session to a user who has proved their identity; see ``Session.login``.

        The CSRF token of ``get_csrf_token`` is dropped: a page from before the login, perhaps
        another visitor's, shows it.
        """
        super().login(user, methods=methods, labels=labels, remember=remember)
        self.pop(CSRF_KEY, None)

    # ISession

    @property
    def created(self) -> int:
        """When the session was created, in seconds since 1970; now, if it is new."""
        created_at = self.created_at
        return self._engine.clock() // 1000 if created_at is None else int(created_at.timestamp())

    def changed(self) -> None:
        """Do nothing: changes inside of values are detected."""

    def invalidate(self) -> None:
        """Destroy the session; what is written afterwards starts a new one."""
        self.destroy()

    def flash(  # pyright: ignore[reportIncompatibleMethodOverride] # ISession's
        self,
        msg: Any,
        queue: str = "",
        allow_duplicate: bool = True,  # noqa: FBT001, FBT002 - ISession's
    ) -> None:
        """Append a message to a queue; parallel requests lose none.

        Args:
            msg: any value that a session can store.
            queue: the name of the queue.
            allow_duplicate: append the message also if the queue has an equal one.
        """
        if allow_duplicate or msg not in self.get(_FLASH + queue, ()):
            self.append(_FLASH + queue, msg)

    def pop_flash(self, queue: str = "") -> list[Any]:
        """Remove a queue and return its messages, oldest first."""
        return list(self.pop(_FLASH + queue, ()))

    def peek_flash(self, queue: str = "") -> list[Any]:
        """Return the messages of a queue, oldest first."""
        return list(self.get(_FLASH + queue, ()))

    def flashes(self) -> list[tuple[str, str]]:
        """Remove the messages of all queues and return them as (message, queue)."""
        queues = [key.removeprefix(_FLASH) for key in self if key.startswith(_FLASH)]
        return [(message, queue) for queue in queues for message in self.pop_flash(queue)]

    def new_csrf_token(self) -> str:
        """Create, store and return a CSRF token, for Pyramid's own CSRF storage policies."""
        token = secrets.token_hex(20)
        self[CSRF_KEY] = token
        return token

    def get_csrf_token(self) -> str:
        """Return the stored CSRF token; create it if there is none."""
        return self.get(CSRF_KEY) or self.new_csrf_token()


class NullPyramidSession(  # pyright: ignore[reportIncompatibleMethodOverride] # `flash`, as above
    PyramidSession, NullSession
):
    """The session of a request that continues although the store failed."""

    __slots__ = ()


classImplements(PyramidSession, ISession)


def session_classes(
    auth_prefix: str,
) -> tuple[type[PyramidSession], type[NullPyramidSession]]:
    """Return the classes for the prefix of an authentication helper."""
    if auth_prefix == DEFAULT_AUTH_PREFIX:
        return PyramidSession, NullPyramidSession
    members = {"__slots__": (), "userid_key": auth_prefix + "userid"}
    return (
        type("PyramidSession", (PyramidSession,), members),
        type("NullPyramidSession", (NullPyramidSession,), members),
    )
