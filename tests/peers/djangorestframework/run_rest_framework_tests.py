"""Run the tests of Django REST framework with sojourn as the session engine.

Arguments are labels of tests. ``SESSION_ENGINE`` and ``SESSION_MIDDLEWARE`` in the environment
replace those of the tests.
"""

import json
import os
import sys
from pathlib import Path

import django
import run_django_tests


class Runner(run_django_tests.Runner):
    """Django's test runner without system checks, which require settings that these tests lack."""

    def run_checks(self, databases):
        """Check nothing."""


class WithoutMigrations(dict):
    """The migrations of each application: none, so that its tables are created from its models."""

    def __contains__(self, _):
        return True

    def __missing__(self, _):
        return None


def main():
    """Run the tests and write their outcomes to the file in ``OUTCOMES``."""
    sys.path.insert(0, str(Path.cwd()))
    os.environ["DJANGO_SETTINGS_MODULE"] = "rest_framework_peer_settings"
    from django.conf import settings

    settings.MIGRATION_MODULES = WithoutMigrations()
    django.setup()
    Runner(verbosity=1, interactive=False).run_tests(sys.argv[1:])
    Path(os.environ["OUTCOMES"]).write_text(json.dumps(run_django_tests.outcomes), "utf-8")


if __name__ == "__main__":
    main()
