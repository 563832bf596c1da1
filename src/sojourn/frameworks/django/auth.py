"""Receivers of Django's signals: logins bind users to sessions; changes of users end sessions."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from weakref import ref

from django.contrib.auth import SESSION_KEY, get_backends, get_user_model
from django.contrib.auth.hashers import is_password_usable
from django.contrib.auth.signals import user_logged_in
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_finished, request_started
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.signals import post_delete, post_save, pre_save
from django.http import HttpRequest

from sojourn.frameworks.django.current_session import (
    current_session,
    get_current_session,
    in_request,
)
from sojourn.frameworks.django.session_store import SessionStore
from sojourn.frameworks.django.settings import get_sessions, is_installed
from sojourn.web.asgi_scope import client_labels

#: The attribute of a user whose usable password is being replaced by an unusable one.
_REMOVAL_MARK: Final = "_sojourn_password_removed"

#: Identifies the receiver of logins.
_LOGIN: Final = "sojourn.login"


def connect() -> None:
    """Connect the receivers; once, however often it is called."""
    user_logged_in.connect(_bind_user, dispatch_uid=_LOGIN)
    # First, because others store `session_key`, which a login changes: django-axes does.
    user_logged_in.receivers.sort(key=lambda each: each[0][0] != _LOGIN)
    pre_save.connect(_record_removed_password, dispatch_uid="sojourn.removed_password")
    post_save.connect(_end_sessions, dispatch_uid="sojourn.password")
    post_delete.connect(_end_sessions_of_deleted, dispatch_uid="sojourn.deleted")
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
    if session.get(SESSION_KEY) == user._meta.pk.value_to_string(user):
        current_session.set(ref(session))
        session.login(str(user.pk), labels=labels)
        session.save_login()


def _record_removed_password(
    *, instance: Any, raw: bool, using: str | None, update_fields: Any, **_: object
) -> None:
    """Record that a usable password is about to become an unusable one.

    Users of single sign-on always have an unusable one, so the stored one decides.
    """
    if not _concerns_user(instance, raw=raw) or not _updates_field("password", update_fields):
        return
    vars(instance).pop(_REMOVAL_MARK, None)
    if instance.pk is None or instance.has_usable_password():
        return
    stored = QuerySet(type(instance), using=using).filter(pk=instance.pk)
    previous = stored.values_list("password", flat=True).first()
    if previous is not None and is_password_usable(previous):
        setattr(instance, _REMOVAL_MARK, True)


def _end_sessions(
    *, instance: Any, created: bool, raw: bool, using: str | None, update_fields: Any, **_: object
) -> None:
    """End sessions after a change of the password or a deactivation, wherever it was made."""
    if created or not _concerns_user(instance, raw=raw):
        return
    user = str(instance.pk)
    if (
        _updates_field("is_active", update_fields)
        and not getattr(instance, "is_active", True)
        and not any(_is_accepted_by(backend, instance.pk) for backend in get_backends())
    ):
        _now_and_at_commit(using, lambda: get_sessions().revoke_user(user, reason="disabled"))
        return
    # Django keeps the text of a new password until it is saved, for its validators, and removes it
    # before it saves an upgraded hash of the same password.
    changed = getattr(instance, "_password", None) is not None
    if vars(instance).pop(_REMOVAL_MARK, False) or changed:
        _now_and_at_commit(using, lambda: _end_other_sessions(user))


def _is_accepted_by(backend: Any, key: object) -> bool:
    """Return whether a backend accepts a user's session, as some do for inactive users.

    A backend for permissions alone has no ``get_user``.
    """
    get_user = getattr(backend, "get_user", None)
    return get_user is not None and get_user(key) is not None


def _end_sessions_of_deleted(*, instance: Any, using: str | None, **_: object) -> None:
    """End the sessions of a user who was deleted."""
    if _concerns_user(instance):
        user = str(instance.pk)
        _now_and_at_commit(using, lambda: get_sessions().revoke_user(user, reason="deleted"))


def _concerns_user(instance: Any, *, raw: bool = False) -> bool:
    """Return whether an instance is a user whose sessions are here; ``raw`` for fixtures."""
    if raw or not is_installed():
        return False
    try:
        return isinstance(instance, get_user_model())
    except ImproperlyConfigured:  # a project without an application of users
        return False


def _updates_field(field: str, update_fields: Any) -> bool:
    return update_fields is None or field in update_fields


def _end_other_sessions(user: str) -> None:
    session = get_current_session()
    keep = session if session is not None and session.user == user else None
    get_sessions().credentials_changed(user, keep=keep)


def _now_and_at_commit(using: str | None, end: Callable[[], object]) -> None:
    """End sessions now and, in a transaction, at its commit: until then others may begin."""
    end()
    if transaction.get_connection(using).in_atomic_block:
        transaction.on_commit(end, using=using)


def _begin_request(**_: object) -> None:
    """Record that this thread serves a request; under ASGI the signal runs in another context."""
    current_session.set(None)
    in_request.set(True)


def _end_request(**_: object) -> None:
    """Drop the session of a request that has ended; threads serve many."""
    current_session.set(None)
    in_request.set(False)
