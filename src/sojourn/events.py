"""Events: one frozen class for each kind, and the dispatcher that counts them and calls listeners.

An event names the session ID, never the ticket or the verifier (law A18).
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from sojourn.errors import ConfigurationError

logger: logging.Logger = logging.getLogger("sojourn")


class Event(msgspec.Struct, frozen=True):
    """Something that happened to a session.

    Attributes:
        session_id: the public ID, 32 hex digits; empty if no single session is concerned.
    """

    session_id: str


class Created(Event, frozen=True):
    """A record was created; its cookie is sent with this response."""


class Read(Event, frozen=True):
    """A record was loaded for a request or a message.

    Attributes:
        version: of the record.
    """

    version: int


class Written(Event, frozen=True):
    """Changes were saved.

    Attributes:
        version: of the new record.
    """

    version: int


class Touched(Event, frozen=True):
    """The idle time of a record was extended without a change of its data."""


class Authenticated(Event, frozen=True):
    """A user logged in; the session has a new verifier and the previous ticket is invalid.

    Attributes:
        user: as given to ``session.login``.
        methods: as given to ``session.login``.
    """

    user: str
    methods: tuple[str, ...]


class Rotated(Event, frozen=True):
    """The session has a new verifier; the previous one stays valid for a grace period."""


class Reused(Event, frozen=True):
    """A previous ticket was used after its grace period, which indicates theft."""


class Revoked(Event, frozen=True):
    """A session was destroyed by its visitor or revoked; ``session_id`` is empty for all sessions.

    Attributes:
        reason: such as ``destroyed``, ``limit``, or the text given to ``revoke``.
        actor: who revoked it, as the application named them; None if not given.
        instant: milliseconds since 1970 UTC: when the session was revoked. With an empty
            ``session_id``, every session that was created before this instant is revoked.
    """

    reason: str
    actor: str | None = None
    instant: int = 0


class Expired(Event, frozen=True):
    """A session was loaded after one of its limits and was removed.

    Attributes:
        limit: ``idle``, ``absolute`` or ``unconfirmed``.
    """

    limit: str


class Rejected(Event, frozen=True):
    """A ticket was rejected; ``session_id`` is empty if it could not be unsealed.

    Attributes:
        reason: such as ``forged``, ``malformed``, ``unknown``, ``revoked`` or ``replaced``.
    """

    reason: str


class Conflicted(Event, frozen=True):
    """A commit met newer records and replayed its operations.

    Attributes:
        attempts: the number of newer records.
    """

    attempts: int


class StoreFailed(Event, frozen=True):
    """A store call failed.

    Attributes:
        operation: such as ``load`` or ``save``.
        error: the text of the error.
    """

    operation: str
    error: str


E = TypeVar("E", bound=Event)

#: Every event class: those above.
KINDS: Final[frozenset[type[Event]]] = frozenset(
    kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
)


class Dispatcher:
    """Counts events by class and calls their listeners.

    Attributes:
        counts: how often each event occurred in this process; see ``sessions.usage()``.
        listeners: by event class. Check it before building an event of the ordinary request.
    """

    __slots__ = ("__weakref__", "_lock", "counts", "listeners")

    def __init__(self) -> None:
        self.after_fork()
        self.counts: dict[type[Event], int] = dict.fromkeys(KINDS, 0)
        self.listeners: dict[type[Event], tuple[Callable[[Any], object], ...]] = {}

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent process may have held."""
        self._lock = threading.Lock()  # makes a change of the listeners atomic

    def on(self, kind: type[E], listener: Callable[[E], object]) -> None:
        """Call ``listener`` with each event of exactly this class, in order of registration.

        Listeners are plain functions and are called synchronously. An exception of a listener is
        logged and changes nothing (security.md B-34).

        Raises:
            ConfigurationError: ``kind`` is not an event class, or ``listener`` is not a plain
                function.
        """
        given_kind: object = kind  # callers without a type checker may pass anything
        if not isinstance(given_kind, type) or given_kind not in KINDS:
            raise ConfigurationError(
                f"sessions.on expects an event class such as sojourn.Revoked, found {kind!r}"
            )
        given_listener: object = listener
        if inspect.iscoroutinefunction(given_listener) or not callable(given_listener):
            raise ConfigurationError(
                f"sessions.on expects a plain function, found {listener!r}; start asynchronous "
                "work from it with asyncio.get_running_loop().create_task(...)"
            )
        with self._lock:
            self.listeners[kind] = (*self.listeners.get(kind, ()), listener)

    def off(self, kind: type[E], listener: Callable[[E], object]) -> None:
        """Stop calling a listener that ``on`` has registered. Idempotent."""
        with self._lock:
            kept = tuple(each for each in self.listeners.get(kind, ()) if each != listener)
            if kept:
                self.listeners[kind] = kept
            else:  # the ordinary request checks whether there is an entry
                self.listeners.pop(kind, None)

    def emit(self, event: Event, *, times: int = 1) -> None:
        """Count an event and call its listeners.

        Args:
            event: of one of ``KINDS``.
            times: added to the count of its class.
        """
        kind = type(event)
        self.counts[kind] += times
        for listener in self.listeners.get(kind, ()):
            try:
                listener(event)
            except Exception:
                logger.exception("a listener for %s failed", kind.__name__)
