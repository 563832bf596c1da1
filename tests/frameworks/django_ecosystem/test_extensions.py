"""Django's extensions, unchanged, with sojourn as the session engine; on real servers."""

import pytest

from tests.frameworks.django_ecosystem.prepare import PASSWORD

DJANGO = "django.contrib.sessions.middleware.SessionMiddleware"

pytestmark = pytest.mark.timeout(120)


class TestRestFramework:
    """Django REST framework: ``SessionAuthentication``."""

    def test_login_authenticates_the_request(self, served):
        with served.browser() as ada:
            assert ada.get("/drf/me").status_code == 403
            ada.log_in("ada")
            assert ada.get("/drf/me").json() == {"user": "ada"}

    def test_post_without_the_csrf_token_is_refused(self, served):
        with served.browser() as ada:
            ada.log_in("ada")
            refused = ada.post("/drf/notes")
            assert refused.status_code == 403
            assert "CSRF" in refused.text
            headers = ada.token()
            assert ada.post("/drf/notes", headers=headers).json() == {"notes": 1}
            assert ada.post("/drf/notes", headers=headers).json() == {"notes": 2}

    def test_request_after_a_revocation_is_not_authenticated(self, served):
        """A7: a revocation in another process."""
        with served.browser() as bob:
            bob.submit("/accounts/login/", login="bob", password=PASSWORD)
            assert bob.get("/drf/me").status_code == 200
            sessions = served.sessions()
            try:
                assert sessions.revoke_user(user_of(served, "bob")) >= 1
            finally:
                sessions.close()
            assert bob.get("/drf/me").status_code == 403


class TestNinja:
    """Django Ninja: ``django_auth``."""

    def test_login_authenticates_the_request(self, served):
        with served.browser() as ada:
            assert ada.get("/ninja/me").status_code == 401
            ada.log_in("ada")
            assert ada.get("/ninja/me").json() == {"user": "ada"}

    def test_post_without_the_csrf_token_is_refused(self, served):
        with served.browser() as ada:
            ada.log_in("ada")
            assert ada.post("/ninja/notes").status_code == 403
            assert ada.post("/ninja/notes", headers=ada.token()).json() == {"notes": 1}


class TestAdmin:
    """The admin, with messages."""

    def test_login_change_list_and_logout(self, served):
        """A7, A9: the login replaces the ticket, and the logout makes it invalid."""
        with served.browser() as ada:
            ada.get("/visit")
            before = ada.copy()
            assert ada.log_in("ada").json() == {"user": "ada", "visits": 1}
            assert before.user() is None
            page = ada.get("/admin/auth/user/")
            assert page.status_code == 200
            assert "bob" in page.text
            added = ada.submit("/admin/auth/group/add/", name="editors")
            assert "was added successfully" in added.text
            assert "was added successfully" not in ada.get("/admin/auth/group/").text
            (group,) = {word for word in added.text.split('"') if word.endswith("/change/")} or [""]
            deleted = ada.submit(group.replace("change", "delete"), post="yes")
            assert "was deleted successfully" in deleted.text
            during = ada.copy()
            ada.post("/admin/logout/", headers=ada.token())
            assert ada.user() is None
            assert during.user() is None
            before.close()
            during.close()

    def test_user_without_staff_status_is_refused(self, served):
        with served.browser() as bob:
            page = bob.log_in("bob")
            assert "staff account" in page.text
            assert bob.user() is None

    def test_password_change_logs_the_other_sessions_out(self, served):
        """A7, ASVS 7.4.3: the session that changed it stays logged in."""
        with served.browser() as first, served.browser() as second:
            for each in (first, second):
                each.log_in("ada")
            fields = {
                "old_password": PASSWORD,
                "new_password1": PASSWORD,
                "new_password2": PASSWORD,
            }
            page = first.submit("/admin/password_change/", **fields)
            assert "password was changed" in page.text.lower()
            assert first.user() == "ada"
            assert second.user() is None


class TestMessages:
    """``django.contrib.messages`` in the session."""

    def test_a_message_is_shown_once_after_the_redirect(self, served):
        with served.browser() as visitor:
            page = visitor.get("/leave-message")
            assert page.json() == {"messages": ["It is saved."]}
            assert visitor.get("/read-messages").json() == {"messages": []}


class TestViews:
    """Synchronous and asynchronous views."""

    @pytest.mark.parametrize("path", ["/visit", "/avisit"])
    def test_a_view_counts_visits(self, served, path):
        """A2, A4: a cookie at the first write only."""
        with served.browser() as visitor:
            assert "set-cookie" not in visitor.get("/ignored-by-all").headers
            assert "set-cookie" in visitor.get(path).headers
            assert visitor.get(path).json() == {"visits": 2}
            assert visitor.get("/").json() == {"user": None, "visits": 2}


class TestSessionKey:
    """``session_key`` under sojourn's middleware; applications store it in their tables."""

    def test_session_key_fits_into_djangos_column_and_is_no_valid_cookie(self, served):
        """A8, A18."""
        if served.environ["SESSION_MIDDLEWARE"] == DJANGO:
            pytest.skip("Django's middleware writes session_key into the cookie: it is the ticket")
        with served.browser() as ada, served.browser() as thief:
            ada.log_in("ada")
            key = ada.get("/key").text
            assert len(key) == 40
            assert key not in ada.cookie_header()["cookie"]
            thief.cookies.set("sessionid", key, domain="127.0.0.1")
            assert thief.user() is None
            assert ada.user() == "ada"


class TestAllauth:
    """django-allauth: login, sign-up and ``usersessions``."""

    def test_sign_up_log_out_and_log_in(self, served, request):
        name = f"eve{abs(hash(request.node.name)) % 10**6}"
        with served.browser() as eve:
            eve.submit("/accounts/signup/", username=name, password1=PASSWORD, password2=PASSWORD)
            assert eve.user() == name
            eve.submit("/accounts/logout/")
            assert eve.user() is None
            eve.submit("/accounts/login/", login=name, password=PASSWORD)
            assert eve.user() == name

    def test_usersessions_page_logs_the_other_sessions_out(self, served):
        """A7: the page lists each login; its button logs out all except the current one."""
        with served.browser() as first, served.browser() as second:
            for each in (first, second):
                each.submit("/accounts/login/", login="bob", password=PASSWORD)
                assert each.user() == "bob"
            page = first.get("/accounts/sessions/")
            assert page.text.count("127.0.0.1") >= 2
            first.submit("/accounts/sessions/")
            assert second.user() is None
            assert first.user() == "bob"
            assert first.get("/accounts/sessions/").text.count("127.0.0.1") == 1


class TestCommands:
    """Management commands."""

    def test_clearsessions_removes_expired_sessions(self, served):
        """S8."""
        with served.browser() as visitor:
            visitor.get("/visit")
            served.manage("clearsessions")
            assert visitor.get("/visit").json() == {"visits": 2}

    def test_check_deploy_finds_no_error(self, served):
        served.manage("check")


def user_of(served, username):
    """Return the primary key of a user as text, which is the user of the session."""
    code = (
        "from django.contrib.auth import get_user_model as m;"
        f"print(m().objects.get(username={username!r}).pk)"
    )
    return served.manage("shell", "-v", "0", "-c", code).split()[-1]
