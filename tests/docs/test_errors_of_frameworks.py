"""The error handlers of each framework in docs/errors.md respond to a failing store (law A23)."""

import asyncio
import re
from types import SimpleNamespace

import pytest

import sojourn
from sojourn.errors import StoreError
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from tests.docs.test_docs_are_complete import table
from tests.docs.test_errors import DOCS, ERRORS, IN_STREAMS, PAGE, ROWS, SECRET, make

SECTION = PAGE.partition("### Handlers of other frameworks")[2].partition("\n## ")[0]
FRAMEWORKS = {row[0]: row for row in table(SECTION, "framework")}
#: The response of each example.
ANSWER = (503, "5", "Back in a moment.")


def example(name, **names):
    """Run the example of a framework; return the names that it defines."""
    source = re.search(rf"^{name},[^\n]*\n\n```py\n(.*?)```", SECTION, re.DOTALL | re.MULTILINE)
    assert source, f"no example for {name}"
    exec(source[1], names)  # noqa: S102 - the code of the page
    return names


class URLs(SimpleNamespace):
    """A URLconf that Django can cache."""

    __hash__ = object.__hash__


def request_django(view, store, *, handlers):
    from django.http import HttpResponse
    from django.test import Client, override_settings
    from django.urls import path

    import tests.frameworks.apps.django_settings  # noqa: F401 - before the modules that read them

    urls = URLs(urlpatterns=[path("", lambda request: HttpResponse(view(request)))])
    if handlers:
        urls.handler503 = example("Django")["handler503"]
    with override_settings(
        ROOT_URLCONF=urls,
        MIDDLEWARE=["sojourn.frameworks.django.SessionMiddleware"],
        SOJOURN={"store": store, "secret": SECRET},
    ):
        response = Client(raise_request_exception=False).get("/")
    return response.status_code, response.get("Retry-After"), response.content.decode()


def request_flask(view, store, *, handlers):
    from flask import Flask, session

    app = Flask(__name__)
    sojourn.install(app, store=store, secret=SECRET)
    if handlers:
        example("Flask", app=app, StoreError=StoreError)
    app.add_url_rule("/", "view", lambda: view(SimpleNamespace(session=session)))
    response = app.test_client().get("/")
    return response.status_code, response.headers.get("Retry-After"), response.text


def request_litestar(view, store, *, handlers):
    from litestar import Litestar, Request, get
    from litestar.testing import TestClient

    from sojourn.frameworks.litestar import SojournPlugin

    @get("/")
    async def handler(request: Request) -> str:
        return view(request)

    answering = {StoreError: example("Litestar")["store_failed"]} if handlers else {}
    app = Litestar(
        [handler],
        plugins=[SojournPlugin(store=store, secret=SECRET)],
        exception_handlers=answering,
    )
    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.get("/")
    return response.status_code, response.headers.get("Retry-After"), response.text


def request_aiohttp(view, store, *, handlers):
    from aiohttp import web
    from aiohttp.test_utils import TestClient, TestServer

    async def handler(request):
        return web.Response(text=str(view(SimpleNamespace(session=request["session"]))))

    middlewares = [example("aiohttp", StoreError=StoreError)["answer_errors"]] if handlers else []
    app = web.Application(middlewares=middlewares)
    app.router.add_get("/", handler)
    sojourn.install(app, store=store, secret=SECRET)

    async def fetch():
        async with TestClient(TestServer(app)) as client:
            response = await client.get("/")
            return response.status, response.headers.get("Retry-After"), await response.text()

    return asyncio.run(fetch())


REQUESTS = {
    "Django": request_django,
    "Flask": request_flask,
    "Litestar": request_litestar,
    "aiohttp": request_aiohttp,
}


def write(request):
    request.session["note"] = "milk"
    return "written"


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_error_handler_of_the_page_responds_to_a_failing_store(name):
    """A23: an error of the commit."""
    pytest.importorskip(name.lower())
    store = FaultyStore(MemoryStore())
    store.fail("create", times=1)
    assert REQUESTS[name](write, store, handlers=True) == ANSWER


@pytest.mark.parametrize("name", sorted(REQUESTS))
@pytest.mark.parametrize("error", sorted(ERRORS.keys() - IN_STREAMS - {"ConfigurationError"}))
def test_without_a_handler_the_status_is_that_of_starlette(name, error):
    """A23: as stated below the table of errors."""
    pytest.importorskip(name.lower())

    def fail(request):
        raise make(error)

    status, _, _ = REQUESTS[name](fail, MemoryStore(), handlers=False)
    # aiohttp responds to every TimeoutError with 504.
    exception = (name, error) == ("aiohttp", "ExclusiveTimeout")
    assert str(status) == ("504" if exception else ROWS[error][2])


@pytest.mark.parametrize("name", sorted(FRAMEWORKS))
def test_the_row_of_a_framework_agrees_with_its_page(name):
    """The link leads to the section with the program."""
    target = re.fullmatch(rf"\[{name}\]\(frameworks/(\w+)\.md#([\w-]+)\)", FRAMEWORKS[name][3])
    assert target
    text = (DOCS / "frameworks" / f"{target[1]}.md").read_text("utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    assert target[2] in {heading.lower().replace(" ", "-") for heading in headings}
    hook = re.search(r"`@?(?:\w+\.)?(\w+)", FRAMEWORKS[name][1])[1]
    assert hook == "except" or hook in text or name == "Quart", hook
