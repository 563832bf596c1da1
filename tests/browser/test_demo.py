"""The demo in a real browser: one session for pages, WebSockets and tabs, and its revocation."""

import httpx
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def ended(page):
    page.wait_for_selector("#status[data-mode=ended]")
    return page.inner_text("#ended")


def test_visitor_who_wrote_nothing_has_no_session_and_no_cookie(browser):
    """A1, in a browser."""
    page = browser.tab()
    assert page.inner_text("#status-text") == "No session yet"
    assert page.is_visible("#no-session")
    assert browser.context.cookies() == []
    assert page.locator(":disabled").count() == 0
    assert all(page.locator("#usage .meaning").all_inner_texts())
    assert page.locator("#usage .meaning").count() == page.locator("#usage dt").count()


def test_websocket_starts_the_session(browser, shows):
    """W1: the handshake response sets the cookie; earlier clicks are counted."""
    page = browser.tab()
    page.click("#count-socket")
    page.click("#count-socket")
    shows(page, "#counter", "2")
    assert browser.cookie()["httpOnly"] is True
    page.reload()
    shows(page, "#counter", "2")


def test_two_tabs_and_a_socket_share_one_counter(browser, shows):
    """W1, W2, W3 and A5: HTTP requests and WebSockets of all tabs see each other's writes."""
    first = browser.begun()
    second = browser.tab()
    shows(second, "#counter", "1")
    shows(first, "#status-text", "Live in 2 tabs")
    second.click("#count-socket")
    shows(second, "#counter", "2")
    shows(first, "#counter", "2")
    first.click("#count-http")
    first.click("#count-socket")
    shows(second, "#counter", "4")
    third = browser.tab()
    shows(third, "#counter", "4")
    shows(first, "#status-text", "Live in 3 tabs")
    third.close()
    shows(first, "#status-text", "Live in 2 tabs")
    assert first.inner_text("#id") == second.inner_text("#id")


def test_counts_over_http_and_socket_at_the_same_time_add_up(browser, shows):
    """A6 and W2: fifty increments in two tabs, over HTTP and a WebSocket, give fifty."""
    first, second = browser.begun(), browser.tab()
    second.wait_for_selector("#status[data-mode=live]")
    times = "(id) => { for (let i = 0; i < 25; i++) document.getElementById(id).click(); }"
    first.evaluate(times, "count-http")
    second.evaluate(times, "count-socket")
    shows(first, "#counter", "51")
    shows(second, "#counter", "51")
    first.reload()
    shows(first, "#counter", "51")


def test_parallel_cart_loses_no_item(browser, shows):
    """A6: twenty overlapping requests; for comparison, a state that is saved as a whole."""
    page = browser.tab()
    page.click("#add-many")
    page.wait_for_selector("#score-merged.good")
    assert page.inner_text("#score-merged") == "20 of 20 kept"
    assert page.locator("#dots-merged .kept").count() == 20
    # If the comparison loses no item either, the requests did not overlap.
    assert page.locator("#dots-last-write .lost").count() > 0
    second = browser.tab()
    second.wait_for_selector("#status[data-mode=live]")
    page.click("#add-many")
    second.click("#add-many")
    for tab in (page, second):
        tab.wait_for_selector("#score-merged.good")
        shows(tab, '[data-key="added"] dd', "60")
        shows(tab, '[data-key="cart"] summary', "60 entries")
    assert page.locator("#cart b").all_inner_texts() == ["12"] * 5


def test_typed_state_and_flash_are_kept_after_the_redirect(browser, shows):
    """A5: the page after a redirect sees the write; an invalid value is refused."""
    page = browser.begun()
    page.click("text=large")
    shows(page, "#flash", "Saved: large")
    shows(page, '[data-key="size"] dd', '"large"')
    page.click("text=gigantic")
    page.wait_for_selector("#flash.bad")
    assert "state.size" in page.inner_text("#flash")
    assert page.is_checked("input[value=large]")
    page.reload()
    page.wait_for_selector("#status[data-mode=live]")
    assert page.inner_text("#flash") == ""
    assert page.is_checked("input[value=large]")


def test_size_that_is_not_a_string_is_refused(demo):
    """Another client than the page gets 422."""
    for size in (None, 1, ["large"], "x" * 21):
        assert httpx.post(f"{demo.url}/api/size", json={"size": size}).status_code == 422


def test_revocation_closes_every_socket_with_4401_and_both_tabs_show_it(browser):
    """A7 and W4, in one process."""
    first, second = browser.begun(), browser.tab()
    second.wait_for_selector("#status[data-mode=live]")
    old = first.inner_text("#id")
    first.click("#end")
    for tab in (first, second):
        text = ended(tab)
        assert "4401" in text
        assert "destroyed" in text
        assert tab.inner_text("#counter") == "0"
    second.click("#count-http")
    second.wait_for_selector("#status[data-mode=live]")
    assert second.inner_text("#counter") == "1"
    assert second.inner_text("#id") != old


def test_cookie_is_httponly_and_samesite(browser):
    """A2 and A14: the flags that the browser stores."""
    page = browser.begun()
    cookie = browser.cookie()
    assert len(cookie["value"]) == 66
    assert cookie["httpOnly"] is True
    assert cookie["sameSite"] == "Lax"
    assert cookie["path"] == "/"
    assert cookie["domain"] == "localhost"
    assert cookie["expires"] == -1
    assert page.evaluate("document.cookie") == ""
    assert cookie["value"] not in page.content()


def test_browser_deletes_the_cookie_at_logout(browser):
    """A14 and B-44."""
    page = browser.begun()
    ticket = browser.cookie()["value"]
    page.click("#end")
    ended(page)
    expect(page.locator("#responses")).to_contain_text("Set-Cookie: sid=; Max-Age=0;")
    assert browser.context.cookies() == []
    page.click("#count-http")
    page.wait_for_selector("#status[data-mode=live]")
    assert browser.cookie()["value"] != ticket


def test_ticket_of_a_revoked_session_is_invalid(browser):
    """A7: a browser with the old cookie, like that of a thief, has an empty session."""
    page = browser.begun()
    old = browser.cookie()
    page.click("#end")
    ended(page)
    browser.context.add_cookies([old])
    again = browser.tab()
    assert again.inner_text("#status-text") == "No session yet"
    assert again.inner_text("#counter") == "0"


def test_headers_are_shown_as_sent_and_the_ticket_is_not(browser):
    """A2, A4, A13 and A18: one masked Set-Cookie; Vary and Cache-Control on each response."""
    page = browser.begun()
    page.click("#count-http")
    expect(page.locator("#responses li").first).to_contain_text("POST /api/count")
    expect(page.locator("#responses li")).not_to_have_count(1)
    sent = page.locator("#responses li").all_inner_texts()
    cookies = [answer for answer in sent if "Set-Cookie" in answer]
    assert len(cookies) == 1
    assert "sid=(66 characters); Path=/; HttpOnly; SameSite=Lax" in cookies[0]
    assert "no-store" in cookies[0]
    assert all("Vary: Cookie" in a and "Cache-Control: private" in a for a in sent)
    assert browser.cookie()["value"] not in page.content()


def test_page_has_no_horizontal_overflow_at_phone_width(browser):
    """At 390 pixels, also after use."""
    page = browser.begun()
    page.set_viewport_size({"width": 390, "height": 844})
    page.click("#add-many")
    page.wait_for_selector("#score-merged.good")
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_buttons_can_be_reached_and_pressed_by_keyboard(browser, shows):
    """Each control has a name and can be focused."""
    page = browser.begun()
    for name in (
        "Count over HTTP",
        "Count over WebSocket",
        "Add 20 items in parallel",
        "Clear the cart",
    ):
        page.get_by_role("button", name=name, exact=True).focus()
        assert page.evaluate("document.activeElement.textContent") == name
    page.get_by_role("button", name="Count over WebSocket").press("Enter")
    shows(page, "#counter", "2")


def test_content_security_policy_allows_own_resources_only(browser):
    """No inline code, and no resource of another origin."""
    page = browser.tab()
    response = page.goto(browser.url)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "set-cookie" not in response.headers
    hosts = page.evaluate(
        "performance.getEntriesByType('resource').map((e) => new URL(e.name).origin)"
    )
    assert set(hosts) == {browser.url}
