"""The table of docs/errors.md lists every error with its response (law A23)."""

import asyncio
import inspect
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

import sojourn
from sojourn import errors
from sojourn.stores.memory import MemoryStore
from tests.docs.test_docs_are_complete import table

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "errors.md").read_text("utf-8")
ROWS = {row[0].strip("`"): row for row in table(PAGE, "error", "## Default responses")}
ERRORS = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, errors.SojournError)
}
SECRET = "the table of errors: 7Jm2Qw9"
ARGUMENTS = {
    "NotSerializable": ("key", "", object),
    "InvalidState": ("field", int, "expected text"),
    "SessionTooLarge": (2, 1, [("key", 2)]),
    "SessionGone": ("id",),
    "SessionConflict": ("id", 1),
    "CommitOutcomeUnknown": ("id", ["key"]),
    "ExclusiveTimeout": ("id", 1.0),
    "RecentAuthRequired": (None, 1.0),
    "LimitReached": (1,),
    "RevocationIncomplete": (["id"], None),
}
IN_STREAMS = {"ResponseStarted"}


def make(name):
    options = {"cutoff_set": True} if name == "RevocationIncomplete" else {}
    return ERRORS[name](*ARGUMENTS.get(name, ()), **options)


def test_the_table_names_every_error():
    assert list(ROWS) == list(ERRORS)


async def request_starlette(kind, name, on_error):
    app = kind()

    async def page(request):
        raise make(name)

    app.router.add_route("/", page)
    sojourn.install(app, store=MemoryStore(), secret=SECRET, on_error=on_error)
    return await status_of(app)


async def request_asgi(name, on_error):
    async def app(scope, receive, send):
        raise make(name)

    sessions = sojourn.Sessions(store=MemoryStore(), secret=SECRET, on_error=on_error)
    return await status_of(sojourn.asgi.SessionMiddleware(app, sessions))


async def status_of(app):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return (await client.get("/")).status_code


def request_wsgi(name, on_error):
    def app(environ, start_response):
        raise make(name)

    sessions = sojourn.Sessions(store=MemoryStore(), secret=SECRET, on_error=on_error)
    environ = {"HTTP_HOST": "localhost"}
    setup_testing_defaults(environ)
    started = []
    wrapped = sojourn.wsgi.SessionMiddleware(app, sessions)
    try:
        list(wrapped(environ, lambda status, headers, error=None: started.append(status)))
    except errors.SojournError:
        return 500  # by the server
    return int(started[0][:3])


async def statuses(name, on_error=None, wsgi_on_error=None):
    """Return the statuses under Starlette and FastAPI, ASGI and WSGI."""
    both = {await request_starlette(kind, name, on_error) for kind in (Starlette, FastAPI)}
    assert len(both) == 1
    by_wsgi = await asyncio.to_thread(request_wsgi, name, wsgi_on_error)
    return [both.pop(), await request_asgi(name, on_error), by_wsgi]


@pytest.mark.anyio
@pytest.mark.parametrize("name", sorted(ERRORS.keys() - IN_STREAMS))
async def test_responses_match_the_table(name):
    """A23: without a handler of the application."""
    assert [str(status) for status in await statuses(name)] == ROWS[name][2:5]


@pytest.mark.anyio
@pytest.mark.parametrize("name", sorted(ERRORS))
async def test_on_error_is_called_for_every_error(name):
    """A23: except configuration errors."""

    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def wsgi_answer(environ, start_response):
        start_response("418 Answered", [])
        return [b""]

    found = await statuses(name, lambda *_: answer, lambda *_: wsgi_answer)
    assert found == [500 if name == "ConfigurationError" else 418] * 3
