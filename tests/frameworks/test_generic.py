"""Frameworks with the generic middleware: the laws of requests."""

import cherrypy
import connexion
import pytest
from connexion.middleware import MiddlewarePosition
from lilya.apps import Lilya
from lilya.middleware import DefineMiddleware
from lilya.requests import Request
from lilya.routing import Path, WebSocketPath
from lilya.websockets import WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import sojourn
from sojourn.testing import HandlerResponse
from sojourn.testing.app_suite import handlers
from sojourn.testing.decorators import under_loop
from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import cherrypy_app, connexion_app, lilya_app


class TestCherryPy(RequestSuite):
    """A1 to A24 through CherryPy and the WSGI middleware."""

    protocol = "wsgi"
    answers_errors = False  # with `request.throw_errors`, the page is made outside the middleware
    # CherryPy answers 400 to a Cookie header with a nameless cookie itself.
    test_an_invalid_ticket_never_reaches_the_store = None
    build = staticmethod(cherrypy_app.build)
    uninstall = staticmethod(cherrypy_app.uninstall)

    @pytest.mark.parametrize("act", [handlers.ignore, handlers.login])
    @under_loop
    async def test_an_internal_redirect_keeps_the_changes(self, act):
        """A2, A9: the handler of the other path has the same session."""

        async def forward(session):
            session.increment("n")
            await act(session)
            raise cherrypy.InternalRedirect("/who")

        async def who(session):
            return HandlerResponse(body=f"{session.get('n')} {session.user}".encode())

        async with self.serve({"/forward": forward, "/who": who}) as app:
            browser = app.browser()
            expected = b"1 None" if act is handlers.ignore else b"1 ada"
            assert (await browser.get("/forward")).body == expected
            assert (await browser.get("/who")).body == expected


# Connexion 3.3 does not await one of its own coroutines when a handler raises.
@pytest.mark.filterwarnings("ignore:coroutine 'ServerErrorMiddleware:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestConnexion(RequestSuite):
    """A1 to A24 through Connexion and the ASGI middleware."""

    answers_errors = False  # Connexion generates the error page outside this position
    build = staticmethod(connexion_app.build)
    uninstall = staticmethod(connexion_app.uninstall)


class TestLilya(RequestSuite):
    """A1 to A24 through Lilya and the ASGI middleware."""

    answers_errors = False  # Lilya generates the error page outside its middleware
    build = staticmethod(lilya_app.build)
    uninstall = staticmethod(lilya_app.uninstall)


def connect(handler):
    """Return a browser with a session, whose WebSocket /ws has a handler."""
    sessions = sojourn.Sessions(store="memory://", cookie="sid")

    async def count(request: Request):
        return request.session.increment("n")

    app = Lilya(
        routes=[Path("/count", count), WebSocketPath("/ws", handler)],
        middleware=[DefineMiddleware(sojourn.asgi.SessionMiddleware, sessions=sessions)],
    )
    browser = TestClient(app)
    assert browser.get("/count").json() == 1
    return browser


def test_socket_of_lilya_without_the_required_user_is_closed_with_the_reason():
    """W1, A10: Lilya itself closes with 500, and what the handler changed last is dropped."""

    async def members(websocket: WebSocket):
        await websocket.accept()
        await websocket.receive_text()
        websocket.session["n"] = 10
        websocket.session.require_user()

    browser = connect(members)
    with browser.websocket_connect("/ws") as socket:
        socket.send_text("hello")
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
    assert (closed.value.code, closed.value.reason) == (4401, "login required")
    assert browser.get("/count").json() == 2


def test_failing_handler_of_lilya_drops_its_changes():
    """A10."""

    async def fail(websocket: WebSocket):
        await websocket.accept()
        websocket.session["n"] = 10
        raise LookupError("planned by the test")

    browser = connect(fail)
    with browser.websocket_connect("/ws") as socket, pytest.raises(WebSocketDisconnect):
        socket.receive_text()
    assert browser.get("/count").json() == 2


def visit():
    """Count visits, in a thread."""
    return connexion.request.scope["session"].increment("visits")


def login():
    connexion.request.scope["session"].login("ada")
    return "hello"


def account(user):
    return user


def check_session(ticket, required_scopes, request=None):
    """Return the user of the session to Connexion's security."""
    user = request.scope["session"].user
    return None if user is None else {"sub": user}


@pytest.mark.parametrize("kind", [connexion.AsyncApp, connexion.FlaskApp])
def test_security_of_connexion_reads_the_session(kind):
    """A9: the operation gets the logged-in user; other requests are refused."""
    sessions = sojourn.Sessions(store="memory://", cookie="sid")
    app = kind(__name__, swagger_ui_options=connexion.options.SwaggerUIOptions(swagger_ui=False))
    app.add_middleware(
        sojourn.asgi.SessionMiddleware, MiddlewarePosition.BEFORE_SECURITY, sessions=sessions
    )
    here = {"operationId": "", "responses": {"200": {"description": "ok"}}}
    security = {"security": [{"session": []}]}
    scheme = {"type": "apiKey", "in": "cookie", "name": "sid"}
    app.add_api(
        {
            "openapi": "3.0.3",
            "info": {"title": "visits", "version": "1"},
            "paths": {
                "/visit": {"get": here | {"operationId": "visit"}},
                "/login": {"get": here | {"operationId": "login"}},
                "/account": {"get": here | security | {"operationId": "account"}},
            },
            "components": {
                "securitySchemes": {
                    "session": scheme | {"x-apikeyInfoFunc": f"{__name__}.check_session"},
                }
            },
        },
        resolver=connexion.Resolver(globals().__getitem__),
    )
    browser = app.test_client(base_url="http://localhost")
    assert browser.get("/account").status_code == 401
    assert [browser.get("/visit").json() for _ in range(2)] == [1, 2]
    assert browser.get("/account").status_code == 401
    browser.get("/login")
    assert browser.get("/account").json() == "ada"
    assert sessions.revoke_user("ada") == 1
    assert browser.get("/account").status_code == 401
