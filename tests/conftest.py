"""Fixtures of all tests: the event loop, an empty environment, and the browser."""

import fcntl
import gc
import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from sojourn._core.late_changes import Changeable, LateChanges
from tools import citations

REPOSITORY = Path(__file__).parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

_DOCSTRINGS = pytest.StashKey[dict[str, str]]()

# On a loaded machine single examples are slow; the test as a whole has a time limit.
settings.register_profile("sojourn", deadline=None, print_blob=True)
settings.load_profile("sojourn")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run tests marked `anyio` on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test an empty working directory and an environment without our variables.

    The default store is a file in the working directory.
    """
    for name in [name for name in os.environ if name.startswith("SOJOURN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def late_changes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Free sessions with unsaved changes, which log an error, at the end of their test.

    Otherwise the garbage collector frees them during another test, which may compare its log.
    """
    created = 0
    create = LateChanges.__init__

    def count(self: LateChanges, copy: Changeable) -> None:
        nonlocal created
        created += 1
        create(self, copy)

    monkeypatch.setattr(LateChanges, "__init__", count)
    yield
    if created:
        gc.collect()


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Drop what the background threads of earlier tests log: a test may compare its log."""
    threads = threading.enumerate()
    earlier = {thread for thread in threads if thread.name.startswith("sojourn-")}

    def is_own(_: logging.LogRecord) -> bool:
        return threading.current_thread() not in earlier

    logger = logging.getLogger("sojourn")
    logger.addFilter(is_own)
    yield
    logger.removeFilter(is_own)


@pytest.fixture(scope="module")
def small_heap() -> None:
    """Exclude what earlier tests have left from the garbage collections of a module."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the work tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def docstrings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Return the docstring of each test of the repository, by node ID without parameters.

    This session has collected some of them. Another process collects the others, for all processes
    of pytest-xdist.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / "docstrings.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = folder / "docstrings.json"
        if not found.exists():
            own = request.config.stash[_DOCSTRINGS]
            if any("::" in argument for argument in request.config.args):
                own = {}  # parts of files
            others = citations.collected(without={test.partition("::")[0] for test in own})
            found.write_text(json.dumps(own | others), "utf-8")
    result: dict[str, str] = json.loads(found.read_text("utf-8"))
    return result


@pytest.fixture(scope="session")
def browser_path() -> str:
    """Return the path of the installed Chromium; tests that use it are marked `browser`."""
    found = find_browser()
    assert found is not None, f"none of {', '.join(BROWSERS)} is installed"
    return found


def find_browser() -> str | None:
    """Return the path of the first installed Chromium, None if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def pytest_collection_finish() -> None:
    """Exclude what collection has created from garbage collections: tests collect often."""
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """Trust no public authority; import frameworks that use deprecated modules."""
    # An HTTP client reads the certificates of all authorities for its context: 30 milliseconds. The
    # tests talk to servers of this machine, so a folder without certificates is enough.
    os.environ.pop("SSL_CERT_FILE", None)
    os.environ["SSL_CERT_DIR"] = str(REPOSITORY / "tests")
    # Pyramid 2.1, WebOb and Connexion
    for deprecated in (
        "ignore:pkg_resources is deprecated:UserWarning",
        "ignore:Deprecated call to `pkg_resources:DeprecationWarning",
        "ignore:'cgi' is deprecated:DeprecationWarning",
        r"ignore:jsonschema\..* is deprecated:DeprecationWarning",
        "ignore:Accessing jsonschema:DeprecationWarning",
    ):
        config.addinivalue_line("filterwarnings", deprecated)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep all docstrings; skip browser tests without a browser, except in CI."""
    config.stash[_DOCSTRINGS] = citations.docstrings(items)
    if find_browser() is not None or os.environ.get("CI"):
        return
    skip = pytest.mark.skip(reason=f"needs a browser: {', '.join(BROWSERS)}")
    for item in items:
        if "browser" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def root_log_level() -> None:
    """Reset the level that Litestar gives the root logger with each application."""
    logging.getLogger().setLevel(logging.WARNING)
