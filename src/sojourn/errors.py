"""The exceptions of sojourn, in one tree.

A missing, unknown, expired or forged ticket is not an error: the session is empty, and a
``Rejected`` event is emitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

_ANY_STORE_HINT: Final = (
    "Expected None, bool, int, float, str, bytes, list, tuple, dict, set, frozenset, datetime, "
    "date, time, timedelta, UUID or Decimal, exactly these types. Convert the value first "
    "(dict(...), str(...), list(...)) or describe it with state=."
)


#: Characters of a key in a message: the key itself may be what is too large.
_MAX_SHOWN_KEY: Final = 80


class SojournError(Exception):
    """Base class of all exceptions that sojourn raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy the text and the attributes, because ``__init__`` takes other arguments.

        A process pool and a task queue send an exception to another process in this way.
        """
        return _restore, (type(self), self.args), self.__dict__


def _restore(kind: type[SojournError], args: tuple[Any, ...]) -> SojournError:
    error = kind.__new__(kind)
    error.args = args
    return error


class ConfigurationError(SojournError):
    """The configuration is invalid. Raised while the application is built."""


class SessionError(SojournError):
    """A session cannot do what the handler requested."""


class NotSerializable(SessionError, TypeError):
    """A value cannot be stored in a session. Raised at the assignment; nothing was changed.

    Raised at the commit if the value was put inside a list or dict that the session had returned.

    Attributes:
        key: the session key.
        path: the place inside the value, such as ``['apple'][3]``; empty for the value itself.
        type: the unsupported type.
    """

    def __init__(
        self, key: str, path: str, type_: type, detail: str = "", *, hint: str = ""
    ) -> None:
        self.key = key
        self.path = path
        self.type = type_
        super().__init__(
            f"session[{key!r}]{path} cannot hold "
            f"{detail or f'a value of type {type_.__qualname__}'}. {hint or _ANY_STORE_HINT}"
        )


class InvalidState(SessionError, ValueError):
    """A value that was assigned to or stored in a field of the typed state has the wrong type.

    Attributes:
        field: the field's name.
        found: the type of the value.
    """

    def __init__(self, field: str, found: type, detail: str) -> None:
        self.field = field
        self.found = found
        super().__init__(f"session.state.{field}: {detail} (found {found.__qualname__})")


class SessionTooLarge(SessionError):
    """The session exceeds ``max_bytes``. Nothing was written.

    Attributes:
        size, limit: bytes.
        largest: up to three keys with the sizes of key and value in bytes, largest first.
    """

    def __init__(self, size: int, limit: int, largest: Sequence[tuple[str, int]]) -> None:
        self.size = size
        self.limit = limit
        self.largest: tuple[tuple[str, int], ...] = tuple(largest)
        keys = ", ".join(f"{key[:_MAX_SHOWN_KEY]!r} ({size} bytes)" for key, size in self.largest)
        super().__init__(
            f"the session takes {size} bytes, more than max_bytes={limit}; nothing was written. "
            f"Its largest keys: {keys}. Store large values in a database and their IDs in the "
            "session, or raise max_bytes."
        )


class SessionGone(SessionError):
    """The session of an explicit commit, refresh or claim has ended. Nothing was written.

    Attributes:
        session_id: 32 hex digits.
    """

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        super().__init__(
            f"session {session_id} has ended (destroyed, revoked or expired): nothing was "
            "written. Stop, or respond as to a visitor without a session."
        )


class SessionConflict(SessionError):
    """A commit gave up after too many concurrent writes, or a lease expired.

    Attributes:
        session_id: 32 hex digits.
        attempts: the number of saves that were tried. Nothing was written.
    """

    def __init__(self, session_id: str, attempts: int, detail: str = "") -> None:
        self.session_id = session_id
        self.attempts = attempts
        super().__init__(
            detail
            or f"session {session_id} was changed by other requests {attempts} times during this "
            "commit; nothing was written. Try again, or use session.exclusive()."
        )


class CommitOutcomeUnknown(SessionConflict):
    """A commit was interrupted, and more than four later commits hide whether it was applied.

    The changes of the interrupted commit are dropped from the session; later ones are kept. Read
    the session again and decide.

    Attributes:
        keys: the session keys that the interrupted commit changed.
    """

    def __init__(self, session_id: str, keys: Sequence[str]) -> None:
        self.keys: tuple[str, ...] = tuple(keys)
        super().__init__(
            session_id,
            1,
            f"a commit of session {session_id} was cancelled or timed out, and other requests have "
            "committed more than four times since, so it is unknown whether its changes of "
            f"{', '.join(map(repr, self.keys)) or 'the login or the verifier'} were written. Call "
            "session.refresh(), compare, and make the changes again if they are missing.",
        )


class ExclusiveTimeout(SessionError, TimeoutError):
    """``session.exclusive()`` could not acquire the lease in time. Nothing was written.

    Attributes:
        session_id: 32 hex digits.
        waited: seconds.
    """

    def __init__(self, session_id: str, waited: float) -> None:
        self.session_id = session_id
        self.waited = waited
        super().__init__(
            f"another holder had the lease of session {session_id} for {waited:g} seconds. Try "
            "again, or allow a longer wait: session.exclusive(wait=...)."
        )


class SessionRequired(SessionError):
    """The visitor has no session, and ``session.require_existing()`` demands one.

    Uncaught, it is 401 over HTTP, and closes a WebSocket with ``close_code``.

    Attributes:
        reason: why the session that the visitor had before ended, if that is known; otherwise
            "session required", or "login required" for ``LoginRequired``.
    """

    _requirement = "session required"

    def __init__(self, ended_reason: str | None = None) -> None:
        self.reason: str = ended_reason or self._requirement
        super().__init__(
            f"{self._requirement}: expected a visitor with one, found none"
            + (f"; the previous session ended: {ended_reason}" if ended_reason else "")
        )


class LoginRequired(SessionRequired):
    """No user is logged in, and ``session.require_user()`` demands one."""

    _requirement = "login required"


class RecentAuthRequired(SessionError):
    """A recent login is required: have the visitor authenticate, then try again.

    Attributes:
        age: seconds since the login; None without a login, or if the session is alive only because
            of ``remember=True``.
        limit: the greatest age that is accepted, in seconds.
        missing: the required methods that the login did not use.
    """

    def __init__(self, age: float | None, limit: float, missing: Sequence[str] = ()) -> None:
        self.age = age
        self.limit = limit
        self.missing: tuple[str, ...] = tuple(missing)
        found = "none that counts" if age is None else f"one {age:.0f} seconds ago"
        lacking = f", and by {', '.join(missing)}" if missing else ""
        super().__init__(
            f"expected a login within {limit:.0f} seconds{lacking}, found {found}; have the "
            "visitor log in again, and call session.login()"
        )


class LimitReached(SessionError):
    """The user has ``max_sessions`` sessions, and ``on_limit="refuse"`` is set.

    Attributes:
        limit: the value of ``max_sessions``.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"expected fewer than {limit} sessions of this user, found {limit}; the login was "
            "refused. Have the visitor end one of them first (sessions.list_user, sessions.revoke)"
        )


class ResponseStarted(SessionError):
    """A session cannot be created after the response has started: the cookie cannot be sent."""

    def __init__(self) -> None:
        super().__init__(
            "a session cannot be created after the response (or the socket) has started, because "
            "its cookie is sent in the headers. Write to the session before the first byte, or "
            "before websocket.accept()."
        )


class StoreError(SojournError):
    """The store failed and an operator must act. ``__cause__`` is the client's error.

    Attributes:
        application_error: what a function of the application raised (``CallbackStore``), also the
            ``__cause__``; log lines show its traceback. None if a server failed.
    """

    application_error: Exception | None = None


class StoreUnavailable(StoreError):
    """The store refused, timed out or is down. No write is partial; try again later."""


class RevocationIncomplete(StoreUnavailable):
    """The store failed during a revocation, so some of it was not done. Revoke again.

    ``__cause__`` is the store's error.

    Attributes:
        revoked: public IDs of the sessions that have ended; their connections are closed.
        remaining: public IDs of the sessions that may still be valid; None if unknown.
        cutoff_set: logins that began before the revocation are rejected.
    """

    def __init__(
        self, revoked: Sequence[str], remaining: Sequence[str] | None, *, cutoff_set: bool
    ) -> None:
        self.revoked: tuple[str, ...] = tuple(revoked)
        self.remaining: tuple[str, ...] | None = None if remaining is None else tuple(remaining)
        self.cutoff_set = cutoff_set
        left = "an unknown number of" if remaining is None else len(remaining)
        logins = "are rejected" if cutoff_set else "may succeed"
        super().__init__(
            f"the store failed during a revocation: {len(revoked)} sessions were revoked, {left} "
            f"sessions may be valid, and logins that were in progress {logins}. Revoke again once "
            "the store answers"
        )


class InsecureTransport(SojournError):
    """Unencrypted http to another machine, where a session could be read in transit."""
