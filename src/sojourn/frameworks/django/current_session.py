"""The session of the request that this thread or task serves, for receivers of signals."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final
from weakref import ref

from asgiref.sync import SyncToAsync

from sojourn._core.concurrency import running_loop
from sojourn.session import Session

#: The session of the request that this thread or task serves; None outside of requests. Weak: a
#: session that a test or a command has dropped makes no change of a password.
current_session: Final[ContextVar[ref[Session[Any]] | None]] = ContextVar(
    "sojourn_django_session", default=None
)

#: Whether this thread or task serves a request, as far as signals and middleware show.
in_request: Final[ContextVar[bool]] = ContextVar("sojourn_django_in_request", default=False)


def get_current_session() -> Session[Any] | None:
    """Return the session of the request that this thread or task serves; None outside of one."""
    reference = current_session.get()
    return None if reference is None else reference()


def serves_visitors() -> bool:
    """Return whether this code may act on what a visitor has sent.

    True in a request, under an event loop, and in a thread that an event loop waits for: Channels
    and other ASGI applications read cookies there before a request of Django begins. False in
    commands, shells, workers of task queues and synchronous tests.
    """
    if in_request.get() or running_loop() is not None:
        return True
    loop = getattr(SyncToAsync.threadlocal, "main_event_loop", None)
    return loop is not None and bool(loop.is_running())
