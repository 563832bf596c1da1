"""The sessions of Flask and Quart: ``sojourn.Session`` with the members of ``SessionMixin``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn
from uuid import UUID

import msgspec
from flask.sessions import NullSession as NullSessionOfFlask
from flask.sessions import SessionMixin

from sojourn._core.login import Login
from sojourn.session import NullSession, Session
from sojourn.web.remembered_logins import Restoration

#: The keys in which Flask stores flashed messages, and whether the session is permanent.
FLASHES: Final = "_flashes"
PERMANENT: Final = "_permanent"

#: The method of a login that was restored from a cookie of "remember me".
REMEMBER_TOKEN: Final = "remember_token"  # noqa: S105 - a name, not a secret


class FlaskSession(Session[Any], SessionMixin):  # type: ignore[override] # of plain attributes
    """The session as ``flask.session`` and ``quart.session``.

    Attributes:
        loaded_version: of the record when the request began; 0 if there was none, None if unknown.
    """

    __slots__ = ("loaded_version",)

    loaded_version: int | None

    @property
    def accessed(self) -> bool:
        """Whether the session was accessed, so that the response needs cache headers (law A13).

        Assigning it has no effect. Flask 3.1.3 and Quart 0.23 assign it where they hand out the
        session; Quart does so for every response.
        """
        return self._copy.accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        """Accept what the framework assigns."""

    @property
    def modified(self) -> bool:
        """Whether this request changed the session, nested changes included.

        Assigning it has no effect: changes are found without it.
        """
        copy, loaded = self._copy, getattr(self, "loaded_version", None)
        written = copy.record is not None and loaded not in (None, copy.record.version)
        return written or copy.modified()

    @modified.setter
    def modified(self, value: bool) -> None:
        """Accept what code for Flask's own sessions assigns after a nested change."""

    def lifecycle(self) -> object:
        """Return the lifecycle of the session's request; None if it has ended."""
        return self._copy.client

    def store_version(self) -> None:
        """Store the version of the record, which ``modified`` compares with."""
        record = self._copy.record
        self.loaded_version = 0 if record is None else record.version

    @property
    def permanent(self) -> bool:
        """Whether the session outlives the browser, with the limits of ``remember_timeout``.

        ``PERMANENT_SESSION_LIFETIME`` sets them.
        """
        return bool(self.get(PERMANENT, False)) or self._copy.persistent()

    @permanent.setter
    def permanent(self, value: bool) -> None:
        permanent = bool(value)
        if self.get(PERMANENT, False) is not permanent:
            self[PERMANENT] = permanent
        self._copy.set_persistence(permanent)

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a key and return its value; flashed messages as the tuples that Flask stores.

        Raises:
            KeyError: there is no such key, and no default is given.
        """
        value = super().pop(key, *default)
        return [tuple(each) for each in value] if key == FLASHES and value else value

    def login(
        self,
        user: str | int | UUID,
        *,
        methods: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        remember: bool = False,
    ) -> None:
        """Bind the session to a user; see ``Session.login``. A permanent session stays one."""
        permanent = remember or self.permanent is True
        super().login(user, methods=methods, labels=labels, remember=permanent)

    def restore_login(self, user: str | int | UUID, restoration: Restoration | None = None) -> None:
        """Bind the session to a user who has not proved their identity in this request.

        The login does not count as recent (NIST SP 800-63B-4 SESS-05).

        Args:
            user: the application's own identifier.
            restoration: of the cookie that names the user; None if there is none.

        Raises:
            SessionGone: the session has ended during this request.
            ResponseStarted: the response has started, so the cookie cannot be sent.
        """
        methods = () if restoration is None else (REMEMBER_TOKEN,)
        self.login(user, methods=methods)
        renewal = self._copy.renewal
        if isinstance(renewal, Login):
            at, checked_at = renewal.at, 0
            if restoration is not None:
                at, checked_at = restoration.authenticated_at, restoration.checked_at
            self._copy.renewal = msgspec.structs.replace(
                renewal, at=at, restored=True, checked_at=checked_at
            )

    def confirm_login(self) -> None:
        """Log the present user in again, who has just proved their identity.

        Raises:
            SessionGone: the session has ended during this request.
            ResponseStarted: the response has started, so the cookie cannot be sent.
        """
        user = self.user
        if user is not None:
            methods = [method for method in self.methods if method != REMEMBER_TOKEN]
            self.login(user, methods=methods, labels={**self.labels, **self._copy.labels()})

    def set_refusal(self, reason: str) -> None:
        """Store why a remembered login is refused, for ``ended_reason``."""
        if self._copy.ended_reason is None:
            self._copy.ended_reason = reason


class FlaskNullSession(NullSession, FlaskSession):  # type: ignore[override] # both bases define the verbs
    """The session of a request that continues although the store failed."""

    __slots__ = ()

    def login(self, *_: Any, **__: Any) -> None:
        """Raise ``StoreUnavailable``: the login would not be stored."""
        NullSession.login(self)


class UnloadedSession(NullSessionOfFlask):
    """The session of a request that has none: empty, and refuses to be changed.

    Its path is left out by ``include`` or ``exclude``, or its view does not request a session and
    ``autoload`` is False, or it was refused because of its origin. It has no user; the verbs of
    ``Session`` raise ``RuntimeError``.
    """

    user: str | None = None
    methods: tuple[str, ...] = ()
    authenticated_at: datetime | None = None
    remembered: bool = False
    ended_reason: str | None = None

    def flashes(self) -> list[tuple[str, str]]:
        """Return no messages."""
        return []

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise RuntimeError(
            "this request has no session: its path is left out by include= or exclude=, or "
            "autoload=False and its view is not decorated with @sessions.route, or it was refused "
            "because of its origin"
        )

    if not TYPE_CHECKING:  # type checkers use the names and types of the base class
        __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = update = setdefault = _refuse

        def __getattr__(self, name: str) -> Any:
            """Refuse the verbs of ``Session``; an access to another name is an error as usual."""
            if name.startswith("_") or not hasattr(Session, name):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return self._refuse if callable(getattr(Session, name)) else self._refuse()
