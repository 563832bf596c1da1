"""The demo in a separate process, and Chromium with a temporary profile.

All tests of this folder are marked ``browser``; `tests/conftest.py` decides when to skip them.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.support.supervisor import supervise

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SECONDS = 20
expect.set_options(timeout=SECONDS * 1000)


class Demo:
    """One running demo: ``python -m examples.demo``, as ``make demo`` starts it."""

    def __init__(self, repository: Path, folder: Path, **environment: str) -> None:
        path = f"{repository}{os.pathsep}{repository / 'src'}"  # not an installed package
        self.process = subprocess.Popen(
            [sys.executable, "-m", "examples.demo"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "PORT": "0", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        supervise(self.process.pid)
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.first = self.line()
        self.url = self.first.removeprefix("sojourn demo: ").strip()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)

    def line(self) -> str:
        """Return the next line that it prints."""
        return self._lines.get(timeout=SECONDS)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Press Ctrl-C and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout=SECONDS)
        finally:
            self.process.kill()
            self._reader.join(SECONDS)
            self.process.stdout.close()

    def rest(self) -> list[str]:
        """Return the remaining output."""
        lines = []
        while not self._lines.empty():
            lines.append(self._lines.get())
        return lines


@pytest.fixture(scope="session")
def demo(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Serve the demo on its default store, a SQLite file, in an empty folder."""
    running = Demo(repository, tmp_path_factory.mktemp("demo"))
    yield running
    running.stop()
    errors = [line for line in running.rest() if "rror" in line or "Traceback" in line]
    assert not errors


class Browser:
    """A browser context without cookies; records every error of its pages.

    Attributes:
        expected: response statuses that are not recorded as errors.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.url = url
        self.complaints: list[str] = []
        self.expected: set[int] = set()
        context.set_default_timeout(SECONDS * 1000)
        context.on("console", self._on_console)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        context.on("requestfailed", self._on_failure)
        context.on("response", self._on_response)

    def _on_console(self, message: ConsoleMessage) -> None:
        if any(f"status of {status}" in message.text for status in self.expected):
            return
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _on_failure(self, request) -> None:
        # Chromium aborts the requests in flight of a page that is closed or reloaded.
        if request.failure == "net::ERR_ABORTED":
            return
        self.complaints.append(f"lost {request.url}: {request.failure}")

    def _on_response(self, response) -> None:
        if response.status >= 400 and response.status not in self.expected:
            self.complaints.append(f"{response.status} {response.url}")

    def tab(self, url: str = "") -> Page:
        """Open the demo in a new tab; wait until it has requested its session."""
        page = self.context.new_page()
        page.goto(url or self.url)
        page.wait_for_selector("#status:not([data-mode=loading])")
        return page

    def begun(self) -> Page:
        """Open the demo in a new tab and increment the counter, which creates a session."""
        page = self.tab()
        page.click("#count-http")
        live(page)
        shows(page, "#counter", "1")
        return page

    def logged_in(self, user: str, url: str = "", *, remember: bool = False) -> Page:
        """Open the demo in a new tab and log in."""
        page = self.tab(url)
        page.fill("#user", user)
        page.set_checked("#remember", remember)
        page.click("#login button")
        shows(page, "#account-user", user)
        live(page)
        return page

    def cookie(self):
        """Return the session cookie of the browser; None if it has none."""
        return next((c for c in self.context.cookies() if c["name"] == "sid"), None)


@pytest.fixture(scope="module")
def chromium(browser_path: str) -> Iterator[Chromium]:
    """Run the installed Chromium with a temporary profile, through Playwright.

    Not for the whole run: Playwright keeps an event loop running in this thread until it is
    stopped, under which no other test could run one.
    """
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=browser_path, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture
def browser(chromium: Chromium, demo: Demo) -> Iterator[Browser]:
    """Open a browser context without cookies; an error on a page fails the test."""
    context = chromium.new_context()
    started = Browser(context, demo.url)
    yield started
    context.close()
    assert not started.complaints


@pytest.fixture
def demo_process(repository: Path, tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Return a function that starts another demo with the given environment."""
    started: list[Demo] = []

    def start(**environment: str) -> Demo:
        started.append(Demo(repository, tmp_path, **environment))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture(name="shows")
def shows_fixture() -> Callable[[Page, str, str], None]:
    """Return ``shows``, which waits until an element shows a text."""
    return shows


def live(page: Page) -> None:
    """Wait until the WebSocket of the page is open."""
    page.wait_for_selector("#status[data-mode=live]")


def shows(page: Page, selector: str, text: str) -> None:
    """Wait until an element shows exactly a text."""
    expect(page.locator(selector)).to_have_text(text)
