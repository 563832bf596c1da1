"""RequestSession: ``request.session`` under sojourn's own middleware.

``session_key`` is no ticket here: the middleware writes the cookie, and applications store
``session_key``. ``SessionStore(session_key)`` finds the session with it, until it ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sojourn._core.engine import Engine
from sojourn._core.reserved_keys import CREATED
from sojourn._core.working_copy import CookieChange, WorkingCopy
from sojourn._crypto.tickets import Ticket
from sojourn.frameworks.django.current_session import get_current_session
from sojourn.frameworks.django.expiry import EXPIRY
from sojourn.frameworks.django.session_store import SessionStore
from sojourn.frameworks.django.settings import get_sessions
from sojourn.session import NullSession, Session


class RequestSession(SessionStore):
    """The session of a request: every verb of ``sojourn.Session``, and Django's methods.

    The middleware loads it before the view and commits it before the response. ``flush`` and
    ``cycle_key`` are carried out with that commit.
    """

    _loaded = True

    @property
    def session_key(self) -> str | None:
        """The key for server code, 40 characters; None for a session that is not stored.

        It stays the same when the ticket changes, and the middleware accepts no cookie with it.
        ``SessionStore(session_key)`` loads the session outside of requests, and in requests of the
        same user. Show and log ``session.id`` instead.
        """
        record = self._copy.record
        return None if record is None else get_sessions().session_keys.make(record.id)

    @property
    def _session_key(self) -> str | None:
        return self.session_key

    @_session_key.setter
    def _session_key(self, value: str | None) -> None:
        """Keep the key that the class was called with; otherwise the record decides."""
        self._given_key = value

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Find the session of a key: ``request.session.__class__(session_key)``."""
            if name in ("_copy", "_engine"):
                self._copy, self._engine = self._find()
                return object.__getattribute__(self, name)
            return super().__getattr__(name)

    def _find(self) -> tuple[WorkingCopy, Engine]:
        """Return what this object, which no middleware has made, works on.

        The session of the request if the key is its own: extensions save and load it again, as
        ``allauth.socialaccount`` does, and the middleware writes the cookie.
        """
        current = get_current_session()
        if self._given_key is None:
            return SessionStore().open()
        if isinstance(current, RequestSession) and current.session_key == self._given_key:
            return current.open()
        return SessionStore(self._given_key).open()

    def _start_loading(self) -> tuple[Engine, Ticket | None]:
        copy = self._copy
        return self._engine, None if copy.record is None else copy.ticket()

    def _update_session_key(self) -> None:
        """Leave the cookie to the middleware."""

    def save_login(self) -> None:
        """Leave the login to the middleware: it does not change ``session_key``."""

    async def asave_login(self) -> None:
        """Leave the login to the middleware: it does not change ``session_key``."""

    def is_empty(self) -> bool:
        """Return whether the session is not stored and has no data."""
        copy = self._copy
        return (
            copy.record is None and copy.renewal is None and next(iter(copy.decode()), None) is None
        )

    def __setitem__(self, key: str, value: Any) -> None:
        """Assign a key; another expiry sends the cookie again."""
        super().__setitem__(key, value)
        if key == EXPIRY:
            self._send_cookie()

    async def aset(self, key: str, value: Any) -> None:
        """Assign a key; see ``__setitem__``."""
        await super().aset(key, value)
        if key == EXPIRY:
            self._send_cookie()

    def __delitem__(self, key: str) -> None:
        """Delete a key; another expiry sends the cookie again."""
        super().__delitem__(key)
        if key == EXPIRY:
            self._send_cookie()

    def renew_cookie(self) -> None:
        """Send the cookie of a changed session again, whose age ``set_expiry`` has limited.

        The browser counts that age from the response, as with Django's own middleware.
        """
        if self._copy.modified() and EXPIRY in self:
            self._send_cookie()

    def _send_cookie(self) -> None:
        copy = self._copy
        if copy.record is not None and copy.cookie_change is not CookieChange.CLEAR:
            copy.send_cookie()

    def destroy(self) -> None:
        """Destroy the session: its record, its cookie and its open connections."""
        Session.destroy(self)

    async def acreate(self) -> None:
        """Create a record with a new public ID and the present data."""
        if self._copy.record is not None:
            data = self.copy()
            Session.destroy(self)
            self.update(data)
        self._copy.edit().set(CREATED, value=True)
        await self._engine.commit(self._copy, explicit=True)

    def flush(self) -> None:
        """End the session; what is written afterwards starts a new one."""
        Session.destroy(self)

    async def aflush(self) -> None:
        """End the session; see ``flush``."""
        Session.destroy(self)

    def cycle_key(self) -> None:
        """Replace the ticket; the previous one is invalid once the response starts."""
        self.rotate(grace_period=False)

    async def acycle_key(self) -> None:
        """Replace the ticket; see ``cycle_key``."""
        self.rotate(grace_period=False)


class NullRequestSession(NullSession, RequestSession):
    """The session of a request that continues although the store failed."""

    def flush(self) -> None:
        """Raise ``StoreUnavailable``: the session would not end."""
        self.destroy()

    async def aflush(self) -> None:
        """Raise ``StoreUnavailable``: the session would not end."""
        self.destroy()

    async def acreate(self) -> None:
        """Raise ``StoreUnavailable``: nothing can be saved."""
        await self.acommit()

    async def asave(self, must_create: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - Django's signature
        """Raise ``StoreUnavailable``: nothing can be saved."""
        await self.acommit()
