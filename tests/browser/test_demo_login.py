"""The demo's login in a real browser: kept data, other browsers, and "remember me"."""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def second_browser(browser, user):
    """Log in at the other host name of this machine; browsers store its cookies separately."""
    return browser.logged_in(user, browser.url.replace("localhost", "127.0.0.1"))


def test_login_keeps_counter_cart_and_id_and_replaces_the_ticket(browser, shows):
    """A2: a login keeps the data and invalidates the previous ticket."""
    page = browser.begun()
    page.click("#add-many")
    page.wait_for_selector("#score-merged.good")
    before, session_id = browser.cookie(), page.inner_text("#id")
    page.fill("#user", "ben")
    page.press("#user", "Enter")
    shows(page, "#account-user", "ben")
    shows(page, "#login-result", "Kept at the login: counter 1, 20 items in the cart.")
    assert page.inner_text("#id") == session_id
    assert page.locator("#devices li").count() == 1
    assert page.evaluate("document.activeElement.id") == "logout"
    assert browser.cookie()["value"] != before["value"]
    browser.context.clear_cookies()
    browser.context.add_cookies([before])
    assert browser.tab().inner_text("#status-text") == "No session yet"


@pytest.mark.slow
def test_other_tabs_of_the_browser_follow_a_login(browser, shows):
    """W4: their WebSockets are closed and reconnect with the new ticket."""
    first, second = browser.begun(), browser.tab()
    second.wait_for_selector("#status[data-mode=live]")
    first.click("#login button")
    shows(second, "#account-user", "ada")
    shows(second, "#status-text", "Live in 2 tabs")
    assert second.is_hidden("#ended")
    assert second.inner_text("#notice") == ""


def test_other_browser_is_logged_out_and_shows_why(browser, shows):
    """A7 and W4: at once over the WebSocket, and on the next page."""
    here = browser.logged_in("cy")
    link = here.get_attribute("#second-browser a", "href")
    assert link.startswith("http://127.0.0.1:")
    there = second_browser(browser, "cy")
    expect(here.locator("#devices li")).to_have_count(2)
    shows(here, "#devices li:first-child .hint", there.inner_text("#devices li:first-child .hint"))
    assert here.locator("#devices .badge").count() == 1
    here.click("#devices button")
    there.wait_for_selector("#status[data-mode=ended]")
    assert "4401" in there.inner_text("#ended")
    assert "“logged out from another browser”" in there.inner_text("#ended")
    assert "logged out from another browser" in there.inner_text("#notice")
    shows(here, "#login-result", "The other browser is logged out. Its page shows why.")
    expect(here.locator("#devices li")).to_have_count(1)  # the WebSocket delivers the list
    there.reload()
    there.wait_for_selector("#status[data-mode=ended]")
    assert "“logged out from another browser”" in there.inner_text("#ended")
    there.click("#count-http")
    shows(there, "#counter", "1")
    assert there.is_hidden("#ended")


@pytest.mark.slow
def test_login_redirects_to_the_device_page(browser):
    """If the visitor came from there; other redirect targets are ignored."""
    page = browser.tab(f"{browser.url}/devices/")
    assert page.inner_text("#login-result") == "Log in to see your devices."
    assert page.evaluate("document.activeElement.id") == "user"
    page.press("#user", "Enter")
    page.wait_for_url("**/devices/")
    page = browser.tab(f"{browser.url}/?next=//evil.example/devices/")
    assert page.inner_text("#login-result") == ""


@pytest.mark.slow
def test_session_of_another_user_cannot_be_logged_out(browser):
    """A7: the response is the same as for an unknown ID."""
    browser.expected.add(404)
    here, there = browser.logged_in("dee"), second_browser(browser, "eve")
    delete = "(id) => fetch(`/api/devices/${id}`, {method: 'DELETE'}).then((r) => r.status)"
    assert here.evaluate(delete, there.inner_text("#id")) == 404
    assert here.evaluate(delete, "0" * 32) == 404
    there.click("#count-http")
    there.wait_for_selector("#status[data-mode=live]")
    assert there.inner_text("#account-user") == "eve"


@pytest.mark.slow
def test_remembered_login_is_restored_after_a_restart_of_the_browser(browser, chromium):
    """A closed browser deletes cookies without an expiry date."""
    for user, remember, found in (("fay", True, "fay"), ("gus", False, "")):
        page = browser.logged_in(user, remember=remember)
        kept = [cookie for cookie in browser.context.cookies() if cookie["expires"] != -1]
        with chromium.new_context() as restarted:
            restarted.add_cookies(kept)
            again = restarted.new_page()
            again.goto(browser.url)
            again.wait_for_selector("#status:not([data-mode=loading])")
            assert again.inner_text("#account-user", timeout=1000) == found
        page.click("#logout")
        page.wait_for_selector("#status[data-mode=ended]")
        assert browser.context.cookies() == []
        page.close()
