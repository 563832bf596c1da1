"""SessionMiddleware for Django, sync and async: loads sessions before views, and commits them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any, Final, cast

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction
from django.core.handlers.exception import response_for_exception
from django.http import HttpRequest
from django.http.response import HttpResponseBase, StreamingHttpResponse
from django.urls import get_callable, get_resolver, get_urlconf
from django.utils.functional import SimpleLazyObject

from sojourn._core.concurrency import run, running_loop, shielded
from sojourn.errors import (
    ConfigurationError,
    SessionError,
    SessionRequired,
    SojournError,
    StoreError,
)
from sojourn.frameworks.django.credentials import current_session
from sojourn.frameworks.django.expiry import RecordLimits
from sojourn.frameworks.django.lifecycle import LIFECYCLE, RequestLifecycle, is_file
from sojourn.frameworks.django.request_session import NullRequestSession, RequestSession
from sojourn.frameworks.django.response import error_page
from sojourn.frameworks.django.settings import get_sessions
from sojourn.sessions import Sessions
from sojourn.store import RequiresEventLoop
from sojourn.web.error_response import unauthorized_response, unavailable_response
from sojourn.web.installation import WebInstallation
from sojourn.web.wsgi_environ import read_header

_SERVER_ERROR: Final = 500

logger: logging.Logger = logging.getLogger("sojourn")

GetResponse = Callable[[HttpRequest], Any]


class SessionMiddleware:
    """Gives each request its session, as ``request.session``; takes the place of Django's own.

    Args:
        get_response: of Django: the next middleware or the view.
        sessions: the installation; None for that of the settings.

    Raises:
        ConfigurationError: a setting is invalid; or the store requires an event loop, which WSGI
            does not have.
    """

    sync_capable: bool = True
    async_capable: bool = True

    def __init__(self, get_response: GetResponse, sessions: Sessions[Any] | None = None) -> None:
        self.get_response: GetResponse = get_response
        self._given = None if sessions is None else _prepare(sessions)
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        else:
            self._check_store()

    @property
    def web(self) -> WebInstallation:
        """The web layer of the installation; that of the settings may change in tests."""
        return self._given or _prepare(get_sessions())

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
        if self._is_async:
            return self._serve_async(request)
        return self._serve(request)

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponseBase | None:
        """Answer an error of sojourn that a view raised and no other middleware has answered."""
        lifecycle: RequestLifecycle | None = getattr(request, LIFECYCLE, None)
        if lifecycle is None or not isinstance(exception, SojournError):
            return None
        lifecycle.mark_failed()
        response = _find_response(lifecycle, exception)
        return _wait(response) if inspect.isawaitable(response) else response

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
        token = current_session.set(None)
        try:
            if web.config.autoload and lifecycle.wanted():
                lifecycle.load()
            else:
                _load_lazily(request, lifecycle)
            response = self.get_response(request)
            waiting = lifecycle.begin_response(response)
            if waiting is not None:
                run(waiting)
        except SojournError as error:
            return self._answer(lifecycle, error)
        except BaseException:
            _log_failure(lifecycle.fail)
            lifecycle.end()
            raise
        finally:
            current_session.reset(token)
        return _wrap(lifecycle, response, in_loop=False)

    def _answer(self, lifecycle: RequestLifecycle, error: SojournError) -> HttpResponseBase:
        """Answer an error while the session was loaded or committed (law A23)."""
        lifecycle.mark_failed()
        if not isinstance(error, StoreError) or lifecycle.destroys_session():
            _log_failure(lifecycle.fail)
        response = _find_response(lifecycle, error)
        if inspect.isawaitable(response):
            response = _wait(response)
        if response is None:
            response = _answer_by_django(lifecycle.request, error)
        lifecycle.end_with(response)
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
        token = current_session.set(None)
        try:
            if web.config.autoload and lifecycle.wanted():
                await lifecycle.aload()
            else:
                _load_lazily(request, lifecycle)
            response = await self.get_response(request)
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
            current_session.reset(token)
        return _wrap(lifecycle, response, in_loop=True)

    async def _answer_async(
        self, lifecycle: RequestLifecycle, error: SojournError
    ) -> HttpResponseBase:
        """Answer an error while the session was loaded or committed (law A23)."""
        lifecycle.mark_failed()
        if not isinstance(error, StoreError) or lifecycle.destroys_session():
            await _alog_failure(lifecycle.fail)
        response = _find_response(lifecycle, error)
        if inspect.isawaitable(response):
            response = await response
        if response is None:
            response = _answer_by_django(lifecycle.request, error)
        lifecycle.end_with(response)
        lifecycle.end()
        return response


def _prepare(sessions: Sessions[Any]) -> WebInstallation:
    """Give the requests of an installation sessions with Django's methods."""
    web = sessions.web
    if web.session_class is not RequestSession:
        web.session_class = RequestSession
        web.null_session_class = NullRequestSession
        writer = sessions.engine.writer
        if writer.limit_record is None:
            writer.limit_record = RecordLimits(
                sessions.engine.policy, idle_bounded=False, absolute_bounded=False
            )
    return web


def _load_lazily(request: HttpRequest, lifecycle: RequestLifecycle) -> None:
    """Load the session when it is first used."""
    request.session = SimpleLazyObject(lifecycle.load)  # type: ignore[assignment] # a proxy


# --- Responses to errors


def _find_response(lifecycle: RequestLifecycle, error: SojournError) -> Any:
    """Return the response to an error, an awaitable of it, or None for that of Django."""
    request = lifecycle.request
    on_error = lifecycle.web.config.on_error
    if on_error is not None and not isinstance(error, ConfigurationError):
        response = on_error(request, error)
        if inspect.isawaitable(response):
            return _response_or_default(response, request, error)
        if response is not None:
            return response
    return _default_response(request, error)


async def _response_or_default(
    response: Awaitable[HttpResponseBase | None], request: HttpRequest, error: SojournError
) -> HttpResponseBase | None:
    return await response or _default_response(request, error)


def _default_response(request: HttpRequest, error: SojournError) -> HttpResponseBase | None:
    accept = read_header(request.META, "HTTP_ACCEPT")
    if isinstance(error, StoreError):
        logger.error("answered 503, because the session store failed: %s", error)
        response = _answer_by_handler(request, error)
        return response or error_page(503, unavailable_response(accept))
    if isinstance(error, SessionRequired):
        return error_page(401, unauthorized_response(accept))
    return None


def _answer_by_handler(request: HttpRequest, error: StoreError) -> HttpResponseBase | None:
    """Return the response of ``handler503`` or ``handler500`` of the project's URLs; None without.

    ``handler503(request, exception)`` is called as Django calls ``handler404``.
    """
    urls = get_resolver(get_urlconf()).urlconf_module
    handler: Any = getattr(urls, "handler503", None)
    if handler is not None:
        return cast("HttpResponseBase", get_callable(handler)(request, exception=error))
    handler = getattr(urls, "handler500", None)
    if handler is None:
        return None
    response: HttpResponseBase = get_callable(handler)(request)
    RequestLifecycle(get_sessions().web, request).answer_unavailable(response)
    return response


def _answer_by_django(request: HttpRequest, error: SojournError) -> HttpResponseBase:
    """Return Django's response to an exception: its page for 500, its log line, its signal."""
    try:
        raise error
    except SojournError as raised:  # Django reads the traceback from the exception in progress
        return cast("HttpResponseBase", response_for_exception(request, raised))


# --- The end of a request


def _wrap(
    lifecycle: RequestLifecycle, response: HttpResponseBase, *, in_loop: bool
) -> HttpResponseBase:
    """Return the response; have a stream commit what it changes (law A11)."""
    if not response.streaming or is_file(response):
        lifecycle.end()
        return response
    stream = cast("StreamingHttpResponse", response)
    content: Any = stream.streaming_content
    if stream.is_async:
        stream.streaming_content = _stream_async(lifecycle, content)
    else:
        stream.streaming_content = _stream(lifecycle, content, _wait if in_loop else run)
    return stream


def _stream(
    lifecycle: RequestLifecycle,
    content: Iterator[bytes],
    wait: Callable[[Coroutine[Any, Any, None]], None],
) -> Iterator[bytes]:
    """Yield the parts of a body, and commit at its end."""
    try:
        yield from content
        waiting = lifecycle.finish()
        if waiting is not None:
            wait(waiting)
    except BaseException as error:
        lifecycle.client_disconnected = isinstance(error, GeneratorExit)
        waiting = lifecycle.fail()
        if waiting is not None:
            wait(waiting)
        raise
    finally:
        lifecycle.end()


async def _stream_async(
    lifecycle: RequestLifecycle, content: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Yield the parts of a body, and commit at its end."""
    try:
        async with aclosing(cast("Any", content)):
            async for part in content:
                yield part
        waiting = lifecycle.finish()
        if waiting is not None:
            await waiting
    except BaseException as error:
        # Django cancels the task of a request whose client has disconnected.
        lifecycle.client_disconnected = not isinstance(error, Exception)
        waiting = lifecycle.fail()
        if waiting is not None:
            await shielded(waiting)
        raise
    finally:
        lifecycle.end()


def _log_failure(fail: Callable[[], Coroutine[Any, Any, None] | None]) -> None:
    """Commit what is kept of a failed request; log an error instead of raising it."""
    try:
        waiting = fail()
        if waiting is not None:
            run(waiting)
    except (SessionError, StoreError) as error:
        logger.error("the session of a failed request could not be committed: %s", error)  # noqa: TRY400 - one line


async def _alog_failure(fail: Callable[[], Coroutine[Any, Any, None] | None]) -> None:
    """Commit what is kept of a failed request; see ``_log_failure``."""
    try:
        waiting = fail()
        if waiting is not None:
            await waiting
    except (SessionError, StoreError) as error:
        logger.error("the session of a failed request could not be committed: %s", error)  # noqa: TRY400 - one line


def _wait(awaitable: Any) -> Any:
    """Wait for an awaitable in a thread; where an event loop waits for the thread, it runs there."""

    async def wait() -> Any:
        return await awaitable

    return async_to_sync(wait)()
