"""Events: one frozen class for each kind, and the dispatcher that counts them and calls listeners.

An event names the session ID, never the ticket or the verifier (law A18).
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sojourn.errors import ConfigurationError

logger: logging.Logger = logging.getLogger("sojourn")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a session.

    Attributes:
        session_id: the public ID, 32 hex digits; empty if no single session is concerned.
    """

    session_id: str


@dataclass(frozen=True, slots=True)
class Created(Event):
    """A record was created; its cookie is sent with this response."""


@dataclass(frozen=True, slots=True)
class Read(Event):
    """A record was loaded for a request or a message.

    Attributes:
        version: of the record.
    """

    version: int


@dataclass(frozen=True, slots=True)
class Written(Event):
    """Changes were saved.

    Attributes:
        version: of the new record.
    """

    version: int


@dataclass(frozen=True, slots=True)
class Touched(Event):
    """The idle time of a record was extended without a change of its data."""


@dataclass(frozen=True, slots=True)
class Authenticated(Event):
    """A user logged in; the session has a new verifier and the previous ticket is invalid.

    Attributes:
        user: as given to ``session.login``.
        methods: as given to ``session.login``.
    """

    user: str
    methods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rotated(Event):
    """The session has a new verifier; the previous one stays valid for a grace period."""


@dataclass(frozen=True, slots=True)
class Reused(Event):
    """A previous ticket was used after its grace period, which indicates theft."""


@dataclass(frozen=True, slots=True)
class Revoked(Event):
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


@dataclass(frozen=True, slots=True)
class Expired(Event):
    """A session was loaded after one of its limits and was removed.

    Attributes:
        limit: ``idle``, ``absolute`` or ``unconfirmed``.
    """

    limit: str


@dataclass(frozen=True, slots=True)
class Rejected(Event):
    """A ticket was rejected; ``session_id`` is empty if it could not be unsealed.

    Attributes:
        reason: such as ``forged``, ``unknown``, ``revoked`` or ``replaced``.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Conflicted(Event):
    """A commit met newer records and replayed its operations.

    Attributes:
        attempts: the number of newer records.
    """

    attempts: int


@dataclass(frozen=True, slots=True)
class StoreFailed(Event):
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

    __slots__ = ("counts", "listeners")

    def __init__(self) -> None:
        self.counts: dict[type[Event], int] = dict.fromkeys(KINDS, 0)
        self.listeners: dict[type[Event], tuple[Callable[[Any], object], ...]] = {}

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
        self.listeners[kind] = (*self.listeners.get(kind, ()), listener)

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
