"""Fixtures for the tests of a Django project: its database, a new memory store, its middleware."""

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import override_settings

import tests.frameworks.apps.django_settings  # noqa: F401 - before the modules that read settings
from sojourn.frameworks.django import get_sessions
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore

DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"
OURS = "sojourn.frameworks.django.SessionMiddleware"

#: The middleware of a project, without the session middleware.
OTHERS = [
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

both_middlewares = pytest.mark.parametrize("middleware", [DJANGOS, OURS], ids=["django", "sojourn"])

_migrated = []


@pytest.fixture
def middleware(request):
    """Return the session middleware; tests override it by indirect parametrization."""
    return getattr(request, "param", OURS)


@pytest.fixture
def project(middleware):
    """Return the installation of a project with this middleware, and an empty store."""
    if not _migrated:
        call_command("migrate", verbosity=0)
        _migrated.append(True)
    store = FaultyStore(MemoryStore())
    with override_settings(MIDDLEWARE=[middleware, *OTHERS], SOJOURN={"store": store}):
        yield get_sessions()


@pytest.fixture
def ada(project):
    """Return a user whose password is "old password"."""
    users = get_user_model().objects
    users.all().delete()
    return users.create_user("ada", password="old password")
