"""The admin application in Chromium: search, page, revoke, accessibility, widths and schemes."""

import re
import subprocess
import sys
import time

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.support.servers import REPOSITORY, TLS, Server

pytestmark = pytest.mark.browser

COMMAND = ("uvicorn", "tests.support.admin_site:app", "--port", "{port}")
ADMIN = "/admin/sessions/"
#: 320: 1280 at 400 % zoom (WCAG 1.4.10); 1200: the narrowest width with a table.
WIDTHS = (320, 375, 768, 1200, 1280)

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
    "Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Serve the shop and its admin application, with a few sessions."""
    folder = tmp_path_factory.mktemp("admin")
    store = f"sqlite:///{folder}/sessions.db"
    with Server(COMMAND, folder, environment={"ADMIN_STORE": store}) as running:
        headers = {"User-Agent": IPHONE}
        with httpx.Client(base_url=running.url, verify=TLS, headers=headers) as client:
            for number in range(60):
                client.cookies.clear()
                name = ("grace", "linus", "<script>alert(1)<%2Fscript>")[number % 3]
                client.get(f"/login/{name}", params={"tenant": "acme"})
        yield running


@pytest.fixture
def visit(chromium, server):
    """Return a function that opens a page in a new browser context, logged in."""
    contexts = []

    def visit(user, **options):
        context = chromium.new_context(base_url=server.url, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
        page.goto(f"/login/{user}")
        return page

    yield visit
    for each in contexts:
        each.close()


def check_accessibility(page):
    """Check that axe finds no violation."""
    found = Axe().run(page).response["violations"]
    assert not [(each["id"], each["nodes"][0]["html"]) for each in found]


def test_search_page_and_revoke_a_session_whose_socket_closes(visit):
    """The main workflow of the admin application, without JavaScript."""
    ada = visit("ada")
    expect(ada.locator("#socket")).to_have_text("open")
    page = visit("root", java_script_enabled=False)
    page.goto(ADMIN)
    expect(page.locator("tbody tr")).not_to_have_count(0)
    page.get_by_role("link", name="Next page").click()
    expect(page.get_by_role("link", name="First page")).to_be_visible()
    page.get_by_label("User", exact=True).fill("ada")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_role("cell", name="1", exact=True)).to_be_visible()  # its connection
    page.locator("td a").click()
    expect(page.locator("h1")).to_contain_text("ada")
    page.get_by_role("link", name="Revoke this session").click()
    page.get_by_label(re.compile("^Type")).fill("wrong")
    page.get_by_role("button", name="Revoke the session").click()
    summary = page.get_by_role("alert")
    expect(summary).to_be_visible()
    expect(summary).to_be_focused()
    expect(page).to_have_title(re.compile("^Error: "))
    expect(ada.locator("#socket")).to_have_text("open")
    summary.get_by_role("link").click()
    field = page.get_by_label(re.compile("^Type"))
    field.fill(page.locator(".phrase").inner_text())
    page.get_by_label("Reason").fill("stolen laptop")
    field.press("Enter")
    expect(page.get_by_role("status")).to_have_text("The session was revoked.")
    expect(ada.locator("#socket")).to_contain_text("closed")
    ada.reload()
    expect(ada.locator("#user")).to_have_text("no user")


@pytest.mark.slow
def test_revoke_a_user_with_typed_confirmation(visit):
    windows = [visit("margaret") for _ in range(2)]
    for each in windows:
        expect(each.locator("#socket")).to_have_text("open")
    page = visit("root")
    page.goto(f"{ADMIN}?user=margaret")
    page.get_by_role("link", name="Revoke every session of this user").click()
    page.get_by_label(re.compile("^Type")).fill("margaret")
    page.get_by_role("button", name="Revoke the sessions").click()
    expect(page.get_by_role("status")).to_have_text("2 sessions were revoked.")
    for each in windows:
        expect(each.locator("#socket")).to_contain_text("closed")


def check_page(page, path):
    """Check a page and its form error page in the wide and the narrow layout."""
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(ADMIN + path)
    if page.locator("#typed").count():
        page.locator("#typed").fill("wrong")
        page.get_by_role("button").click()
    check_accessibility(page)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
    page.set_viewport_size({"width": 375, "height": 900})
    check_accessibility(page)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_page_is_accessible_and_fits_every_width(visit, scheme):
    """No violation by axe, no horizontal scrolling from 320 px on, no CSP error."""
    page = visit("root", color_scheme=scheme)
    problems = []
    page.on("console", lambda message: problems.append(message.text))
    page.goto(ADMIN)
    address = page.locator("td a").first.get_attribute("href")
    searches = [
        "",
        "?user=grace&since=1h&label=tenant%3Dacme&count=1",
        "?id=wrong",
        "?user=unknown",
    ]
    others = [address, f"{address}/revoke", "revoke-user?user=root", "revoke-all", "ended", "none"]
    for path in [*searches, *others]:
        check_page(page, path)
    expected = "Failed to load resource: the server responded with a status of"
    assert not [text for text in problems if not text.startswith(expected)]


def test_long_words_do_not_widen_a_page(visit, server):
    """A visitor chooses the User-Agent header, and often the name; an administrator the reason."""
    name = "W" * 255
    headers = {"User-Agent": name}
    with httpx.Client(base_url=server.url, verify=TLS, headers=headers) as client:
        client.get(f"/login/{name}")
        client.cookies.clear()
        client.get(f"/login/{name}")
    page = visit("root")
    listed = f"{ADMIN}?user={name}"
    page.goto(listed)
    page.locator("td a").first.click()
    page.get_by_role("link", name="Revoke this session").click()
    page.get_by_label("Reason").fill("W" * 200)
    page.get_by_label(re.compile("^Type")).fill(page.locator(".phrase").inner_text())
    page.get_by_role("button", name="Revoke the session").click()
    for path in (listed, f"{ADMIN}ended", f"{ADMIN}revoke-user?user={name}"):
        page.goto(path)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)


def test_a_form_with_an_error_is_accessible(visit):
    """The fast variant of the test of each page."""
    check_page(visit("root", color_scheme="dark"), "revoke-user?user=root")


def test_pages_are_usable_by_keyboard_only(visit):
    page = visit("root")
    page.goto(ADMIN)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_label("User", exact=True)).to_be_focused()
    page.keyboard.type("grace")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("user=grace"))


def test_a_page_cannot_be_framed(visit, server):
    """Clickjacking: the browser refuses to show the form in a frame."""
    page = visit("root")
    page.goto("/")
    page.evaluate(
        "src => { const f = document.createElement('iframe'); f.src = src; "
        "document.body.append(f); }",
        f"{server.url}{ADMIN}revoke-all",
    )
    expect(page.locator("iframe")).to_be_attached()
    page.wait_for_load_state("networkidle")
    assert page.frames[1].url == "chrome-error://chromewebdata/"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_page_through_a_million_sessions(chromium, tmp_path):
    """The first page and a later one of 1,000,000 sessions; search finds one of them."""
    store = f"sqlite:///{tmp_path}/sessions.db"
    # In a process: Playwright keeps an event loop running in this thread.
    command = [sys.executable, "-m", "tests.support.million_sessions", store]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=200)
    with Server(COMMAND, tmp_path, environment={"ADMIN_STORE": store}) as running:
        context = chromium.new_context(base_url=running.url)
        page = context.new_page()
        page.goto("/login/root")
        took = []
        page.goto(ADMIN)
        for _ in range(20):
            started = time.perf_counter()
            page.get_by_role("link", name="Next page").click()
            expect(page.get_by_role("link", name="First page")).to_be_visible()
            took.append(time.perf_counter() - started)
            expect(page.locator("tbody tr")).to_have_count(50)
        assert sorted(took)[10] < 1.0
        page.goto(f"{ADMIN}?user=user-77")
        expect(page.locator("tbody tr")).to_have_count(5)
        page.goto(f"{ADMIN}?count=1")
        expect(page.locator(".total")).to_contain_text("1,000,001")
        page.goto(f"{ADMIN}?user=user-77")
        page.get_by_role("link", name="Revoke every session of this user").click()
        page.get_by_label(re.compile("^Type")).fill("user-77")
        page.get_by_role("button", name="Revoke the sessions").click()
        expect(page.get_by_role("status")).to_have_text("5 sessions were revoked.")
        context.close()
