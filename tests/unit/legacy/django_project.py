"""A Django project in a process of its own: its sessions are continued with its own settings.

python django_project.py db|signed_cookies|cache
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import django
from django.conf import settings

ENGINE = sys.argv[1]
FOLDER = Path(tempfile.mkdtemp())
DATABASE = {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "project.db"}

settings.configure(
    SECRET_KEY="the secret of the project: 5f8c1e90d2",
    SECRET_KEY_FALLBACKS=["a former secret of it: 77c0a1"],
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    SESSION_ENGINE=f"django.contrib.sessions.backends.{ENGINE}",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    DATABASES={"default": DATABASE},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402 - after the set-up
from django.core.management import call_command  # noqa: E402 - after the set-up
from django.test import Client  # noqa: E402 - after the set-up

import sojourn  # noqa: E402 - after the set-up
from sojourn.legacy import DjangoCache, DjangoCookie, DjangoDatabase  # noqa: E402 - after the set-up

call_command("migrate", verbosity=0)
READER = {"db": DjangoDatabase, "signed_cookies": DjangoCookie, "cache": DjangoCache}[ENGINE]


def cookie_of(user):
    """Return the cookie of a user who has logged in with Django."""
    client = Client()
    client.force_login(user)
    session = client.session
    session["cart"] = {"apple": 2}
    session.save()
    # With signed_cookies the key is the data, which has changed.
    return {settings.SESSION_COOKIE_NAME: session.session_key}


def install():
    """Return an installation whose reader takes everything from the project."""
    return sojourn.Sessions(
        store="memory://", read_legacy=[READER()], read_legacy_until="2099-12-31"
    )


def show(session):
    """Return what a page sees."""
    return session.user, session.get("cart")


async def visit(sessions, cookies):
    """Open a session under an event loop."""
    async with sessions.open(cookies=cookies) as opened:
        return show(opened.session)


ada = User.objects.create_user("ada", password="swordfish")
bob = User.objects.create_user("bob", password="swordfish")
sessions = install()
expected = (str(ada.pk), {"apple": 2})

cookies = cookie_of(ada)
with sessions.open(cookies=cookies) as opened:
    assert show(opened.session) == expected, show(opened.session)
with install().open(cookies=cookies) as opened:
    if ENGINE == "signed_cookies":
        assert opened.session.user == expected[0]  # another installation has no marker of it
    else:
        assert opened.session.new, "the former record is deleted"

assert asyncio.run(visit(sessions, cookie_of(ada))) == expected

changed = cookie_of(bob)
bob.set_password("marlin")
bob.save()
with sessions.open(cookies=changed) as opened:
    assert opened.session.user is None, "the password has changed"

eve = User.objects.create_user("eve", password="swordfish")
disabled = cookie_of(eve)
eve.is_active = False
eve.save()
with sessions.open(cookies=disabled) as opened:
    assert opened.session.user is None, "the user is not active"
sys.stdout.write("continued\n")
