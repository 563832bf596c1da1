"""Every error that sojourn raises, in one tree.

What lives here: exception classes with the attributes a program needs to react, nothing else.
What must not: decisions about when to raise. A message says what was expected, what was found and
what to do; it never carries a ticket, a verifier or a secret (law A18).

A missing, unknown, expired or forged ticket is not an error: it is an empty session and a
``Rejected`` event. Read next: ``events.py``.
"""

from __future__ import annotations

from collections.abc import Sequence


class SojournError(Exception):
    """Anything that sojourn raises on purpose."""


class ConfigurationError(SojournError):
    """The set-up cannot work: the developer must change it. Raised while the app is built."""


class SessionError(SojournError):
    """A handler asked something of its session that cannot be done."""


class NotSerializable(SessionError, TypeError):
    """A value cannot be kept in a session. Raised at the assignment, nothing was changed.

    Attributes:
        key: the session key.
        path: where inside it, such as ``['apple'][3]``; empty for the value itself.
        type: the offending type.
    """

    def __init__(self, key: str, path: str, type_: type, detail: str = "") -> None:
        self.key = key
        self.path = path
        self.type = type_
        super().__init__(
            f"session[{key!r}]{path} cannot hold "
            f"{detail or f'a value of type {type_.__qualname__}'}. "
            "Expected None, bool, int, float, str, bytes, list, tuple, dict, set, frozenset, "
            "datetime, date, time, timedelta, UUID or Decimal, exactly these types. Convert the "
            "value first (dict(...), str(...), list(...)) or describe it with state=."
        )


class InvalidState(SessionError, ValueError):
    """A field of the typed state was given, or holds, a value of another type.

    Attributes:
        field: the field's name.
        found: the type of what was found.
    """

    def __init__(self, field: str, found: type, detail: str) -> None:
        self.field = field
        self.found = found
        super().__init__(f"session.state.{field}: {detail} (found {found.__qualname__})")


class SessionTooLarge(SessionError):
    """The session exceeds ``max_bytes``. Nothing was written.

    Attributes:
        size, limit: bytes.
        largest: up to three keys with their sizes in bytes, largest first.
    """

    def __init__(self, size: int, limit: int, largest: Sequence[tuple[str, int]]) -> None:
        self.size = size
        self.limit = limit
        self.largest: tuple[tuple[str, int], ...] = tuple(largest)
        keys = ", ".join(f"{key!r} ({size} bytes)" for key, size in self.largest)
        super().__init__(
            f"the session takes {size} bytes, more than max_bytes={limit}; nothing was written. "
            f"Its largest keys: {keys}. Keep large things in a database and their IDs here, or "
            "raise max_bytes."
        )


class SessionGone(SessionError):
    """An explicit commit, refresh or claim met a session that has ended. Nothing was written."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        super().__init__(
            f"session {session_id} has ended (destroyed, revoked or expired): nothing was "
            "written. Stop, or answer as to a visitor without a session."
        )


class SessionConflict(SessionError):
    """Replaying on newer records was given up after a bounded number of tries, or a lease ran out.

    Attributes:
        session_id: which session.
        attempts: how often the save was tried. Nothing was written.
    """

    def __init__(self, session_id: str, attempts: int, detail: str = "") -> None:
        self.session_id = session_id
        self.attempts = attempts
        super().__init__(
            detail
            or f"session {session_id} was changed by others {attempts} times while this commit "
            "was tried; nothing was written. Try again, or use session.exclusive()."
        )


class ExclusiveTimeout(SessionError, TimeoutError):
    """``session.exclusive()`` did not get its turn in time. Nothing was locked or written."""

    def __init__(self, session_id: str, waited: float) -> None:
        self.session_id = session_id
        self.waited = waited
        super().__init__(
            f"session {session_id} was held by somebody else for {waited:g} seconds. Try again, "
            "or allow a longer wait: session.exclusive(wait=...)."
        )


class RecentAuthRequired(SessionError):
    """Something asks for a fresh login: have the visitor prove who they are, then try again.

    Attributes:
        age: seconds since the login; None if nobody has logged in, if the session lives on only
            because it is remembered, or if a method is missing.
        limit: seconds that were allowed.
        missing: the methods that were asked for and not used.
    """

    def __init__(self, age: float | None, limit: float, missing: Sequence[str] = ()) -> None:
        self.age = age
        self.limit = limit
        self.missing: tuple[str, ...] = tuple(missing)
        found = "none that counts" if age is None else f"one {age:.0f} seconds ago"
        lacking = f", and by {', '.join(missing)}" if missing else ""
        super().__init__(
            f"expected a login within {limit:.0f} seconds{lacking}, found {found}; have the "
            "visitor log in again, which is session.login() once more"
        )


class LimitReached(SessionError):
    """The user has as many sessions as are allowed, and ``on_limit="refuse"`` lets none go.

    Attributes:
        limit: how many that is.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"expected fewer than {limit} sessions of this user, found {limit}; nobody was logged "
            "in. Have the visitor end one of them first (sessions.list_user, sessions.revoke)"
        )


class ResponseStarted(SessionError):
    """A new session was asked for after the first byte: its cookie cannot be sent any more."""

    def __init__(self) -> None:
        super().__init__(
            "a new session cannot begin after the response (or the socket) has started, because "
            "its cookie travels in the headers. Write to the session before the first byte, or "
            "before websocket.accept()."
        )


class StoreError(SojournError):
    """The store failed; operations must act. ``__cause__`` is the client's error."""


class StoreUnavailable(StoreError):
    """The store refused, timed out or is down. Nothing was half-written; try again later."""


class InsecureTransport(SojournError):
    """Plain http to a host that is not this machine, where a session would travel readable."""
