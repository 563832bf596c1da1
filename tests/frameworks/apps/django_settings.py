"""Configures Django, once for the process; import it before anything that reads its settings."""

import atexit
import shutil
import tempfile

import django
from django.conf import settings

if not settings.configured:
    _folder = tempfile.mkdtemp(prefix="sojourn-django-")
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": f"{_folder}/app.sqlite3",
                "TEST": {"NAME": f"{_folder}/test.sqlite3"},
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "sojourn.frameworks.django",
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF="tests.frameworks.apps.django_urls",
        SECRET_KEY="a secret for tests: 3d1c7f6e-5f8c1e90",
        SESSION_ENGINE="sojourn.frameworks.django",
        SOJOURN={"store": "memory://"},
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
        USE_TZ=True,
    )
django.setup()
