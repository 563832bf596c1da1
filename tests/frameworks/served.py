"""The application that a real server serves: framework and store come from the environment.

A server imports ``app``. A framework with a server of its own is started with
``python -m tests.frameworks.served PORT``.
"""

import os
import sys
from importlib import import_module

from sojourn.legacy import StarletteCookie
from sojourn.testing.app_suite.served_app import SECRET
from tests.frameworks.handlers import SERVED

module = import_module(f"tests.frameworks.apps.{os.environ['FRAMEWORK']}_app")


def create():
    """Return a new application.

    TRANSPORT is the option ``transport``; LEGACY_SECRET signed the visitors' existing cookies.
    """
    options = {"transport": os.environ.get("TRANSPORT", "cookie").split(",")}
    legacy = os.environ.get("LEGACY_SECRET")
    if legacy is not None:
        options["read_legacy"] = [StarletteCookie(legacy, user="user")]
        options["read_legacy_until"] = "2099-12-31"
    return module.build(SERVED, store=os.environ["STORE"], secret=SECRET, **options)[0]


if __name__ == "__main__":
    module.serve(create, int(sys.argv[1]))
else:
    app = create()
