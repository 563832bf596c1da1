"""What happens to sessions, as typed events, and the dispatcher that hands them to listeners.

What lives here: one frozen class for each kind of event, and ``Dispatcher``. What must not: any
secret; an event names the session ID, never the ticket or the verifier (law A18).

Listeners are plain functions, called at once and in the order they were registered. One that
raises is logged and changes nothing (security.md B-34). Read next: ``_core/engine.py``.
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
    """Something that happened to a session. ``session_id`` is its public 32-digit ID."""

    session_id: str


@dataclass(frozen=True, slots=True)
class Created(Event):
    """A record was created and its cookie is about to be sent."""


@dataclass(frozen=True, slots=True)
class Read(Event):
    """A record was loaded for a request or a message. ``version`` is the record's."""

    version: int


@dataclass(frozen=True, slots=True)
class Written(Event):
    """Changes were saved. ``version`` is the record's new one."""

    version: int


@dataclass(frozen=True, slots=True)
class Authenticated(Event):
    """Somebody logged in: the session has a new ticket, and the one from before is dead."""

    user: str
    methods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rotated(Event):
    """The session has a new ticket; the former one is good for a few seconds more."""


@dataclass(frozen=True, slots=True)
class Reused(Event):
    """A ticket that a rotation had replaced was used again: the sign of a stolen one."""


@dataclass(frozen=True, slots=True)
class Revoked(Event):
    """A session was ended on purpose, by its own visitor (``destroy``) or by somebody else.

    ``session_id`` is empty where every session was ended at once. ``actor`` is who gave the order,
    as the application named them.
    """

    reason: str
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class Expired(Event):
    """A session was met after its idle, absolute or unconfirmed limit and is removed."""

    limit: str


@dataclass(frozen=True, slots=True)
class Rejected(Event):
    """A ticket opened nothing. ``session_id`` is empty where it could not be unsealed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Conflicted(Event):
    """A commit met newer records and replayed its operations ``attempts`` times."""

    attempts: int


@dataclass(frozen=True, slots=True)
class StoreFailed(Event):
    """A store call failed. ``session_id`` is empty where none was concerned."""

    operation: str
    error: str


E = TypeVar("E", bound=Event)

#: Every kind of event there is.
KINDS: Final = frozenset(
    {
        Authenticated,
        Conflicted,
        Created,
        Expired,
        Read,
        Rejected,
        Reused,
        Revoked,
        Rotated,
        StoreFailed,
        Written,
    }
)


class Dispatcher:
    """Hands events to those who asked for them; costs one dictionary look-up where nobody did.

    Attributes:
        listeners: by kind; look here before building an event that most requests would cost.
    """

    __slots__ = ("listeners",)

    def __init__(self) -> None:
        self.listeners: dict[type[Event], tuple[Callable[[Any], object], ...]] = {}

    def on(self, kind: type[E], listener: Callable[[E], object]) -> None:
        """Call ``listener`` with each event of exactly this kind.

        Raises:
            ConfigurationError: ``kind`` is no event, or ``listener`` is no plain function.
        """
        asked: object = kind  # what a caller without a type checker may pass
        if not isinstance(asked, type) or asked not in KINDS:
            raise ConfigurationError(
                f"sessions.on expects an event class such as sojourn.Revoked, found {kind!r}"
            )
        plain: object = listener  # what a caller without a type checker may pass
        if inspect.iscoroutinefunction(plain) or not callable(plain):
            raise ConfigurationError(
                f"sessions.on expects a plain function, found {listener!r}; start asynchronous "
                "work from it with asyncio.get_running_loop().create_task(...)"
            )
        self.listeners[kind] = (*self.listeners.get(kind, ()), listener)

    def emit(self, event: Event) -> None:
        """Call the listeners of the event's kind; log and swallow what they raise."""
        for listener in self.listeners.get(type(event), ()):
            try:
                listener(event)
            except Exception:
                logger.exception("a listener for %s failed", type(event).__name__)
