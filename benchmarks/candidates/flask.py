"""The candidates under WSGI: Flask with 16 threads, its sessions in a Valkey server over TCP.

The routes and answers are those of candidates.py, throughput.py starts the server that keeps the
records, server.py runs gunicorn. No measuring here. In process, costs.py and instructions.py would
measure waiting: they leave these out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.candidates.starlette import FREEZE, LARGE, SECRET, SMALL, Candidate
from benchmarks.candidates.valkey import server_url

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

THREADS = 16
"""Of the one worker that serves each of them."""

STALL = 30.0
"""Seconds that both wait for the server: a machine that stands still is no wrong answer."""


def flask_app(session: Callable[[], Any] | None) -> Any:
    """Build the Flask application.

    Args:
        session: returns the session of the request under way; None for the bare application, which
            answers the same without one.
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
        held = LARGE if request.path == "/seed-large" else SMALL
        session().update(held | {"counter": number})
        return f"{number:012d}"

    bare = session is None
    app.add_url_rule("/", view_func=hello)
    app.add_url_rule("/read", view_func=bare_read if bare else read)
    app.add_url_rule("/write", view_func=bare_write if bare else write)
    for path in ("/seed", "/seed-large"):
        app.add_url_rule(path, view_func=bare_read if bare else seed)
    return app


def bare_flask(folder: Path) -> WSGIApplication:
    """Build Flask without sessions: without a secret key its own do nothing."""
    app: WSGIApplication = flask_app(None)
    return app


def flask_session(folder: Path) -> WSGIApplication:
    """Build it with Flask-Session over the benchmark's server; reading writes nothing."""
    import flask
    from flask_session import Session
    from redis import Redis

    app = flask_app(lambda: flask.session)
    app.config.update(
        SESSION_TYPE="redis",
        SESSION_REDIS=Redis.from_url(server_url(), socket_timeout=STALL),
        SESSION_SERIALIZATION_FORMAT="msgpack",
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=1800,
    )
    Session(app)
    built: WSGIApplication = app
    return built


def sojourn_flask(folder: Path) -> WSGIApplication:
    """Build it with sojourn over the benchmark's server."""
    from flask import request

    import sojourn

    app = flask_app(lambda: request.environ["sojourn.session"])
    sessions = sojourn.Sessions(store=server_url(), secret=SECRET, store_timeout=STALL)
    app.wsgi_app = sojourn.wsgi.SessionMiddleware(app.wsgi_app, sessions)
    built: WSGIApplication = app
    return built


PEER = (
    'Session(app) with SESSION_TYPE="redis", SESSION_REDIS=Redis.from_url(…, socket_timeout=30), '
    'SESSION_SERIALIZATION_FORMAT="msgpack", '
    "PERMANENT_SESSION_LIFETIME=1800, SESSION_REFRESH_EACH_REQUEST=False (a request that only "
    "reads writes nothing)"
)
OURS = (
    "app.wsgi_app = sojourn.wsgi.SessionMiddleware(app.wsgi_app, "
    'Sessions(store="redis://127.0.0.1:…", secret=…, store_timeout=30)), '
    '`request.environ["sojourn.session"]`'
)


def _candidates(*, freeze: bool) -> tuple[Candidate, ...]:
    name, title, note = ("-frozen", ", frozen", f"; {FREEZE}") if freeze else ("", "", "")
    baseline = f"bare-flask{name}"
    return (
        Candidate(
            baseline,
            f"Flask, no sessions{title}",
            None,
            f"Flask(__name__), no secret key{note}",
            bare_flask,
            remembers=False,
            freeze=freeze,
            server="gunicorn",
        ),
        Candidate(
            f"flask-session{name}",
            f"Flask-Session, Valkey{title}",
            baseline,
            PEER + note,
            flask_session,
            freeze=freeze,
            networked=True,
            server="gunicorn",
        ),
        Candidate(
            f"sojourn-flask{name}",
            f"**sojourn in Flask, Valkey**{title}",
            baseline,
            OURS + note,
            sojourn_flask,
            freeze=freeze,
            networked=True,
            server="gunicorn",
        ),
    )


THREADED: tuple[Candidate, ...] = (*_candidates(freeze=False), *_candidates(freeze=True))
