"""Extensions of Flask work unchanged: Flask-Login, Flask-WTF and Authlib."""

import re
from collections import OrderedDict
from datetime import timedelta

import pytest
from authlib.oauth2.rfc6749 import OAuth2Token
from authlib.oidc.core import UserInfo
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
from sojourn.errors import RecentAuthRequired
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore

SECRET = "the secret of these tests: 8Kq2vR7x"


class User(UserMixin):
    def __init__(self, name):
        self.id = name


def make_app(store="memory://", **options):
    app = Flask(__name__)
    app.config["SECRET_KEY"] = SECRET
    app.clock = FakeClock()
    app.sessions = sojourn.install(app, store=store, clock=app.clock, **options)
    return app


def login_app(store="memory://", options=(), load_user=User, **config):
    """Return an application with Flask-Login, after its documentation."""
    app = make_app(store, **dict(options))
    app.config.update(config)
    manager = LoginManager(app)
    manager.user_loader(load_user)

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

    @app.get("/whoami")
    def whoami():
        return getattr(current_user, "id", None) or f"anonymous {session.ended_reason}"

    @app.get("/async")
    async def view():
        return getattr(current_user, "id", "anonymous")

    @app.get("/fail")
    def fail():
        login_user(User("ada"), remember=True)
        raise RuntimeError("after the login")

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

    @pytest.mark.parametrize("named", [True, False])
    def test_flask_security_can_delete_its_csrf_cookie_at_the_logout(self, named):
        """Its ``logout_user`` sets a mark in the session; its ``after_request`` reads it."""
        app = login_app()
        app.config["SECURITY_CSRF_COOKIE_NAME"] = "XSRF-Token" if named else None

        @app.before_request
        def mark():
            if request.path == "/logout":
                session["fs_cc"] = "clear"

        @app.after_request
        def remove_cookie(response):
            if session.get("fs_cc") == "clear":
                response.delete_cookie("XSRF-Token")
                session.pop("fs_cc")
            return response

        client = app.test_client()
        client.get("/login/ada")
        client.set_cookie("XSRF-Token", "a-token")
        client.get("/logout")
        assert (client.get_cookie("XSRF-Token") is None) is named
        assert sid(client) is None
        assert app.sessions.count() == 0

    def test_a_revoked_user_is_logged_out_everywhere(self):
        """A7, ASVS 7.4.3: remembered or not."""
        app = login_app()
        clients = [app.test_client() for _ in range(2)]
        clients[0].get("/login/ada")
        clients[1].get("/login/ada?remember")
        assert app.sessions.revoke_user("ada") == 2
        assert [client.get("/").status_code for client in clients] == [401, 401]

    def test_login_that_is_not_fresh_is_not_recent(self):
        app = login_app()
        client = app.test_client()
        client.get("/login/ada?stale")
        assert client.get("/").text == "ada ada"
        assert client.get("/fresh").status_code == 401

    def test_logout_deletes_a_remember_cookie_without_a_companion(self):
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

    def test_strong_protection_keeps_data_that_flask_login_keeps(self):
        """A7: the session is destroyed; its data moves to a new session without a user."""
        app = login_app(SESSION_PROTECTION="strong")
        client, thief = app.test_client(), app.test_client()
        client.get("/login/ada", headers={"User-Agent": "one"})
        client.get("/cart", headers={"User-Agent": "one"})
        thief.set_cookie("sid", sid(client))
        assert client.get("/", headers={"User-Agent": "other"}).status_code == 401
        assert client.get("/cart").text == "2"
        assert thief.get("/cart", headers={"User-Agent": "one"}).text == "1"

    def test_two_applications_do_not_see_each_others_logins(self):
        """A16."""
        one, two = login_app(), login_app()
        one.test_client().get("/login/ada")
        assert two.sessions.list_user("ada") == []


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/sessions.db"


def restart(client):
    """Close the browser: cookies without Max-Age are deleted."""
    client.delete_cookie("sid")


def copy_cookies(client, app, *names):
    """Return a client that has copies of cookies."""
    other = app.test_client()
    for name in names:
        other.set_cookie(name, sid(client, name))
    return other


class TestRememberMe:
    """Flask-Login's "remember me" cookie; the session cookie is deleted when the browser closes."""

    def test_remember_cookie_is_set_by_flask_login(self, store):
        app = login_app(store)
        reply = app.test_client().get("/login/ada?remember")
        cookies = {each.partition("=")[0]: each for each in reply.headers.getlist("Set-Cookie")}
        assert sorted(cookies) == ["remember_token", "sid", "sid-remember"]
        assert "Max-Age" not in cookies["sid"]
        assert "Expires" not in cookies["sid"]
        with app.app_context():
            assert cookies["remember_token"].split(";")[0].split("=")[1] == encode_cookie("ada")
        attributes = [
            cookies[name].partition(";")[2] for name in ("remember_token", "sid-remember")
        ]
        assert attributes[0] == attributes[1]
        assert "HttpOnly" in attributes[0]

    def test_companion_has_the_attributes_of_the_remember_cookie(self, store):
        settings = {"NAME": "keep", "PATH": "/app", "SECURE": True, "SAMESITE": "Strict"}
        settings["DOMAIN"] = "shop.example"
        app = login_app(store, **{f"REMEMBER_COOKIE_{name}": settings[name] for name in settings})
        reply = app.test_client().get("/login/ada?remember", base_url="https://shop.example")
        session_cookie, *cookies = sorted(reply.headers.getlist("Set-Cookie"))
        assert session_cookie.startswith("__Host-sid=")
        assert [each.partition("=")[0] for each in cookies] == ["keep", "sid-remember"]
        for each in cookies:
            for attribute in ("Domain=shop.example", "Path=/app", "Secure", "SameSite=Strict"):
                assert f"; {attribute}" in each

    def test_restart_restores_the_login_as_neither_fresh_nor_recent(self, store):
        """ASVS 7.5.1: a new session is bound to the user; it is valid without the token."""
        app = login_app(store)
        client = app.test_client()
        client.get("/login/ada?remember")
        before = sid(client)
        app.clock.advance("2 days")
        restart(client)
        assert client.get("/").text == "ada ada"
        assert sid(client) != before
        assert client.get("/fresh").status_code == 401
        with client:
            client.get("/whoami")
            assert session.remembered
            assert session.methods == ("remember_token",)
            with pytest.raises(RecentAuthRequired):
                session.require_recent("30 days")
        alone = copy_cookies(client, app, "sid")
        assert alone.get("/").text == "ada ada"
        (info,) = app.sessions.list_user("ada")
        assert info.created_at - info.authenticated_at == timedelta(days=2)
        assert info.expires_at - info.seen_at == timedelta(minutes=30)

    def test_a_confirmed_login_is_fresh_and_recent(self, store):
        app = login_app(store)
        client = app.test_client()
        client.get("/login/ada?remember")
        restart(client)
        client.get("/")
        client.get("/confirm")
        assert client.get("/fresh").text == "ada"
        with client:
            client.get("/whoami")
            assert not session.remembered
            assert session.methods == ()

    def test_fresh_login_required_redirects_to_the_refresh_view(self, store):
        app = login_app(store)
        app.login_manager.refresh_view = "confirm"
        client = app.test_client()
        client.get("/login/ada?remember")
        restart(client)
        assert client.get("/fresh").location == "/confirm?next=%2Ffresh"

    def test_login_is_restored_after_the_session_expired(self, store):
        """A17: session and token have different timeouts."""
        app = login_app(store)
        client = app.test_client()
        client.get("/login/ada?remember")
        app.clock.advance("31 minutes")
        assert client.get("/").text == "ada ada"
        assert client.get("/fresh").status_code == 401
        (info,) = app.sessions.list_user("ada")
        assert app.sessions.revoke(info.id)
        assert client.get("/").status_code == 401

    def test_restored_login_keeps_the_visitors_data(self, store):
        """A9: the login replaces the ticket of the visitor's session."""
        app = login_app(store)
        client = app.test_client()
        client.get("/login/ada?remember")
        restart(client)
        client.delete_cookie("remember_token")
        client.get("/cart")
        before = sid(client)
        with app.app_context():
            client.set_cookie("remember_token", encode_cookie("ada"))
        assert client.get("/").text == "ada ada"
        assert client.get("/cart").text == "2"
        assert sid(client) != before

    def test_a_logout_removes_both_cookies(self, store):
        """A7."""
        app = login_app(store)
        client = app.test_client()
        client.get("/login/ada?remember")
        client.get("/logout")
        assert [sid(client, name) for name in ("sid", "remember_token", "sid-remember")] == [
            None
        ] * 3
        assert client.get("/").status_code == 401
        assert app.sessions.list_user("ada") == []

    @pytest.mark.parametrize("verb", ["revoke_user", "credentials_changed", "revoke_all"])
    def test_revocation_invalidates_the_token(self, store, verb):
        """A7, ASVS 7.4.3: a token issued before is refused, a later one is valid."""
        app = login_app(store)
        client = app.test_client()
        client.get("/login/ada?remember")
        thieves = [
            copy_cookies(client, app, "remember_token", "sid-remember"),
            copy_cookies(client, app, "remember_token"),
        ]
        getattr(app.sessions, verb)(*["ada"] * (verb != "revoke_all"))
        app.clock.advance("3 days")
        app.sessions.purge()
        restart(client)
        for each in (client, *thieves):
            assert each.get("/whoami").text == "anonymous revoked"
            assert [sid(each, name) for name in ("sid", "remember_token", "sid-remember")] == [
                None
            ] * 3
            assert each.get("/").status_code == 401
        assert app.sessions.list_user("ada") == []
        client.get("/login/ada?remember")
        restart(client)
        assert client.get("/").text == "ada ada"
        with app.app_context():
            thieves[1].set_cookie("remember_token", encode_cookie("ada"))
        assert thieves[1].get("/").status_code == 401

    def test_revocation_keeps_the_tokens_of_other_users(self, store):
        app = login_app(store)
        client = app.test_client()
        client.get("/login/ada?remember")
        app.sessions.revoke_user("eve")
        restart(client)
        assert client.get("/").text == "ada ada"

    def test_a_revoked_session_is_not_restored(self, store):
        """A7: neither that of the login nor a restored one; the error has the reason."""
        app = login_app(store)
        for restored in (False, True):
            client = app.test_client()
            client.get("/login/ada?remember")
            if restored:
                restart(client)
                client.get("/")
            newest = app.sessions.list_user("ada") if not restored else None
            with client:
                client.get("/whoami")
                own = session.id
            assert newest is None or own == newest[0].id
            app.sessions.revoke(own, reason="lost phone")
            assert client.get("/whoami").text == "anonymous lost phone"
            assert sid(client, "remember_token") is None

    def test_an_evicted_session_is_not_restored(self, store):
        app = login_app(store, {"max_sessions": 1})
        clients = [app.test_client() for _ in range(2)]
        for client in clients:
            client.get("/login/ada?remember")
            app.clock.advance("1 second")
        assert [client.get("/whoami").text for client in clients] == ["anonymous limit", "ada"]

    def test_a_login_is_remembered_for_the_time_of_the_policy(self, store):
        """ASVS 7.3.2: independent of the Max-Age of the cookie, also if it is refreshed."""
        app = login_app(store, {"remember_absolute_timeout": "20 days"})
        client = app.test_client()
        client.get("/login/ada?remember")
        thief = copy_cookies(client, app, "remember_token", "sid-remember")
        for _ in range(19):
            app.clock.advance("1 day")
            assert client.get("/").text == "ada ada"
        app.clock.advance("1 day")
        assert thief.get("/whoami").text == "anonymous expired (absolute)"
        assert client.get("/whoami").text.startswith("anonymous")

    def test_a_cutoff_is_kept_as_long_as_a_token(self, store):
        """S16: a purge does not delete it."""
        app = login_app(store, {"remember_absolute_timeout": None})
        client = app.test_client()
        client.get("/login/ada?remember")
        thieves = [copy_cookies(client, app, "remember_token", "sid-remember") for _ in range(2)]
        app.clock.advance("1 second")
        app.sessions.revoke_user("ada")
        app.clock.advance("399 days")
        app.sessions.purge()
        assert thieves[0].get("/").status_code == 401
        app.clock.advance("1 day")
        app.sessions.purge()
        assert thieves[1].get("/").status_code == 401

    def test_lifetime_of_a_token_without_a_companion_starts_at_its_first_use(self, store):
        """Such a token was set before the switch to sojourn."""
        app = login_app(store)
        client = app.test_client()
        with app.app_context():
            client.set_cookie("remember_token", encode_cookie("ada"))
        assert client.get("/").text == "ada ada"
        assert client.get("/fresh").status_code == 401
        assert sid(client, "remember_token") is not None
        assert [info.user for info in app.sessions.list_user("ada")] == ["ada"]
        restart(client)
        app.clock.advance("29 days")
        assert client.get("/").text == "ada ada"
        restart(client)
        app.clock.advance("2 days")
        assert client.get("/").status_code == 401

    @pytest.mark.parametrize("forgery", ["", "x", "x" * 55, "é" * 55])
    def test_invalid_companion_is_ignored(self, store, forgery):
        """B-14: after a revocation its token is refused."""
        app = login_app(store)
        client = app.test_client()
        client.get("/login/ada?remember")
        restart(client)
        client.set_cookie("sid-remember", forgery)
        assert client.get("/").text == "ada ada"
        app.sessions.revoke_user("ada")
        restart(client)
        client.set_cookie("sid-remember", forgery)
        with app.app_context():
            client.set_cookie("remember_token", encode_cookie("ada"))
        assert client.get("/").status_code == 401

    def test_companion_of_another_user_is_ignored(self, store):
        app = login_app(store)
        ada, eve = app.test_client(), app.test_client()
        ada.get("/login/ada?remember")
        app.clock.advance("1 second")
        app.sessions.revoke_user("ada")
        eve.get("/login/eve?remember")
        eve.set_cookie("remember_token", sid(ada, "remember_token"))
        restart(eve)
        assert eve.get("/").status_code == 401

    def test_a_forged_token_logs_in_no_user(self, store):
        app = login_app(store)
        client = app.test_client()
        client.get("/login/ada?remember")
        client.set_cookie("remember_token", "eve|" + sid(client, "remember_token").split("|")[1])
        restart(client)
        assert client.get("/").status_code == 401

    def test_revocation_during_the_request_revokes_the_restored_session(self, store):
        """A7, S16: it has the instant of the login and is created before the check."""
        app = login_app(store)

        @app.get("/slow/<verb>")
        @login_required
        def slow(verb):
            app.clock.advance("1 second")
            getattr(app.sessions, verb)(*["ada"] * (verb == "revoke_user"))
            app.clock.advance("1 second")
            return "ok"

        for verb in ("revoke_user", "revoke_all"):
            client = app.test_client()
            client.get("/login/ada?remember")
            restart(client)
            assert client.get(f"/slow/{verb}").text == "ok"
            assert client.get("/").status_code == 401
            assert app.sessions.list_user("ada") == []

    def test_a_user_who_does_not_exist_is_not_restored(self, store):
        users = {"ada": User("ada")}
        app = login_app(store, load_user=users.get)
        client = app.test_client()
        client.get("/login/ada?remember")
        restart(client)
        del users["ada"]
        assert client.get("/").status_code == 401
        assert len(app.sessions.list_user("ada")) == 1  # of the login

    @pytest.mark.parametrize("revoked", [False, True])
    def test_token_of_another_user_than_the_session_creates_another_session(self, store, revoked):
        """A9: the user of the session does not exist any more."""
        users = {"ada": User("ada"), "eve": User("eve")}
        app = login_app(store, load_user=users.get)
        client = app.test_client()
        client.get("/login/ada?remember")
        client.get("/login/eve")
        del users["eve"]
        app.clock.advance("1 second")
        if revoked:
            app.sessions.revoke_user("ada")
        reply = client.get("/")
        if revoked:
            assert reply.status_code == 401
            assert sid(client, "remember_token") is None
        else:
            assert reply.text == "ada ada"
        assert len(app.sessions.list_user("ada")) == (not revoked)
        assert app.sessions.list_user("eve") == []

    def test_failed_login_sets_no_cookie(self, store):
        """A10."""
        app = login_app(store)
        client = app.test_client()
        assert client.get("/fail").status_code == 500
        assert [sid(client, name) for name in ("sid", "remember_token", "sid-remember")] == [
            None
        ] * 3

    def test_user_can_log_in_directly_after_a_revocation(self, store):
        app = login_app(store)
        client = app.test_client()
        client.get("/login/ada?remember")
        app.sessions.revoke_user("ada")
        app.clock.advance("1 second")
        restart(client)
        client.get("/login/ada?remember")
        restart(client)
        assert client.get("/").text == "ada ada"

    def test_the_cookie_is_refreshed_with_each_request(self, store):
        """REMEMBER_COOKIE_REFRESH_EACH_REQUEST: the instant of the login is kept."""
        app = login_app(store, REMEMBER_COOKIE_REFRESH_EACH_REQUEST=True)
        client = app.test_client()
        client.get("/login/ada")
        first = sid(client, "sid-remember")
        app.clock.advance("1 second")
        reply = client.get("/")
        assert len(reply.headers.getlist("Set-Cookie")) == 2
        assert sid(client, "sid-remember") == first
        restart(client)
        app.clock.advance("1 day")
        assert client.get("/").text == "ada ada"
        thief = copy_cookies(client, app, "remember_token", "sid-remember")
        app.sessions.revoke_user("ada")
        assert thief.get("/").status_code == 401
        assert len(app.test_client().get("/whoami").headers.getlist("Set-Cookie")) == 0

    def test_basic_protection_makes_a_login_not_fresh(self, store):
        app = login_app(store, SESSION_PROTECTION="basic")
        client = app.test_client()
        client.get("/login/ada?remember", headers={"User-Agent": "one"})
        assert client.get("/", headers={"User-Agent": "other"}).text == "ada ada"
        assert client.get("/fresh", headers={"User-Agent": "other"}).status_code == 401

    def test_strong_protection_deletes_the_token(self, store):
        app = login_app(store, SESSION_PROTECTION="strong")
        client = app.test_client()
        client.get("/login/ada?remember", headers={"User-Agent": "one"})
        assert client.get("/", headers={"User-Agent": "other"}).status_code == 401
        assert [sid(client, name) for name in ("sid", "remember_token", "sid-remember")] == [
            None
        ] * 3
        assert app.sessions.list_user("ada") == []

    def test_permanent_session_is_kept_after_a_restart(self, store):
        app = login_app(store)

        @app.before_request
        def before():
            session.permanent = True

        client = app.test_client()
        reply = client.get("/login/ada")
        (cookie,) = reply.headers.getlist("Set-Cookie")
        assert "Max-Age" in cookie
        assert client.get("/fresh").text == "ada"
        app.clock.advance("2 days")
        assert client.get("/").text == "ada ada"
        assert client.get("/fresh").status_code == 401

    def test_an_async_view_restores_the_login(self, store):
        app = login_app(store)
        client = app.test_client()
        client.get("/login/ada?remember")
        restart(client)
        assert client.get("/async").text == "ada"
        assert client.get("/").text == "ada ada"

    def test_token_is_kept_while_the_store_fails(self):
        """A15: the visitor is anonymous during the outage."""
        store = FaultyStore(MemoryStore())
        app = login_app(store, {"on_store_failure": ["/whoami"], "secret": SECRET})
        client = app.test_client()
        client.get("/login/ada?remember")
        store.fail()
        assert client.get("/whoami").text.startswith("anonymous")
        restart(client)
        assert client.get("/").status_code == 503
        store.heal()
        assert client.get("/").text == "ada ada"

    def test_companion_of_an_older_secret_is_valid_and_of_another_realm_is_not(self, store):
        """B-14, B-29."""
        one = login_app(store, {"secret": SECRET})
        client = one.test_client()
        client.get("/login/ada?remember")
        names = ("remember_token", "sid-remember")
        one.clock.advance("1 second")
        newer = login_app(store, {"secret": ["another secret: 5Tq8zW1m", SECRET]})
        other = login_app(store, {"secret": SECRET, "realm": "other", "cookie": "sid"})
        for app in (newer, other):
            app.clock.advance("1 second")
            app.sessions.revoke_user("eve")
            assert copy_cookies(client, app, *names).get("/").text == "ada ada"
        other.sessions.revoke_user("ada")
        other.clock.advance("1 second")
        assert copy_cookies(client, other, *names).get("/").status_code == 401


class TestFlaskWTF:
    """CSRFProtect and FlaskForm."""

    class Form(FlaskForm):
        """A form with one field."""

        name = StringField()

    @pytest.mark.parametrize("first", ["sojourn", "wtf"])
    def test_forms_need_a_csrf_token(self, first):
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
    """The OAuth client stores its state in the session."""

    def test_session_stores_the_claims_of_a_user(self):
        """``session["user"] = token["userinfo"]``, as in Authlib's documentation."""
        app = make_app()

        @app.get("/")
        def index():
            session["user"] = UserInfo(sub="ada", address=OrderedDict(city="London"))
            session.setdefault("token", OAuth2Token({"access_token": "a", "expires_in": 60}))
            return "ok"

        client = app.test_client()
        client.get("/")
        with client.session_transaction() as stored:
            assert stored["user"] == {"sub": "ada", "address": {"city": "London"}}
            assert stored["token"]["access_token"] == "a"

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
