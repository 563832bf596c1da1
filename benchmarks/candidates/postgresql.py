"""Candidates over PostgreSQL: Starlette under uvicorn, Django and Flask under gunicorn."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.candidates.candidate import (
    IDLE_SECONDS,
    SECRET,
    STORE_TIMEOUT,
    TUNED,
    ASGIApp,
    Candidate,
    postgresql_url,
)
from benchmarks.candidates.flask import THREADS, flask_app
from benchmarks.candidates.joined_round_trips import PostgreSQLLeastLayer
from benchmarks.candidates.starlette import session_handlers, starlette_app
from benchmarks.candidates.wsgi_frameworks import (
    DJANGO_MIDDLEWARE,
    SOJOURN_DJANGO,
    sojourn_django,
    with_db_engine,
)

RELAXED = "?durability=relaxed"


def least_layer(*, relaxed: bool) -> ASGIApp:
    """Build Starlette with the joined round trips alone."""
    from starlette.middleware import Middleware

    layer = Middleware(PostgreSQLLeastLayer, url=postgresql_url(), relaxed=relaxed)
    app: ASGIApp = starlette_app(session_handlers(), layer)
    return app


def least_durable(directory: Path) -> ASGIApp:
    """Build it with commits that wait for the disk."""
    return least_layer(relaxed=False)


def least_relaxed(directory: Path) -> ASGIApp:
    """Build it with commits that do not wait for the disk."""
    return least_layer(relaxed=True)


def _install(app: Any, parameters: str = "") -> Any:
    import sojourn

    store = postgresql_url() + parameters
    sojourn.install(app, store=store, secret=SECRET, store_timeout=STORE_TIMEOUT)
    return app


def sojourn_durable(directory: Path) -> ASGIApp:
    """Build Starlette with sojourn."""
    app: ASGIApp = _install(starlette_app(session_handlers()))
    return app


def sojourn_relaxed(directory: Path) -> ASGIApp:
    """Build it with commits that do not wait for the disk."""
    app: ASGIApp = _install(starlette_app(session_handlers()), RELAXED)
    return app


def django_database(directory: Path) -> Any:
    """Build Django with its db engine; each thread keeps its connection."""
    server = urlsplit(postgresql_url())
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": server.path.removeprefix("/"),
        "USER": server.username,
        "HOST": server.hostname,
        "PORT": server.port,
        "CONN_MAX_AGE": None,
    }
    return with_db_engine(database)


def sojourn_django_durable(directory: Path) -> Any:
    """Build Django with sojourn."""
    return sojourn_django(postgresql_url())


def sojourn_django_relaxed(directory: Path) -> Any:
    """Build it with commits that do not wait for the disk."""
    return sojourn_django(postgresql_url() + RELAXED)


def flask_session(directory: Path) -> Any:
    """Build Flask with Flask-Session on SQLAlchemy; reading writes nothing."""
    import flask
    from flask_session import Session
    from flask_sqlalchemy import SQLAlchemy

    app = flask_app(lambda: flask.session)
    app.config.update(
        SQLALCHEMY_DATABASE_URI=postgresql_url().replace("postgresql:", "postgresql+psycopg:"),
        SQLALCHEMY_ENGINE_OPTIONS={"pool_size": THREADS},
        SESSION_TYPE="sqlalchemy",
        SESSION_SERIALIZATION_FORMAT="msgpack",
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=IDLE_SECONDS,
    )
    app.config["SESSION_SQLALCHEMY"] = SQLAlchemy(app)
    Session(app)
    return app


def sojourn_flask_durable(directory: Path) -> Any:
    """Build Flask with sojourn as ``flask.session``."""
    import flask

    return _install(flask_app(lambda: flask.session))


def sojourn_flask_relaxed(directory: Path) -> Any:
    """Build it with commits that do not wait for the disk."""
    import flask

    return _install(flask_app(lambda: flask.session), RELAXED)


POSTGRESQL: tuple[Candidate, ...] = (
    Candidate(
        name="least-postgresql-relaxed",
        title="joined round trips alone, relaxed",
        configuration=(
            "no session layer: one batched SELECT and one batched UPDATE with compare-and-set over "
            "psycopg, one connection for each (candidates/joined_round_trips.py); "
            "options=-c synchronous_commit=off"
        ),
        build=least_relaxed,
        needs_postgresql=True,
    ),
    Candidate(
        name="sojourn-postgresql-relaxed",
        title="**sojourn, relaxed**",
        configuration=(
            'sojourn.install(app, store="postgresql://…?durability=relaxed", secret=…, '
            "store_timeout=30)"
        ),
        build=sojourn_relaxed,
        least_layer="least-postgresql-relaxed",
        needs_postgresql=True,
    ),
    Candidate(
        name="least-postgresql-relaxed-tuned",
        title="joined round trips alone, relaxed, tuned",
        configuration=f"joined round trips alone, relaxed; {TUNED}",
        build=least_relaxed,
        baseline="bare-tuned",
        tuned=True,
        needs_postgresql=True,
    ),
    Candidate(
        name="sojourn-postgresql-relaxed-tuned",
        title="**sojourn, relaxed**, tuned",
        configuration=f"sojourn, relaxed; {TUNED}",
        build=sojourn_relaxed,
        baseline="bare-tuned",
        least_layer="least-postgresql-relaxed-tuned",
        tuned=True,
        needs_postgresql=True,
    ),
    Candidate(
        name="least-postgresql",
        title="joined round trips alone, durable",
        configuration="the same without options",
        build=least_durable,
        needs_postgresql=True,
    ),
    Candidate(
        name="sojourn-postgresql",
        title="**sojourn, durable**",
        configuration='sojourn.install(app, store="postgresql://…", secret=…, store_timeout=30)',
        build=sojourn_durable,
        least_layer="least-postgresql",
        needs_postgresql=True,
    ),
    Candidate(
        name="django-db-postgresql",
        title="Django's db engine",
        configuration=(
            f"MIDDLEWARE with {DJANGO_MIDDLEWARE!r}, SESSION_COOKIE_AGE=1800, "
            'SESSION_ENGINE="django.contrib.sessions.backends.db", '
            'DATABASES with "django.db.backends.postgresql" and CONN_MAX_AGE=None'
        ),
        build=django_database,
        baseline="bare-django",
        needs_postgresql=True,
        server="gunicorn",
    ),
    Candidate(
        name="sojourn-django-postgresql",
        title="**sojourn in Django, durable**",
        configuration=SOJOURN_DJANGO,
        build=sojourn_django_durable,
        baseline="bare-django",
        needs_postgresql=True,
        server="gunicorn",
    ),
    Candidate(
        name="sojourn-django-postgresql-relaxed",
        title="**sojourn in Django, relaxed**",
        configuration='the same with "store": "postgresql://…?durability=relaxed"',
        build=sojourn_django_relaxed,
        baseline="bare-django",
        needs_postgresql=True,
        server="gunicorn",
    ),
    Candidate(
        name="flask-session-postgresql",
        title="Flask-Session on SQLAlchemy",
        configuration=(
            'Session(app) with SESSION_TYPE="sqlalchemy", '
            'SQLALCHEMY_DATABASE_URI="postgresql+psycopg://…", '
            'SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 16}, '
            'SESSION_SERIALIZATION_FORMAT="msgpack", PERMANENT_SESSION_LIFETIME=1800, '
            "SESSION_REFRESH_EACH_REQUEST=False (a request that only reads writes nothing)"
        ),
        build=flask_session,
        baseline="bare-flask",
        needs_postgresql=True,
        server="gunicorn",
    ),
    Candidate(
        name="sojourn-flask-postgresql",
        title="**sojourn in Flask, durable**",
        configuration=(
            'sojourn.install(app, store="postgresql://…", secret=…, store_timeout=30); '
            "flask.session"
        ),
        build=sojourn_flask_durable,
        baseline="bare-flask",
        needs_postgresql=True,
        server="gunicorn",
    ),
    Candidate(
        name="sojourn-flask-postgresql-relaxed",
        title="**sojourn in Flask, relaxed**",
        configuration='the same with store="postgresql://…?durability=relaxed"',
        build=sojourn_flask_relaxed,
        baseline="bare-flask",
        needs_postgresql=True,
        server="gunicorn",
    ),
)
