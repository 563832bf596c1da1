"""Django's settings as options, the system checks, single views, and the error of ``install``."""

import asyncio
import subprocess
import sys

import pytest
from django.apps import apps
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.http import HttpResponse
from django.test import AsyncRequestFactory, Client, RequestFactory, override_settings

import sojourn
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.frameworks.django import (
    SessionMiddleware,
    SessionStore,
    aget_session,
    get_session,
    get_sessions,
)
from sojourn.frameworks.django.system_checks import check_deployment, check_settings
from tests.frameworks.django_project import DJANGOS, OTHERS, OURS, ada, middleware, project

__all__ = ["ada", "middleware", "project"]

pytestmark = pytest.mark.usefixtures("project")


def test_cookie_settings_are_options():
    """SESSION_COOKIE_* are the options of the cookie."""
    with override_settings(
        SESSION_COOKIE_NAME="shop",
        SESSION_COOKIE_PATH="/count/",
        SESSION_COOKIE_DOMAIN="example.com",
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_SECURE=True,
        SESSION_EXPIRE_AT_BROWSER_CLOSE=True,
    ):
        cookie = Client().get("/count/").cookies["shop"]
    assert cookie["path"] == "/count/"
    assert cookie["domain"] == "example.com"
    assert cookie["samesite"] == "Strict"
    assert cookie["secure"]
    assert not cookie["max-age"]


def test_age_settings_are_timeouts():
    """SESSION_SAVE_EVERY_REQUEST removes the absolute timeout."""
    with override_settings(SESSION_COOKIE_AGE=3_600):
        limits = get_sessions().engine.policy.authenticated
        assert (limits.idle_timeout, limits.absolute_timeout) == (3_600_000, 12 * 3_600_000)
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        assert get_sessions().engine.policy.authenticated.absolute_timeout is None


def test_sojourn_setting_takes_precedence():
    """SOJOURN accepts every option of ``sojourn.install``."""
    with override_settings(SOJOURN={"store": "memory://", "timeout": "5 minutes"}):
        assert get_sessions().engine.policy.authenticated.idle_timeout == 300_000
        assert SessionStore().get_expiry_age() == 300


def test_a_changed_setting_keeps_the_store():
    """``override_settings`` in a test does not lose the sessions of a store in memory."""
    with override_settings(SOJOURN={"store": "memory://"}):
        session = SessionStore()
        session["a"] = 1
        session.save()
        with override_settings(SESSION_COOKIE_AGE=100):
            assert SessionStore(session.session_key)["a"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cookie": "sid"}, "SESSION_COOKIE_NAME"),
        ({"timeot": 1}, "Did you mean 'timeout'"),
        ("redis://localhost", "expects a dict"),
        ({"store": "memory://", "timeout": -1}, "timeout expects a duration"),
    ],
)
def test_invalid_setting_is_refused(options, message):
    """The error says what to write, also in ``manage.py check``."""
    with override_settings(SOJOURN=options):
        with pytest.raises(ConfigurationError, match=message):
            get_sessions()
        with pytest.raises(SystemCheckError, match=r"sojourn\.E001"):
            call_command("check")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"MIDDLEWARE": [OURS, DJANGOS, *OTHERS]}, ["sojourn.E002"]),
        (
            {
                "MIDDLEWARE": [DJANGOS, *OTHERS],
                "SOJOURN": {"store": "memory://", "transport": "header"},
            },
            ["sojourn.E003"],
        ),
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.cache"}, ["sojourn.W001"]),
        ({"SESSION_COOKIE_HTTPONLY": False}, ["sojourn.W002"]),
        ({"SESSION_COOKIE_SAMESITE": False}, ["sojourn.W003"]),
        ({"SESSION_SERIALIZER": "pickle.Pickler"}, ["sojourn.W004"]),
        (
            {"SESSION_ENGINE": "django.contrib.sessions.backends.db", "MIDDLEWARE": [DJANGOS]},
            [],
        ),
    ],
)
def test_system_checks_report_weak_settings(settings, expected):
    """Also contradictory ones; each with an id and a hint."""
    with override_settings(**settings):
        found = check_settings()
    assert [message.id for message in found] == expected
    assert all(message.hint for message in found)


def test_check_reports_an_extension_that_stores_session_keys(monkeypatch):
    """Under Django's own middleware the key is the ticket, which no database may contain."""
    monkeypatch.setattr(apps, "is_installed", {"allauth.usersessions"}.__contains__)
    assert check_settings() == []
    with override_settings(MIDDLEWARE=[DJANGOS, *OTHERS]):
        assert [message.id for message in check_settings()] == ["sojourn.W007"]
    monkeypatch.undo()
    with override_settings(MIDDLEWARE=[DJANGOS, *OTHERS]):
        assert check_settings() == []


def test_deployment_checks_report_insecure_settings():
    """``manage.py check --deploy``."""
    assert check_deployment() == []
    with override_settings(MIDDLEWARE=[DJANGOS, *OTHERS]):
        assert [message.id for message in check_deployment()] == ["sojourn.W005"]
    with override_settings(SESSION_COOKIE_SECURE=True):
        assert [message.id for message in check_deployment()] == ["sojourn.W006"]
        with override_settings(SESSION_COOKIE_NAME="__Host-sessionid"):
            assert check_deployment() == []


def test_install_raises_with_the_settings_to_write():
    """Django has no application object to install on."""
    with pytest.raises(ConfigurationError, match="SESSION_ENGINE"):
        sojourn.install(WSGIHandler())


def test_foreign_origins_are_refused(project):
    """``protect``: before the store is called and the view runs."""
    with override_settings(SOJOURN={"store": project.store, "protect": True}):
        client = Client()
        assert client.post("/count/", headers={"sec-fetch-site": "cross-site"}).status_code == 403
        assert client.post("/count/", headers={"sec-fetch-site": "same-origin"}).content == b"1"


def test_view_loads_its_session_without_autoload(project):
    """Other views load no session."""
    for options in ({"autoload": False}, {"exclude": ["/*"]}):
        with override_settings(SOJOURN={"store": project.store, **options}):
            client = Client()
            client.get("/count/")
            project.store.calls.clear()
            assert client.get("/").content == b"index"
            assert project.store.calls == []
            assert client.get("/count/").content == b"2"


def test_views_load_their_session_explicitly(project):
    """``get_session``, ``aget_session`` and ``@sessions.route``, also with on_store_failure."""

    def view(request):
        return HttpResponse(str(get_session(request).increment("n")))

    async def aview(request):
        return HttpResponse(str((await aget_session(request)).increment("n")))

    with override_settings(SOJOURN={"store": project.store, "autoload": False}):
        sessions = get_sessions()

        @sessions.route(on_store_failure="anonymous")
        def tolerant(request):
            return HttpResponse(str(request.session.get("n")))

        @sessions.route
        async def routed(request):
            return HttpResponse(str(request.session.increment("n")))

        response = SessionMiddleware(view)(RequestFactory().get("/", secure=True))
        assert response.content == b"1"
        cookie = {"cookie": f"sessionid={response.cookies['sessionid'].value}"}

        async def visit(handler):
            factory = AsyncRequestFactory()
            factory.cookies.load(cookie["cookie"])
            request = factory.get("/", secure=True)
            return (await SessionMiddleware(handler)(request)).content

        assert asyncio.run(visit(aview)) == b"2"
        assert asyncio.run(visit(routed)) == b"3"
        request = RequestFactory().get("/", secure=True, headers=cookie)
        project.store.fail("load", times=1)
        assert SessionMiddleware(tolerant)(request).content == b"None"


def test_a_view_without_the_middleware_gets_an_error():
    """The error contains the line to write."""
    with pytest.raises(ConfigurationError, match="MIDDLEWARE"):
        get_session(RequestFactory().get("/"))


def test_view_continues_without_the_store(project):
    """A15: with ``on_store_failure="anonymous"`` the empty session has Django's methods."""

    def view(request):
        session = request.session
        assert session.get("n") is None
        for verb in (session.flush, session.cycle_key, session.save, session.create):
            with pytest.raises(StoreUnavailable):
                verb()
        return HttpResponse("anonymous")

    with override_settings(SOJOURN={"store": project.store, "on_store_failure": "anonymous"}):
        client = Client()
        client.get("/count/")
        cookie = client.cookies["sessionid"].value
        project.store.fail("load", times=1)
        request = RequestFactory().get("/", headers={"cookie": f"sessionid={cookie}"})
        response = SessionMiddleware(view)(request)
        assert response.content == b"anonymous"
        assert not response.cookies


@pytest.mark.parametrize("replacement", [{"n": 7}, None, {}])
def test_a_replaced_session_is_adopted(project, replacement):
    """A24: a mapping becomes the data; None destroys the session."""
    client = Client()
    client.get("/count/")
    cookie = client.cookies["sessionid"].value

    def view(request):
        request.session = replacement
        return HttpResponse()

    request = RequestFactory().get("/", headers={"cookie": f"sessionid={cookie}"})
    SessionMiddleware(view)(request)
    assert SessionStore(cookie).load() == (replacement or {})
    assert SessionStore(cookie).exists(cookie) is (replacement is not None)


PROJECT = """
import sys
for package in ("jinja2", "markupsafe", "ua_parser", "ua_parser_builtins"):
    sys.modules[package] = None  # importing it raises ModuleNotFoundError
import django
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "sojourn.frameworks.django",
    ],
    SESSION_ENGINE="sojourn.frameworks.django",
    SOJOURN={"store": "memory://"},
)
django.setup()
from sojourn.errors import ConfigurationError
from sojourn.frameworks.django import admin, device_page
for pages in (admin, device_page):
    try:
        pages.urls()
    except ConfigurationError as error:
        print(error)
"""


def test_a_project_with_djangos_admin_needs_no_package_of_the_admin_pages():
    """Django's admin imports the module ``admin`` of each application of the project."""
    answer = subprocess.run(
        [sys.executable, "-c", PROJECT], capture_output=True, text=True, check=False
    )
    assert answer.stderr == ""
    missing = "sojourn.admin needs the package jinja2: pip install 'sojourn[admin]'\n"
    assert answer.stdout == 2 * missing
