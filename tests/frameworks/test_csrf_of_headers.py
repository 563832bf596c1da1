"""A request with the ticket in a header and no cookie needs no CSRF token of the framework."""

import asyncio

import flask
import httpx
import pytest
import quart
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path
from litestar import Litestar, post
from pyramid.config import Configurator
from pyramid.response import Response

import sojourn
from sojourn.frameworks.flask.csrf import check_csrf as check_flask
from sojourn.frameworks.litestar.csrf import require_csrf
from sojourn.frameworks.quart.csrf import check_csrf as check_quart
from tests.frameworks.apps import django_app

OPTIONS = {
    "store": "memory://",
    "secret": "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa",
    "transport": ["cookie", "header"],
}
URL = "https://testserver"


def flask_app():
    app = flask.Flask(__name__)
    app.before_request(check_flask)
    app.add_url_rule("/", view_func=lambda: "changed", methods=["POST"])
    return httpx.WSGITransport(app), sojourn.install(app, **OPTIONS)


def quart_app():
    app = quart.Quart(__name__)
    app.before_request(check_quart)

    @app.post("/")
    async def change():
        return "changed"

    return httpx.ASGITransport(app), sojourn.install(app, **OPTIONS)


def litestar_app():
    @post("/", guards=[require_csrf], status_code=200)
    async def change() -> str:
        return "changed"

    app = Litestar([change], openapi_config=None)
    return httpx.ASGITransport(app), sojourn.install(app, **OPTIONS)


def pyramid_app():
    config = Configurator()
    sessions = sojourn.install(config, **OPTIONS)
    config.set_default_csrf_options(require_csrf=True, check_origin=False)
    config.add_route("change", "/")
    config.add_view(lambda request: Response("changed"), route_name="change")
    return httpx.WSGITransport(config.make_wsgi_app()), sessions


def change_in_django(request):
    return HttpResponse("changed")


def django_asgi_app():
    django_app.building.sessions = sessions = sojourn.Sessions(**OPTIONS)
    django_app.building.urls = type("URLs", (), {"urlpatterns": [path("", change_in_django)]})
    layers = [f"{django_app.__name__}.{name}" for name in ("choose_urls", "Middleware")]
    with override_settings(MIDDLEWARE=[*layers, "django.middleware.csrf.CsrfViewMiddleware"]):
        return httpx.ASGITransport(ASGIHandler()), sessions


async def send(transport, headers):
    """Return the status of an unsafe request."""
    if isinstance(transport, httpx.WSGITransport):
        request = httpx.Request("POST", URL, headers=headers)
        return (await asyncio.to_thread(transport.handle_request, request)).status_code
    async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
        return (await client.post("/", headers=headers)).status_code


@pytest.mark.anyio
@pytest.mark.parametrize(
    "create", [django_asgi_app, flask_app, litestar_app, pyramid_app, quart_app]
)
async def test_only_requests_with_the_header_and_without_a_cookie_need_no_token(create):
    """B-43: browsers add cookies automatically, but not this header."""
    transport, sessions = create()
    async with sessions.open(headers={"Authorization": "Session"}) as visit:
        visit.session.login("ada")
    ticket = dict(visit.response_headers())["session-ticket"]
    header = {"Authorization": f"Session {ticket}"}
    cookie = {"Cookie": f"__Host-sid={ticket}"}
    assert await send(transport, header) == 200
    assert await send(transport, cookie) in (400, 403)
    assert await send(transport, header | cookie) in (400, 403)
    assert await send(transport, {}) in (400, 403)
