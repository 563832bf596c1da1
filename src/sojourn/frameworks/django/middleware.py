"""SessionMiddleware for Django, sync and async: loads sessions before views, and commits them."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.functional import SimpleLazyObject

from sojourn._core.concurrency import run, shielded
from sojourn.errors import ConfigurationError, SessionError, SojournError, StoreError
from sojourn.frameworks.django import typed_bases
from sojourn.frameworks.django.current_session import current_session, in_request
from sojourn.frameworks.django.errors import answer_by_django, find_response, wait_in_thread
from sojourn.frameworks.django.expiry import RecordLimits
from sojourn.frameworks.django.lifecycle import LIFECYCLE, RequestLifecycle
from sojourn.frameworks.django.request_session import NullRequestSession, RequestSession
from sojourn.frameworks.django.settings import get_sessions
from sojourn.frameworks.django.streams import wrap_stream
from sojourn.frameworks.django.views import route
from sojourn.sessions import Sessions
from sojourn.store import RequiresEventLoop
from sojourn.web.installation import WebInstallation

logger: logging.Logger = logging.getLogger("sojourn")

GetResponse = Callable[[HttpRequest], Any]


class SessionMiddleware(typed_bases.SessionMiddleware):
    """Gives each request its session, as ``request.session``; takes the place of Django's own.

    It is a subclass of Django's own, which the admin requires. ``process_request`` and
    ``process_response`` are those of Django, for tests that call them; requests do not.

    Args:
        get_response: of Django: the next middleware or the view.
        sessions: the installation; None for that of the settings.

    Raises:
        ConfigurationError: a setting is invalid; or the store requires an event loop, which WSGI
            does not have.
    """

    sync_capable: bool = True
    async_capable: bool = True
    #: Its cookies hold tickets, never the ``session_key`` of its sessions.
    uses_request_sessions: bool = True

    def __init__(self, get_response: GetResponse, sessions: Sessions[Any] | None = None) -> None:
        super().__init__(get_response)
        self._given = None if sessions is None else prepare(sessions)
        if not self.async_mode:
            self._check_store()

    @property
    def web(self) -> WebInstallation:
        """The web layer of the installation; that of the settings may change in tests."""
        return self._given or prepare(get_sessions())

    def _check_store(self) -> None:
        store = self.web.engine.store
        advice = store.requires_event_loop() if isinstance(store, RequiresEventLoop) else None
        if advice is not None:
            raise ConfigurationError(
                f"{store!r} waits for an event loop, because its client is an asyncio one, and "
                f"WSGI has none: {advice}"
            )

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request."""
        if self.async_mode:
            return self._serve_async(request)
        return self._serve(request)

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponseBase | None:
        """Answer an error of sojourn that a view raised and no other middleware has answered."""
        lifecycle: RequestLifecycle | None = getattr(request, LIFECYCLE, None)
        if lifecycle is None or not isinstance(exception, SojournError):
            return None
        response = find_response(lifecycle, exception)
        if inspect.isawaitable(response):
            response = wait_in_thread(response)
        if response is not None:
            lifecycle.error = exception
        return response

    # Sync

    def _serve(self, request: HttpRequest) -> HttpResponseBase:
        web = self.web
        if not web.active:
            return cast("HttpResponseBase", self.get_response(request))
        lifecycle = RequestLifecycle(web, request)
        refusal = lifecycle.refuse()
        if refusal is not None:
            return refusal
        setattr(request, LIFECYCLE, lifecycle)
        token, outer = current_session.set(None), in_request.set(True)
        try:
            if web.config.autoload and lifecycle.wanted():
                lifecycle.load()
            else:
                _load_lazily(request, lifecycle)
            response = self.get_response(request)
            if lifecycle.error is not None:
                return self._answer(lifecycle, lifecycle.error, response)
            waiting = lifecycle.begin_response(response)
            if waiting is not None:
                run(waiting)
        except SojournError as error:
            return self._answer(lifecycle, error)
        except BaseException:
            _log_failure(lifecycle)
            lifecycle.end()
            raise
        finally:
            in_request.reset(outer)
            current_session.reset(token)
        return wrap_stream(lifecycle, response, in_loop=False)

    def _answer(
        self,
        lifecycle: RequestLifecycle,
        error: SojournError,
        response: HttpResponseBase | None = None,
    ) -> HttpResponseBase:
        """Answer an error while the session was loaded or committed, or in the view (law A23)."""
        lifecycle.mark_failed()
        store_failed = isinstance(error, StoreError)
        if not store_failed or lifecycle.has_kept_changes():
            _log_failure(lifecycle)
        ended = store_failed or not lifecycle.destroys_session()
        if response is None:
            found = find_response(lifecycle, error)
            response = wait_in_thread(found) if inspect.isawaitable(found) else found
        if response is None:
            response = answer_by_django(lifecycle.request, error)
        waiting = lifecycle.commit_after_error(store_failed=store_failed)
        lifecycle.end_with(response, committed=ended if waiting is None else run(waiting))
        lifecycle.end()
        return response

    # Async

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        web = self.web
        if not web.active:
            return cast("HttpResponseBase", await self.get_response(request))
        lifecycle = RequestLifecycle(web, request)
        refusal = lifecycle.refuse()
        if refusal is not None:
            return refusal
        setattr(request, LIFECYCLE, lifecycle)
        token, outer = current_session.set(None), in_request.set(True)
        try:
            if web.config.autoload and lifecycle.wanted():
                await lifecycle.aload()
            else:
                _load_lazily(request, lifecycle)
            response = await self.get_response(request)
            if lifecycle.error is not None:
                return await self._answer_async(lifecycle, lifecycle.error, response)
            waiting = lifecycle.begin_response(response)
            if waiting is not None:
                await waiting
        except SojournError as error:
            return await self._answer_async(lifecycle, error)
        except BaseException as error:
            cancelled = not isinstance(error, Exception)
            waiting = lifecycle.fail(cancelled=cancelled)
            if waiting is not None:
                await shielded(waiting)
            lifecycle.end()
            raise
        finally:
            in_request.reset(outer)
            current_session.reset(token)
        return wrap_stream(lifecycle, response, in_loop=True)

    async def _answer_async(
        self,
        lifecycle: RequestLifecycle,
        error: SojournError,
        response: HttpResponseBase | None = None,
    ) -> HttpResponseBase:
        """Answer an error while the session was loaded or committed, or in the view (law A23)."""
        lifecycle.mark_failed()
        store_failed = isinstance(error, StoreError)
        if not store_failed or lifecycle.has_kept_changes():
            await _alog_failure(lifecycle)
        ended = store_failed or not lifecycle.destroys_session()
        if response is None:
            found = find_response(lifecycle, error)
            response = await found if inspect.isawaitable(found) else found
        if response is None:
            response = answer_by_django(lifecycle.request, error)
        waiting = lifecycle.commit_after_error(store_failed=store_failed)
        lifecycle.end_with(response, committed=ended if waiting is None else await waiting)
        lifecycle.end()
        return response


def prepare(sessions: Sessions[Any]) -> WebInstallation:
    """Give the requests of an installation sessions with Django's methods."""
    web = sessions.web
    if web.session_class is not RequestSession:
        web.session_class = RequestSession
        web.null_session_class = NullRequestSession
        sessions.route_decorator = route
        writer = sessions.engine.writer
        if writer.limit_record is None:
            writer.limit_record = RecordLimits(
                sessions.engine.policy, idle_bounded=False, absolute_bounded=False
            )
    return web


def _load_lazily(request: Any, lifecycle: RequestLifecycle) -> None:
    """Load the session when it is first used."""
    request.session = SimpleLazyObject(lifecycle.load)


def _log_failure(lifecycle: RequestLifecycle) -> None:
    """Commit what is kept of a failed request; log an error instead of raising it."""
    try:
        waiting = lifecycle.fail()
        if waiting is not None:
            run(waiting)
    except (SessionError, StoreError) as error:
        _log_uncommitted(lifecycle, error)


async def _alog_failure(lifecycle: RequestLifecycle) -> None:
    """Commit what is kept of a failed request; see ``_log_failure``."""
    try:
        waiting = lifecycle.fail()
        if waiting is not None:
            await waiting
    except (SessionError, StoreError) as error:
        _log_uncommitted(lifecycle, error)


def _log_uncommitted(lifecycle: RequestLifecycle, error: SessionError | StoreError) -> None:
    level, traceback = logging.ERROR, None
    if isinstance(error, StoreError):
        level, traceback = lifecycle.web.event_log.level(error), error.application_error
    logger.log(
        level,
        "the session of a failed request could not be committed: %s",
        error,
        exc_info=traceback,
    )
