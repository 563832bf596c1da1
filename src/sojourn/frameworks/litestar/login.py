"""Follows the logins of applications that store their user under a key of the session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sojourn._core.working_copy import WorkingCopy
from sojourn.session import Session


def follow_login(session: Session[Any], copy: WorkingCopy, key: str) -> None:
    """Log in or out if the request has changed the user under a key of its session.

    A changed user is a login (law A9). A removed one is a logout: the session is destroyed, and the
    other keys begin a new one. Without a change the session is left as it is, so that applications
    may call ``session.login`` with another name.

    Args:
        session: of the request.
        copy: its working copy.
        key: under which the application stores its user.
    """
    changes = copy.changes
    state = None if changes is None else changes.states.get(key)
    if changes is None or state is None or not (state.log or changes.cleared):
        return
    user = _user(session.get(key))
    if user is not None:
        _log_in(session, user)
    elif session.user is not None:
        remaining = {name: value for name, value in session.copy().items() if name != key}
        session.destroy()
        session.update(remaining)


def follow_replacement(session: Session[Any], replacement: Mapping[str, Any], key: str) -> None:
    """Log in or out if a session is about to hold another user.

    Args:
        session: of the request.
        replacement: what it is about to hold.
        key: under which the application stores its user.
    """
    if replacement.get(key) == session.get(key):
        return
    user = _user(replacement.get(key))
    if user is not None:
        _log_in(session, user)
    elif session.user is not None:
        session.destroy()


def _log_in(session: Session[Any], user: str) -> None:
    if user != session.user:
        session.login(user)


def _user(value: object) -> str | None:
    """Return a user for ``session.login``; None if the value is none."""
    known = isinstance(value, str | int | UUID) and not isinstance(value, bool)
    return (str(value) or None) if known else None
