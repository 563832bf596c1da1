"""Programs written for Starlette's sessions; only the line that installs sessions differs."""

import importlib.util
from urllib.parse import parse_qs, urlsplit

import pytest
from authlib.integrations.starlette_client import OAuth, OAuthError
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    SimpleUser,
    requires,
)
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware as StarlettesMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import sojourn
from sojourn.frameworks.starlette import SessionMiddleware

#: Authlib prefers httpx2 where it is installed.
HTTPX = importlib.import_module("httpx2" if importlib.util.find_spec("httpx2") else "httpx")

SECRET = "samples-7Jm2Qw9vXc4Rk1-Zt"


def by_starlette(app):
    """Add Starlette's own middleware."""
    app.add_middleware(StarlettesMiddleware, secret_key=SECRET)


def by_import(app):
    """Add the class with Starlette's constructor."""
    app.add_middleware(SessionMiddleware, secret_key=SECRET, store="memory://")


def by_install(app):
    """Install sessions."""
    sojourn.install(app, store="memory://")


INSTALLS = pytest.mark.parametrize("install", [by_starlette, by_import, by_install])


# A login with Starlette's authentication


class SessionBackend(AuthenticationBackend):
    """Authenticates the user whose name is in the session."""

    async def authenticate(self, conn):
        name = conn.session.get("user")
        return None if name is None else (AuthCredentials(["authenticated"]), SimpleUser(name))


async def homepage(request):
    if request.user.is_authenticated:
        return PlainTextResponse(f"Hello, {request.user.display_name}")
    return PlainTextResponse("Hello, you")


async def login(request):
    form = await request.form()
    if form["password"] != "correct":
        request.session["failures"] = request.session.get("failures", 0) + 1
        return PlainTextResponse("Wrong password", status_code=401)
    request.session.clear()
    request.session["user"] = form["username"]
    return RedirectResponse("/dashboard", status_code=303)


@requires("authenticated", redirect="homepage")
async def dashboard(request):
    request.session.setdefault("seen", []).append(request.url.path)
    return JSONResponse({"user": request.user.display_name, "seen": request.session["seen"]})


async def logout(request):
    request.session.clear()
    return RedirectResponse("/", status_code=303)


def login_app():
    return Starlette(
        routes=[
            Route("/", homepage, name="homepage"),
            Route("/login", login, methods=["POST"]),
            Route("/dashboard", dashboard),
            Route("/logout", logout),
        ],
        middleware=[Middleware(AuthenticationMiddleware, backend=SessionBackend())],
    )


@INSTALLS
def test_login_pages_are_the_same_with_each_installation(install):
    """A2, A4, A7: Starlette's middleware, sojourn's middleware class and ``sojourn.install``."""
    app = login_app()
    install(app)
    client = TestClient(app)
    assert client.get("/dashboard").text == "Hello, you"
    assert client.post("/login", data={"username": "ada", "password": "no"}).status_code == 401
    response = client.post("/login", data={"username": "ada", "password": "correct"})
    assert response.json() == {"user": "ada", "seen": ["/dashboard"]}
    assert client.get("/").text == "Hello, ada"
    assert client.get("/logout").text == "Hello, you"
    assert client.get("/dashboard").text == "Hello, you"


@pytest.mark.parametrize("install", [by_import, by_install])
def test_copied_cookie_is_invalid_after_the_logout(install):
    """A7: impossible for a session stored in the cookie."""
    app = login_app()
    install(app)
    client = TestClient(app)
    client.post("/login", data={"username": "ada", "password": "correct"})
    thief = TestClient(app, cookies=dict(client.cookies))
    assert thief.get("/").text == "Hello, ada"
    client.get("/logout")
    assert thief.get("/").text == "Hello, you"


# A login with Authlib


async def token(request):
    form = await request.form()
    assert (form["code"], form["grant_type"]) == ("the-code", "authorization_code")
    return JSONResponse({"access_token": "token-of-ada", "token_type": "Bearer"})


async def userinfo(request):
    assert request.headers["authorization"] == "Bearer token-of-ada"
    return JSONResponse({"sub": "ada"})


PROVIDER = Starlette(routes=[Route("/token", token, methods=["POST"]), Route("/me", userinfo)])


def oauth_app(framework):
    oauth = OAuth()
    oauth.register(
        name="provider",
        client_id="id",
        client_secret="client-secret",
        authorize_url="https://provider.example/authorize",
        access_token_url="https://provider.example/token",
        api_base_url="https://provider.example/",
        client_kwargs={
            "scope": "profile",
            "transport": HTTPX.ASGITransport(PROVIDER),
            "code_challenge_method": "S256",
        },
    )

    async def login(request):
        return await oauth.provider.authorize_redirect(request, request.url_for("callback"))

    async def callback(request):
        try:
            access = await oauth.provider.authorize_access_token(request)
        except OAuthError as error:
            return PlainTextResponse(error.error, status_code=400)
        request.session["token"] = access  # a subclass of dict
        user = (await oauth.provider.get("me", token=request.session["token"])).json()
        request.session["user"] = user["sub"]
        return RedirectResponse("/")

    async def home(request):
        access = request.session.get("token", {}).get("access_token")
        return PlainTextResponse(f"{request.session.get('user')} {access}")

    routes = [Route("/login", login), Route("/callback", callback), Route("/", home)]
    return framework(routes=routes)


@INSTALLS
@pytest.mark.parametrize("framework", [Starlette, FastAPI])
def test_authlib_login_state_is_used_once_by_its_visitor(install, framework):
    """A4, A24: the state of the login is stored in the session."""
    app = oauth_app(framework)
    install(app)
    client, other = TestClient(app), TestClient(app)
    response = client.get("/login", follow_redirects=False)
    query = parse_qs(urlsplit(response.headers["location"]).query)
    callback = f"/callback?code=the-code&state={query['state'][0]}"
    assert other.get(callback).text == "mismatching_state"
    assert client.get(callback).text == "ada token-of-ada"
    assert client.get(callback).text == "mismatching_state"
    assert client.get("/").text == "ada token-of-ada"
