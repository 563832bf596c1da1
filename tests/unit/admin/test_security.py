"""What protects the admin application: roles, CSRF, headers, escaping, and bounds of input."""

import asyncio
import re
from urllib.parse import urlencode

import httpx
import pytest

import sojourn
from sojourn.admin.request import MAX_FORM_BYTES
from sojourn.admin.response import AdminResponse
from sojourn.admin.stylesheet import load_stylesheet
from tests.support.admin_client import BASE, Site, fill_in, token_of

XSS = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{71237*7}}"

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(params=["asgi", "wsgi"])
def site(request):
    return Site(request.param)


def requests_of(site):
    """Return (method, path) of every route; a session of ada is in the paths."""
    ada = site.own_id(site.client("ada"))
    found = []
    for route in site.application.routes.routes:
        path = "/admin" + route.pattern.replace("{id}", ada)
        query = {"/revoke-user": "?user=ada", "/revoke-label": "?name=idp_sid&value=s"}
        found += [(method, path + query.get(route.pattern, "")) for method in route.methods]
    return found


def valid_form(client, site, path):
    """Return the fields with which a form of a path would be carried out."""
    ada = re.search("[0-9a-f]{32}", path)
    typed = {"revoke": ada and ada[0][-6:], "revoke-user": "ada", "revoke-label": "s"}
    name = path.partition("?")[0].rpartition("/")[2]
    return {
        "csrf_token": token_of(client.get(path)),
        "reason": "theft",
        "typed": typed.get(name, "revoke all"),
        "user": "ada",
        "name": "idp_sid",
        "value": "s",
        "accepts_own": "yes",
    }


@pytest.mark.parametrize(
    ("visitor", "may_read", "may_write"),
    [
        (None, False, False),
        ("ada", False, False),
        ("reader", True, False),
        ("root", True, True),
    ],
)
def test_each_route_is_closed_to_each_role_that_has_no_right(site, visitor, may_read, may_write):
    """B-47: every route of the table; a new one is tested without being named here."""
    table = requests_of(site)
    assert len(table) >= 11
    client = site.client(visitor)
    for method, path in table:
        changes = "/revoke" in path
        allowed = may_write if changes else may_read
        answer = client.request(method, path, data={"x": "1"} if method == "POST" else None)
        if not allowed:
            assert answer.status_code == 403, (method, path)
            text = re.sub(r'<p class="visitor">.*?</p>', "", answer.text, flags=re.DOTALL)
            assert re.search(r"\bada\b", text) is None  # tokens contain the letters by chance
        elif method == "GET":
            assert answer.status_code == 200, (method, path)
    assert site.sessions.list_user("ada")
    assert not site.revoked


def test_the_stylesheet_is_for_everyone_and_kept(site):
    answer = site.client().get(f"/admin/{load_stylesheet().name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert "immutable" in answer.headers["cache-control"]
    assert "set-cookie" not in answer.headers


# CSRF


def test_a_form_without_the_token_of_this_session_changes_nothing(site):
    """ASVS 3.5.1: a missing, foreign or damaged token is refused on every route."""
    posts = [path for method, path in requests_of(site) if method == "POST"]
    root, stranger = site.client("root"), site.client("root")
    assert len(posts) == 4
    for path in posts:
        form = valid_form(root, site, path)
        foreign = token_of(stranger.get(path))
        for token in (None, "", "0" * len(foreign), foreign, form["csrf_token"][:-1]):
            sent = {**form, "csrf_token": token} if token is not None else dict(form)
            if token is None:
                del sent["csrf_token"]
            answer = root.post(path, data=sent)
            assert answer.status_code == 403, (path, token)
            assert "Nothing was changed" in answer.text
    assert not site.revoked
    assert site.sessions.list_user("ada")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_a_form_of_another_origin_changes_nothing_although_its_token_is_right(site, headers):
    """ASVS 3.5.1: the origin is checked besides the token."""
    ada = site.own_id(site.client("ada"))
    root = site.client("root")
    path = f"/admin/sessions/{ada}/revoke"
    answer = root.post(path, data=valid_form(root, site, path), headers=headers)
    assert answer.status_code == 403
    assert "Nothing was changed" in answer.text
    assert site.sessions.get(ada)
    assert root.post(path, data=valid_form(root, site, path)).status_code == 303


def test_safe_methods_change_nothing(site):
    """ASVS 3.5.3: GET and HEAD with every field of a form revoke nothing."""
    root = site.client("root")
    posts = [path for method, path in requests_of(site) if method == "POST"]
    for path in posts:
        form = valid_form(root, site, path)
        for method in ("GET", "HEAD"):
            answer = root.request(method, path.partition("?")[0], params=form)
            assert answer.status_code == 200
    assert not site.revoked


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "POST", "BREW"])
def test_other_methods_are_405_and_name_the_allowed_ones(site, method):
    answer = site.client("root").request(method, "/admin/")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


# Headers


def test_no_page_can_be_framed_cached_or_run_a_script(site):
    """ASVS 3.4.3, 3.4.4, 3.4.5, 3.4.6, 3.4.8: headers of every response, errors included."""
    root = site.client("root")
    paths = [path for method, path in requests_of(site) if method == "GET"]
    for path in [*paths, "/admin/none", "/admin/?cursor=%00", "/admin/?id=x"]:
        for client in (root, site.client()):
            answer = client.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "form-action 'self'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "same-origin"
            assert answer.headers["cross-origin-opener-policy"] == "same-origin"
            assert "no-store" in answer.headers["cache-control"]
            assert "<script" not in answer.text
            assert not re.search(r'\s(style|on\w+)="', answer.text)
            assert not re.search(r'(src|href)="(https?:)?//', answer.text)


def test_a_header_with_a_line_break_is_never_sent():
    for value in ("a\r\nSet-Cookie: x=1", "a\nb", "ä"):
        with pytest.raises(ValueError, match="printable ASCII"):
            AdminResponse(200, headers=(("location", value),)).complete_headers()


def test_texts_of_a_visitor_reach_no_header(site):
    """Header injection: the redirect to the login and to a session quote what they contain."""
    site = Site(site.kind, login_url="/login")
    answer = site.client().get("/admin/%0d%0aSet-Cookie:%20x=1")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=/admin/%0D%0ASet-Cookie%3A%20x%3D1"
    assert "x=1" not in answer.headers.get("set-cookie", "")
    answer = site.client("root").get("/admin/", params={"id": f"{'0' * 32}\r\nX-Evil: 1"})
    assert answer.status_code == 422


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example", "///evil.example"])
def test_no_redirect_leaves_the_site(path):
    """B-59: the way back from the login begins with one slash."""
    site = Site(mount="", login_url="/login")
    answer = site.client().get(BASE + path)
    assert answer.status_code == 303
    location = answer.headers["location"]
    assert location.startswith("/login?next=/")
    assert not re.search("next=/(/|%5C|\\\\)", location)


# Escaping


def test_nothing_that_others_wrote_becomes_markup(site):
    """ASVS 1.2.1: user names, labels, browsers, reasons, cursors and search texts."""
    with site.sessions.open(
        url=f"{BASE}/", labels={"browser": XSS, "address": XSS, XSS: XSS}
    ) as visit:
        visit.session.login(XSS, labels={"idp_sid": XSS, "browser": XSS, "address": XSS, XSS: XSS})
    (info,) = site.sessions.list_user(XSS)
    root = site.client("root")
    pages = [
        root.get("/admin/"),
        root.get("/admin/", params={"user": XSS, "label": f"{XSS}={XSS}", "since": XSS}),
        root.get("/admin/", params={"user": XSS}),
        root.get("/admin/", params={"id": XSS}),
        root.get("/admin/", params={"cursor": XSS}),
        root.get("/admin/ended", params={"user": XSS, "cursor": XSS}),
        root.get(f"/admin/sessions/{info.id}"),
        root.get(f"/admin/sessions/{info.id}/revoke"),
        root.get("/admin/revoke-user", params={"user": XSS}),
        root.get("/admin/revoke-label", params={"name": "idp_sid", "value": XSS}),
        root.get("/admin/revoke-label", params={"name": XSS, "value": XSS}),
        root.get(f"/admin/{XSS}"),
        fill_in(root, f"/admin/sessions/{info.id}/revoke", typed=XSS, reason=XSS),
    ]
    for page in pages:
        assert "<script>alert" not in page.text
        assert "<img" not in page.text
        assert str(71237 * 7) not in page.text
        assert not re.search(r"onerror=alert\(1\)>(?!\{|&)", page.text.replace("&gt;", ""))


def test_no_page_contains_a_ticket(site):
    """A18, B-46: neither a cookie's ticket nor a verifier is in any page."""
    ada, root = site.client("ada"), site.client("root")
    tickets = [cookie.value for client in (ada, root) for cookie in client.cookies.jar]
    assert len(tickets) == 2
    for method, path in requests_of(site):
        if method == "GET":
            page = root.get(path)
            assert not any(ticket in page.text for ticket in tickets)
            assert "csrf" not in path


# Bounds


@pytest.mark.parametrize("length", [MAX_FORM_BYTES + 1, 10 * MAX_FORM_BYTES])
def test_an_oversized_form_is_413(site, length):
    ada = site.own_id(site.client("ada"))
    body = b"reason=" + b"x" * (length - 7)
    path = f"/admin/sessions/{ada}/revoke"
    answer = site.client("root").post(path, content=body, headers=FORM)
    assert answer.status_code == 413
    assert site.sessions.get(ada)


def test_a_form_without_a_length_is_bounded_as_well():
    site = Site("asgi")
    ada = site.own_id(site.client("ada"))
    root = site.client("root")
    read = []
    sent = []

    async def receive():
        read.append(1)
        return {"type": "http.request", "body": b"x" * MAX_FORM_BYTES, "more_body": True}

    async def send(message):
        sent.append(message)

    scope = scope_of(root, f"/admin/sessions/{ada}/revoke")
    asyncio.run(site.app(scope, receive, send))
    assert sent[0]["status"] == 413
    assert len(read) == 2


def scope_of(client, path, **values):
    """Return the ASGI scope of a request with the cookie of a client."""
    (cookie,) = client.cookies.jar
    headers = [
        (b"host", b"localhost"),
        (b"cookie", f"{cookie.name}={cookie.value}".encode()),
        (b"content-type", FORM["Content-Type"].encode()),
    ]
    common = {"type": "http", "scheme": "http", "query_string": b"", "headers": headers}
    return {**common, "method": "POST", "path": path, **values}


def test_a_client_that_disconnects_in_its_form_changes_nothing():
    site = Site("asgi")
    ada = site.own_id(site.client("ada"))
    root = site.client("root")
    path = f"/admin/sessions/{ada}/revoke"
    body = urlencode(valid_form(root, site, path)).encode()
    messages = [
        {"type": "http.request", "body": body, "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(site.app(scope_of(root, path), receive, send))
    assert not any(message.get("status") in (200, 303) for message in sent)
    assert site.sessions.get(ada)


@pytest.mark.parametrize(
    ("visitor", "method", "length", "status"),
    [
        ("root", "GET", "10", 200),
        ("ada", "POST", "10", 403),
        ("reader", "PUT", "10", 405),
        ("root", "POST", str(MAX_FORM_BYTES + 1), 413),
    ],
)
def test_a_response_that_needs_no_body_does_not_wait_for_it(visitor, method, length, status):
    """A slow body holds a worker only for visitors who may send forms."""
    site = Site("asgi")
    sent = []

    async def receive():
        await asyncio.sleep(3600)  # a client that never sends its body

    async def send(message):
        sent.append(message)

    scope = scope_of(site.client(visitor), "/admin/revoke-all", method=method)
    scope["headers"].append((b"content-length", length.encode()))
    asyncio.run(asyncio.wait_for(site.app(scope, receive, send), 10))
    assert sent[0]["status"] == status


def test_other_kinds_of_content_are_415(site):
    ada = site.own_id(site.client("ada"))
    path = f"/admin/sessions/{ada}/revoke"
    root = site.client("root")
    for answer in (
        root.post(path, json={"typed": ada[-6:]}),
        root.post(path, files={"typed": b"x"}),
    ):
        assert answer.status_code == 415


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_too_many_fields_are_400(site, method):
    text = "&".join(f"f{number}=1" for number in range(101))
    root = site.client("root")
    if method == "GET":
        assert root.get(f"/admin/?{text}").status_code == 400
    else:
        answer = root.post("/admin/revoke-all", content=text, headers=FORM)
        assert answer.status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/admin/sessions/..%2f..%2fetc",
        "/admin/static/admin.css",
        "/admin/sessions/" + "A" * 32,
        "/admin/sessions/" + "a" * 33,
        "/admin/style-0000000000000000.css",
        "/admin/revoke-all/",
        "/admin/%00",
    ],
)
def test_unknown_paths_are_404(site, path):
    assert site.client("root").get(path).status_code == 404


def test_a_session_of_another_installation_has_no_power_here():
    """The administrator's own session may be of another realm; it is then none of those listed."""
    shop = sojourn.Sessions(store="memory://")
    with shop.open(url=f"{BASE}/") as visit:
        visit.session.login("root")
    staff = sojourn.Sessions(store="memory://", realm="staff")
    application = sojourn.admin.app(shop, allow=lambda request: request.user == "root")
    app = sojourn.wsgi.SessionMiddleware(application, staff)
    with httpx.Client(transport=httpx.WSGITransport(app), base_url=BASE) as client:
        assert client.get("/").status_code == 403
        with staff.open(url=f"{BASE}/") as visit:
            visit.session.login("root")
        (cookie,) = [
            value.partition(";")[0]
            for name, value in visit.response_headers()
            if name == "set-cookie"
        ]
        page = client.get("/", headers={"Cookie": cookie})
        assert page.status_code == 200
        assert "This is you" not in page.text
        ended = client.get("/revoke-all", headers={"Cookie": cookie})
        assert "so are you" not in ended.text
