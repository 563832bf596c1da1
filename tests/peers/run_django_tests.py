"""Run Django's own tests with sojourn as the session engine; arguments are labels of tests.

``SESSION_ENGINE`` and ``SESSION_MIDDLEWARE`` in the environment replace those of the tests.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from unittest import TextTestResult

import django
from django.test.runner import DiscoverRunner

outcomes: dict[str, str] = {}


class Result(TextTestResult):
    """Records the outcome of each test."""

    def record(self, test, outcome):
        """Keep the first failure of a test and of its subtests."""
        if outcomes.get(test.id()) != "failed":
            outcomes[test.id()] = outcome

    def addSuccess(self, test):  # noqa: N802 - unittest's name
        """Record a test that passed."""
        super().addSuccess(test)
        self.record(test, "passed")

    def addExpectedFailure(self, test, err):  # noqa: N802 - unittest's name
        """Record a test that fails as Django expects."""
        super().addExpectedFailure(test, err)
        self.record(test, "passed")

    def addSkip(self, test, reason):  # noqa: N802 - unittest's name
        """Record a skipped test."""
        super().addSkip(test, reason)
        self.record(test, "skipped")

    def addFailure(self, test, err):  # noqa: N802 - unittest's name
        """Record a failure."""
        super().addFailure(test, err)
        self.record(test, "failed")

    def addError(self, test, err):  # noqa: N802 - unittest's name
        """Record an error; ``test`` may represent the set-up of a class."""
        super().addError(test, err)
        self.record(test, "failed")

    def addUnexpectedSuccess(self, test):  # noqa: N802 - unittest's name
        """Record a success where Django expects a failure."""
        super().addUnexpectedSuccess(test)
        self.record(test, "failed")

    def addSubTest(self, test, subtest, err):  # noqa: N802 - unittest's name
        """Record the failure of a part of a test."""
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.record(test, "failed")


class Runner(DiscoverRunner):
    """Django's test runner with this result."""

    def get_resultclass(self):
        """Return the class."""
        return Result


def replace_middleware(path):
    """Replace Django's ``SessionMiddleware``, for settings and for imports."""
    import runtests
    from django.conf import settings
    from django.contrib.sessions import middleware
    from django.utils.module_loading import import_string

    position = runtests.ALWAYS_MIDDLEWARE.index(f"{middleware.__name__}.SessionMiddleware")
    runtests.ALWAYS_MIDDLEWARE[position] = path
    settings.configured  # noqa: B018 - the class may read the settings when it is imported
    middleware.SessionMiddleware = import_string(path)


def main():
    """Run the tests and write their outcomes to the file in ``OUTCOMES``."""
    tests = Path.cwd() / "tests"
    sys.path.insert(0, str(tests))
    os.chdir(tests)
    os.environ["DJANGO_SETTINGS_MODULE"] = "django_peer_settings"
    with tempfile.TemporaryDirectory(prefix="django_") as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        import runtests

        if path := os.environ.get("SESSION_MIDDLEWARE"):
            replace_middleware(path)
        runtests.django_tests(
            verbosity=1,
            interactive=False,
            failfast=False,
            keepdb=False,
            reverse=False,
            test_labels=sys.argv[1:],
            debug_sql=False,
            parallel=1,
            tags=None,
            exclude_tags={"selenium"},
            test_name_patterns=None,
            start_at=None,
            start_after=None,
            pdb=False,
            buffer=False,
            timing=False,
            shuffle=False,
        )
    Path(os.environ["OUTCOMES"]).write_text(json.dumps(outcomes), "utf-8")


if __name__ == "__main__":
    # The settings name the runner by its module.
    from run_django_tests import main

    assert django.VERSION
    main()
