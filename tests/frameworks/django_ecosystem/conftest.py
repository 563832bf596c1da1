"""The project on its servers, with Django's own session middleware and with sojourn's."""

import os
import subprocess
import sys
from typing import NamedTuple

import pytest

import sojourn
from tests.frameworks.django_ecosystem.browser import Browser
from tests.support.processes import REPOSITORY, serving

PROJECT = "tests.frameworks.django_ecosystem.project"
SECRET = "a secret of the tests of the ecosystem: 8be10c2f"  # SECRET_KEY of the project
DJANGO = "django.contrib.sessions.middleware.SessionMiddleware"
OURS = "sojourn.frameworks.django.SessionMiddleware"

GUNICORN = (
    f"gunicorn --bind 127.0.0.1:PORT --worker-class gthread --threads 8 {PROJECT}.wsgi:application"
)
UVICORN = f"uvicorn --port PORT --log-level warning {PROJECT}.asgi:application"
DAPHNE = f"daphne --verbosity 0 --bind 127.0.0.1 --port PORT {PROJECT}.asgi:application"


class Served(NamedTuple):
    """A project that is being served.

    Attributes:
        url: its address.
        store: the URL of its store.
        folder: of its database.
        environ: of its processes.
        server: its name.
    """

    url: str
    store: str
    folder: str
    environ: dict[str, str]
    server: str = ""

    def browser(self) -> Browser:
        """Return a new visitor."""
        return Browser(self.url)

    def sessions(self) -> sojourn.Sessions:
        """Return the sessions of the project, for this process."""
        return sojourn.Sessions(store=self.store, secret=SECRET, cookie="sessionid")

    def manage(self, *command: str) -> str:
        """Run a management command; return its output."""
        return run("django", *command, environ=self.environ)


def run(module, *arguments, environ):
    """Run a module in a process of the project; return its output."""
    process = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environ,
        check=False,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def serve(command, middleware, folder, **more):
    """Prepare the database and run a server; a context manager that yields a ``Served``."""
    environ = {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)]),
        "DJANGO_SETTINGS_MODULE": f"{PROJECT}.settings",
        "STORE": f"sqlite:///{folder}/sessions.db",
        "FOLDER": str(folder),
        "SESSION_MIDDLEWARE": middleware,
        **more,
    }
    run("tests.frameworks.django_ecosystem.prepare", environ=environ)
    return serving(*command.split(), folder=folder, environ=environ), environ


@pytest.fixture(
    scope="session",
    params=[
        pytest.param((UVICORN, OURS), id="uvicorn"),
        pytest.param((GUNICORN, OURS), id="gunicorn", marks=pytest.mark.slow),
        pytest.param((GUNICORN, DJANGO), id="gunicorn-django", marks=pytest.mark.slow),
        pytest.param((UVICORN, DJANGO), id="uvicorn-django", marks=pytest.mark.slow),
        pytest.param((DAPHNE, OURS), id="daphne", marks=pytest.mark.slow),
    ],
)
def served(request, tmp_path_factory):
    """Return the project on each server."""
    folder = tmp_path_factory.mktemp("project")
    command, middleware = request.param
    server, environ = serve(command, middleware, folder)
    with server as url:
        yield Served(url, environ["STORE"], str(folder), environ, command.split()[0])


@pytest.fixture(
    scope="session",
    params=["uvicorn", pytest.param("daphne", marks=pytest.mark.slow)],
)
def served_sockets(request, tmp_path_factory):
    """Return the project on the servers with WebSockets."""
    folder = tmp_path_factory.mktemp("sockets")
    command = {"uvicorn": UVICORN, "daphne": DAPHNE}[request.param]
    server, environ = serve(command, OURS, folder)
    with server as url:
        yield Served(url, environ["STORE"], str(folder), environ, request.param)
