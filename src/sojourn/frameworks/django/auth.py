"""Receivers of Django's signals: logins bind users to sessions, password changes end sessions."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in
from django.core.signals import request_finished, request_started
from django.db import transaction
from django.db.models.signals import post_save
from django.http import HttpRequest

from sojourn.frameworks.django.credentials import current_session
from sojourn.frameworks.django.session_store import SessionStore
from sojourn.frameworks.django.settings import get_sessions, is_installed
from sojourn.web.asgi_scope import client_labels


def connect() -> None:
    """Connect the receivers; once, however often it is called."""
    user_logged_in.connect(_bind_user, dispatch_uid="sojourn.login")
    post_save.connect(_end_other_sessions, dispatch_uid="sojourn.password")
    request_started.connect(_forget_session, dispatch_uid="sojourn.request_started")
    request_finished.connect(_forget_session, dispatch_uid="sojourn.request_finished")


def _bind_user(*, request: HttpRequest | None, user: Any, **_: object) -> None:
    """Bind the user to the session, which gets a new ticket."""
    if request is None:  # a consumer of Channels
        session: object = current_session.get()
        labels = None
    else:
        session = getattr(request, "session", None)
        labels = client_labels(request.META.get("REMOTE_ADDR"), request.META.get("HTTP_USER_AGENT"))
    if isinstance(session, SessionStore):
        session.login(str(user.pk), labels=labels)


def _end_other_sessions(*, instance: Any, created: bool, using: str | None, **_: object) -> None:
    """End the user's other sessions after a change of the password, wherever it was made."""
    # Django keeps the text of a new password until it is saved, for its validators, and removes it
    # before it saves an upgraded hash of the same password.
    if created or getattr(instance, "_password", None) is None or not is_installed():
        return
    if not isinstance(instance, get_user_model()):
        return
    user = str(instance.pk)

    def end() -> None:
        session = current_session.get()
        keep = session if session is not None and session.user == user else None
        get_sessions().credentials_changed(user, keep=keep)

    end()
    if transaction.get_connection(using).in_atomic_block:
        # Until the commit, the previous password still opens sessions.
        transaction.on_commit(end, using=using)


def _forget_session(**_: object) -> None:
    """Forget the session of a request that has ended; threads serve many."""
    current_session.set(None)
