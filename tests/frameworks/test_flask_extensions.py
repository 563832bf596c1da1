"""Extensions of Flask work unchanged: Flask-Login, Flask-WTF and Authlib."""

import re
from datetime import timedelta

import pytest
from flask import Flask, redirect, render_template_string, request, session, url_for
from flask_login import (
    LoginManager,
    UserMixin,
    confirm_login,
    current_user,
    encode_cookie,
    fresh_login_required,
    login_required,
    login_user,
    logout_user,
)
from flask_wtf import CSRFProtect, FlaskForm
from wtforms import StringField

import sojourn
from sojourn.testing import FakeClock

SECRET = "the secret of these tests: 8Kq2vR7x"


class User(UserMixin):
    def __init__(self, name):
        self.id = name


def make_app(**options):
    app = Flask(__name__)
    app.config["SECRET_KEY"] = SECRET
    app.clock = FakeClock()
    app.sessions = sojourn.install(app, store="memory://", clock=app.clock, **options)
    return app


def login_app(**config):
    """Return an application with Flask-Login, as its documentation writes it."""
    app = make_app()
    app.config.update(config)
    manager = LoginManager(app)
    manager.user_loader(User)

    @app.get("/login/<name>")
    def login(name):
        remember = "remember" in request.args
        fresh = "stale" not in request.args
        duration = timedelta(days=5) if remember else None
        login_user(User(name), remember=remember, fresh=fresh, duration=duration)
        return "ok"

    @app.get("/logout")
    @login_required
    def logout():
        logout_user()
        return "ok"

    @app.get("/")
    @login_required
    def index():
        return f"{current_user.id} {session.user}"

    @app.get("/fresh")
    @fresh_login_required
    def fresh():
        session.require_recent("5 minutes")
        return current_user.id

    @app.get("/confirm")
    def confirm():
        confirm_login()
        return "ok"

    @app.get("/cart")
    def cart():
        return str(session.increment("cart"))

    return app


def sid(client, name="sid"):
    cookie = client.get_cookie(name)
    return None if cookie is None else cookie.value


class TestFlaskLogin:
    """Flask-Login binds the session and rotates its ticket."""

    def test_a_login_binds_the_user_and_replaces_the_ticket(self):
        """A9."""
        app = login_app()
        client = app.test_client()
        client.get("/cart")
        before = sid(client)
        client.get("/login/ada")
        assert sid(client) != before
        assert client.get("/").text == "ada ada"
        assert client.get("/cart").text == "2"
        assert [info.user for info in app.sessions.list_user("ada")] == ["ada"]
        thief = app.test_client()
        thief.set_cookie("sid", before)
        assert thief.get("/").status_code == 401

    def test_a_logout_destroys_the_session(self):
        """A7."""
        app = login_app()
        client, thief = app.test_client(), app.test_client()
        client.get("/login/ada")
        thief.set_cookie("sid", sid(client))
        client.get("/logout")
        assert sid(client) is None
        assert client.get("/").status_code == 401
        assert thief.get("/").status_code == 401
        assert app.sessions.list_user("ada") == []

    def test_a_revoked_user_is_logged_out_everywhere(self):
        """A7, ASVS 7.4.3: remembered or not."""
        app = login_app()
        clients = [app.test_client() for _ in range(2)]
        clients[0].get("/login/ada")
        clients[1].get("/login/ada?remember")
        assert app.sessions.revoke_user("ada") == 2
        assert [client.get("/").status_code for client in clients] == [401, 401]

    def test_a_remembered_login_outlives_the_browser(self):
        """The session does; there is no second cookie that a revocation would not reach."""
        app = login_app()
        client = app.test_client()
        reply = client.get("/login/ada?remember")
        (cookie,) = reply.headers.getlist("Set-Cookie")
        assert cookie.startswith("sid=")
        assert "Max-Age" in cookie
        app.clock.advance("6 days")
        assert client.get("/").text == "ada ada"

    def test_a_remembered_login_is_not_fresh(self):
        """Fresh_login_required asks for the password again, as does require_recent."""
        app = login_app()
        client = app.test_client()
        client.get("/login/ada?remember")
        assert client.get("/fresh").text == "ada"
        app.clock.advance("2 days")
        assert client.get("/fresh").status_code == 401
        client.get("/confirm")
        assert client.get("/fresh").text == "ada"

    def test_a_login_that_is_not_fresh_is_not_recent(self):
        app = login_app()
        client = app.test_client()
        client.get("/login/ada?stale")
        assert client.get("/").text == "ada ada"
        assert client.get("/fresh").status_code == 401

    def test_a_remember_cookie_from_before_is_used_once(self):
        app = login_app()
        client = app.test_client()
        with app.app_context():
            client.set_cookie("remember_token", encode_cookie("ada"))
        assert client.get("/").text == "ada ada"
        assert client.get_cookie("remember_token") is None
        assert client.get("/").text == "ada ada"
        assert client.get("/fresh").status_code == 401
        assert [info.user for info in app.sessions.list_user("ada")] == ["ada"]

    def test_a_logout_removes_a_remember_cookie_from_before(self):
        app = login_app()
        client = app.test_client()
        client.get("/login/ada")
        with app.app_context():
            client.set_cookie("remember_token", encode_cookie("ada"))
        client.get("/logout")
        assert client.get_cookie("remember_token") is None
        assert sid(client) is None
        assert client.get("/").status_code == 401

    def test_strong_protection_logs_out(self):
        app = login_app(SESSION_PROTECTION="strong")
        client = app.test_client()
        client.get("/login/ada", headers={"User-Agent": "one"})
        assert client.get("/", headers={"User-Agent": "one"}).text == "ada ada"
        assert client.get("/", headers={"User-Agent": "other"}).status_code == 401
        assert app.sessions.list_user("ada") == []

    def test_two_applications_do_not_see_each_others_logins(self):
        """A16."""
        one, two = login_app(), login_app()
        one.test_client().get("/login/ada")
        assert two.sessions.list_user("ada") == []


class TestFlaskWTF:
    """CSRFProtect and FlaskForm."""

    class Form(FlaskForm):
        """A form with one field."""

        name = StringField()

    @pytest.mark.parametrize("first", ["sojourn", "wtf"])
    def test_forms_are_protected_as_before(self, first):
        app = Flask(__name__)
        app.config["SECRET_KEY"] = SECRET
        steps = [lambda: sojourn.install(app, store="memory://"), lambda: CSRFProtect(app)]
        for step in steps if first == "sojourn" else reversed(steps):
            step()

        @app.get("/")
        def show():
            return render_template_string("{{ csrf_token() }}")

        @app.route("/form", methods=["GET", "POST"])
        def form():
            form = self.Form()
            if form.validate_on_submit():
                return form.name.data
            return render_template_string("{{ form.csrf_token }}", form=form)

        client = app.test_client()
        token = client.get("/").text
        assert client.post("/form", data={"name": "ada"}).status_code == 400
        sent = {"name": "ada", "csrf_token": token}
        assert client.post("/form", data=sent).text == "ada"
        assert app.test_client().post("/form", data=sent).status_code == 400
        hidden = re.search(r'value="([^"]+)"', client.get("/form").text)[1]
        assert client.post("/form", data={"name": "ada", "csrf_token": hidden}).text == "ada"


class TestAuthlib:
    """The OAuth client keeps its state in the session."""

    def make(self, monkeypatch):
        from authlib.integrations.flask_client import OAuth

        app = make_app()
        oauth = OAuth(app)
        oauth.register(
            "provider",
            client_id="shop",
            client_secret="provider secret",
            authorize_url="https://provider.example/authorize",
            access_token_url="https://provider.example/token",
            client_kwargs={"code_challenge_method": "S256", "scope": "profile"},
        )

        @app.get("/login")
        def login():
            return oauth.provider.authorize_redirect(url_for("callback", _external=True))

        @app.get("/callback")
        def callback():
            token = oauth.provider.authorize_access_token()
            session.login(token["user"])
            return redirect("/")

        @app.get("/")
        def index():
            return f"{session.user} {sorted(session)}"

        def answer(_session, method, url, **arguments):
            import requests

            assert (method, url) == ("POST", "https://provider.example/token")
            assert "code_verifier" in arguments["data"]
            response = requests.Response()
            response.status_code = 200
            response.headers["Content-Type"] = "application/json"
            response._content = b'{"access_token": "t", "token_type": "Bearer", "user": "ada"}'
            return response

        monkeypatch.setattr("requests.sessions.Session.request", answer)
        return app

    def test_a_login_with_a_provider(self, monkeypatch):
        client = self.make(monkeypatch).test_client()
        location = client.get("/login").location
        state = re.search(r"state=([^&]+)", location)[1]
        assert client.get(f"/callback?code=1&state={state}").status_code == 302
        assert client.get("/").text == "ada []"

    def test_a_foreign_state_is_refused(self, monkeypatch):
        from authlib.integrations.base_client.errors import MismatchingStateError

        app = self.make(monkeypatch)
        app.testing = True
        client = app.test_client()
        client.get("/login")
        with pytest.raises(MismatchingStateError):
            client.get("/callback?code=1&state=other")
