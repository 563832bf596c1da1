"""Candidates on Flask over Valkey under WSGI: no sessions, Flask-Session and sojourn."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.candidates.candidate import (
    IDLE_SECONDS,
    LARGE,
    SECRET,
    SMALL,
    STORE_TIMEOUT,
    Candidate,
    valkey_url,
)

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

THREADS = 16
"""Threads of the one gunicorn worker."""


def flask_app(session: Callable[[], Any] | None) -> Any:
    """Build the Flask application.

    Args:
        session: returns the session of the current request; None for the application that answers
            the same bytes without one.
    """
    from flask import Flask, request

    app = Flask("benchmark")
    numbers = itertools.count(1)

    def hello() -> str:
        return "hello, world"

    def bare_read() -> str:
        return f"{0:012d}"

    def bare_write() -> str:
        return f"{next(numbers):012d}"

    def read() -> str:
        assert session is not None
        return f"{session()['counter']:012d}"

    def write() -> str:
        assert session is not None
        number = next(numbers)
        session()["counter"] = number
        return f"{number:012d}"

    def seed() -> str:
        assert session is not None
        number = next(numbers)
        contents = LARGE if request.path == "/seed-large" else SMALL
        session().update(contents | {"counter": number})
        return f"{number:012d}"

    bare = session is None
    app.add_url_rule("/", view_func=hello)
    app.add_url_rule("/read", view_func=bare_read if bare else read)
    app.add_url_rule("/write", view_func=bare_write if bare else write)
    for path in ("/seed", "/seed-large"):
        app.add_url_rule(path, view_func=bare_read if bare else seed)
    return app


def bare_flask(directory: Path) -> WSGIApplication:
    """Build Flask without sessions: its own do nothing without a secret key."""
    app: WSGIApplication = flask_app(None)
    return app


def flask_session(directory: Path) -> WSGIApplication:
    """Build it with Flask-Session over the Valkey server; reading writes nothing."""
    import flask
    from flask_session import Session
    from redis import Redis

    app = flask_app(lambda: flask.session)
    app.config.update(
        SESSION_TYPE="redis",
        SESSION_REDIS=Redis.from_url(valkey_url(), socket_timeout=STORE_TIMEOUT),
        SESSION_SERIALIZATION_FORMAT="msgpack",
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=IDLE_SECONDS,
    )
    Session(app)
    built: WSGIApplication = app
    return built


def sojourn_flask(directory: Path) -> WSGIApplication:
    """Build it with sojourn over the Valkey server."""
    from flask import request

    import sojourn

    app = flask_app(lambda: request.environ["sojourn.session"])
    sessions = sojourn.Sessions(store=valkey_url(), secret=SECRET, store_timeout=STORE_TIMEOUT)
    app.wsgi_app = sojourn.wsgi.SessionMiddleware(app.wsgi_app, sessions)
    built: WSGIApplication = app
    return built


FLASK: tuple[Candidate, ...] = (
    Candidate(
        name="bare-flask",
        title="Flask, no sessions",
        configuration="Flask(__name__), no secret key",
        build=bare_flask,
        baseline=None,
        keeps_values=False,
        server="gunicorn",
    ),
    Candidate(
        name="flask-session",
        title="Flask-Session, Valkey",
        configuration=(
            'Session(app) with SESSION_TYPE="redis", '
            "SESSION_REDIS=Redis.from_url(…, socket_timeout=30), "
            'SESSION_SERIALIZATION_FORMAT="msgpack", PERMANENT_SESSION_LIFETIME=1800, '
            "SESSION_REFRESH_EACH_REQUEST=False (a request that only reads writes nothing)"
        ),
        build=flask_session,
        baseline="bare-flask",
        needs_valkey=True,
        server="gunicorn",
    ),
    Candidate(
        name="sojourn-flask",
        title="**sojourn in Flask, Valkey**",
        configuration=(
            "app.wsgi_app = sojourn.wsgi.SessionMiddleware(app.wsgi_app, "
            'Sessions(store="redis://127.0.0.1:…", secret=…, store_timeout=30)); '
            '`request.environ["sojourn.session"]`'
        ),
        build=sojourn_flask,
        baseline="bare-flask",
        needs_valkey=True,
        server="gunicorn",
    ),
)
