"""The device page in a Django project, where the user of a session is the primary key."""

import pytest
from django.contrib.auth import get_user_model
from django.test import Client, override_settings
from django.urls import include, path

from tests.frameworks.django_project import (  # noqa: F401 - fixtures
    OTHERS,
    OURS,
    ada,
    middleware,
    project,
)


@pytest.fixture
def site(project):  # noqa: F811 - the fixture
    """Serve the page below /devices/."""
    from sojourn.frameworks.django.device_page import urls

    with override_settings(
        ROOT_URLCONF=(path("devices/", include(urls())),),
        LOGIN_URL="/accounts/login/",
        MIDDLEWARE=[OURS, "django.middleware.csrf.CsrfViewMiddleware", *OTHERS],
    ):
        yield project


@pytest.mark.usefixtures("site")
def test_user_name_equal_to_the_key_of_another_user_shows_no_other_sessions(ada):  # noqa: F811 - the fixture
    """A7: a user name may equal another user's primary key."""
    mallory = get_user_model().objects.create_user(str(ada.pk), password="new password")
    for user in (ada, ada, mallory):
        client = Client()
        client.force_login(user)
    found = client.get("/devices/sessions").json()["sessions"]
    assert len(found) == 1
    victim = Client()
    victim.force_login(ada)
    assert len(victim.get("/devices/sessions").json()["sessions"]) == 3


@pytest.mark.usefixtures("site")
def test_page_does_not_need_django_contrib_auth():
    """A project may log users in with ``request.session.login`` only."""
    with override_settings(MIDDLEWARE=[OURS]):
        assert Client().get("/devices/").status_code == 303


@pytest.mark.usefixtures("site")
def test_visitor_is_redirected_to_the_login_of_the_project():
    """``LOGIN_URL``, and back to the page."""
    answer = Client().get("/devices/")
    assert (answer.status_code, answer["location"]) == (
        303,
        "/accounts/login/?next=/devices/",
    )


@pytest.mark.usefixtures("site")
def test_form_needs_no_csrf_token_of_django(ada):  # noqa: F811 - the fixture
    """It has its own token; Django's CSRF middleware does not check this view."""
    here, other = Client(enforce_csrf_checks=True), Client()
    for client in (here, other):
        client.force_login(ada)
    page = here.get("/devices/log-out-others").content.decode()
    value = page.partition('name="csrf_token" value="')[2].partition('"')[0]
    assert here.post("/devices/log-out-others").status_code == 403
    answer = here.post(
        "/devices/log-out-others",
        f"csrf_token={value}",
        content_type="application/x-www-form-urlencoded",
        HTTP_SEC_FETCH_SITE="same-origin",
    )
    assert (answer.status_code, answer["location"]) == (303, "./?done=others")
    assert len(here.get("/devices/sessions").json()["sessions"]) == 1
