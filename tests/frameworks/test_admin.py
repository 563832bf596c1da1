"""The admin application mounted in each framework has the session of its host."""

import io
import re

import flask
import httpx
import pytest
from fastapi import FastAPI
from fastapi import Request as FastAPIRequest
from flask_wtf import CSRFProtect
from litestar import Litestar, Request, asgi, get
from litestar.types import Receive, Scope, Send
from quart import Quart
from quart import session as quart_session
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import sojourn
from sojourn.frameworks.flask.admin import blueprint
from tests.support.admin_client import BASE, SECRET, ASGITransport, allow, fill_in

OPTIONS = {"store": "memory://", "secret": SECRET}


def starlette_app():
    async def login(request):
        request.session.login(request.path_params["user"])
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/login/{user}", login)])
    sessions = sojourn.install(app, **OPTIONS)
    app.router.routes.append(Mount("/admin/sessions", sojourn.admin.app(sessions, allow=allow)))
    return app, sessions


def fastapi_app():
    app = FastAPI()
    sessions = sojourn.install(app, **OPTIONS)

    @app.get("/login/{user}")
    async def login(user: str, request: FastAPIRequest):
        request.session.login(user)

    app.mount("/admin/sessions", sojourn.admin.app(sessions, allow=allow))
    return app, sessions


def fastapi_behind_a_proxy():
    """The proxy removes the prefix: it is in root_path, and not in the path."""
    app, sessions = fastapi_app()
    app.root_path = "/shop"  # as the argument of this name, which is deprecated
    return app, sessions


def lazy_app():
    """A host with ``autoload=False``."""
    app = FastAPI()
    sessions = sojourn.install(app, autoload=False, exclude=["/admin/*"], **OPTIONS)

    @app.get("/login/{user}")
    @sessions.route
    async def login(user: str, request: FastAPIRequest):
        request.session.login(user)

    app.mount("/admin/sessions", sojourn.admin.app(sessions, allow=allow))
    return app, sessions


def litestar_app():
    @get("/login/{user:str}")
    async def login(request: Request) -> None:
        request.session.login(request.path_params["user"])

    pages = []

    @asgi("/admin/sessions", is_mount=True, copy_scope=True)
    async def admin(scope: Scope, receive: Receive, send: Send) -> None:
        await pages[0](scope, receive, send)

    app = Litestar([login, admin])
    sessions = sojourn.install(app, **OPTIONS)
    pages.append(sojourn.admin.app(sessions, allow=allow))
    return app, sessions


def quart_app():
    """Quart cannot mount an ASGI application; the admin application has its own middleware."""
    app = Quart(__name__)
    sessions = sojourn.install(app, **OPTIONS)

    @app.get("/login/<user>")
    async def login(user):
        quart_session.login(user)
        return ""

    admin = sojourn.asgi.SessionMiddleware(sojourn.admin.app(sessions, allow=allow), sessions)

    async def dispatch(scope, receive, send):
        if scope["path"].startswith("/admin/sessions"):
            await admin({**scope, "root_path": "/admin/sessions"}, receive, send)
        else:
            await app(scope, receive, send)

    return dispatch, sessions


def flask_host():
    app = flask.Flask(__name__)
    app.config["SECRET_KEY"] = SECRET
    CSRFProtect(app)
    sessions = sojourn.install(app, store="memory://")

    @app.get("/login/<user>")
    def login(user):
        flask.session.login(user)
        return ""

    return app, sessions


def flask_app():
    app, sessions = flask_host()
    pages = blueprint(sojourn.admin.app(sessions, allow=allow))
    app.extensions["csrf"].exempt(pages)
    app.register_blueprint(pages)
    return app, sessions


def flask_below_a_prefix():
    app, sessions = flask_app()
    app.wsgi_app = DispatcherMiddleware(flask.Flask("outer"), {"/shop": app.wsgi_app})
    return app, sessions


def flask_beside():
    """A WSGI mount next to Flask, with its own middleware."""
    app, sessions = flask_host()
    admin = sojourn.wsgi.SessionMiddleware(sojourn.admin.app(sessions, allow=allow), sessions)
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/admin/sessions": admin})
    return app, sessions


ASGI = [
    starlette_app,
    fastapi_app,
    fastapi_behind_a_proxy,
    lazy_app,
    litestar_app,
    quart_app,
]
WSGI = [flask_app, flask_below_a_prefix, flask_beside]


@pytest.fixture(params=[*ASGI, *WSGI], ids=lambda build: build.__name__)
def host(request):
    """Return a function that makes clients, and the sessions."""
    app, sessions = request.param()
    transport = ASGITransport if request.param in ASGI else httpx.WSGITransport
    prefix = "/shop" if request.param is flask_below_a_prefix else ""

    def client(user=None):
        made = httpx.Client(transport=transport(app), base_url=BASE + prefix)
        made.headers["Origin"] = BASE
        if user:
            assert made.get(f"/login/{user}").status_code == 200
        return made

    return client, sessions


def test_mounted_application_has_the_session_of_its_host(host):
    client, sessions = host
    client("ada")
    root = client("root")
    assert client().get("/admin/sessions/").status_code == 403
    page = root.get("/admin/sessions/")
    assert page.status_code == 200
    assert "This is you" in page.text
    style = re.search('href="(./style-[^"]+)"', page.text)[1]
    assert root.get(f"/admin/sessions/{style}").status_code == 200
    (info,) = sessions.list_user("ada")
    path = f"/admin/sessions/sessions/{info.id}/revoke"
    answer = fill_in(root, path, typed=info.id[-6:])
    assert answer.status_code == 303
    target = httpx.URL(answer.request.url).join(answer.headers["location"])
    assert target.path.endswith("/admin/sessions/")
    assert "The session was revoked." in root.get(target).text
    assert not sessions.list_user("ada")
    assert root.post(path, data={"typed": "x"}).status_code == 403
    assert root.get("/admin/sessions/none").status_code == 404
    assert root.put("/admin/sessions/").status_code == 405


def test_mount_path_without_its_slash_redirects_to_the_list(host):
    client, _ = host
    page = client("root").get("/admin/sessions", follow_redirects=True)
    assert page.status_code == 200
    assert page.url.path.endswith("/admin/sessions/")


def test_flask_refuses_large_forms_and_other_media_types():
    app, sessions = flask_app()
    client = app.test_client()
    client.get("/login/root")
    path = "/admin/sessions/revoke-all"
    assert client.post(path, data={"typed": "x" * 70_000}).status_code == 413
    assert client.post(path, json={"typed": "revoke all"}).status_code == 403
    assert sessions.count() == 1


def test_flask_refuses_a_form_of_unknown_length():
    """A chunked body has no Content-Length and may be endless."""
    app, sessions = flask_app()
    client = app.test_client()
    client.get("/login/root")

    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            pytest.fail("the body was read")

    answer = client.post(
        "/admin/sessions/revoke-all",
        headers={
            "Content-Type": "application/x-www-form-urlencoded",
            "Transfer-Encoding": "chunked",
        },
        environ_overrides={"wsgi.input": Endless(), "wsgi.input_terminated": True},
    )
    assert answer.status_code == 403
    assert sessions.count() == 1


def test_flask_without_sojourn_is_503():
    app = flask.Flask(__name__)
    sessions = sojourn.Sessions(store="memory://")
    app.register_blueprint(blueprint(sojourn.admin.app(sessions, allow=allow)))
    page = app.test_client().get("/admin/sessions/")
    assert page.status_code == 503
    assert "sojourn.install(app)" in page.text
