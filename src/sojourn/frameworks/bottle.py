"""Bottle integration: ``SessionPlugin``, and ``bottle.request.session``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, cast

import bottle  # type: ignore[import-untyped] # it has no types

from sojourn.config import AllOptions
from sojourn.errors import (
    ConfigurationError,
    SessionRequired,
    SojournError,
    StoreError,
)
from sojourn.frameworks.text_options import options_from_settings
from sojourn.session import Session
from sojourn.sessions import Sessions
from sojourn.web.error_response import EXPECTED_ERRORS
from sojourn.web.installation import OnStoreFailure
from sojourn.web.wsgi import EXCHANGE, SessionMiddleware, WSGIExchange, call_on_error, get_session
from sojourn.web.wsgi_environ import Environ

if TYPE_CHECKING:
    from typing import Unpack

    from sojourn.config import Options

__all__ = ["SessionPlugin", "find", "install", "read_settings", "uninstall"]

#: The environ key of ``bottle.request.session``.
_ATTRIBUTE: Final = "bottle.request.ext.session"


def install(app: Any, sessions: Sessions[Any]) -> None:
    """Install a ``SessionPlugin``; ``sojourn.install(app)``."""
    app.install(SessionPlugin(sessions))


def uninstall(app: Any, sessions: Sessions[Any]) -> None:
    """Remove the plugin. The installation is inactive already."""
    for plugin in list(app.plugins):
        if isinstance(plugin, SessionPlugin) and plugin.sessions is sessions:
            app.uninstall(plugin)


def find(app: Any) -> Sessions[Any] | None:
    """Return the installation of an application; None for none."""
    plugins = (plugin for plugin in app.plugins if isinstance(plugin, SessionPlugin))
    return next((plugin.sessions for plugin in plugins), None)


def read_settings(app: Any, given: Options) -> AllOptions:
    """Return the given options and those in ``app.config["sojourn.*"]``; the given precede.

    Args:
        app: the application.
        given: options.

    Raises:
        ConfigurationError: a setting is unknown, or its text is wrong.
    """
    return cast("AllOptions", {**options_from_settings(app.config, "sojourn."), **given})


class SessionPlugin:
    """Gives each request of an application a session: ``app.install(SessionPlugin())``.

    ``bottle.request.session`` is the session, and the argument of handlers with a parameter of that
    name. A route without the plugin (``skip=["session"]``) loads it when it uses
    ``request.session``.

    Args:
        sessions: the installation; None to create it from the options.
        keyword: the name of the parameter.
        options: the fields of ``sojourn.config.Options``, before those of ``app.config``.

    Attributes:
        name, api: as Bottle requires.
        keyword: the name of the parameter.
        sessions: the installation; None until ``setup`` has created it.

    Raises:
        ConfigurationError: an option is wrong.
    """

    name: str = "session"
    api: int = 2

    def __init__(
        self,
        sessions: Sessions[Any] | None = None,
        *,
        keyword: str = "session",
        **options: Unpack[Options],
    ) -> None:
        if sessions is not None and options:
            raise ConfigurationError(
                "SessionPlugin expects an installation or options, found both; pass the options to "
                "sojourn.Sessions"
            )
        self.keyword: str = keyword
        self.sessions: Sessions[Any] | None = sessions
        self._options = options
        self._apps: list[Any] = []

    def setup(self, app: Any) -> None:
        """Wrap an application, so that responses are committed; Bottle calls it.

        Raises:
            ConfigurationError: the application has the plugin already.
        """
        if find(app) is not None:
            raise ConfigurationError(
                f"{app!r} has sessions already: sojourn.get(app). To change them, call "
                "sojourn.uninstall(app) first"
            )
        if self.sessions is None:
            options = read_settings(app, self._options)
            self.sessions = Sessions(**cast("Any", options))
        sessions = self.sessions
        sessions.route_decorator = _route
        inner = app.wsgi

        def serve(environ: Environ, start_response: Any) -> Iterable[bytes]:
            if EXCHANGE in environ:
                environ[_ATTRIBUTE] = _LAZY_SESSION
            result: Iterable[bytes] = inner(environ, start_response)
            return result

        def answer(environ: Environ, error: SojournError) -> Any:
            response = call_on_error(sessions.web, environ, bottle.request, error)
            return _to_application(response) if isinstance(response, _Response) else response

        app.wsgi = SessionMiddleware(serve, sessions, autoload=False, error_handler=answer)
        self._apps.append(app)

    def close(self) -> None:
        """Unwrap the application; Bottle calls it when the plugin is uninstalled."""
        for app in self._apps:
            del app.wsgi
        self._apps = []

    def apply(self, callback: Callable[..., Any], route: Any) -> Callable[..., Any]:
        """Load the session before a handler runs and commit after it; Bottle calls it."""
        sessions, keyword = self.sessions, self.keyword
        if sessions is None:
            raise ConfigurationError(
                "SessionPlugin expects app.install(plugin), found it in apply= of a route. To give "
                "single routes a session, install with autoload=False and use @sessions.route"
            )
        web = sessions.web
        patterns, autoload = web.config.patterns, web.config.autoload
        has_parameter = _has_parameter(route, keyword)
        policy = route.config.get("session.on_store_failure")

        @functools.wraps(callback)
        def load_and_call(*args: Any, **kwargs: Any) -> Any:
            environ: Environ = bottle.request.environ
            exchange: WSGIExchange | None = environ.get(EXCHANGE)
            if exchange is None or exchange.web is not web:
                raise ConfigurationError(
                    "the application of this route is mounted in one with other sessions, or with "
                    "none; give both SessionPlugin(sessions) with the same sojourn.Sessions"
                )
            try:
                if has_parameter or (
                    autoload and (patterns.everything or patterns.match(exchange.path()))
                ):
                    session = get_session(environ, policy)
                    if has_parameter:
                        kwargs[keyword] = session
                try:
                    result = callback(*args, **kwargs)
                except _Response as response:
                    exchange.commit_response(response.status_code)
                    raise
                exchange.commit_response(
                    result.status_code
                    if isinstance(result, _Response)
                    else bottle.response.status_code
                )
            except SojournError as error:
                return _answer(sessions, exchange, environ, error)
            return result

        return load_and_call


_Response: Final[Any] = bottle.HTTPResponse


def _has_parameter(route: Any, keyword: str) -> bool:
    """Return whether the handler of a route takes an argument of this name.

    Bottle's own ``get_callback_args`` also examines functions that a handler only refers to. It
    is needed for decorators that hide the signature.
    """
    parameters = inspect.signature(route.callback).parameters
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return keyword in route.get_callback_args()
    return keyword in parameters


class _LazySession:
    """``bottle.request.session``: loads the session when it is used."""

    def __get__(self, request: Any, _: object = None) -> Session[Any]:
        environ: Environ = request.environ
        exchange: WSGIExchange | None = environ.get(EXCHANGE)
        if exchange is not None and exchange.session is None:
            patterns = exchange.web.config.patterns
            if not patterns.everything and not patterns.match(exchange.path()):
                raise AttributeError(
                    "this path has no session, because the options include and exclude leave it "
                    "out. Give the handler a parameter named session, or use @sessions.route"
                )
        return get_session(environ)


_LAZY_SESSION: Final = _LazySession()


def _route(handler: Callable[..., Any], policy: OnStoreFailure | None) -> Callable[..., Any]:
    """Load the session before a handler runs."""

    @functools.wraps(handler)
    def load_and_call(*args: Any, **kwargs: Any) -> Any:
        get_session(bottle.request.environ, policy)
        return handler(*args, **kwargs)

    return load_and_call


def _answer(
    sessions: Sessions[Any], exchange: WSGIExchange, environ: Environ, error: SojournError
) -> Any:
    """Return the response to an error that left a handler, or raise it for Bottle's handlers.

    ``on_error`` is called first, then the application's handlers of status 503 and 401, then that
    of 500.
    """
    if isinstance(error, ConfigurationError):
        raise error
    if not isinstance(error, EXPECTED_ERRORS):
        exchange.settle(error)
    response = call_on_error(sessions.web, environ, bottle.request, error)
    if response is not None:
        exchange.settle(error)
        return response if not callable(response) else _run_application(response, environ)
    handlers = environ["bottle.app"].error_handler
    if isinstance(error, StoreError):
        if 503 in handlers:  # noqa: PLR2004 - the status
            raise bottle.HTTPError(
                503, "Service Unavailable", error, Retry_After="2", Cache_Control="no-store"
            )
    elif isinstance(error, SessionRequired) and 401 in handlers:  # noqa: PLR2004 - the status
        raise bottle.HTTPError(401, "Unauthorized", error, WWW_Authenticate="Session")
    default = exchange.default_response(error)
    if default is None or 500 in handlers:  # noqa: PLR2004 - the status
        raise error
    return _run_application(default, environ)


def _run_application(application: Any, environ: Environ) -> Any:
    """Return the response of a WSGI application as one of Bottle."""
    response = _Response([])

    def start_response(
        status: str, headers: list[tuple[str, str]], _: Any = None
    ) -> Callable[[bytes], object]:
        response.status = status
        for name, value in headers:
            response.add_header(name, value)
        write: Callable[[bytes], object] = response.body.append
        return write

    response.body.extend(application(environ, start_response))
    return response


def _to_application(response: Any) -> Any:
    """Return a response of Bottle as a WSGI application."""

    def application(_: Environ, start_response: Any) -> Iterable[bytes]:
        start_response(response.status_line, response.headerlist)
        body = response.body
        return [body.encode() if isinstance(body, str) else body or b""]

    return application
