"""Candidates on Flask, Django, Pyramid and Bottle under gunicorn."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from benchmarks.candidates.candidate import (
    IDLE_SECONDS,
    SECRET,
    SMALL,
    STORE_TIMEOUT,
    VALKEY_INSTALL,
    Candidate,
    install,
    valkey_url,
)
from benchmarks.candidates.flask import flask_app

_SQLITE_SECONDS = 30
"""How long Django waits for the write lock."""


def sojourn_flask(directory: Path) -> Any:
    """Build Flask with sojourn over the Valkey server, as ``flask.session``."""
    import flask

    return install(flask_app(lambda: flask.session))


def django_app(*, middleware: list[str], **settings: Any) -> Any:
    """Build the Django application; its settings belong to this process.

    Args:
        middleware: the session layer; empty for the application without sessions.
        settings: of the session layer.
    """
    import django
    from django.conf import settings as django_settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    numbers = itertools.count(1)
    session = bool(middleware)

    def hello(request: HttpRequest) -> HttpResponse:
        return HttpResponse("hello, world")

    def read(request: Any) -> HttpResponse:
        return HttpResponse(f"{request.session['counter'] if session else 0:012d}")

    def write(request: Any) -> HttpResponse:
        number = next(numbers)
        if session:
            request.session["counter"] = number
        return HttpResponse(f"{number:012d}")

    def seed(request: Any) -> HttpResponse:
        number = next(numbers) if session else 0
        if session:
            request.session.update(SMALL | {"counter": number})
        return HttpResponse(f"{number:012d}")

    views = {"": hello, "read": read, "write": write, "seed": seed}
    urls = type("URLs", (), {"urlpatterns": [path(route, view) for route, view in views.items()]})
    django_settings.configure(
        SECRET_KEY=SECRET,
        ALLOWED_HOSTS=["localhost"],
        ROOT_URLCONF=urls,
        MIDDLEWARE=[*middleware, _COMMON_MIDDLEWARE],
        **{"USE_TZ": True, "SESSION_COOKIE_AGE": IDLE_SECONDS, **settings},
    )
    django.setup()
    return WSGIHandler()


_COMMON_MIDDLEWARE = "django.middleware.common.CommonMiddleware"
"""Sets Content-Length."""

DJANGO_MIDDLEWARE = "django.contrib.sessions.middleware.SessionMiddleware"


def bare_django(directory: Path) -> Any:
    """Build Django without sessions."""
    return django_app(middleware=[])


def django_cache(directory: Path) -> Any:
    """Build it with Django's cache engine over the Valkey server."""
    cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": valkey_url()}
    return django_app(
        middleware=[DJANGO_MIDDLEWARE],
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        CACHES={"default": cache},
    )


def django_database(directory: Path) -> Any:
    """Build it with Django's db engine over SQLite with a write-ahead log."""
    database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": directory / "django.db",
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "timeout": _SQLITE_SECONDS,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
    return with_db_engine(database)


def with_db_engine(database: dict[str, Any]) -> Any:
    """Build Django with its db engine over a database, and create its table there."""
    app = django_app(
        middleware=[DJANGO_MIDDLEWARE],
        SESSION_ENGINE="django.contrib.sessions.backends.db",
        INSTALLED_APPS=["django.contrib.sessions"],
        DATABASES={"default": database},
    )
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    return app


def sojourn_django(store: str) -> Any:
    """Build Django with sojourn over the store of a URL."""
    return django_app(
        middleware=["sojourn.frameworks.django.SessionMiddleware"],
        SESSION_ENGINE="sojourn.frameworks.django",
        SOJOURN={"store": store, "secret": SECRET, "store_timeout": STORE_TIMEOUT},
    )


def sojourn_django_valkey(directory: Path) -> Any:
    """Build it with sojourn over the Valkey server."""
    return sojourn_django(valkey_url())


def sojourn_django_sqlite(directory: Path) -> Any:
    """Build it with sojourn over SQLite."""
    return sojourn_django(f"sqlite:///{directory}/sessions.db")


def pyramid_configurator(*, session: bool) -> Any:
    """Return the configuration of the Pyramid application."""
    from pyramid.config import Configurator
    from pyramid.response import Response

    config = Configurator()
    numbers = itertools.count(1)

    def hello(request: Any) -> Response:
        return Response("hello, world")

    def read(request: Any) -> Response:
        return Response(f"{request.session['counter'] if session else 0:012d}")

    def write(request: Any) -> Response:
        number = next(numbers)
        if session:
            request.session["counter"] = number
        return Response(f"{number:012d}")

    def seed(request: Any) -> Response:
        number = next(numbers) if session else 0
        if session:
            request.session.update(SMALL | {"counter": number})
        return Response(f"{number:012d}")

    views = {"/": hello, "/read": read, "/write": write, "/seed": seed}
    for path, view in views.items():
        config.add_route(view.__name__, path)
        config.add_view(view, route_name=view.__name__)
    return config


def bare_pyramid(directory: Path) -> Any:
    """Build Pyramid without sessions."""
    return pyramid_configurator(session=False).make_wsgi_app()


def pyramid_session_redis(directory: Path) -> Any:
    """Build it with pyramid_session_redis over the Valkey server."""
    from pyramid_session_redis import RedisSessionFactory

    config = pyramid_configurator(session=True)
    config.set_session_factory(
        RedisSessionFactory(SECRET, timeout=IDLE_SECONDS, redis_url=valkey_url())
    )
    return config.make_wsgi_app()


def sojourn_pyramid(directory: Path) -> Any:
    """Build it with sojourn over the Valkey server."""
    config = pyramid_configurator(session=True)
    install(config)
    return config.make_wsgi_app()


def bottle_app(*, session: bool) -> Any:
    """Build the Bottle application."""
    import bottle

    app = bottle.Bottle()
    numbers = itertools.count(1)

    def hello() -> str:
        return "hello, world"

    def read() -> str:
        return f"{bottle.request.session['counter'] if session else 0:012d}"

    def write() -> str:
        number = next(numbers)
        if session:
            bottle.request.session["counter"] = number
        return f"{number:012d}"

    def seed() -> str:
        number = next(numbers) if session else 0
        if session:
            bottle.request.session.update(SMALL | {"counter": number})
        return f"{number:012d}"

    for path, view in {"/": hello, "/read": read, "/write": write, "/seed": seed}.items():
        app.route(path, "GET", view)
    return app


def bare_bottle(directory: Path) -> Any:
    """Build Bottle without sessions."""
    return bottle_app(session=False)


def sojourn_bottle(directory: Path) -> Any:
    """Build it with sojourn over the Valkey server."""
    return install(bottle_app(session=True))


SOJOURN_DJANGO = (
    f"MIDDLEWARE=['sojourn.frameworks.django.SessionMiddleware', {_COMMON_MIDDLEWARE!r}], "
    'SOJOURN={"store": …, "secret": …, "store_timeout": 30}'
)

WSGI: tuple[Candidate, ...] = (
    Candidate(
        name="sojourn-flask-session",
        title="**sojourn as flask.session, Valkey**",
        configuration=f"{VALKEY_INSTALL}; flask.session",
        build=sojourn_flask,
        baseline="bare-flask",
        needs_valkey=True,
        server="gunicorn",
        adapter="sojourn.frameworks.flask",
    ),
    Candidate(
        name="bare-django",
        title="Django, no sessions",
        configuration=f"MIDDLEWARE=[{_COMMON_MIDDLEWARE!r}]",
        build=bare_django,
        baseline=None,
        keeps_values=False,
        server="gunicorn",
    ),
    Candidate(
        name="django-cache",
        title="Django's cache engine, Valkey",
        configuration=(
            f"MIDDLEWARE=[{DJANGO_MIDDLEWARE!r}, {_COMMON_MIDDLEWARE!r}], "
            'SESSION_ENGINE="django.contrib.sessions.backends.cache", SESSION_COOKIE_AGE=1800, '
            'CACHES with "django.core.cache.backends.redis.RedisCache"'
        ),
        build=django_cache,
        baseline="bare-django",
        needs_valkey=True,
        server="gunicorn",
    ),
    Candidate(
        name="django-db",
        title="Django's db engine, SQLite",
        configuration=(
            'the same with SESSION_ENGINE="django.contrib.sessions.backends.db"; SQLite with '
            "CONN_MAX_AGE=None, transaction_mode=IMMEDIATE, journal_mode=WAL, synchronous=NORMAL"
        ),
        build=django_database,
        baseline="bare-django",
        server="gunicorn",
    ),
    Candidate(
        name="sojourn-django-valkey",
        title="**sojourn in Django, Valkey**",
        configuration=SOJOURN_DJANGO,
        build=sojourn_django_valkey,
        baseline="bare-django",
        needs_valkey=True,
        server="gunicorn",
        adapter="sojourn.frameworks.django",
    ),
    Candidate(
        name="sojourn-django-sqlite",
        title="**sojourn in Django, SQLite**",
        configuration=SOJOURN_DJANGO,
        build=sojourn_django_sqlite,
        baseline="bare-django",
        server="gunicorn",
        adapter="sojourn.frameworks.django",
    ),
    Candidate(
        name="bare-pyramid",
        title="Pyramid, no sessions",
        configuration="Configurator()",
        build=bare_pyramid,
        baseline=None,
        keeps_values=False,
        server="gunicorn",
    ),
    Candidate(
        name="pyramid-session-redis",
        title="pyramid_session_redis, Valkey",
        configuration="RedisSessionFactory(secret, timeout=1800, redis_url=…)",
        build=pyramid_session_redis,
        baseline="bare-pyramid",
        needs_valkey=True,
        server="gunicorn",
    ),
    Candidate(
        name="sojourn-pyramid",
        title="**sojourn in Pyramid, Valkey**",
        configuration=f"{VALKEY_INSTALL} with the Configurator; request.session",
        build=sojourn_pyramid,
        baseline="bare-pyramid",
        needs_valkey=True,
        server="gunicorn",
        adapter="sojourn.frameworks.pyramid",
    ),
    Candidate(
        name="bare-bottle",
        title="Bottle, no sessions",
        configuration="Bottle()",
        build=bare_bottle,
        baseline=None,
        keeps_values=False,
        server="gunicorn",
    ),
    Candidate(
        name="sojourn-bottle",
        title="**sojourn in Bottle, Valkey**",
        configuration=f"{VALKEY_INSTALL}; request.session",
        build=sojourn_bottle,
        baseline="bare-bottle",
        needs_valkey=True,
        server="gunicorn",
        adapter="sojourn.frameworks.bottle",
    ),
)
