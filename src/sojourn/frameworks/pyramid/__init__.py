"""Pyramid integration: ``config.include("sojourn.frameworks.pyramid")``.

``request.session`` is the session; ``pyramid.interfaces.ISession`` and sojourn's verbs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from pyramid.events import ApplicationCreated  # type: ignore[import-untyped] # it has no types
from pyramid.interfaces import (  # type: ignore[import-untyped] # it has no types
    IExecutionPolicy,
    ISessionFactory,
)
from pyramid.tweens import EXCVIEW  # type: ignore[import-untyped] # it has no types
from zope.interface import classImplements  # type: ignore[import-untyped] # it has no types

from sojourn.config import AllOptions, Options
from sojourn.errors import ConfigurationError, SojournError
from sojourn.frameworks.install import notify_listeners
from sojourn.frameworks.pyramid.csrf import CSRFStoragePolicy
from sojourn.frameworks.pyramid.request_lifecycle import RequestLifecycle
from sojourn.frameworks.pyramid.session import (
    DEFAULT_AUTH_PREFIX,
    PyramidSession,
    session_classes,
)
from sojourn.frameworks.pyramid.tweens import SESSIONS, answer_by_on_error
from sojourn.frameworks.text_options import options_from_settings
from sojourn.session import Session
from sojourn.sessions import Sessions
from sojourn.web.installation import OnStoreFailure, WebConfig
from sojourn.web.wsgi import EXCHANGE, SessionMiddleware, get_session
from sojourn.web.wsgi_environ import Environ, read_path

__all__ = [
    "CSRFStoragePolicy",
    "PyramidSession",
    "SessionFactory",
    "find",
    "get_sessions",
    "includeme",
    "install",
    "read_settings",
    "session_factory",
    "uninstall",
]

_PREFIX: Final = "sojourn."

_TWEENS: Final = "sojourn.frameworks.pyramid.tweens"
_TRANSACTION_TWEEN: Final = "pyramid_tm.tm_tween_factory"

#: The environ keys of the attempt: of ``pyramid_retry``, and of the session that was loaded.
_RETRY_ATTEMPT: Final = "retry.attempt"
_LOADED_ATTEMPT: Final = "sojourn.attempt"

#: A setting of this module alone: the prefix that ``SessionAuthenticationHelper`` was given.
_AUTH_PREFIX: Final = "sojourn.auth_prefix"


def includeme(config: Any) -> None:
    """Give each request a session, with the settings ``sojourn.*``: ``config.include``."""
    sessions: Sessions[Any] = Sessions(**read_settings(config, {}))
    _install(config, sessions)
    notify_listeners(config, sessions)


def install(config: Any, sessions: Sessions[Any]) -> None:
    """Give each request of an application a session; ``sojourn.install(config)``.

    Raises:
        ConfigurationError: the application was built before.
    """
    if not hasattr(config, "set_session_factory"):
        raise ConfigurationError(
            f"sojourn.install expects the Configurator, found {config!r}; call "
            "sojourn.install(config) before config.make_wsgi_app()"
        )
    _install(config, sessions)


def find(app: Any) -> Sessions[Any] | None:
    """Return the installation of a ``Configurator`` or a WSGI application; None for none."""
    sessions: Sessions[Any] | None = app.registry.get(SESSIONS)
    return sessions


def uninstall(app: Any, sessions: Sessions[Any]) -> None:
    """Do nothing more: the installation is inactive, and its layers pass requests through."""
    if app.registry.get(SESSIONS) is sessions:
        del app.registry[SESSIONS]


def read_settings(app: Any, given: Options) -> AllOptions:
    """Return the given options and the settings ``sojourn.*`` of a Configurator; the given precede.

    Args:
        app: the ``Configurator``.
        given: options.

    Raises:
        ConfigurationError: a setting is unknown, or its text is wrong.
    """
    settings: Mapping[str, Any] = app.registry.settings or {}
    own = {key: value for key, value in settings.items() if key != _AUTH_PREFIX}
    return cast("AllOptions", {**options_from_settings(own, _PREFIX), **given})


def session_factory(
    sessions: Sessions[Any], *, auth_prefix: str = DEFAULT_AUTH_PREFIX
) -> SessionFactory:
    """Return a session factory for ``config.set_session_factory``.

    ``config.include("sojourn.frameworks.pyramid")`` and ``sojourn.install(config)`` set it, too.

    Args:
        sessions: the installation.
        auth_prefix: of the application's ``SessionAuthenticationHelper``.
    """
    return SessionFactory(sessions, auth_prefix)


def get_sessions(request: Any) -> Sessions[Any]:
    """Return the installation of a request's application.

    Args:
        request: a request, a ``Configurator`` or a WSGI application of Pyramid.

    Raises:
        ConfigurationError: nothing is installed.
    """
    sessions = find(request)
    if sessions is None:
        raise ConfigurationError(
            "this application has no sessions of sojourn: call "
            'config.include("sojourn.frameworks.pyramid")'
        )
    return sessions


class SessionFactory:
    """Returns the session of a request: ``pyramid.interfaces.ISessionFactory``.

    Args:
        sessions: the installation.
        auth_prefix: of the application's ``SessionAuthenticationHelper``.
    """

    def __init__(self, sessions: Sessions[Any], auth_prefix: str = DEFAULT_AUTH_PREFIX) -> None:
        self._web = sessions.web
        self._web.session_class, self._web.null_session_class = session_classes(auth_prefix)

    def __call__(self, request: Any) -> Session[Any]:
        """Return the session of a request; load it.

        Raises:
            ConfigurationError: an option needs more than the session factory.
            AttributeError: the request has no session: sojourn was uninstalled, or ``include`` and
                ``exclude`` leave out its path.
            StoreUnavailable: the store failed.
        """
        web = self._web
        environ: Environ = request.environ
        exchange = environ.get(EXCHANGE)
        if exchange is None:
            if not web.active:
                raise AttributeError("this application has no sessions: sojourn was uninstalled")
            if EXCHANGE not in environ:
                _check_path(web.config.patterns, environ)
                if SESSIONS not in request.registry and "wsgi.url_scheme" in environ:
                    _check_options(web.config)
                return RequestLifecycle(web, request).load()
        elif exchange.session is None:
            _check_path(web.config.patterns, environ)
        attempt = environ.get(_RETRY_ATTEMPT)
        if attempt is not None and environ.setdefault(_LOADED_ATTEMPT, attempt) != attempt:
            environ[_LOADED_ATTEMPT] = attempt
            if exchange is not None:
                exchange.restart()  # without the changes of the attempt that failed
        return get_session(environ)


classImplements(SessionFactory, ISessionFactory)


def _check_path(patterns: Any, environ: Environ) -> None:
    if not patterns.everything and not patterns.match(read_path(environ)):
        raise AttributeError(
            "this path has no session, because the options include and exclude leave it out. Put "
            "@sessions.route on the view to give it one"
        )


def _check_options(config: WebConfig) -> None:
    """Check that no option is set which the session factory alone could not fulfil."""
    if config.protect or config.on_error is not None:
        raise ConfigurationError(
            "the options protect and on_error need more than config.set_session_factory: call "
            'config.include("sojourn.frameworks.pyramid") or sojourn.install(config) instead'
        )


def _install(config: Any, sessions: Sessions[Any]) -> None:
    settings: Mapping[str, Any] = config.registry.settings or {}
    prefix = settings.get(_AUTH_PREFIX, DEFAULT_AUTH_PREFIX)
    factory = session_factory(sessions, auth_prefix=prefix)
    sessions.route_decorator = route
    config.registry[SESSIONS] = sessions
    config.set_session_factory(factory)

    def wrap_router(event: Any) -> None:
        router = event.app
        if router.registry.queryUtility(ISessionFactory) is not factory:
            raise ConfigurationError(
                "sojourn is installed, and config.set_session_factory sets another session factory;"
                " remove one of the two"
            )
        policy = router.execution_policy
        execute = policy.execute if isinstance(policy, _ExecutionPolicy) else policy
        _wrap_router(router, sessions, execute)
        _stop_listening(router.registry, _ExecutionPolicy(sessions, execute))

    def add_rest(config: Any) -> None:
        # In an include of its own, so that the application's choice takes precedence.
        config.set_csrf_storage_policy(CSRFStoragePolicy())
        config.add_tween(f"{_TWEENS}.error_tween_factory", under=EXCVIEW)
        config.add_tween(f"{_TWEENS}.commit_tween_factory", over=(_TRANSACTION_TWEEN, EXCVIEW))
        config.add_subscriber(wrap_router, ApplicationCreated)

    config.include(add_rest)


def _wrap_router(router: Any, sessions: Sessions[Any], execute: Callable[..., Any]) -> None:
    """Serve the requests of a router through the WSGI middleware.

    It is outside of the execution policy, of which Pyramid has one: ``pyramid_retry`` sets its own.

    Args:
        router: of the application.
        sessions: the installation.
        execute: the execution policy.
    """

    def serve(environ: Environ, start_response: Any) -> Any:
        return execute(environ, router)(environ, start_response)

    def answer(environ: Environ, error: SojournError) -> Any:
        request = router.request_factory(environ)
        request.registry = router.registry
        return answer_by_on_error(sessions.web, request, error)

    middleware = SessionMiddleware(serve, sessions, autoload=False, error_handler=answer)
    router.execution_policy = lambda _environ, _router: middleware


class _ExecutionPolicy:
    """The execution policy of routers that are made when sojourn listens to no events any more.

    Args:
        sessions: the installation.
        execute: the application's execution policy.

    Attributes:
        execute: as given.
    """

    def __init__(self, sessions: Sessions[Any], execute: Callable[..., Any]) -> None:
        self._sessions = sessions
        self.execute: Callable[..., Any] = execute

    def __call__(self, environ: Environ, router: Any) -> Any:
        """Wrap a router at its first request; its later ones do not come here."""
        _wrap_router(router, self._sessions, self.execute)
        return router.execution_policy(environ, router)


def _stop_listening(registry: Any, policy: _ExecutionPolicy) -> None:
    """Have Pyramid create no events if only sojourn listens: they are a fifth of a session's cost.

    Args:
        registry: of an application whose router is wrapped.
        policy: wraps the routers that the application makes later.
    """
    listeners = [*registry.registeredHandlers(), *registry.registeredSubscriptionAdapters()]
    if len(listeners) == 1:
        registry.registerUtility(policy, IExecutionPolicy)
        registry.has_listeners = False


def route(view: Callable[..., Any], policy: OnStoreFailure | None) -> Callable[..., Any]:
    """Load the session before a view runs: a function of a request, or of a context and a request.

    A method of a view class has its request as ``self.request``.
    """

    @functools.wraps(view)
    def load_and_call(*args: Any, **kwargs: Any) -> Any:
        last = args[-1]
        request = last if hasattr(last, "environ") else last.request
        session = get_session(request.environ, policy)
        request.__dict__["session"] = session  # as `reify` does
        return view(*args, **kwargs)

    # Pyramid reads it to determine whether the view takes the context, and does not follow `wraps`.
    load_and_call.__signature__ = inspect.signature(view)  # type: ignore[attr-defined] # for inspect
    return load_and_call
