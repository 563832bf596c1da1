"""The Django site: the admin, and a page that shows the session.

Settings, URLs and views in one file; a project of its own has a file for each.
"""

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.signals import user_logged_in
from django.core.asgi import get_asgi_application
from django.dispatch import receiver
from django.http import JsonResponse
from django.urls import path

from examples.django_and_fastapi.shared import COOKIE, SECRET, STORE, TIMEOUT

settings.configure(
    SESSION_ENGINE="sojourn.frameworks.django",
    SOJOURN={"store": STORE, "secret": SECRET, "timeout": TIMEOUT},
    SESSION_COOKIE_NAME=COOKIE,
    SESSION_EXPIRE_AT_BROWSER_CLOSE=True,
    SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY", "only for this example: 51d0c4aa"),
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("DATABASE", str(Path(".sojourn") / "site.db")),
        }
    },
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
    ],
    MIDDLEWARE=[
        "sojourn.frameworks.django.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    STATIC_URL="static/",
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
application = get_asgi_application()

from django.contrib import admin  # noqa: E402 - needs the applications


@receiver(user_logged_in)
def keep_name(request: Any, user: Any, **_: object) -> None:
    """Keep the name in the session, so that the service does not need Django's database."""
    request.session["name"] = user.get_username()


def index(request: Any) -> JsonResponse:
    """Show the user and what the service has put into the session."""
    name = request.user.get_username() if request.user.is_authenticated else None
    return JsonResponse({"site": "Django", "user": name, "cart": request.session.get("cart", {})})


urlpatterns = [path("", index), path("admin/", admin.site.urls)]
