"""Which framework is tested on which real servers."""

from typing import NamedTuple

ASGI = ("uvicorn", "hypercorn", "granian")
WSGI = ("gunicorn", "gunicorn-gthread", "gunicorn-gevent", "granian-wsgi")

#: A framework with a server of its own: its module in ``apps`` has ``serve(create, port)``.
OWN = "own"


#: Servers with several processes, which cannot share the memory store.
SEVERAL_PROCESSES = frozenset({"gunicorn-aiohttp", "sanic-workers"})


class Row(NamedTuple):
    """One framework.

    Attributes:
        name: of the module ``tests.frameworks.apps.<name>_app``.
        servers: on which it is tested.
        everyday: whether ``make test`` starts its first server; ``make test-all`` starts all.
    """

    name: str
    servers: tuple[str, ...]
    everyday: bool = False


ROWS = (
    Row("asgi", ASGI),
    Row("wsgi", WSGI),
    Row("starlette", ASGI),
    Row("fastapi", ASGI, everyday=True),
    Row("pyramid", (*WSGI, "waitress")),
    Row("bottle", (*WSGI, OWN)),
    Row("cherrypy", ("gunicorn-gthread", OWN)),
    Row("connexion", ASGI),
    Row("lilya", ASGI),
    Row("aiohttp", (OWN, "gunicorn-aiohttp"), everyday=True),
    Row("sanic", (OWN, "sanic-workers", "uvicorn")),
    Row("tornado", (OWN,)),
    Row("flask", WSGI, everyday=True),
    Row("quart", ("hypercorn", "uvicorn")),
    Row("litestar", ASGI, everyday=True),
    Row("falcon", WSGI),
    Row("falcon_asgi", ASGI),
    Row("blacksheep", ASGI),
    Row("django", ASGI, everyday=True),
    Row("django_wsgi", WSGI),
)

COMMANDS = {
    "uvicorn": "uvicorn --port PORT --log-level warning tests.frameworks.served:app",
    "hypercorn": "hypercorn --bind 127.0.0.1:PORT tests.frameworks.served:app",
    "granian": "granian --interface asgi --port PORT tests.frameworks.served:app",
    "granian-wsgi": (
        "granian --interface wsgi --port PORT --blocking-threads 8 tests.frameworks.served:app"
    ),
    "gunicorn": "gunicorn --bind 127.0.0.1:PORT tests.frameworks.served:app",
    "gunicorn-gthread": (
        "gunicorn --bind 127.0.0.1:PORT --worker-class gthread --threads 8 "
        "tests.frameworks.served:app"
    ),
    "gunicorn-gevent": (
        "gunicorn --bind 127.0.0.1:PORT --worker-class gevent tests.frameworks.served:app"
    ),
    "waitress": "waitress --listen 127.0.0.1:PORT --threads 8 tests.frameworks.served:app",
    "gunicorn-aiohttp": (
        "gunicorn --bind 127.0.0.1:PORT --worker-class aiohttp.GunicornWebWorker --workers 2 "
        "tests.frameworks.served:app"
    ),
    "sanic-workers": "sanic tests.frameworks.served:app --port PORT --workers 2 --no-motd",
    OWN: "tests.frameworks.served PORT",
}
