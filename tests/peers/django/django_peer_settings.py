"""Settings for Django's own tests: those of its ``test_sqlite``, and a session engine."""

import os

DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3"},
    "other": {"ENGINE": "django.db.backends.sqlite3"},
}
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
USE_TZ = False
TEST_RUNNER = "run_django_tests.Runner"

SESSION_ENGINE = os.environ.get("SESSION_ENGINE", "sojourn.frameworks.django")
# Tests replace SECRET_KEY by words that are too short for a key of sojourn.
SOJOURN = {"store": "memory://", "secret": "a secret for the tests of peers: 4be8a101"}
