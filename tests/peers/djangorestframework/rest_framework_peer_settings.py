"""Settings for the tests of Django REST framework, and a session engine."""

import os

DEBUG_PROPAGATE_EXCEPTIONS = True
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DATABASES = {
    name: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    for name in ("default", "secondary")
}
SITE_ID = 1
SECRET_KEY = "a secret for the tests of peers: 0d1e7c42"
USE_I18N = True
STATIC_URL = "/static/"
ROOT_URLCONF = "tests.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"debug": True},
    }
]
MIDDLEWARE = [
    "django.middleware.common.CommonMiddleware",
    os.environ.get("SESSION_MIDDLEWARE", "django.contrib.sessions.middleware.SessionMiddleware"),
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
INSTALLED_APPS = [
    *(f"django.contrib.{app}" for app in ("admin", "auth", "contenttypes", "sessions")),
    *(f"django.contrib.{app}" for app in ("sites", "staticfiles")),
    "rest_framework",
    "rest_framework.authtoken",
    "tests.authentication",
    "tests.generic_relations",
    "tests.importable",
    "tests",
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

SESSION_ENGINE = os.environ.get("SESSION_ENGINE", "sojourn.frameworks.django")
SOJOURN = {"store": "memory://"}
