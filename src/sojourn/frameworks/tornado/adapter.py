"""install and uninstall for Tornado, and the class that every handler gets as its first base."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from tornado.iostream import StreamClosedError
from tornado.web import (
    Application,
    HTTPError,
    OutputTransform,
    RequestHandler,
    StaticFileHandler,
)
from tornado.websocket import WebSocketHandler

from sojourn.errors import ConfigurationError, SojournError, StoreError
from sojourn.frameworks.text_options import options_from_settings
from sojourn.frameworks.tornado.exchange import TornadoExchange
from sojourn.frameworks.tornado.output_transform import TicketProtection
from sojourn.frameworks.tornado.preparation import finish_preparation
from sojourn.frameworks.tornado.websocket import SocketMixin
from sojourn.frameworks.tornado.xsrf import XSRFMixin
from sojourn.session import Session
from sojourn.sessions import Sessions
from sojourn.web.cache_headers import RawHeaders, replace_caching, select_caching
from sojourn.web.error_response import EXPECTED_ERRORS
from sojourn.web.framework_exchange import call_on_error, default_response
from sojourn.web.installation import OnStoreFailure
from sojourn.web.status import SERVER_ERROR
from sojourn.web.ticket_protection import find_added

if TYPE_CHECKING:
    from sojourn.config import AllOptions, Options

#: The setting with the ``Sessions`` of an application.
SETTING: Final = "sojourn_sessions"

#: The beginning of the keys of options in the settings.
_PREFIX: Final = "sojourn_"


class SessionMixin:
    """Names the session of a handler for type checkers and editors: ``self.session``.

    ``sojourn.install(application)`` gives every handler its session, with or without this class.
    """

    if TYPE_CHECKING:

        @property
        def session(self) -> Session[Any]:
            """The session of the request."""
            ...

        async def load_session(
            self, on_store_failure: OnStoreFailure | None = None
        ) -> Session[Any]:
            """Load the session of a request that has none yet, and return it."""
            ...


#: The methods that change a response.
_RESPONSE_METHODS: Final = ("redirect", "write")


def _refuse_after_finish(*_: object, **__: object) -> NoReturn:
    """Take the place of a method while a response that has ended is committed."""
    raise RuntimeError("the response cannot be changed after finish()")


class SessionHandler(XSRFMixin, RequestHandler):
    """Loads the session before a request and commits it before the first byte of its response.

    ``install`` creates a subclass of this class and of each handler of the application.
    """

    sojourn_sessions: Sessions[Any]

    # Created in `_execute`; absent while the installation is inactive.
    sojourn_exchange: TornadoExchange | None = None
    sojourn_finishing: asyncio.Task[None] | None = None
    sojourn_deferred: Exception | None = None
    sojourn_transforms: list[OutputTransform] | None = None  # Tornado's own list, of this request

    @property
    def session(self) -> Any:
        """The session of the request.

        Raises:
            ConfigurationError: it was not loaded, with ``autoload=False`` or ``include``.
        """
        exchange = self.sojourn_exchange
        if exchange is None or exchange.session is None:
            raise ConfigurationError(
                "this handler has no session: its path is left out, or autoload=False. Call "
                "await self.load_session(), or put @sessions.route on the method"
            )
        return exchange.present

    @session.setter
    def session(self, replacement: object) -> None:
        exchange = self.sojourn_exchange
        if exchange is not None:
            exchange.present = replacement  # adopted at the commit (law A24)

    async def load_session(self, on_store_failure: OnStoreFailure | None = None) -> Session[Any]:
        """Load the session of a request that has none yet, and return it."""
        exchange = self.sojourn_exchange
        if exchange is None:
            raise ConfigurationError(
                "this handler needs a session, and sojourn was uninstalled from its application; "
                "call sojourn.install(application) again"
            )
        return await exchange.load(on_store_failure)

    # The request

    async def _execute(self, transforms: Any, *args: bytes, **kwargs: bytes) -> None:
        """Load the session, run the request, and commit what it changed last.

        Tornado checks XSRF tokens here, before ``prepare``. This is the only method around a whole
        request.
        """
        web = self.sojourn_sessions.web
        if not web.active:
            await super()._execute(transforms, *args, **kwargs)
            return
        exchange = TornadoExchange(web, self)
        self.sojourn_exchange = exchange
        self.sojourn_transforms = transforms
        config = web.config
        try:
            if config.autoload and (web.loads_all or exchange.wanted()):
                try:
                    waiting = exchange.start()
                    if waiting is not None:
                        await waiting
                except StoreError as error:
                    exchange.defer(error)
                    self.sojourn_deferred = error
            await super()._execute(transforms, *args, **kwargs)
            finishing = None
            while self.sojourn_finishing is not finishing:  # the answer to an error is another one
                finishing = self.sojourn_finishing
                if finishing is not None:
                    await finishing
            await exchange.finish_stream()
        except asyncio.CancelledError as error:
            await exchange.settle(error)
            raise
        finally:
            exchange.end()

    def _cross_origin_protection(self) -> None:
        """Refuse requests of other origins, with ``protect`` (Tornado 6.6 and later)."""
        self._sojourn_check()
        super()._cross_origin_protection()

    def check_xsrf_cookie(self) -> None:
        """Check the XSRF token against the session."""
        self._sojourn_check()
        super().check_xsrf_cookie()

    def prepare(self) -> Awaitable[None] | None:
        """Raise the error of a session that could not be loaded; then run the handler's own.

        If that has ended the request, its commit is waited for: Tornado runs the method of a
        handler that is not finished.
        """
        self._sojourn_check()
        return finish_preparation(self, super().prepare())

    def _sojourn_check(self) -> None:
        if self.sojourn_deferred is not None:
            error, self.sojourn_deferred = self.sojourn_deferred, None
            raise error
        exchange = self.sojourn_exchange
        if exchange is not None and exchange.web.config.protect and exchange.wanted():
            headers = self.request.headers
            refusal = exchange.check_origin(
                self.request.method or "",
                site=headers.get("Sec-Fetch-Site"),
                origin=headers.get("Origin"),
            )
            if refusal is not None:
                raise HTTPError(refusal.status, refusal.body.decode().strip())

    # The response

    def flush(self, include_footers: bool = False) -> Any:  # noqa: FBT001, FBT002 - as in Tornado
        """Commit before the first byte, and send what was written."""
        exchange = self.sojourn_exchange
        if self._headers_written or exchange is None or exchange.response_started:
            return super().flush(include_footers)
        complete = include_footers
        sent = self._sojourn_start(exchange, complete=complete)
        if sent is None:
            return super().flush(include_footers)
        return asyncio.ensure_future(self._sojourn_flush(sent, include_footers))

    async def _sojourn_flush(self, waiting: Awaitable[None], include_footers: bool) -> None:  # noqa: FBT001
        await waiting
        await super().flush(include_footers)

    def _sojourn_start(
        self, exchange: TornadoExchange, *, complete: bool
    ) -> Awaitable[None] | None:
        """Commit, and replace the headers; return an awaitable if that has to be waited for."""
        selected = select_caching(self._headers.get_all())
        sent = exchange.start_response(self.get_status(), selected, complete=complete)
        if isinstance(sent, list):
            self._sojourn_headers(exchange, selected, sent)
            return None

        async def start() -> None:
            self._sojourn_headers(exchange, selected, await sent)

        return start()

    def _sojourn_headers(
        self, exchange: TornadoExchange, selected: RawHeaders, sent: RawHeaders
    ) -> None:
        replace_caching(selected, sent, remove=self.clear_header, add=self.add_header)
        if self.sojourn_transforms:
            added = find_added(exchange.web, sent)
            if added:
                self.sojourn_transforms.append(TicketProtection(exchange.web, added))
        status = exchange.final_status(self.get_status())
        if status != self.get_status():
            self.set_status(status)

    def finish(self, chunk: Any = None) -> Any:
        """Commit, and end the response; the future that is returned is done when it is sent.

        If the store has to be waited for, the response is sent after this method has returned.
        """
        exchange = self.sojourn_exchange
        if exchange is None or self._finished:
            return super().finish(chunk)
        if self.sojourn_finishing is not None:
            if chunk is not None:
                raise RuntimeError("finish() called twice")
            return self.sojourn_finishing
        waiting: Awaitable[None] | None = None
        if not exchange.response_started:
            if chunk is not None:
                self.write(chunk)
                chunk = None
            waiting = self._sojourn_start(exchange, complete=True)
        elif exchange.working_copy is not None and exchange.working_copy.modified():
            waiting = exchange.finish_stream()
        if waiting is None:
            return super().finish(chunk)
        # As after Tornado's own `finish`: what the handler does from here on is not sent.
        vars(self).update(dict.fromkeys(_RESPONSE_METHODS, _refuse_after_finish))
        self.sojourn_finishing = asyncio.ensure_future(self._sojourn_finish(waiting, chunk))
        return self.sojourn_finishing

    async def _sojourn_finish(self, waiting: Awaitable[None], chunk: Any) -> None:
        """Wait for a commit, then end the response, or respond to the error of the commit."""
        try:
            try:
                await waiting
            finally:
                for name in _RESPONSE_METHODS:
                    del vars(self)[name]
        except Exception as error:  # noqa: BLE001 - answered as one that the handler raises
            self.sojourn_finishing = None
            self.log_exception(*sys.exc_info())
            exchange = self.sojourn_exchange
            assert exchange is not None  # noqa: S101 - it has committed
            exchange.failure = error
            self.send_error(SERVER_ERROR, exc_info=sys.exc_info())
            finishing: asyncio.Task[None] | None = self.sojourn_finishing
            if finishing is not None:
                await finishing
            return
        await super().finish(chunk)

    # Errors

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log an exception; an outage of the store is one line, written with the response."""
        if isinstance(value, StoreError) and self.sojourn_exchange is not None:
            return
        super().log_exception(typ, value, tb)

    def send_error(self, status_code: int = SERVER_ERROR, **kwargs: Any) -> None:
        """Commit what is kept of a failed request, and respond to its error (laws A10, A23)."""
        exchange = self.sojourn_exchange
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        if "write" in vars(self):
            return  # the response has ended, and is committed; Tornado has logged the error
        if exchange is None or error is None or isinstance(error, HTTPError):
            super().send_error(status_code, **kwargs)
            return
        if isinstance(error, StreamClosedError):
            exchange.client_disconnected = True
        if self.sojourn_finishing is None:
            self.sojourn_finishing = asyncio.ensure_future(
                self._sojourn_answer(exchange, error, status_code, kwargs)
            )

    async def _sojourn_answer(
        self,
        exchange: TornadoExchange,
        error: BaseException,
        status_code: int,
        kwargs: dict[str, Any],
    ) -> None:
        left = (
            isinstance(error, EXPECTED_ERRORS)
            and not exchange.response_started
            and not self._writes_errors(error)
        )
        if not left:
            try:
                await exchange.settle(error)
            except Exception as failure:  # noqa: BLE001 - answered instead of the first error
                error = failure
        self.sojourn_finishing = None
        response = await call_on_error(exchange, self, error)
        if response is not None:
            if left:
                exchange.mark_failed()
            self._sojourn_send(response)
            return
        if self._writes_errors(error):
            accept = self.request.headers.get("Accept")
            answer = default_response(exchange, error, accept)
            if answer is not None:
                self._sojourn_send(answer)
                return
        kwargs["exc_info"] = (type(error), error, error.__traceback__)
        super().send_error(status_code, **kwargs)

    def _writes_errors(self, error: BaseException) -> bool:
        """Return whether the built-in response is sent: the handler has no own error page."""
        own = type(self).write_error is RequestHandler.write_error
        return own and isinstance(error, SojournError)

    def _sojourn_send(self, answer: Any) -> None:
        """Send a built-in response, or that of ``on_error``: status, headers and body."""
        status, headers, body = answer
        self.clear()
        self.set_status(status)
        pairs = headers.items() if hasattr(headers, "items") else headers
        for name, value in pairs:
            self.set_header(name, value)
        self.finish(body)


def read_settings(app: Application, given: Options) -> AllOptions:
    """Return the given options and those in ``app.settings``; the given precede.

    Args:
        app: created with settings such as ``sojourn_timeout="1 hour"``.
        given: options.

    Raises:
        ConfigurationError: a setting ``sojourn_...`` names no option, or its text is wrong.
    """
    own = {key: value for key, value in app.settings.items() if key != SETTING}
    return cast("AllOptions", {**options_from_settings(own, _PREFIX), **given})


def install(app: Application, sessions: Sessions[Any]) -> None:
    """Give every handler of an application a session, also while it is being served."""
    original = app.get_handler_delegate
    classes: dict[type[RequestHandler], type[RequestHandler]] = {}

    def get_handler_delegate(
        request: Any, target_class: type[RequestHandler], *args: Any, **kwargs: Any
    ) -> Any:
        found = classes.get(target_class)
        if found is None:
            found = classes[target_class] = _with_session(target_class, sessions)
        return original(request, found, *args, **kwargs)

    app.settings[SETTING] = sessions
    # Tornado calls it as an attribute for each request.
    app.get_handler_delegate = get_handler_delegate  # type: ignore[method-assign]
    sessions.route_decorator = route


def uninstall(app: Application, sessions: Sessions[Any]) -> None:
    """Remove sessions from an application, also while it is being served."""
    del sessions
    vars(app).pop("get_handler_delegate", None)
    app.settings.pop(SETTING, None)


def _with_session(target: type[RequestHandler], sessions: Sessions[Any]) -> type[RequestHandler]:
    """Return a subclass of a handler whose requests have a session."""
    if target is StaticFileHandler:
        return target  # no code of the application runs there
    bases: tuple[type, ...] = (SessionHandler, target)
    if issubclass(target, WebSocketHandler):
        bases = (SocketMixin, target)
    members: dict[str, Any] = {
        "__doc__": target.__doc__,
        "__module__": target.__module__,
        "__qualname__": target.__qualname__,
        "sojourn_sessions": sessions,
    }
    if target.get_current_user is RequestHandler.get_current_user:
        members["get_current_user"] = _get_current_user
    return type(target.__name__, bases, members)


def _get_current_user(handler: Any) -> str | None:
    """Return the user of the session, for handlers without a ``get_current_user`` of their own."""
    try:
        session: Session[Any] = handler.session
    except ConfigurationError:
        return None
    return session.user


async def get_session(
    handler: RequestHandler, on_store_failure: OnStoreFailure | None = None
) -> Session[Any]:
    """Return the session of a handler; load it if necessary.

    Args:
        handler: of Tornado.
        on_store_failure: what to do if the store fails; None for the installation's choice.

    Raises:
        ConfigurationError: no installation serves the request.
        StoreUnavailable: the store failed.
    """
    load: Any = getattr(handler, "load_session", None)
    if load is None:
        raise ConfigurationError(
            "this handler needs a session, and its application has none. Call "
            "sojourn.install(application)"
        )
    session: Session[Any] = await load(on_store_failure)
    return session


def route(method: Callable[..., Any], policy: OnStoreFailure | None) -> Callable[..., Any]:
    """Load the session before a method of a handler runs, such as ``get``."""

    @functools.wraps(method)
    async def load_and_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        await get_session(self, policy)
        result = method(self, *args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return load_and_call
