"""An application after Pyramid's quick tutorial, with Pyramid's own sessions and with sojourn.

Its steps "sessions" (a counter in a view class) and "authentication" (a security policy, a form to
log in). Only the line that installs sessions differs.
"""

import pytest
from pyramid.authentication import SessionAuthenticationHelper
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.request import RequestLocalCache
from pyramid.response import Response
from pyramid.security import forget, remember
from pyramid.session import SignedCookieSessionFactory
from webtest import TestApp

import sojourn
from sojourn.frameworks.pyramid import session_factory

USERS = {"editor": "editor's password", "viewer": "viewer's password"}


class SecurityPolicy:
    def __init__(self):
        self.helper = SessionAuthenticationHelper()
        self.cache = RequestLocalCache(self.load_identity)

    def load_identity(self, request):
        userid = self.helper.authenticated_userid(request)
        return {"userid": userid} if userid in USERS else None

    def identity(self, request):
        return self.cache.get_or_create(request)

    def authenticated_userid(self, request):
        identity = self.identity(request)
        return None if identity is None else identity["userid"]

    def remember(self, request, userid, **kw):
        return self.helper.remember(request, userid, **kw)

    def forget(self, request, **kw):
        self.cache.clear(request)
        return self.helper.forget(request, **kw)

    def permits(self, request, context, permission):
        return self.identity(request) is not None


class TutorialViews:
    def __init__(self, request):
        self.request = request

    @property
    def counter(self):
        session = self.request.session
        if "counter" in session:
            session["counter"] += 1
        else:
            session["counter"] = 1
        return session["counter"]

    def home(self):
        user = self.request.authenticated_userid
        return Response(f"visit {self.counter} of {user}")

    def login(self):
        request = self.request
        name = request.params["login"]
        if USERS.get(name) != request.params["password"]:
            request.session.flash("Failed login")
            return HTTPFound(request.route_url("messages"))
        return HTTPFound(request.route_url("home"), headers=remember(request, name))

    def logout(self):
        return HTTPFound(self.request.route_url("home"), headers=forget(self.request))

    def messages(self):
        return Response(" ".join(self.request.session.pop_flash()))


def signed_cookies(config):
    config.set_session_factory(SignedCookieSessionFactory("a secret of the tutorial"))


def include(config):
    config.include("sojourn.frameworks.pyramid")


def install(config):
    sojourn.install(config)


def factory(config):
    config.set_session_factory(session_factory(sojourn.Sessions()))


def main(install_sessions):
    """Return the application."""
    with Configurator() as config:
        install_sessions(config)
        config.set_security_policy(SecurityPolicy())
        for name, path in (("home", "/"), ("login", "/login"), ("logout", "/logout")):
            config.add_route(name, path)
            config.add_view(TutorialViews, attr=name, route_name=name)
        config.add_route("messages", "/messages")
        config.add_view(TutorialViews, attr="messages", route_name="messages")
        return config.make_wsgi_app()


@pytest.mark.parametrize("install_sessions", [signed_cookies, include, install, factory])
def test_tutorial_pages_are_the_same_with_sojourn(install_sessions):
    """A9: with sojourn, a copied cookie is invalid after the logout."""
    app = main(install_sessions)
    browser = TestApp(app)
    assert [browser.get("/").text for _ in range(2)] == ["visit 1 of None", "visit 2 of None"]
    wrong = browser.post("/login", {"login": "editor", "password": "guessed"})
    assert wrong.follow().text == "Failed login"
    assert browser.get("/messages").text == ""
    right = browser.post("/login", {"login": "editor", "password": USERS["editor"]})
    assert right.follow().text == "visit 3 of editor"
    stolen = {"Cookie": "; ".join(f"{k}={v}" for k, v in browser.cookies.items())}
    assert browser.get("/logout").follow().text == "visit 4 of None"
    still_works = "editor" in TestApp(app).get("/", headers=stolen).text
    assert still_works is (install_sessions is signed_cookies)
