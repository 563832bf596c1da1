"""Fixtures of all tests: the event loop, an empty environment, and the browser."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# Two busy cores make single examples slow without anything being wrong; each test as a whole
# has its time limit.
settings.register_profile("sojourn", deadline=None, print_blob=True)
settings.load_profile("sojourn")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run the tests marked `anyio` on asyncio, with or without uvloop as the server has it."""
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test an empty working directory and no settings from the environment.

    The default store is a path relative to the working directory: without this, tests would
    share it and leave it in the repository.
    """
    for name in [name for name in os.environ if name.startswith("SOJOURN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the work tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def browser_path() -> str:
    """Return the path of the installed Chromium; tests that ask for it are marked `browser`."""
    found = find_browser()
    assert found is not None, f"none of {', '.join(BROWSERS)} is installed"
    return found


def find_browser() -> str | None:
    """Return the path of the first installed Chromium, None if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip browser tests where no browser is; not in CI, where a skip would hide a hole."""
    if find_browser() is not None or os.environ.get("CI"):
        return
    skip = pytest.mark.skip(reason=f"needs a browser: {', '.join(BROWSERS)}")
    for item in items:
        if "browser" in item.keywords:
            item.add_marker(skip)
