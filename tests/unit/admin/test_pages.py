"""The pages of the admin application over ASGI and WSGI."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from unittest.mock import ANY

import httpx
import pytest

import sojourn
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.sessions import EndedPage, EndedSession
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from tests.support.admin_client import (
    FIREFOX,
    ASGITransport,
    Site,
    allow,
    asgi_host,
    fill_in,
    wsgi_host,
)


@pytest.fixture(params=["asgi", "wsgi"])
def site(request):
    return Site(request.param)


def rows(page):
    """Return the public IDs of the sessions that a list links."""
    return re.findall(r'href="sessions/([0-9a-f]{32})"', page.text)


def test_list_shows_user_device_times_and_no_data(site):
    site.client("ada")
    page = site.client("root").get("/admin/")
    assert page.status_code == 200
    assert len(rows(page)) == 2
    assert "ada" in page.text
    assert "Firefox 127 on Linux" in page.text
    assert "just now" in page.text
    assert "in 30 minutes" in page.text
    assert "This is you" in page.text


def test_search_finds_by_user_label_time_and_id(site):
    ada = site.own_id(site.client("ada"))
    root = site.client("root")
    assert rows(root.get("/admin/?user=ada")) == [ada]
    assert rows(root.get("/admin/?label=tenant%3Dother")) == []
    assert ada in rows(root.get("/admin/?label=tenant%3Dacme&since=1h"))
    found = root.get(f"/admin/?id={ada.upper()}")
    assert (found.status_code, found.headers["location"]) == (303, f"sessions/{ada}")
    assert ada in root.get(f"/admin/sessions/{ada}").text


@pytest.mark.parametrize("query", ["id=12", "label=tenant", "since=2h", f"user={'x' * 256}"])
def test_a_wrong_search_names_what_is_expected(site, query):
    page = site.client("root").get(f"/admin/?{query}")
    assert page.status_code == 422
    assert "There is a problem" in page.text
    name = query.partition("=")[0]
    assert f'id="{name}-error"' in page.text


def test_pages_follow_each_other_to_the_end():
    site = Site(page_size=7)
    for number in range(19):
        site.client(f"user-{number}")
    root = site.client("root")
    found, address, pages = [], "/admin/", 0
    while address:
        page = root.get(address)
        found += rows(page)
        pages += 1
        link = re.search(r'class="button" href="([^"]+)">Next page', page.text)
        address = link and "/admin/" + link[1].replace("&amp;", "&")
        assert ("First page" in page.text) is (pages > 1)
    assert (len(found), len(set(found)), pages >= 3) == (20, 20, True)


def test_count_is_made_on_request_only(site):
    root = site.client("root")
    assert "in all" not in root.get("/admin/").text
    assert "<strong>1</strong> in all" in root.get("/admin/?count=1").text


def test_one_session_is_revoked_with_reason_and_actor(site):
    ada = site.client("ada")
    own = site.own_id(ada)
    root = site.client("root")
    answer = fill_in(root, f"/admin/sessions/{own}/revoke", typed=own[-6:])
    assert (answer.status_code, answer.headers["location"]) == (303, "../../")
    page = root.get("/admin/")
    assert "The session was revoked." in page.text
    assert own not in page.text
    assert "was revoked" not in root.get("/admin/").text  # once
    (event,) = site.revoked
    assert (event.session_id, event.reason, event.actor) == (own, "stolen laptop", "root")
    assert site.sessions.get(own) is None


def test_a_head_request_leaves_the_notice_to_the_page(site):
    """ASVS 3.5.3: HEAD changes nothing."""
    own = site.own_id(site.client("ada"))
    root = site.client("root")
    fill_in(root, f"/admin/sessions/{own}/revoke", typed=own[-6:])
    assert root.head("/admin/").status_code == 200
    assert "The session was revoked." in root.get("/admin/").text


def test_a_user_is_revoked_by_name(site):
    """ASVS 7.4.5."""
    for _ in range(3):
        site.client("ada")
    site.client("grace")
    root = site.client("root")
    assert "3 live sessions" in root.get("/admin/revoke-user?user=ada").text
    answer = fill_in(root, "/admin/revoke-user?user=ada", user="ada", typed="ada")
    assert answer.status_code == 303
    assert "3 sessions were revoked." in root.get("/admin/").text
    assert not site.sessions.list_user("ada")
    assert site.sessions.list_user("grace")
    assert {(event.reason, event.actor) for event in site.revoked} == {("stolen laptop", "root")}


def test_the_form_of_a_user_with_many_sessions_reads_some_of_them(monkeypatch):
    """A user with 100,000 sessions must not hold the event loop while they are counted."""
    monkeypatch.setattr("sojourn.admin.sessions_admin._MAX_COUNTED", 12)
    site = Site()
    for _ in range(12):
        site.client("ada")
    root = site.client("root")
    text = root.get("/admin/revoke-user?user=ada").text
    assert "<caption>12 live sessions; the latest 10 are shown" in text
    site.client("ada")
    text = root.get("/admin/revoke-user?user=ada").text
    assert "<caption>More than 12 live sessions; the latest 10 are shown" in text


def test_sessions_are_revoked_by_an_indexed_label(site):
    with site.sessions.open(url="http://localhost/") as visit:
        visit.session.login("ada", labels={"idp_sid": "sid-1"})
    root = site.client("root")
    path = "/admin/revoke-label?name=idp_sid&value=sid-1"
    answer = fill_in(root, path, name="idp_sid", value="sid-1", typed="sid-1")
    assert answer.status_code == 303
    assert not site.sessions.list_user("ada")
    assert root.get("/admin/revoke-label?name=tenant&value=acme").status_code == 400


def test_all_sessions_are_revoked(site):
    """ASVS 7.4.5."""
    site.client("ada")
    root = site.client("root")
    answer = fill_in(root, "/admin/revoke-all", typed="revoke all", accepts_own="yes")
    assert answer.status_code == 200
    assert "All sessions were revoked." in answer.text
    assert root.get("/admin/").status_code == 403  # its own session has ended, too
    assert site.sessions.count() == 0


def test_a_form_says_whether_the_user_may_see_the_reason(site):
    """`revoke_all` is one write and records no reason for the visitors."""
    visitor = site.client("ada")
    root = site.client("root")
    path = f"/admin/sessions/{site.own_id(visitor)}/revoke"
    assert "The user may see it." in root.get(path).text
    assert "The user may see it." in root.get("/admin/revoke-user?user=ada").text
    assert "The user may see it." not in root.get("/admin/revoke-all").text


@pytest.mark.parametrize("typed", ["", "Ada", "adaa", "revoke all"])
def test_a_wrong_confirmation_revokes_nothing(site, typed):
    site.client("ada")
    answer = fill_in(
        site.client("root"), "/admin/revoke-user?user=ada", user="ada", typed=typed, reason="theft"
    )
    assert answer.status_code == 422
    assert "Type “ada” to confirm" in answer.text
    assert 'value="theft"' in answer.text
    assert 'id="typed-error"' in answer.text
    assert 'aria-describedby="typed-error" aria-invalid="true"' in answer.text
    assert site.sessions.list_user("ada")
    assert not site.revoked


def test_a_confirmation_may_be_composed_otherwise_than_the_stored_name(site):
    """A keyboard composes letters; the stored name has them decomposed (Unicode NFC and NFD)."""
    name = "Jose\u0301"
    with site.sessions.open(url="http://localhost/") as visit:
        visit.session.login(name)
    root = site.client("root")
    answer = fill_in(root, f"/admin/revoke-user?user={name}", user=name, typed="Jos\u00e9")
    assert answer.status_code == 303
    assert not site.sessions.list_user(name)


def test_spaces_at_the_ends_belong_to_users_and_labels(site):
    """Links lead to exactly the sessions that they name."""
    name, sid = " ada ", " sid "
    with site.sessions.open(url="http://localhost/") as visit:
        visit.session.login(name, labels={"idp_sid": sid})
    (info,) = site.sessions.list_user(name)
    root = site.client("root")
    page = root.get(f"/admin/sessions/{info.id}")
    link = re.search(r'<dd><a href="\.\./(\?user_id=[^"]+)"', page.text)[1]
    assert rows(root.get(f"/admin/{link}")) == [info.id]
    link = re.search(r'href="\.\./(revoke-label\?[^"]+)"', page.text)[1].replace("&amp;", "&")
    answer = fill_in(root, f"/admin/{link}", name="idp_sid", value=sid, typed="revoke label")
    assert answer.status_code == 303
    assert not site.sessions.list_user(name)


@pytest.mark.parametrize("reason", ["", "x" * 201, "two\nlines", "\u202e reversed"])
def test_a_reason_is_required_and_has_one_line(site, reason):
    ada = site.own_id(site.client("ada"))
    answer = fill_in(
        site.client("root"), f"/admin/sessions/{ada}/revoke", typed=ada[-6:], reason=reason
    )
    assert answer.status_code == 422
    assert site.sessions.get(ada)


def test_the_own_session_ends_only_after_a_second_confirmation(site):
    root = site.client("root")
    own = site.own_id(root)
    path = f"/admin/sessions/{own}/revoke"
    refused = fill_in(root, path, typed=own[-6:])
    assert refused.status_code == 422
    assert "Confirm that your own session ends" in refused.text
    assert site.sessions.get(own)
    answer = fill_in(root, path, typed=own[-6:], accepts_own="yes")
    assert "Your own session has ended as well" in answer.text
    assert site.sessions.get(own) is None


def test_revoking_the_own_user_keeps_the_own_session_by_default(site):
    root, other = site.client("root"), site.client("root")
    path = "/admin/revoke-user?user=root"
    assert "Keep the session that I use now" in root.get(path).text
    fill_in(root, path, user="root", typed="root", keeps_own="yes")
    assert [info.id for info in site.sessions.list_user("root")] == [site.own_id(root)]
    assert other.get("/admin/").status_code == 403
    refused = fill_in(root, path, user="root", typed="root")
    assert refused.status_code == 422
    assert "End my own session, too" in refused.text
    answer = fill_in(root, path, user="root", typed="root", accepts_own="yes")
    assert answer.status_code == 200
    assert not site.sessions.list_user("root")


def test_a_reader_sees_sessions_and_no_way_to_revoke_them(site):
    ada = site.own_id(site.client("ada"))
    reader = site.client("reader")
    for path in ("/admin/", "/admin/?user=ada", f"/admin/sessions/{ada}", "/admin/ended"):
        page = reader.get(path)
        assert page.status_code == 200
        assert "revoke" not in page.text.lower().replace("revoked by", "")
        assert "Read only" in page.text


def test_ended_sessions_show_reason_and_actor(site):
    ended_at = datetime.now(UTC) - timedelta(hours=3)
    shown = EndedSession(
        "a" * 32, "ada", MappingProxyType({"browser": FIREFOX}), None, ended_at, "stolen", "root"
    )
    everyone = EndedSession("", None, MappingProxyType({}), None, ended_at, "breach", None)
    requested = []

    async def ahistory(cursor, limit, user):
        requested.append((cursor, limit, user))
        if limit < 50:  # the rest of the page
            return EndedPage((shown,) * limit, "next&page", limit, 0)
        return EndedPage((shown, everyone), "rest", 2, 0)

    site.sessions.ahistory = ahistory
    root = site.client("root")
    page = root.get("/admin/ended?user=ada")
    assert page.status_code == 200
    for text in ("Firefox 127 on Linux", "3 hours ago", "stolen", "breach", "Every user"):
        assert text in page.text
    assert 'href="ended?user=ada&amp;cursor=next%26page"' in page.text
    root.get("/admin/ended?user=ada&cursor=next%26page")
    root.get("/admin/ended")
    rest = ("rest", 48)
    assert requested == [
        *(("", 50, "ada"), (*rest, "ada")),
        *(("next&page", 50, "ada"), (*rest, "ada")),
        *(("", 50, None), (*rest, None)),
    ]


def test_without_a_history_the_page_shows_how_to_enable_it(site):
    async def ahistory(cursor, limit, user):
        raise ConfigurationError("the option history is off")

    site.sessions.ahistory = ahistory
    page = site.client("root").get("/admin/ended")
    assert page.status_code == 200
    assert "There is no history of ended sessions. the option history is off." in page.text


@pytest.mark.parametrize("error", [TypeError, ValueError])
def test_a_wrong_search_of_the_history_is_reported(site, error):
    async def ahistory(cursor, limit, user):
        raise error

    site.sessions.ahistory = ahistory
    page = site.client("root").get("/admin/ended?user=x&cursor=y")
    assert page.status_code == (422 if error is TypeError else 400)


def test_a_session_that_has_ended_is_404_with_a_way_on(site):
    root = site.client("root")
    for path in (f"/admin/sessions/{'0' * 32}", f"/admin/sessions/{'0' * 32}/revoke"):
        page = root.get(path)
        assert page.status_code == 404
        assert "Ended sessions" in page.text


def test_a_damaged_cursor_is_400(site):
    page = site.client("root").get("/admin/?cursor=%00damaged")
    assert page.status_code == 400
    assert "Start at the first page" in page.text


def test_a_user_whose_name_cannot_be_typed_is_confirmed_with_other_words(site):
    name = "ada\u202e "
    with site.sessions.open(url="http://localhost/") as visit:
        visit.session.login(name)
    root = site.client("root")
    path = "/admin/revoke-user?user=ada%E2%80%AE%20"
    page = root.get(path)
    assert "\u202e" not in re.sub(r'value="[^"]*"', "", page.text)
    assert r"ada\u202e" in page.text
    assert fill_in(root, path, user=name, typed="revoke user").status_code == 303
    assert not site.sessions.list_user(name)


def test_a_store_that_fails_is_503_and_reported():
    """A15: nothing is shown as done that was not done."""
    store = FaultyStore(MemoryStore())
    site = Site(store=store)
    ada = site.own_id(site.client("ada"))
    root = site.client("root")
    store.fail("list_by_index", times=1)
    page = root.get("/admin/?user=ada")
    assert page.status_code == 503
    assert page.headers["retry-after"]
    assert "unavailable" in page.text
    store.fail("delete_many", times=9)
    store.fail("delete", times=9)
    answer = fill_in(root, "/admin/revoke-user?user=ada", user="ada", typed="ada")
    assert answer.status_code == 503
    assert "The revocation is incomplete" in answer.text
    assert site.sessions.get(ada)


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_each_page_is_a_503_page_while_the_store_is_down(kind, monkeypatch):
    """A15: with the style and the way to try again, and nothing half done."""
    site = Site(kind)
    ada = site.own_id(site.client("ada"))
    root = site.client("root")
    token = re.search('name="csrf_token" value="([^"]+)"', root.get("/admin/revoke-all").text)[1]
    form = {"csrf_token": token, "reason": "x", "accepts_own": "yes", "user": "ada"}
    form |= {"name": "idp_sid", "value": "s"}

    async def fail(*_, **__):
        raise StoreUnavailable("a test has planned this failure")

    for name in ("alist_page", "acount", "ahistory", "aget"):
        monkeypatch.setattr(site.sessions, name, fail)
    for name in ("arevoke", "arevoke_user", "arevoke_where", "arevoke_all"):
        monkeypatch.setattr(site.sessions, name, fail)
    requests = [
        ("GET", "/", ""),
        ("GET", "/?user=ada", ""),
        ("GET", "/?count=1", ""),
        ("GET", "/ended", ""),
        ("GET", f"/sessions/{ada}", ""),
        ("GET", f"/sessions/{ada}/revoke", ""),
        ("GET", "/revoke-user?user=ada", ""),
        ("GET", "/revoke-label?name=idp_sid&value=s", ""),
        ("GET", "/revoke-all", ""),
        ("POST", f"/sessions/{ada}/revoke", ada[-6:]),
        ("POST", "/revoke-user", "ada"),
        ("POST", "/revoke-label", "s"),
        ("POST", "/revoke-all", "revoke all"),
    ]
    for method, path, typed in requests:
        data = {**form, "typed": typed} if method == "POST" else None
        page = root.request(method, f"/admin{path}", data=data)
        assert page.status_code == 503, path
        assert page.headers["retry-after"]
        assert "The session store is unavailable" in page.text
        assert 'rel="stylesheet"' in page.text


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_session_that_cannot_be_loaded_is_a_503_page(kind):
    """A15: where the host application leaves the load of the session to the page."""
    store = FaultyStore(MemoryStore())
    site = Site(kind, store=store)
    module, host = (sojourn.asgi, asgi_host) if kind == "asgi" else (sojourn.wsgi, wsgi_host)
    root = site.client("root")
    (cookie,) = root.cookies.jar
    lazy = module.SessionMiddleware(host(site.application, "/admin"), site.sessions, autoload=False)
    transport = ASGITransport(lazy) if kind == "asgi" else httpx.WSGITransport(lazy)
    store.fail("load", times=9)
    with httpx.Client(
        transport=transport, base_url="http://localhost", cookies={cookie.name: cookie.value}
    ) as client:
        page = client.get("/admin/")
    assert page.status_code == 503
    assert page.headers["retry-after"]
    assert 'rel="stylesheet"' in page.text


def test_a_host_without_sessions_is_503_and_names_what_to_install():
    sessions = sojourn.Sessions(store="memory://")
    application = sojourn.admin.app(sessions, allow=allow)
    for transport in (ASGITransport(application), httpx.WSGITransport(application)):
        with httpx.Client(transport=transport, base_url="http://localhost") as client:
            page = client.get("/")
            assert page.status_code == 503
            assert "sojourn.install(app)" in page.text


def test_allow_is_required_and_may_be_a_coroutine_function():
    sessions = sojourn.Sessions(store="memory://")
    with pytest.raises(ConfigurationError, match="allow="):
        sojourn.admin.app(sessions)
    with pytest.raises(ConfigurationError, match="function"):
        sojourn.admin.app(sessions, allow=True)
    for page_size in (0, 1_001, "50", True):
        with pytest.raises(ConfigurationError, match="page_size"):
            sojourn.admin.app(sessions, allow=allow, page_size=page_size)
    for login_url in ("/anmelden-\u00fc", "/a\r\nX: 1", "/log in", ""):
        with pytest.raises(ConfigurationError, match="login_url"):
            sojourn.admin.app(sessions, allow=allow, login_url=login_url)
        with pytest.raises(ConfigurationError, match="login_url"):
            sojourn.admin.device_page(sessions, login_url=login_url)

    async def allow_later(request):
        return allow(request)

    site = Site("asgi", allow=allow_later)
    assert site.client("root").get("/admin/").status_code == 200
    assert site.client("ada").get("/admin/").status_code == 403
    with pytest.raises(ConfigurationError, match="allow expects a function"):
        Site("wsgi", allow=allow_later).client("root").get("/admin/")


def test_allow_may_not_return_an_object_by_mistake(site):
    """A truthy object, such as a user, admits no visitor."""
    for found in ("root", 1, object(), ANY):
        broken = Site(site.kind, allow=lambda request, found=found: found)
        with pytest.raises(ConfigurationError, match="allow expects"):
            broken.client("root").get("/admin/")


def test_visitors_without_a_login_are_sent_to_it_with_the_way_back(site):
    site = Site(site.kind, login_url="/login?from=admin")
    page = site.client().get("/admin/sessions/abc?x=1")
    assert page.status_code == 303
    assert page.headers["location"] == "/login?from=admin&next=/admin/sessions/abc"
    assert site.client().head("/admin/sessions/abc").headers["location"] == page.headers["location"]
    assert site.client("ada").get("/admin/").status_code == 403


def test_a_directory_names_users():
    class People:
        async def find(self, text, /):
            return {"Ada Lovelace": "17"}.get(text)

        async def names(self, users, /):
            assert len(users) == len(set(users))
            return {"17": "Ada Lovelace"}

    site = Site("asgi", users=People())
    site.client("17")
    site.client("17")
    root = site.client("root")
    assert root.get("/admin/").text.count("Ada Lovelace</bdi>") == 2
    page = root.get("/admin/", params={"user": "Ada Lovelace"})
    assert len(rows(page)) == 2
    assert len(rows(root.get("/admin/?user=17"))) == 2
    path = "/admin/revoke-user?user=17"
    assert f'href="{path.removeprefix("/admin/")}"' in page.text
    assert fill_in(root, path, user="17", typed="17").status_code == 422
    assert fill_in(root, path, user="17", typed="Ada Lovelace").status_code == 303
    assert not site.sessions.list_user("17")


def test_a_user_who_is_named_as_another_ones_identifier_is_not_taken_for_them():
    """A visitor who registers the name "17" does not stand for the user 17 behind a link."""

    class People:
        def find(self, text, /):
            return {"17": "99", "Ada": "17"}.get(text)

        def names(self, users, /):
            return {user: {"17": "Ada", "99": "17"}[user] for user in users if user in ("17", "99")}

    site = Site(users=People())
    (ada, _) = (site.own_id(site.client(user)) for user in ("17", "99"))
    root = site.client("root")
    page = root.get(f"/admin/sessions/{ada}").text
    for link in re.findall(r'href="\.\./([^"]*\?user[^"]*)"', page):
        shown = root.get(f"/admin/{link}")
        assert "Ada" in shown.text
    assert rows(root.get("/admin/?user_id=17")) == [ada]
    back = re.search(r'href="\./(\?user_id=17)"', root.get("/admin/revoke-user?user=17").text)
    assert rows(root.get(f"/admin/{back[1]}")) == [ada]
    assert 'value="Ada"' in root.get("/admin/ended?user_id=17").text or "history" in page


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ua_parser", None)
    monkeypatch.delitem(sys.modules, "sojourn.admin.sessions_admin", raising=False)
    monkeypatch.delitem(sys.modules, "sojourn.admin.templating", raising=False)
    monkeypatch.delitem(sys.modules, "sojourn.admin.device_names", raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install 'sojourn\[admin\]'"):
        sojourn.admin.app(sojourn.Sessions(store="memory://"), allow=allow)


def test_every_action_is_audited_with_its_actor():
    """ASVS 16.3: the audit trail names the administrator and the reason."""
    lines = []
    site = Site(audit=lines.append)
    ada = site.own_id(site.client("ada"))
    site.client("grace")
    root = site.client("root")
    fill_in(root, f"/admin/sessions/{ada}/revoke", typed=ada[-6:], reason="one")
    fill_in(root, "/admin/revoke-user?user=grace", user="grace", typed="grace", reason="user")
    path = "/admin/revoke-label?name=idp_sid&value=s"
    with site.sessions.open(url="http://localhost/") as visit:
        visit.session.login("linus", labels={"idp_sid": "s"})
    fill_in(root, path, name="idp_sid", value="s", typed="s", reason="label")
    fill_in(root, "/admin/revoke-all", typed="revoke all", accepts_own="yes", reason="all")
    entries = [json.loads(line) for line in lines]
    revoked = [(each["reason"], each["actor"]) for each in entries if each["event"] == "Revoked"]
    assert revoked == [(reason, "root") for reason in ("one", "user", "label", "all")]
