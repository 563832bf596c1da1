"""Django's ``SessionTestsMixin`` for the session store of sojourn."""

from django.test import SimpleTestCase
from sessions_tests.tests import SessionTestsMixin

from sojourn.frameworks.django import SessionStore


class SessionStoreTests(SessionTestsMixin, SimpleTestCase):
    """Runs every test of the mixin."""

    backend = SessionStore
