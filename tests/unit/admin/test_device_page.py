"""The device page, through each way to mount it: a user sees and ends their own sessions only."""

import html
import re
from contextlib import ExitStack
from datetime import datetime

import httpx
import pytest

import sojourn
from sojourn import admin
from sojourn.admin.device_names import name_device
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.wsgi import SessionMiddleware
from tests.unit.admin.device_sites import BROWSER, SITES, fastapi_site

PAGE = "/account/devices/"
SECRET = "9sVqX2mK7tLwR4bN8dJcF3hZ6yPgA5eU"
PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
)


@pytest.fixture(params=SITES)
def build(request):
    """Return a function of page options that builds a site."""
    stack = ExitStack()

    def build_site(store=None, *, clock=None, **page):
        options = {"store": store or MemoryStore(), "secret": SECRET}
        if clock is not None:
            options["clock"] = clock
        site = SITES[request.param](options, page, stack)
        stack.callback(site.sessions.close)
        return site

    with stack:
        yield build_site


def token(client, path):
    """Return the CSRF token of the form on a page."""
    return re.search(r'name="csrf_token" value="([^"]+)"', client.get(path).text)[1]


def session_ids(client):
    """Return the IDs of a visitor's devices, their own first."""
    return [each["id"] for each in client.get(f"{PAGE}sessions").json()["sessions"]]


def send_form(client, path):
    """Press the button of a confirmation page."""
    return client.post(path, data={"csrf_token": token(client, path)})


def test_page_lists_the_devices_of_the_user(build):
    """Its own first, with a name, an address and a button for each other one."""
    site = build()
    laptop, phone = site.visitor("ada"), site.visitor("ada", **{"User-Agent": PHONE})
    site.visitor("bob")
    page = laptop.get(PAGE)
    assert page.status_code == 200
    names = re.findall(r"<h2><bdi>(.*?)</bdi>", page.text)
    assert names == ["Firefox 127 on Linux", "Safari 17 on iPhone"]
    assert page.text.count("This device") == 1
    assert page.text.count(">Log out</a>") == 1
    assert 'aria-label="Log out Safari 17 on iPhone"' in page.text
    own, other = session_ids(laptop)
    assert f'href="./log-out/{other}"' in page.text
    assert own not in page.text
    assert session_ids(phone) == [other, own]


def test_json_describes_each_device(build):
    """Times are ISO 8601; no ticket."""
    client = build().visitor("ada", **{"User-Agent": PHONE})
    response = client.get(f"{PAGE}sessions")
    (device,) = response.json()["sessions"]
    assert response.headers["content-type"] == "application/json"
    assert (device["name"], device["current"]) == ("Safari 17 on iPhone", True)
    assert datetime.fromisoformat(device["seen_at"]).tzinfo is not None
    assert device["connections"] == 0
    assert response.json()["more"] == 0


def test_one_device_is_logged_out_by_a_form(build):
    """S7 and A7: after a confirmation, with a reason for its next request."""
    site = build()
    laptop, phone = site.visitor("ada"), site.visitor("ada")
    other = session_ids(laptop)[1]
    path = f"{PAGE}log-out/{other}"
    question = laptop.get(path)
    assert question.status_code == 200
    assert "Log out this device?" in question.text
    assert len(session_ids(laptop)) == 2
    answer = send_form(laptop, path)
    assert (answer.status_code, answer.headers["location"]) == (303, "../?done=device")
    assert "The device was logged out." in laptop.get(f"{PAGE}?done=device").text
    assert len(session_ids(laptop)) == 1
    assert phone.get("/why").json() == "logged out from another device"
    assert phone.get(f"{PAGE}sessions").status_code == 401


def test_all_others_are_logged_out_by_a_form(build):
    """Own session and those of other users stay."""
    site = build()
    laptop, bob = site.visitor("ada"), site.visitor("bob")
    others = [site.visitor("ada") for _ in range(3)]
    answer = send_form(laptop, f"{PAGE}log-out-others")
    assert (answer.status_code, answer.headers["location"]) == (303, "./?done=others")
    assert "All other devices were logged out." in laptop.get(f"{PAGE}?done=others").text
    assert len(session_ids(laptop)) == len(session_ids(bob)) == 1
    assert {each.get("/why").json() for each in others} == {"logged out from another device"}
    assert "log-out-others" not in laptop.get(PAGE).text


def test_devices_are_logged_out_by_json(build):
    """One is 204, all others is their number."""
    site = build()
    laptop = site.visitor("ada")
    for _ in range(3):
        site.visitor("ada")
    headers = {"X-CSRF-Token": laptop.get(f"{PAGE}sessions").json()["csrf_token"]}
    other = session_ids(laptop)[1]
    gone = laptop.delete(f"{PAGE}sessions/{other}", headers=headers)
    assert (gone.status_code, gone.content) == (204, b"")
    again = laptop.delete(f"{PAGE}sessions/{other}", headers=headers)
    assert again.status_code == 404
    assert again.headers["content-type"] == "application/problem+json"
    assert laptop.delete(f"{PAGE}sessions", headers=headers).json() == {"revoked": 2}
    assert len(session_ids(laptop)) == 1


def test_session_of_another_user_is_like_one_that_does_not_exist(build):
    """A7: status, headers and body are the same, in HTML and in JSON, and nothing ends."""
    site = build()
    ada, bob = site.visitor("ada"), site.visitor("bob")
    (theirs,) = session_ids(bob)
    headers = {"X-CSRF-Token": ada.get(f"{PAGE}sessions").json()["csrf_token"]}

    def try_all(session_id):
        path = f"{PAGE}log-out/{session_id}"
        form = {"csrf_token": headers["X-CSRF-Token"]}
        return [
            (answer.status_code, answer.text, answer.headers["content-type"])
            for answer in (
                ada.get(path),
                ada.post(path, data=form),
                ada.delete(f"{PAGE}sessions/{session_id}", headers=headers),
            )
        ]

    found = try_all(theirs)
    assert {status for status, _, _ in found} == {404}
    assert found == try_all("0" * 32)
    assert session_ids(bob) == [theirs]


def test_own_session_is_not_ended_here(build):
    """The application's own logout clears the cookie, too."""
    ada = build().visitor("ada")
    (own,) = session_ids(ada)
    headers = {"X-CSRF-Token": ada.get(f"{PAGE}sessions").json()["csrf_token"]}
    assert ada.get(f"{PAGE}log-out/{own}").status_code == 409
    assert ada.delete(f"{PAGE}sessions/{own}", headers=headers).status_code == 409
    assert session_ids(ada) == [own]


def test_request_without_a_token_changes_nothing(build):
    """ASVS 3.5.1: neither without a token, nor with that of another session."""
    site = build()
    laptop, bob = site.visitor("ada"), site.visitor("bob")
    site.visitor("ada")
    other = session_ids(laptop)[1]
    foreign = bob.get(f"{PAGE}sessions").json()["csrf_token"]
    for value in ("", foreign):
        headers = {"X-CSRF-Token": value} if value else {}
        form = {"csrf_token": value} if value else {}
        for answer in (
            laptop.delete(f"{PAGE}sessions/{other}", headers=headers),
            laptop.delete(f"{PAGE}sessions", headers=headers),
            laptop.post(f"{PAGE}log-out/{other}", data=form),
            laptop.post(f"{PAGE}log-out-others", data=form),
        ):
            assert answer.status_code == 403
    assert len(session_ids(laptop)) == 2


def test_request_of_another_site_changes_nothing(build):
    """ASVS 3.5.1: also with a token."""
    site = build()
    laptop = site.visitor("ada")
    site.visitor("ada")
    other = session_ids(laptop)[1]
    headers = {
        "X-CSRF-Token": laptop.get(f"{PAGE}sessions").json()["csrf_token"],
        "Sec-Fetch-Site": "cross-site",
        "Origin": "https://evil.example",
    }
    assert laptop.delete(f"{PAGE}sessions/{other}", headers=headers).status_code == 403
    assert laptop.delete(f"{PAGE}sessions", headers=headers).status_code == 403
    assert len(session_ids(laptop)) == 2


@pytest.mark.parametrize("login_url", [None, "/login?from=devices"])
def test_visitor_who_is_not_logged_in_is_sent_to_the_login(build, login_url):
    """Scripts get 401."""
    visitor = build(login_url=login_url).visitor()
    page, data = visitor.get(PAGE), visitor.get(f"{PAGE}sessions")
    assert (data.status_code, data.headers["www-authenticate"]) == (401, "Session")
    assert data.json()["title"] == "You are not logged in"
    if login_url is None:
        assert (page.status_code, page.headers["www-authenticate"]) == (401, "Session")
    else:
        assert page.status_code == 303
        assert page.headers["location"] == "/login?from=devices&next=/account/devices/"


def test_old_login_may_read_and_not_log_out(build):
    """ASVS 7.5.1: with ``require_recent``."""
    clock = FakeClock()
    site = build(clock=clock, require_recent="10 minutes", login_url="/login")
    laptop = site.visitor("ada")
    site.visitor("ada")
    other = session_ids(laptop)[1]
    path = f"{PAGE}log-out/{other}"
    assert laptop.get(path).status_code == 200
    form = {"csrf_token": token(laptop, path)}
    clock.advance("11 minutes")
    assert laptop.get(PAGE).status_code == 200
    for answer in (laptop.get(path), laptop.get(f"{PAGE}log-out-others")):
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login?next=/account/devices/log-out")
    for answer in (
        laptop.post(path, data=form),
        laptop.post(f"{PAGE}log-out-others", data=form),
    ):
        assert answer.headers["location"] == "/login?next=/account/devices/"
    headers = {"X-CSRF-Token": form["csrf_token"]}
    for answer in (
        laptop.delete(f"{PAGE}sessions/{other}", headers=headers),
        laptop.delete(f"{PAGE}sessions", headers=headers),
    ):
        assert answer.status_code == 401
        assert 'max_age="600"' in answer.headers["www-authenticate"]
        assert answer.json()["title"] == "Log in again"
    assert len(session_ids(laptop)) == 2


def test_pages_cannot_be_framed_cached_or_extended(build):
    """Clickjacking, shared caches, inline code; also on error pages."""
    client = build().visitor("ada")
    for path in ("", "log-out-others", "log-out/1", "sessions"):
        headers = client.get(PAGE + path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "script-src" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert "no-store" in headers["cache-control"]


def test_texts_of_visitors_are_escaped(build):
    """XSS: a browser chooses its name."""
    site = build()
    attack = "<script>alert(1)</script>\"' onfocus=alert(1) x="
    victim, _ = site.visitor("ada"), site.visitor("ada", **{"User-Agent": attack})
    page = victim.get(PAGE).text
    assert "<script" not in page
    name = re.findall(r'aria-label="(.*?)"', page)[0]
    assert html.unescape(name) == "Log out <script>alert(1)< script>\"'"
    other = session_ids(victim)[1]
    assert "<script" not in victim.get(f"{PAGE}log-out/{other}").text


def test_no_response_contains_a_ticket(build):
    """A18: neither the cookie nor the verifier."""
    site = build()
    laptop, phone = site.visitor("ada"), site.visitor("ada")
    tickets = [value for client in (laptop, phone) for value in client.cookies.values()]
    assert len(tickets) == 2
    other = session_ids(laptop)[1]
    for path in ("", "sessions", "log-out-others", f"log-out/{other}"):
        text = laptop.get(PAGE + path).text
        assert not any(ticket in text for ticket in tickets)


def test_outage_shows_no_address_of_the_store(build):
    """A15: 503 with Retry-After, as a page and as problem details."""
    store = FaultyStore(MemoryStore())
    client = build(store).visitor("ada")
    store.fail("list_by_index", error=StoreUnavailable("db-7.internal:5432 did not answer"))
    for path in ("", "sessions"):
        answer = client.get(PAGE + path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert "db-7" not in answer.text
        assert "Try again in a moment" in answer.text
    store.heal()
    assert client.get(PAGE).status_code == 200


def test_stylesheet_does_not_depend_on_the_session(build):
    """Shared caches may keep it: the response has no ``Vary: Cookie``."""
    client = build().visitor("ada")
    name = re.search(r'href="\./(style-\w+\.css)"', client.get(PAGE).text)[1]
    answer = client.get(PAGE + name)
    assert (answer.status_code, answer.headers.get("vary")) == (200, None)
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"


def test_notice_of_a_logout_is_not_shown_while_other_devices_are_logged_in(build):
    """An old address, or a link of another site, would say something wrong."""
    site = build()
    laptop = site.visitor("ada")
    text = "All other devices were logged out."
    assert text in laptop.get(f"{PAGE}?done=others").text
    site.visitor("ada")
    assert text not in laptop.get(f"{PAGE}?done=others").text
    assert 'role="status"' not in laptop.get(f"{PAGE}?done=<b>").text


def test_mount_without_its_slash_leads_to_the_page(build):
    """Relative links need it."""
    answer = build().visitor("ada").get(PAGE.rstrip("/"))
    assert answer.status_code in (301, 307, 308)
    assert answer.headers["location"].endswith("/account/devices/") or (
        answer.headers["location"] == "./devices/"
    )


# Independent of the mount


@pytest.fixture
def site():
    """Return a function that builds a site of FastAPI."""

    def build_site(**page):
        return fastapi_site({"store": "memory://"}, page, None)

    return build_site


def test_texts_can_be_translated(site, tmp_path):
    """By mapping, also for each request, and the times by a function."""
    german = {"language": "de", "title": "Ihre Geräte", "log_out_device": "{device} abmelden"}

    def choose(request):
        return german if request.headers.get("accept-language") == "de" else {}

    def format_time(instant, request):
        return f"am {instant:%d.%m.%Y} {request.headers['accept-language']}"

    built = site(texts=choose, format_time=format_time)
    built.visitor("ada")
    client = built.visitor("ada", **{"Accept-Language": "de"})
    page = client.get(PAGE).text
    assert '<html lang="de">' in page
    assert "<h1>Ihre Geräte</h1>" in page
    assert 'aria-label="Firefox 127 on Linux abmelden"' in page
    assert re.search(r"am \d\d\.\d\d\.\d{4} de</time>", page)
    fixed = site(texts={"error_404": "Nicht gefunden"}).visitor("ada")
    assert fixed.delete(f"{PAGE}sessions/1").status_code == 404
    assert fixed.get(f"{PAGE}nothing").text.count("Nicht gefunden") == 2


def test_templates_and_style_can_be_replaced(site, tmp_path):
    """By a folder and by a path on this host."""
    folder = tmp_path / "device_page"
    folder.mkdir()
    (folder / "layout.html").write_text(
        "{% extends 'base.html' %}"
        "{% block main %}<nav>Shop</nav>{% block content %}{% endblock %}{% endblock %}"
        "{% block styles %}{% if brand %}<link rel=stylesheet href='{{ brand }}'>{% endif %}"
        "{% endblock %}"
    )
    page = site(templates=tmp_path, stylesheet="/static/brand.css").visitor("ada").get(PAGE).text
    assert "<nav>Shop</nav>" in page
    assert "/static/brand.css" in page
    assert "<h1>Your devices</h1>" in page
    plain = site(stylesheet="/static/brand.css").visitor("ada").get(PAGE).text
    assert '<link rel="stylesheet" href="/static/brand.css">' in plain
    style = re.search(r'href="\./(style-\w+\.css)"', plain)[1]
    assert ".device" in site().visitor().get(PAGE + style).text


def test_long_list_is_cut(site):
    """One page is bounded; all others can still be logged out."""
    built = site()
    client = built.visitor("ada", **{"User-Agent": "cut/0"})
    for number in range(1, 105):
        built.visitor("ada", **{"User-Agent": f"cut/{number}"})
    before = name_device.cache_info().misses
    page = client.get(PAGE).text
    assert name_device.cache_info().misses - before <= 100  # a name takes a millisecond
    assert page.count("<h2>") == 100
    assert "5 more devices are logged in." in page
    found = client.get(f"{PAGE}sessions").json()
    assert (len(found["sessions"]), found["more"]) == (100, 5)
    assert found["sessions"][0]["current"]
    headers = {"X-CSRF-Token": found["csrf_token"]}
    assert client.delete(f"{PAGE}sessions", headers=headers).json() == {"revoked": 104}


def test_label_of_the_login_names_no_other_user(site):
    """The page lists by the user of the session, whatever else the request says."""
    client = site().visitor("ada", **{"X-User": "bob", "Remote-User": "bob"})
    assert len(session_ids(client)) == 1


def test_login_leads_back_to_this_host():
    """A server may pass a mount of two slashes, which would name another host."""
    sessions = sojourn.Sessions(store="memory://")
    app = SessionMiddleware(admin.device_page(sessions, login_url="/login"), sessions)
    transport = httpx.WSGITransport(app, script_name="//evil.example")
    with httpx.Client(transport=transport, base_url="https://shop.example") as client:
        for answer in (client.get("/"), client.post("/log-out-others")):
            assert answer.headers["location"] == "/login?next=/evil.example/"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"stylesheet": "https://cdn.example/a.css"}, "a path on this host"),
        ({"stylesheet": "//cdn.example/a.css"}, "a path on this host"),
        ({"templates": "nowhere"}, "expects a folder"),
        ({"require_recent": "soon"}, "require_recent"),
        ({"texts": {"headline": "?"}}, "has no text 'headline'"),
        ({"texts": {"more": "{device}"}}, "may contain"),
        ({"texts": {"more": "{count.__class__}"}}, "may contain"),
        ({"texts": {"more": "{"}}, "may contain"),
        ({"texts": {"title": 7}}, "expects a text"),
    ],
)
def test_wrong_option_is_refused_when_the_page_is_built(options, text):
    with pytest.raises(ConfigurationError, match=text):
        admin.device_page(sojourn.Sessions(store="memory://"), **options)


def test_store_without_users_is_refused():
    """It could not list the sessions of one."""
    sessions = sojourn.Sessions(
        store=sojourn.CallbackStore(read=lambda _: None, write=lambda *_: None), secret=SECRET
    )
    with pytest.raises(ConfigurationError, match="needs a store with an index of users"):
        admin.device_page(sessions)


def test_browser_headers_are_those_of_a_browser():
    """The other tests would pass without an origin on a local host only."""
    assert BROWSER["Origin"] == "https://shop.example"
