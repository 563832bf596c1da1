"""django.contrib.auth: users of sessions, password changes, messages, CSRF, the admin."""

import asyncio

import pytest
from django.apps import apps
from django.contrib.auth import (
    HASH_SESSION_KEY,
    alogin,
    aupdate_session_auth_hash,
    get_user_model,
    update_session_auth_hash,
)
from django.contrib.auth import login as django_login
from django.contrib.auth.signals import user_logged_in
from django.core import serializers
from django.core.management import call_command
from django.db import transaction
from django.test import AsyncClient, Client, RequestFactory, override_settings

from sojourn.events import Revoked
from sojourn.frameworks.django import SessionStore
from sojourn.frameworks.django.auth import connect
from tests.frameworks.django_project import (
    OTHERS,
    ada,
    both_middlewares,
    middleware,
    project,
)

__all__ = ["ada", "middleware", "project"]

pytestmark = [
    both_middlewares,
    pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning"),
]

PASSWORD = "old password"
NEW = "new password of Ada"


def login(client=None, password=PASSWORD):
    """Log in with the form of Django, and return the client."""
    client = client or Client()
    response = client.post("/login/", {"username": "ada", "password": password})
    assert response.status_code == 302
    return client


def who(client):
    """Return the name of the client's user."""
    return client.get("/who/").content.decode()


def test_a_login_binds_the_user(project, ada):
    """ASVS 7.2.4: the ticket is replaced, the old one is invalid at once, the data is kept."""
    client = Client()
    client.get("/count/")
    before = client.cookies["sessionid"].value
    login(client)
    [info] = project.list_user(str(ada.pk))
    assert info.user == str(ada.pk)
    assert info.labels["address"] == "127.0.0.1"
    assert client.cookies["sessionid"].value != before
    assert who(client) == "ada"
    assert client.get("/count/").content == b"2"
    thief = Client()
    thief.cookies["sessionid"] = before
    assert who(thief) == ""
    assert thief.get("/count/").content == b"1"


def test_force_login(project, ada):
    """``force_login`` and ``logout`` of Django's test client."""
    client = Client()
    client.force_login(ada)
    assert who(client) == "ada"
    assert len(project.list_user(ada.pk)) == 1
    client.logout()
    assert who(client) == ""
    assert project.list_user(ada.pk) == []


def test_a_logout_destroys_the_session(project, ada):
    """A7: the record is deleted, the cookie is cleared, and the old cookie is invalid."""
    client = login()
    before = client.cookies["sessionid"].value
    response = client.post("/logout/")
    assert response.cookies["sessionid"].value == ""
    assert project.list_user(ada.pk) == []
    client.cookies["sessionid"] = before
    assert who(client) == ""


def test_a_revocation_logs_the_user_out(project, ada):
    """S16: ``revoke_user`` and ``revoke`` end the login of django.contrib.auth."""
    one, two = login(), login()
    assert len(project.list_user(ada.pk)) == 2
    project.revoke(project.list_user(ada.pk)[0].id)
    assert sorted([who(one), who(two)]) == ["", "ada"]
    project.revoke_user(ada.pk)
    assert who(one) == who(two) == ""


def test_a_password_change_revokes_the_other_sessions(project, ada):
    """ASVS 7.4.3: the session that changed it gets a new ticket."""
    mine, other = login(), login()
    before = mine.cookies["sessionid"].value
    form = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}
    assert mine.post("/password/", form).status_code == 302
    assert len(project.list_user(ada.pk)) == 1
    assert who(mine) == "ada"
    assert who(other) == ""
    assert mine.cookies["sessionid"].value != before
    login(password=NEW)


def test_a_password_change_without_a_session_revokes_all_sessions(project, ada):
    """ASVS 7.4.3: by a command, the admin, or a form for a forgotten password."""
    client = login()
    ada.set_password(NEW)
    ada.save()
    assert project.list_user(ada.pk) == []
    assert who(client) == ""


def test_a_password_change_outside_of_a_request_revokes_all_sessions(project, ada):
    """ASVS 7.4.3: also a session that a test or a worker opened before in the same thread."""
    client, other = Client(), Client()
    client.force_login(ada)
    other.force_login(ada)
    opened = client.session
    assert opened["_auth_user_id"] == str(ada.pk)
    ada.set_password(NEW)
    ada.save()
    assert project.list_user(ada.pk) == []


def test_a_password_change_in_a_transaction_revokes_logins_before_its_commit(project, ada):
    """ASVS 7.4.3: until the commit the previous password is valid."""
    with transaction.atomic():
        ada.set_password(NEW)
        ada.save()
        assert project.list_user(ada.pk) == []
        late = SessionStore()
        late.login(str(ada.pk))
        late.save()
    assert project.list_user(ada.pk) == []


def test_an_unusable_password_revokes_the_sessions(project, ada):
    """ASVS 7.4.3: at once; later saves of such a user revoke nothing."""
    client = login()
    ada.set_unusable_password()
    ada.save()
    assert project.list_user(ada.pk) == []
    client.force_login(ada)
    ada.first_name = "Ada"
    ada.save()
    assert who(client) == "ada"
    assert len(project.list_user(ada.pk)) == 1


def test_only_a_saved_field_revokes_sessions(project, ada):
    """A save of other fields does not store the password or the deactivation."""
    client = login()
    ada.set_unusable_password()
    ada.is_active = False
    ada.save(update_fields=["first_name"])
    assert who(client) == "ada"
    assert len(project.list_user(ada.pk)) == 1


def test_a_deactivated_users_sessions_are_revoked(project, ada):
    """ASVS 7.4.2: at once, with the reason."""
    client = login()
    [info] = project.list_user(ada.pk)
    ended = []
    project.on(Revoked, ended.append)
    ada.is_active = False
    ada.save(update_fields=["is_active"])
    assert project.list_user(ada.pk) == []
    assert [(each.session_id, each.reason) for each in ended] == [(info.id, "disabled")]
    assert who(client) == ""


@override_settings(
    AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.AllowAllUsersModelBackend"]
)
def test_inactive_users_stay_logged_in_if_the_backend_allows(project, ada):
    """With ``AllowAllUsersModelBackend``."""
    client = login()
    ada.is_active = False
    ada.save()
    assert who(client) == "ada"
    assert len(project.list_user(ada.pk)) == 1


class PermissionsBackend:
    """A backend for permissions only, without ``get_user``."""

    def authenticate(self, request, **credentials):
        return None

    def has_perm(self, user, perm, obj=None):
        return False


@override_settings(
    AUTHENTICATION_BACKENDS=[
        f"{__name__}.PermissionsBackend",
        "django.contrib.auth.backends.ModelBackend",
    ]
)
def test_a_backend_without_get_user_keeps_no_inactive_user_logged_in(project, ada):
    """ASVS 7.4.2: a backend for permissions does not authenticate users."""
    client = login()
    ada.is_active = False
    ada.save()
    assert project.list_user(ada.pk) == []
    assert who(client) == ""


@pytest.mark.parametrize("many", [False, True], ids=["instance", "query"])
def test_a_deleted_users_sessions_are_revoked(project, ada, many):
    """ASVS 7.4.2: at once, with the reason."""
    client, key = login(), ada.pk
    ended = []
    project.on(Revoked, ended.append)
    (get_user_model().objects.filter(pk=key) if many else ada).delete()
    assert project.list_user(key) == []
    assert [each.reason for each in ended] == ["deleted"]
    assert who(client) == ""


def test_a_deletion_in_a_transaction_revokes_logins_before_its_commit(project, ada):
    """ASVS 7.4.2."""
    key = ada.pk
    with transaction.atomic():
        ada.delete()
        late = SessionStore()
        late.login(str(key))
        late.save()
    assert project.list_user(key) == []


def test_a_fixture_revokes_no_session(project, ada, tmp_path):
    """A raw save, such as that of ``loaddata``, may precede related data."""
    login()
    ada.is_active = False
    fixture = tmp_path / "users.json"
    fixture.write_text(serializers.serialize("json", [ada]))
    call_command("loaddata", str(fixture), verbosity=0)
    assert len(project.list_user(ada.pk)) == 1


def test_a_project_without_auth_saves_its_models(project):
    """Sessions do not require ``django.contrib.auth``."""
    applications = ["django.contrib.contenttypes", "django.contrib.sessions"]
    with override_settings(INSTALLED_APPS=applications):
        SessionStore().save()
        kinds = apps.get_model("contenttypes", "ContentType").objects
        kinds.create(app_label="shop", model="cart").delete()


def test_a_token_login_binds_no_session(project, ada):
    """A1: packages that issue tokens send ``user_logged_in``; no session is created."""
    client = Client()
    response = client.get("/token-login/?user=ada")
    assert response.content == b"token"
    assert not response.cookies
    assert project.list_user(ada.pk) == []


def test_a_password_change_by_another_user_revokes_all_sessions(project, ada):
    """The session of the administrator who changes the password is kept."""
    client = login()
    get_user_model().objects.filter(username="root").delete()
    root = get_user_model().objects.create_superuser("root", password=PASSWORD)
    administrator = Client()
    administrator.force_login(root)
    path = f"/admin/auth/user/{ada.pk}/password/"
    form = {"password1": NEW, "password2": NEW, "usable_password": "true"}
    assert administrator.post(path, form).status_code == 302
    assert project.list_user(ada.pk) == []
    assert who(client) == ""
    assert who(administrator) == "root"
    assert len(project.list_user(root.pk)) == 1


def test_an_upgraded_hash_revokes_nothing(project, ada):
    """Django saves a stronger hash of the same password at a login."""
    client = login()
    hashers = [
        "django.contrib.auth.hashers.PBKDF2PasswordHasher",
        "django.contrib.auth.hashers.MD5PasswordHasher",
    ]
    with override_settings(PASSWORD_HASHERS=hashers):
        ada.check_password(PASSWORD)
    assert len(project.list_user(ada.pk)) == 1
    assert who(client) == ""  # by Django's own hash check, as with its own backends


def test_update_session_auth_hash_revokes_the_other_sessions(project, ada):
    """Also if another program stored the password."""
    mine, other = login(), login()
    users = get_user_model().objects.filter(pk=ada.pk)
    assert mine.get("/rehash/?password=" + NEW).content == b"updated"
    assert users.get().check_password(NEW)
    assert len(project.list_user(ada.pk)) == 1
    assert who(mine) == "ada"
    assert who(other) == ""


def test_the_key_after_a_login_is_final(project, ada):
    """``allauth.headless`` sends it to the client before Django saves the session."""
    request = RequestFactory().get("/")
    request.session, request.user = SessionStore(), ada
    django_login(request, ada, "django.contrib.auth.backends.ModelBackend")
    key = request.session.session_key
    request.session.save()
    assert request.session.session_key == key
    assert SessionStore(key).user == str(ada.pk)
    ada.password += "changed"
    update_session_auth_hash(request, ada)
    changed = request.session.session_key
    request.session.save()
    assert request.session.session_key == changed != key
    assert SessionStore(changed)[HASH_SESSION_KEY] == ada.get_session_auth_hash()


def test_receivers_of_logins_see_the_final_key(project, ada):
    """Also receivers connected earlier: django-axes finds the login by its key."""
    keys = []

    def note(request, **_):
        keys.append(request.session.session_key)

    user_logged_in.disconnect(dispatch_uid="sojourn.login")
    user_logged_in.connect(note)
    connect()
    try:
        request = RequestFactory().get("/")
        request.session = SessionStore()
        django_login(request, ada, "django.contrib.auth.backends.ModelBackend")
        request.session.save()
    finally:
        user_logged_in.disconnect(note)
    assert keys == [request.session.session_key]


def test_the_key_after_an_asynchronous_login_is_final(project, ada):
    """The same for ``alogin`` and ``aupdate_session_auth_hash``."""

    async def use():
        request = RequestFactory().get("/")
        request.session, request.user = SessionStore(), ada

        async def get_user():
            return ada

        request.auser = get_user
        await alogin(request, ada, "django.contrib.auth.backends.ModelBackend")
        key = request.session.session_key
        await request.session.asave()
        assert request.session.session_key == key
        ada.password += "changed"
        await aupdate_session_auth_hash(request, ada)
        changed = request.session.session_key
        await request.session.asave()
        assert request.session.session_key == changed != key
        return changed

    assert SessionStore(asyncio.run(use())).user == str(ada.pk)


def test_a_rotated_secret_key_revokes_no_session(project, ada):
    """With SECRET_KEY_FALLBACKS the tickets stay valid."""
    from django.conf import settings

    one, two = login(), login()
    old = settings.SECRET_KEY
    new = "another secret for tests: 0b7e12aa-91d0"
    with override_settings(SECRET_KEY=new, SECRET_KEY_FALLBACKS=[old]):
        assert who(one) == "ada"
        assert who(two) == "ada"
        assert who(one) == "ada"
        assert who(two) == "ada"


def test_messages_in_the_session(project):
    """The messages framework with session storage."""
    client = Client()
    storage = "django.contrib.messages.storage.session.SessionStorage"
    with override_settings(MESSAGE_STORAGE=storage):
        client.get("/store-message/?text=one")
        client.get("/store-message/?text=two")
        assert client.get("/messages/").content == b"one two"
        assert client.get("/messages/").content == b""


def test_csrf_in_the_session(project, middleware):
    """CSRF_USE_SESSIONS."""
    layers = [middleware, "django.middleware.csrf.CsrfViewMiddleware", *OTHERS]
    with override_settings(CSRF_USE_SESSIONS=True, MIDDLEWARE=layers):
        client = Client(enforce_csrf_checks=True)
        token = client.get("/token/").content.decode()
        assert client.post("/token/").status_code == 403
        assert client.post("/token/", {"csrfmiddlewaretoken": token}).status_code == 200
        assert "csrftoken" not in client.cookies


def test_clear_logs_out(project, ada):
    """A24: data and login are removed; later changes are kept."""
    client = login()
    client.get("/clear/")
    assert who(client) == ""
    assert client.session["after"] == 1
    assert project.list_user(ada.pk) == []


def test_the_admin(project):
    """The admin's own login and pages; its system check accepts the middleware."""
    get_user_model().objects.filter(username="root2").delete()
    get_user_model().objects.create_superuser("root2", password=PASSWORD)
    client = Client()
    form = {"username": "root2", "password": PASSWORD, "next": "/admin/"}
    assert client.post("/admin/login/", form).status_code == 302
    assert client.get("/admin/").status_code == 200
    call_command("check")


def test_asynchronous_logins(project, ada):
    """``alogin``, ``alogout``, ``aupdate_session_auth_hash`` through Django's ASGI handler."""

    async def use():
        mine, other = AsyncClient(), AsyncClient()
        for client in (mine, other):
            await client.get("/alogin/?user=ada")
            assert (await client.get("/awho/")).content == b"ada"
        assert len(await project.alist_user(ada.pk)) == 2
        await mine.get("/apassword/?password=another")
        assert len(await project.alist_user(ada.pk)) == 1
        assert (await mine.get("/awho/")).content == b"ada"
        assert (await other.get("/awho/")).content == b""
        await mine.get("/alogout/")
        assert (await mine.get("/awho/")).content == b""
        assert await project.alist_user(ada.pk) == []
        await mine.aforce_login(await get_user_model().objects.aget(pk=ada.pk))
        assert (await mine.get("/awho/")).content == b"ada"

    asyncio.run(use())


def test_limits_of_a_user(project, ada, middleware):
    """``max_sessions`` counts Django's logins."""
    with override_settings(SOJOURN={"store": project.store, "max_sessions": 1}):
        one = login()
        two = login()
        assert (who(one), who(two)) == ("", "ada")
