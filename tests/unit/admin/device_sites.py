"""Sites with a login and a device page, one for each way to mount it."""

from collections.abc import Callable
from contextlib import ExitStack

import httpx
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.test import override_settings
from django.urls import include, path
from fastapi import FastAPI
from fastapi.testclient import TestClient
from flask import Flask
from flask import session as flask_session

import sojourn
from sojourn import admin
from sojourn.frameworks.django import get_sessions
from sojourn.frameworks.fastapi import SessionDep
from sojourn.frameworks.flask.admin import blueprint
from sojourn.wsgi import SessionMiddleware, get_session
from tests.frameworks.django_project import OTHERS, OURS

HOST = "https://shop.example"

#: What browsers send with requests of the site's own pages.
BROWSER = {
    "Sec-Fetch-Site": "same-origin",
    "Origin": HOST,
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
}


class Site:
    """A site whose page is at ``/account/devices/`` and whose login is ``POST /login/<user>``."""

    def __init__(self, sessions: sojourn.Sessions, visit: Callable[[], httpx.Client]) -> None:
        self.sessions = sessions
        self._visit = visit

    def visitor(self, user: str = "", **headers: str) -> httpx.Client:
        """Return a browser, logged in as a user; without a name not logged in."""
        client = self._visit()
        client.headers.update({**BROWSER, **headers})
        if user:
            assert client.post(f"/login/{user}").status_code == 200
        return client


def fastapi_site(options, page, _) -> Site:
    """Mount the page into FastAPI."""
    app = FastAPI()
    sessions = sojourn.install(app, **options)

    @app.post("/login/{user}")
    async def login(session: SessionDep, user: str) -> None:
        session.login(user)

    @app.get("/why")
    async def why(session: SessionDep) -> str | None:
        return session.ended_reason

    app.mount("/account/devices", admin.device_page(sessions, **page))
    return Site(sessions, lambda: TestClient(app, base_url=HOST, follow_redirects=False))


def wsgi_site(options, page, _) -> Site:
    """Mount the page into a bare WSGI application."""
    sessions = sojourn.Sessions(**options)
    devices = admin.device_page(sessions, **page)

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path.startswith("/account/devices"):
            environ["SCRIPT_NAME"] += "/account/devices"
            environ["PATH_INFO"] = path.removeprefix("/account/devices")
            return devices(environ, start_response)
        session = get_session(environ)
        if path.startswith("/login/"):
            session.login(path.removeprefix("/login/"))
        start_response("200 OK", [("Content-Type", "application/json")])
        return [httpx.Response(200, json=session.ended_reason).content]

    wrapped = SessionMiddleware(app, sessions)
    return Site(sessions, lambda: _wsgi_client(wrapped))


def flask_site(options, page, _) -> Site:
    """Register the page as a blueprint of Flask."""
    app = Flask(__name__)
    sessions = sojourn.install(app, **options)

    @app.post("/login/<user>")
    def login(user: str) -> str:
        flask_session.login(user)
        return ""

    @app.get("/why")
    def why() -> list:
        return app.json.response(flask_session.ended_reason)

    devices = admin.device_page(sessions, **page)
    app.register_blueprint(blueprint(devices, name="devices", url_prefix="/account/devices"))
    return Site(sessions, lambda: _wsgi_client(app))


def django_site(options, page, stack: ExitStack) -> Site:
    """Include the page in the URLs of a Django project."""
    # Imported here: it needs the settings, which the import of the project has configured.
    from sojourn.frameworks.django.device_page import urls

    def login(request, user):
        request.session.login(user)
        return HttpResponse()

    def why(request):
        return JsonResponse(request.session.ended_reason, safe=False)

    stack.enter_context(
        override_settings(
            MIDDLEWARE=["django.middleware.common.CommonMiddleware", OURS, *OTHERS],
            SOJOURN=options,
            ALLOWED_HOSTS=["shop.example"],
        )
    )
    sessions = get_sessions()
    devices = urls(admin.device_page(sessions, **page))
    patterns = (
        path("login/<user>", login),
        path("why", why),
        path("account/devices/", include(devices)),
    )
    stack.enter_context(override_settings(ROOT_URLCONF=patterns))
    app = get_wsgi_application()
    return Site(sessions, lambda: _wsgi_client(app))


def _wsgi_client(app) -> httpx.Client:
    return httpx.Client(transport=httpx.WSGITransport(app), base_url=HOST)


SITES = {
    "fastapi": fastapi_site,
    "wsgi": wsgi_site,
    "flask": flask_site,
    "django": django_site,
}
