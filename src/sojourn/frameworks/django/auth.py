"""Receivers of Django's signals: logins bind users to sessions, password changes end sessions."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from typing import Any
from weakref import ref

from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.auth.signals import user_logged_in
from django.core.signals import request_finished, request_started
from django.db import transaction
from django.db.models.signals import post_save
from django.http import HttpRequest

from sojourn.frameworks.django.credentials import (
    current_session,
    get_current_session,
    in_request,
)
from sojourn.frameworks.django.session_store import SessionStore
from sojourn.frameworks.django.settings import get_sessions, is_installed
from sojourn.web.asgi_scope import client_labels


def connect() -> None:
    """Connect the receivers; once, however often it is called."""
    user_logged_in.connect(_bind_user, dispatch_uid="sojourn.login")
    post_save.connect(_end_other_sessions, dispatch_uid="sojourn.password")
    request_started.connect(_begin_request, dispatch_uid="sojourn.request_started")
    request_finished.connect(_end_request, dispatch_uid="sojourn.request_finished")


def _bind_user(*, request: HttpRequest | None, user: Any, **_: object) -> None:
    """Bind the user to the session, which gets a new ticket.

    Packages that issue tokens send the signal, too, and their clients have no session: only
    ``django.contrib.auth.login`` and that of Channels store the user in it before.
    """
    if request is None:  # a consumer of Channels
        session: object = get_current_session()
        labels = None
    else:
        session = getattr(request, "session", None)
        labels = client_labels(request.META.get("REMOTE_ADDR"), request.META.get("HTTP_USER_AGENT"))
    if not isinstance(session, SessionStore):
        return
    if session.get(SESSION_KEY) == user._meta.pk.value_to_string(user):  # noqa: SLF001 - Django documents it
        current_session.set(ref(session))
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
        session = get_current_session()
        keep = session if session is not None and session.user == user else None
        get_sessions().credentials_changed(user, keep=keep)

    end()
    if transaction.get_connection(using).in_atomic_block:
        # Until the commit, the previous password still opens sessions.
        transaction.on_commit(end, using=using)


def _begin_request(**_: object) -> None:
    """Note that this thread serves a request; under ASGI the signal runs in another context."""
    current_session.set(None)
    in_request.set(True)


def _end_request(**_: object) -> None:
    """Forget the session of a request that has ended; threads serve many."""
    current_session.set(None)
    in_request.set(False)
