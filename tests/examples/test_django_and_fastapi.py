"""examples/django_and_fastapi: one login for two frameworks, on their real servers."""

import re

import httpx
import pytest

import sojourn
from tests.integration.valkey import Valkey, free_port, running, wait_for_port
from tests.support.processes import serving

pytestmark = pytest.mark.timeout(120)


class Visitor(httpx.Client):
    """A browser for both applications; cookies do not depend on the port."""

    def __init__(self, site, service):
        super().__init__(follow_redirects=True, timeout=30)
        self.site = site
        self.service = service

    def log_in(self):
        """Log in to the Django admin."""
        page = self.get(self.site + "/admin/login/").text
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[1]
        fields = {"username": "admin", "password": "admin", "next": "/"}
        page = self.post(self.site + "/admin/login/", data={**fields, "csrfmiddlewaretoken": token})
        assert page.json()["user"] == "admin"

    def users(self):
        """Return the user that each application shows."""
        return [self.get(url + "/").json()["user"] for url in (self.site, self.service)]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("valkey", marks=pytest.mark.slow)])
def store(request, tmp_path_factory):
    """Return the URL of a store."""
    folder = tmp_path_factory.mktemp("store")
    if request.param == "sqlite":
        yield f"sqlite:///{folder}/sessions.db"
        return
    with running(Valkey(folder)) as server:
        yield server.url


@pytest.fixture(scope="module")
def visit(store, tmp_path_factory):
    """Return a function that creates a visitor of the two applications."""
    folder = tmp_path_factory.mktemp("example")
    service_port = free_port()
    command = ("examples.django_and_fastapi", "PORT", str(service_port))
    with serving(*command, folder=folder, environ={"STORE": store}) as site:
        wait_for_port(service_port)
        yield lambda: Visitor(site, f"http://127.0.0.1:{service_port}")


def test_the_service_sees_the_login_of_the_admin_and_both_write(visit):
    with visit() as admin:
        assert admin.users() == [None, None]
        admin.log_in()
        assert admin.users() == ["admin", "admin"]
        admin.post(admin.service + "/cart/apple")
        admin.post(admin.service + "/cart/apple")
        assert admin.get(admin.site + "/").json()["cart"] == {"apple": 2}
        assert len(admin.get(admin.service + "/logins").json()) >= 1


def test_logout_in_the_admin_logs_out_of_both(visit):
    """A7."""
    with visit() as admin:
        admin.log_in()
        page = admin.get(admin.site + "/admin/").text
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[1]
        admin.post(admin.site + "/admin/logout/", data={"csrfmiddlewaretoken": token})
        assert admin.users() == [None, None]
        assert admin.get(admin.service + "/logins").status_code == 401


def test_logout_in_the_service_logs_out_of_both(visit):
    """A7."""
    with visit() as admin:
        admin.log_in()
        admin.post(admin.service + "/logout")
        assert admin.users() == [None, None]


def test_revoke_user_logs_all_browsers_out_of_both(visit):
    """A7: the service revokes every session of the user."""
    with visit() as first, visit() as second:
        first.log_in()
        second.log_in()
        assert first.post(first.service + "/logout-everywhere").json() >= 2
        assert first.users() == [None, None]
        assert second.users() == [None, None]


def test_revocation_by_another_process_logs_out_of_both(visit, store):
    """A7, S7: with the options that both share."""
    from examples.django_and_fastapi.shared import COOKIE, SECRET

    sessions = sojourn.Sessions(store=store, secret=SECRET, cookie=COOKIE)
    try:
        with visit() as admin:
            admin.log_in()
            assert sessions.revoke_user("1") >= 1
            assert admin.users() == [None, None]
    finally:
        sessions.close()
