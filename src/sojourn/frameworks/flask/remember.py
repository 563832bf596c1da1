"""RememberCompanion: the cookie beside ``remember_token``, which lets revocations reach it."""

from __future__ import annotations

import threading
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, Final

from flask import Flask, Response, request
from werkzeug.datastructures import ImmutableMultiDict

from sojourn._core.concurrency import running_loop
from sojourn._core.login import UNKNOWN_LOGIN
from sojourn._core.working_copy import WorkingCopy
from sojourn.frameworks.flask.session import FlaskSession
from sojourn.web.lifecycle import SessionLifecycle, run
from sojourn.web.remembered_logins import RememberedLogins, Restoration

#: The environ key of the ``Restoration`` of a request.
_RESTORATION: Final = "sojourn.flask.restoration"


class RememberCompanion:
    """Sets, checks and removes the companion of Flask-Login's cookie (``RememberedLogins``).

    Args:
        logins: of the installation.
    """

    def __init__(self, logins: RememberedLogins) -> None:
        self._logins = logins

    def restoration(self) -> Restoration | None:
        """Return the result of the check in this request; None if there was none."""
        found: Restoration | None = request.environ.get(_RESTORATION)
        return found

    def check(self, session: FlaskSession, user: str) -> Restoration:
        """Return whether the user of the request's token is accepted; store the result.

        Raises:
            StoreError: the store failed.
        """
        companion = request.cookies.get(self._logins.name)
        result: Restoration = _run(self._logins.check(user, companion))
        request.environ[_RESTORATION] = result
        if result.refusal is not None:
            session.set_refusal(result.refusal)
        return result

    def hide_token(self, app: Flask) -> None:
        """Let Flask-Login find no token in this request."""
        name = token_name(app)
        kept = [(key, value) for key, value in request.cookies.items(multi=True) if key != name]
        # Replaces the cached value of a property.
        request.__dict__["cookies"] = ImmutableMultiDict(kept)

    def add_to(
        self, app: Flask, lifecycle: SessionLifecycle, copy: WorkingCopy, response: Response
    ) -> None:
        """Set or remove the companion with a response.

        Args:
            app: the application.
            lifecycle: of the request, after the commit.
            copy: of the request's session.
            response: with the cookies that Flask-Login has set.
        """
        value, attributes = _sent_token(app, response)
        if value and (lifecycle.failed or copy.revoked):
            _remove_token(app, response)  # the login was not carried out
            value = None
        record, user, restoration = copy.record, copy.user, self.restoration()
        if value == "":
            response.headers.add("Set-Cookie", f"{self._logins.name}=;{attributes}")
        elif not value and restoration is not None and restoration.refusal is not None:
            domain, path = _scope(app)
            for name in (token_name(app), self._logins.name):
                response.delete_cookie(name, domain=domain, path=path)
        elif record is None or user is None or not record.authenticated_at:
            return
        elif value and record.authenticated_at != UNKNOWN_LOGIN:
            sealed = self._logins.seal(user, record.authenticated_at, record.id)
            response.headers.add("Set-Cookie", f"{self._logins.name}={sealed};{attributes}")
        elif restoration is not None and restoration.authenticated_at == record.authenticated_at:
            self._renew(app, user, record.id, restoration, response)

    def _renew(
        self, app: Flask, user: str, session_id: bytes, restoration: Restoration, response: Response
    ) -> None:
        """Name the session that was restored, so that its revocation reaches the token.

        A token without a date counts as issued now: revocations from now on reach it.
        """
        at = restoration.authenticated_at
        if at == UNKNOWN_LOGIN:
            at = restoration.checked_at
        left = at + self._logins.max_age() - restoration.checked_at
        domain, path = _scope(app)
        response.set_cookie(
            self._logins.name,
            self._logins.seal(user, at, session_id),
            max_age=timedelta(milliseconds=left),
            domain=domain,
            path=path,
            secure=app.config.get("REMEMBER_COOKIE_SECURE", False),
            httponly=app.config.get("REMEMBER_COOKIE_HTTPONLY", True),
            samesite=app.config.get("REMEMBER_COOKIE_SAMESITE"),
        )


def token_name(app: Flask) -> str:
    """Return the name of Flask-Login's cookie."""
    name: str = app.config.get("REMEMBER_COOKIE_NAME", "remember_token")
    return name


def _scope(app: Flask) -> tuple[str | None, str]:
    """Return domain and path of Flask-Login's cookie."""
    return app.config.get("REMEMBER_COOKIE_DOMAIN"), app.config.get("REMEMBER_COOKIE_PATH", "/")


def _remove_token(app: Flask, response: Response) -> None:
    """Remove the headers that set the token from a response."""
    prefix = f"{token_name(app)}="
    headers = response.headers.getlist("Set-Cookie")
    kept = [header for header in headers if not header.startswith(prefix)]
    response.headers.setlist("Set-Cookie", kept)


def _sent_token(app: Flask, response: Response) -> tuple[str | None, str]:
    """Return value and attributes of the token that a response sets; the value None for none."""
    prefix = f"{token_name(app)}="
    for header in reversed(response.headers.getlist("Set-Cookie")):
        if header.startswith(prefix):
            value, _, attributes = header.removeprefix(prefix).partition(";")
            return value.strip('"'), attributes
    return None, ""


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine; in a thread of its own where the event loop of an ``async`` view runs.

    Flask-Login loads the user when ``current_user`` is used, and cannot wait.
    """
    if running_loop() is None:
        return run(coroutine)
    results: list[Any] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            results.append(run(coroutine))
        except BaseException as error:  # noqa: BLE001 - raised again in the view's thread
            errors.append(error)

    thread = threading.Thread(target=target, name="sojourn-remember")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
