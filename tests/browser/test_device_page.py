"""The device page and the admin page of the demo in a real browser; both have no scripts."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import live, shows

pytestmark = pytest.mark.browser


def second_browser(browser, user):
    """Log in at the other host name of this machine; browsers store its cookies separately."""
    return browser.logged_in(user, browser.url.replace("localhost", "127.0.0.1"))


def violations(page):
    """Return the violations that axe finds on a page, in light and dark mode."""
    found = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found += [
            (scheme, each["id"], each["nodes"][0]["target"])
            for each in Axe().run(page).response["violations"]
        ]
    return found


def test_other_device_is_logged_out_by_keyboard_and_its_page_shows_why(browser):
    """W4: after a confirmation; the WebSocket of that device is closed with the reason."""
    here, there = browser.logged_in("hal"), second_browser(browser, "hal")
    here.goto(f"{browser.url}/devices/")
    assert here.locator(".device").count() == 2
    here.locator("a[aria-label^='Log out']").focus()
    here.keyboard.press("Enter")
    here.wait_for_url("**/log-out/*")
    here.keyboard.press("Tab")  # the skip link
    here.keyboard.press("Tab")
    assert here.evaluate("document.activeElement.textContent") == "Log out"
    here.keyboard.press("Enter")
    here.wait_for_url("**/?done=device")
    assert here.inner_text("[role=status]") == "The device was logged out."
    assert here.locator(".device").count() == 1
    there.wait_for_selector("#status[data-mode=ended]")
    assert "“logged out from another device”" in there.inner_text("#ended")


@pytest.mark.slow
def test_pages_work_without_javascript(browser, chromium):
    """In another browser context with the cookies of the demo and without scripts."""
    browser.logged_in("ivy")
    second_browser(browser, "ivy")
    with chromium.new_context(java_script_enabled=False) as plain:
        plain.add_cookies(browser.context.cookies(browser.url))
        page = plain.new_page()
        page.goto(f"{browser.url}/devices/")
        page.click("text=Log out all other devices")
        page.click("button")
        assert page.inner_text("[role=status]") == "All other devices were logged out."
        assert page.locator(".device").count() == 1


@pytest.mark.slow
def test_pages_are_accessible(browser):
    """Axe finds no violation on the demo and the device page; no page overflows on a phone."""
    browser.expected.add(404)
    page = browser.logged_in("W" * 40)  # the longest name
    second_browser(browser, "W" * 40)
    shows(page, "#devices li:nth-child(2) .badge", "this browser")
    page.set_viewport_size({"width": 320, "height": 800})
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.goto(f"{browser.url}/devices/")
    other = page.get_attribute("a[aria-label^='Log out']", "href")
    other = re.search("[0-9a-f]{32}", other)[0]
    for path in ("", f"log-out/{other}", "nothing"):
        page.goto(f"{browser.url}/devices/{path}")
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"


@pytest.mark.slow
def test_admin_page_of_the_demo_revokes_a_session(browser):
    """Visitors can only read the page; the page of the revoked session shows the reason."""
    page = browser.logged_in("kim")
    page.goto(f"{browser.url}/admin/")
    assert "kim" in page.inner_text("table")
    assert page.locator("text=Revoke all").count() == 0
    admin = second_browser(browser, "admin")
    admin.goto(browser.url.replace("localhost", "127.0.0.1") + "/admin/")
    assert admin.locator("text=Revoke all").count() > 0
    page.goto(browser.url)
    live(page)
    assert page.is_hidden("#ended")
