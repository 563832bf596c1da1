"""The admin application in a Django project: staff, permissions, Django's own CSRF middleware."""

import re
import sys
from types import ModuleType

import pytest
from django.apps import apps
from django.contrib import admin as django_admin
from django.contrib.auth import get_user_model
from django.test import Client, override_settings
from django.urls import clear_url_caches, include, path

from tests.frameworks.django_project import OTHERS, both_middlewares, middleware, project

__all__ = ["middleware", "project"]

pytestmark = both_middlewares

CSRF = "django.middleware.csrf.CsrfViewMiddleware"


@pytest.fixture
def site(middleware, project):
    """Serve Django's admin and the pages; return the sessions."""
    from sojourn.frameworks.django import get_sessions  # both need settings
    from sojourn.frameworks.django.admin import urls

    module = ModuleType("tests_django_admin_urls")
    module.urlpatterns = [
        path("admin/sessions/", include(urls())),
        path("admin/", django_admin.site.urls),
    ]
    sys.modules[module.__name__] = module
    changed = {"MIDDLEWARE": [middleware, CSRF, *OTHERS], "SOJOURN": {"store": "memory://"}}
    with override_settings(ROOT_URLCONF=module.__name__, **changed):
        clear_url_caches()
        get_user_model().objects.all().delete()
        yield get_sessions()
    clear_url_caches()
    del sys.modules[module.__name__]


def log_in(name, *permissions, **fields):
    """Return a client of a new user, and the user."""
    user = get_user_model().objects.create_user(name, password="old password", **fields)
    for codename in permissions:
        user.user_permissions.add(
            apps.get_model("auth", "Permission").objects.get(codename=codename)
        )
    client = Client(enforce_csrf_checks=True, headers={"origin": "http://testserver"})
    assert client.login(username=name, password="old password")
    return client, user


def test_staff_with_the_permission_revokes_sessions(site):
    _, ada = log_in("ada")
    client, _ = log_in("root", "delete_session", is_staff=True)
    page = client.get("/admin/sessions/")
    assert page.status_code == 200
    assert page["content-security-policy"].startswith("default-src 'none'")
    assert "This is you" in page.text
    (info,) = site.list_user(ada.pk)
    path = f"/admin/sessions/sessions/{info.id}/revoke"
    token = re.search('name="csrf_token" value="([^"]+)"', client.get(path).text)[1]
    fields = {"typed": info.id[-6:], "reason": "left the company"}
    assert client.post(path, fields).status_code == 403
    assert client.post(path, "x" * 70_000, content_type="text/plain").status_code == 413
    kind = "application/x-www-form-urlencoded"
    body = f"csrf_token={token}&typed={info.id[-6:]}&reason=left"
    answer = client.post(path, body, content_type=kind)
    assert (answer.status_code, answer["location"]) == (303, "../../")
    assert not site.list_user(ada.pk)
    assert "The session was revoked." in client.get("/admin/sessions/").text


def test_users_are_found_by_their_user_names(site):
    """Sessions store primary keys; the admin pages show user names."""
    _, ada = log_in("ada@example.com")
    client, _ = log_in("root", is_staff=True, is_superuser=True)
    with site.open(url="http://localhost/") as visit:
        visit.session.login("a user of another model")
    everything = client.get("/admin/sessions/").text
    assert "ada@example.com" in everything
    assert "a user of another model" in everything
    page = client.get("/admin/sessions/?user=ada@example.com").text
    assert page.count('role="rowheader"') == 1
    assert f'href="revoke-user?user={ada.pk}"' in page
    form = client.get(f"/admin/sessions/revoke-user?user={ada.pk}").text
    assert '<strong class="phrase">ada@example.com</strong>' in form
    (info,) = site.list_user(ada.pk)
    assert "ada@example.com" in client.get(f"/admin/sessions/sessions/{info.id}").text
    unknown = client.get("/admin/sessions/?user=unknown@example.com").text
    assert "No live session matches" in unknown


@pytest.mark.parametrize("user", ["a\0b", "9" * 40, "-1", "\u0661"])
def test_search_for_invalid_text_finds_no_user(site, user):
    """A NUL character or a number beyond the primary key's range is not sent to the database."""
    client, _ = log_in("root", is_staff=True, is_superuser=True)
    with site.open(url="http://localhost/") as visit:
        visit.session.login(user)
    for page in ("/admin/sessions/", "/admin/sessions/ended"):
        assert client.get(page, {"user": user}).status_code == 200
        assert client.get(page, {"user_id": user}).status_code == 200
    assert client.get("/admin/sessions/revoke-user", {"user": user}).status_code == 200


def test_staff_with_the_view_permission_can_only_read(site):
    client, _ = log_in("reader", "view_session", is_staff=True)
    page = client.get("/admin/sessions/")
    assert page.status_code == 200
    assert "Read only" in page.text
    assert client.get("/admin/sessions/revoke-all").status_code == 403


@pytest.mark.parametrize(
    ("fields", "permissions"),
    [({}, ["delete_session"]), ({"is_staff": True}, []), ({}, [])],
)
def test_users_without_a_permission_are_refused(site, fields, permissions):
    client, _ = log_in("ada", *permissions, **fields)
    assert client.get("/admin/sessions/").status_code == 403


def test_visitors_are_redirected_to_the_login_of_djangos_admin(site):
    answer = Client().get("/admin/sessions/?user=1")
    assert answer.status_code == 302
    assert answer["location"] == "/admin/login/?next=/admin/sessions/%3Fuser%3D1"
    assert Client().post("/admin/sessions/revoke-all").status_code == 403


def test_style_sheet_is_served_below_the_prefix(site):
    client, _ = log_in("root", is_staff=True, is_superuser=True)
    style = re.search('href="../(style-[^"]+)"', client.get("/admin/sessions/sessions/x").text)
    answer = client.get(f"/admin/sessions/{style[1]}")
    assert (answer.status_code, answer["content-type"]) == (200, "text/css; charset=utf-8")
