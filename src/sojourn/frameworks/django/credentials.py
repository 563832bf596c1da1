"""Password changes: end the other sessions of the user, and keep the one that made the change."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final

from django.contrib.auth import BACKEND_SESSION_KEY, SESSION_KEY, load_backend
from django.utils.crypto import constant_time_compare

from sojourn.session import Session

#: The session of the request that this thread or task serves; None outside of requests.
current_session: Final[ContextVar[Session[Any] | None]] = ContextVar(
    "sojourn_django_session", default=None
)


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
