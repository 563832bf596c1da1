"""The demo's store is stopped and started again in a real browser."""

import httpx
import pytest
from playwright.sync_api import expect

from tests.integration.valkey import Valkey

pytestmark = pytest.mark.browser

OUTAGE = "#status[data-mode=outage]"
LIVE = "#status[data-mode=live]"


@pytest.fixture
def running_again(demo):
    """Start the store after the test, for the next test."""
    yield
    httpx.post(f"{demo.url}/api/store", json={"running": True}).raise_for_status()


@pytest.mark.usefixtures("running_again")
def test_outage_is_503_and_the_session_is_kept(browser, shows):
    """A15 and A23: no cookie is cleared; the same session continues afterwards."""
    browser.expected.add(503)
    page, second = browser.logged_in("ada"), browser.tab()
    page.click("#count-http")
    shows(page, "#counter", "1")
    cookie, session_id = browser.cookie(), page.inner_text("#id")
    page.click("#store-switch")
    for tab in (page, second):
        tab.wait_for_selector(OUTAGE)
        shows(tab, "#store-switch", "Start the store")
    page.click("#count-http")
    shows(page, "#notice", "The session store is unavailable. Please try again in a moment.")
    refused = page.locator("#responses li").first
    expect(refused).to_contain_text("503")
    expect(refused).to_contain_text("Retry-After: 2")
    assert browser.cookie() == cookie
    assert httpx.get(f"{browser.url}/health/").status_code == 503
    page.reload()
    page.wait_for_selector(OUTAGE)
    second.click("#store-switch")
    second.wait_for_selector(LIVE)
    shows(
        second, "#outage", "The store answers again. Nothing is lost: counter 1, logged in as ada."
    )
    page.wait_for_selector(LIVE)  # automatically, after Retry-After
    shows(page, "#outage", "The store answers again.")
    assert page.inner_text("#counter") == "1"
    assert page.inner_text("#id") == session_id
    assert browser.cookie() == cookie
    page.click("#logout")
    page.wait_for_selector("#status[data-mode=ended]")
    assert page.inner_text("#outage") == ""  # it would show data of the revoked session


@pytest.mark.slow
@pytest.mark.usefixtures("running_again")
def test_visitor_without_a_session_can_stop_and_start_the_store(browser, shows):
    """A1: a visitor without a cookie needs no store until the first write."""
    browser.expected.add(503)
    page = browser.tab()
    page.clock.install()
    page.click("#store-switch")
    shows(page, "#store-switch", "Start the store")
    page.click("#count-http")
    shows(page, "#notice", "The session store is unavailable. Please try again in a moment.")
    assert browser.context.cookies() == []
    other = browser.tab()
    other.click("#store-switch")
    shows(other, "#outage", "The store answers again.")
    page.clock.fast_forward("00:10")  # no WebSocket updates this page
    shows(page, "#outage", "The store answers again.")
    assert page.inner_text("#notice") == ""
    page.click("#count-http")
    shows(page, "#counter", "1")


@pytest.mark.slow
@pytest.mark.usefixtures("running_again")
def test_notice_covers_no_button(browser, shows):
    """A click on the notice reaches the element below it."""
    browser.expected.add(503)
    page = browser.begun()
    page.click("#store-switch")
    page.click("#count-http")
    page.wait_for_selector("#notice.bad")
    box = page.locator("#notice").bounding_box()
    middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    found = page.evaluate("([x, y]) => document.elementFromPoint(x, y).id", middle)
    assert found != "notice"


@pytest.mark.slow
def test_switch_works_with_a_store_on_a_server(demo_process, tmp_path):
    """A15 over HTTP; the switch wraps the store and has its capabilities."""
    server = Valkey(tmp_path)
    server.start()
    try:
        running = demo_process(STORE=server.url)
        with httpx.Client(base_url=running.url) as client:
            assert client.post("/api/login", json={"user": "ada"}).status_code == 204
            assert client.post("/api/store", json={"running": False}).status_code == 204
            refused = client.post("/api/count")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
            assert "set-cookie" not in refused.headers
            assert client.post("/api/store", json={"running": True}).status_code == 204
            assert client.post("/api/count").status_code == 204
            shown = client.get("/api/session").json()
            assert (shown["user"], shown["data"]) == ("ada", {"counter": 1})
            devices = client.get("/devices/sessions").json()["sessions"]
            assert [device["id"] for device in devices] == [shown["id"]]
            assert "ada" in client.get("/admin/").text
    finally:
        server.stop()
