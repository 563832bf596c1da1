"""What a request proves: its session, and whether a password hash changed or only its secret."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final
from weakref import ref

from asgiref.sync import SyncToAsync
from django.contrib.auth import BACKEND_SESSION_KEY, SESSION_KEY, load_backend
from django.utils.crypto import constant_time_compare

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


def is_from_fallback_secret(session: Mapping[str, Any], previous_hash: str) -> bool:
    """Return whether a session's hash was made with one of SECRET_KEY_FALLBACKS.

    Django replaces such a hash at the next request, though the user's password is the same.

    Args:
        session: of the user who is logged in.
        previous_hash: the session's hash of the password.
    """
    user = load_backend(session[BACKEND_SESSION_KEY]).get_user(session[SESSION_KEY])
    fallback_hashes: Iterable[str] = getattr(user, "get_session_auth_fallback_hash", tuple)()
    return any(constant_time_compare(previous_hash, each) for each in fallback_hashes)
