"""Cookies and rows that Starlette, Flask and Django make in this test are read."""

import json
import os
import sqlite3
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from django.conf import settings
from django.core import signing
from django.utils.crypto import salted_hmac
from flask import Flask
from flask import session as flask_session
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from sojourn import Sessions
from sojourn.errors import ConfigurationError
from sojourn.legacy import (
    AiohttpEncryptedCookie,
    DjangoCache,
    DjangoCookie,
    DjangoDatabase,
    FlaskCookie,
    StarletteCookie,
)

SECRET = "the secret of the former library: 71f0c2"
OTHER = "another secret of the former library: 0c2"


def open_with(reader, cookie, **options):
    sessions = Sessions(
        store="memory://", read_legacy=[reader], read_legacy_until="2099-01-01", **options
    )
    return sessions.open(cookies={reader.cookie: cookie})


def starlette_cookie(data, secret=SECRET):
    def login(request):
        request.session.update(data)
        return PlainTextResponse()

    layer = Middleware(SessionMiddleware, secret_key=secret)
    with TestClient(Starlette(routes=[Route("/", login)], middleware=[layer])) as client:
        return client.get("/").cookies["session"]


def flask_cookie(data, secret=SECRET):
    app = Flask("samples")
    app.secret_key = secret

    @app.get("/")
    def login():
        flask_session.update(data)
        return ""

    client = app.test_client()
    client.get("/")
    return client.get_cookie("session").value


class TestStarlette:
    def test_the_cookie_is_continued(self):
        data = {"user": "ada", "cart": {"apple": 2}, "n": 1.5, "none": None}
        with open_with(StarletteCookie(SECRET, user="user"), starlette_cookie(data)) as visit:
            assert visit.session.copy() == data
            assert visit.session.user == "ada"

    def test_any_of_several_keys_may_have_signed_it(self):
        reader = StarletteCookie([OTHER, SECRET])
        with open_with(reader, starlette_cookie({"n": 1})) as visit:
            assert visit.session["n"] == 1

    @pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + "A", lambda c: c + "="])
    def test_another_spelling_of_the_signature_is_no_cookie(self, change):
        """A7: otherwise a spent cookie could be spelled in another way and used again."""
        with open_with(StarletteCookie(SECRET), change(starlette_cookie({"n": 1}))) as visit:
            assert visit.session.new

    def test_another_secret_is_no_signature(self):
        with open_with(StarletteCookie(OTHER), starlette_cookie({"n": 1})) as visit:
            assert visit.session.new

    @pytest.mark.parametrize("value", ["", ".", "..", "a.b.c", "null", "é.é.é", "a" * 9000])
    @pytest.mark.parametrize("reader", [StarletteCookie, FlaskCookie])
    def test_what_is_no_cookie_of_theirs_is_ignored(self, reader, value):
        with open_with(reader(SECRET), value) as visit:
            assert visit.session.new


class TestFlask:
    def test_every_tagged_type_is_continued(self):
        data = {
            "_user_id": "17",
            "tuple": (1, 2),
            "bytes": b"\0\xff",
            "markup": Markup("<b>x</b>"),
            "uuid": uuid.UUID(int=7),
            "date": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            "looks like a tag": {" t": [1]},
            "nested": [{"a": (3,)}],
        }
        with open_with(FlaskCookie(SECRET), flask_cookie(data)) as visit:
            found = visit.session.copy()
        assert found == {**data, "tuple": [1, 2], "nested": [{"a": [3]}]}
        assert type(found["markup"]) is str
        assert visit.session.user == "17"

    def test_a_compressed_cookie_is_continued(self):
        cookie = flask_cookie({"text": "x" * 2000})
        assert cookie.startswith(".")
        with open_with(FlaskCookie(SECRET), cookie) as visit:
            assert visit.session["text"] == "x" * 2000


class TestAiohttp:
    def test_an_envelope_without_a_session_is_none(self):
        key = Fernet.generate_key().decode()
        for envelope in ({}, {"session": None}, {"session": {}}, []):
            cookie = Fernet(key).encrypt(json.dumps(envelope).encode()).decode()
            with open_with(AiohttpEncryptedCookie(key), cookie) as visit:
                assert visit.session.new


@pytest.fixture(scope="module", autouse=True)
def django_settings():
    """Configure Django for signing; other tests of this process may have done it."""
    if not settings.configured:
        settings.configure(SECRET_KEY=SECRET)


def auth_hash(password, secret=SECRET):
    """Return what Django stores as `_auth_user_hash`."""
    salt = "django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash"
    return salted_hmac(salt, password, secret, algorithm="sha256").hexdigest()


#: A password as Django stores it; only compared, so its parts need not be valid.
PASSWORD = "pbkdf2_sha256$1000000$salt$swordfish"


def login_data(password=PASSWORD):
    return {
        "_auth_user_id": "17",
        "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
        "_auth_user_hash": auth_hash(password),
        "cart": {"apple": 2},
    }


def signed(data, salt, secret=SECRET):
    return signing.dumps(data, key=secret, salt=salt, compress=True)


COOKIE_SALT = "django.contrib.sessions.backends.signed_cookies"
STORE_SALT = "django.contrib.sessions.SessionStore"


def find_password(user):
    return {"17": PASSWORD}.get(user)


async def find_password_async(user):
    return find_password(user)


class TestDjango:
    @pytest.mark.parametrize("password", [find_password, find_password_async, False])
    def test_the_signed_cookie_is_continued(self, password):
        reader = DjangoCookie(SECRET, password=password)
        with open_with(reader, signed(login_data(), COOKIE_SALT)) as visit:
            assert visit.session["cart"] == {"apple": 2}
            assert visit.session["_auth_user_hash"]
            assert visit.session.user == "17"

    @pytest.mark.parametrize("user", ["17", "18"])
    def test_a_session_from_before_a_change_of_the_password_is_refused(self, user):
        """ASVS 7.4.3: also the session of a user that does not exist any more."""
        data = {**login_data("the former password"), "_auth_user_id": user}
        with open_with(
            DjangoCookie(SECRET, password=find_password), signed(data, COOKIE_SALT)
        ) as v:
            assert v.session.new
            assert v.session.user is None

    def test_a_fallback_key_may_have_signed_it(self):
        cookie = signed(login_data(), COOKIE_SALT)
        with open_with(DjangoCookie([OTHER, SECRET], password=find_password), cookie) as visit:
            assert visit.session.user == "17"

    def test_a_cookie_of_another_purpose_is_refused(self):
        reader = DjangoCookie(SECRET, password=False)
        with open_with(reader, signed(login_data(), STORE_SALT)) as visit:
            assert visit.session.new

    @pytest.fixture
    def database(self, tmp_path):
        """A table as Django creates it, with a live and an expired row."""
        path = tmp_path / "django.sqlite3"
        with sqlite3.connect(path) as connection:
            connection.execute(
                "CREATE TABLE django_session (session_key varchar(40) PRIMARY KEY, "
                "session_data text NOT NULL, expire_date datetime NOT NULL)"
            )
            data = signed(login_data(), STORE_SALT)
            later = time.strftime("%Y-%m-%d %H:%M:%S.000000", time.gmtime(time.time() + 3600))
            rows = [("a" * 32, data, later), ("b" * 32, data, "2020-01-01 00:00:00.000000")]
            rows.append(("c" * 32, data[:-1] + "_", later))
            connection.executemany("INSERT INTO django_session VALUES (?, ?, ?)", rows)
        connection.close()
        return path

    @pytest.mark.parametrize("kind", ["path", "function"])
    @pytest.mark.anyio
    async def test_the_table_is_read_and_the_row_deleted(self, database, kind):
        source = database if kind == "path" else lambda: sqlite3.connect(database)
        reader = DjangoDatabase(source, SECRET, placeholder="?", password=find_password)
        async with open_with(reader, "a" * 32) as visit:
            assert visit.session.user == "17"
        connection = sqlite3.connect(database)
        assert connection.execute("SELECT count(*) FROM django_session").fetchone() == (2,)
        connection.close()

    @pytest.mark.parametrize("key", ["b" * 32, "c" * 32, "d" * 32, "' OR 1=1 --" + "x" * 20])
    def test_an_expired_forged_or_unknown_row_is_no_session(self, database, key):
        reader = DjangoDatabase(database, SECRET, password=find_password)
        with open_with(reader, key) as visit:
            assert visit.session.new

    def test_a_json_cache_is_read(self):
        values = {f":1:django.contrib.sessions.cache{'e' * 32}": json.dumps(login_data())}

        class Client:
            def get(self, key):
                return values.get(key)

            def delete(self, key):
                values.pop(key, None)

        with open_with(DjangoCache(Client(), SECRET, password=find_password), "e" * 32) as visit:
            assert visit.session.user == "17"
        assert not values

    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda: StarletteCookie(""), "secret"),
            (lambda: StarletteCookie(SECRET, max_age=0), "max_age"),
            (lambda: StarletteCookie(SECRET, user=7), "user"),
            (lambda: AiohttpEncryptedCookie("too short"), "Fernet"),
            (lambda: DjangoDatabase(lambda: None, SECRET, table="a; DROP"), "table"),
            (lambda: DjangoCache(object(), SECRET, password=False), "redis-py"),
        ],
    )
    def test_a_wrong_option_is_refused(self, build, message):
        with pytest.raises(ConfigurationError, match=message):
            build()


@pytest.mark.parametrize("engine", ["db", "signed_cookies", "cache"])
def test_a_django_project_continues_its_own_sessions(engine, tmp_path):
    """ASVS 7.4.3: with its secret, its database or cache, and its authentication backend."""
    program = Path(__file__).with_name("django_project.py")
    result = subprocess.run(
        [sys.executable, str(program), engine],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "continued\n", result.stderr
