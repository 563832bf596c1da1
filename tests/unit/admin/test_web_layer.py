"""The web layer under the pages: mounts, relative links, methods, forms and routes."""

import time
from http import HTTPStatus

import pytest

from sojourn.admin.errors import PageError
from sojourn.admin.request import AdminRequest, parse_fields, parse_form, read_scope
from sojourn.admin.response import AdminResponse, redirect
from sojourn.admin.routes import Route, Routes
from tests.support.admin_client import Site


def make_request(method="GET", path="/", **values):
    given = {
        "mount": "/admin",
        "query_string": "",
        "headers": {},
        "scheme": "https",
        "session": None,
        "user": None,
        "connection": None,
    }
    return AdminRequest(method=method, path=path, **{**given, **values})


@pytest.mark.parametrize(
    ("path", "root"),
    [("/", "./"), ("/ended", "./"), ("/sessions/a", "../"), ("/sessions/a/revoke", "../../")],
)
def test_links_are_relative_to_the_mount(path, root):
    """They also work behind a proxy that removed a prefix without saying so."""
    assert make_request(path=path).root == root


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.parametrize("mount", ["/admin", "/deep/er/admin", "/a:b", "/a b"])
def test_a_mount_without_its_slash_is_completed(kind, mount):
    site = Site(kind, mount=mount)
    client = site.client("root")
    page = client.get(f"{mount}?user=a%26b&cursor=%2B")
    assert page.status_code == 307
    assert page.headers["location"].endswith("/?user=a%26b&cursor=%2B")
    assert page.next_request.url.path == f"{mount}/"
    assert client.send(page.next_request).status_code in (200, 400)  # 400: the cursor


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_head_is_get_without_a_body(kind):
    client = Site(kind).client("root")
    full, head = client.get("/admin/ended"), client.head("/admin/ended")
    assert head.status_code == full.status_code
    assert head.content == b""
    assert int(head.headers["content-length"]) > 1000


@pytest.mark.timeout(20)
def test_many_headers_are_joined_in_linear_time():
    """B-57: uvicorn limits neither their number nor their size."""
    headers = [(b"Accept", b"text/html"), *[(b"accept", b"*/*")] * 100_000]
    started = time.process_time()
    found = read_scope({"method": "GET", "path": "/", "headers": headers}).headers
    assert time.process_time() - started < 0.5
    assert found == {"accept": "text/html" + ", */*" * 100_000}


def test_the_first_matching_route_is_used():
    async def one(request):
        return AdminResponse(HTTPStatus.OK)

    async def two(request, name):
        return AdminResponse(HTTPStatus.OK)

    routes = Routes(Route("/a.b", {"GET": one}), Route("/{name}", {"GET": two, "DELETE": two}))
    assert routes.find(make_request(path="/a.b")) == (one, {})
    assert routes.find(make_request("HEAD", "/axb")) == (two, {"name": "axb"})
    with pytest.raises(PageError) as found:
        routes.find(make_request("POST", "/x"))
    assert found.value.headers == (("allow", "GET, DELETE, HEAD"),)
    with pytest.raises(PageError) as found:
        routes.find(make_request(path="/a/b"))
    assert found.value.status == 404


def test_forms_have_one_kind_of_content_and_few_fields():
    kind = "application/x-www-form-urlencoded; charset=utf-8"
    assert parse_form(b"a=1&b=%C3%A4+x&a=2&c=", kind) == {"a": "2", "b": "ä x", "c": ""}
    assert parse_form(b"a=%FF\xff", kind) == {"a": "\ufffd\ufffd"}
    with pytest.raises(PageError) as found:
        parse_form(b"{}", "application/json")
    assert found.value.status == 415
    with pytest.raises(PageError):
        parse_fields("&".join("a=1" for _ in range(101)))


def test_the_length_of_a_form_is_bounded_before_it_is_read():
    for length in ("65537", "9" * 5_000):
        request = make_request("POST", headers={"content-length": length})
        with pytest.raises(PageError) as found:
            request.parse()
        assert found.value.status == 413


def test_a_response_has_no_caching_unless_it_sets_it():
    assert ("cache-control", "no-store") in AdminResponse(HTTPStatus.OK).complete_headers()
    kept = AdminResponse(HTTPStatus.OK, headers=(("cache-control", "public"),))
    assert ("cache-control", "no-store") not in kept.complete_headers()
    assert dict(redirect("../").complete_headers())["location"] == "../"


@pytest.mark.anyio
async def test_sockets_are_closed_and_other_protocols_are_errors():
    """A visitor who opens a socket causes no traceback in the log."""
    sent = []

    async def send(message):
        sent.append(message)

    application = Site().application
    await application({"type": "websocket"}, None, send)
    assert sent == [{"type": "websocket.close", "code": 1000}]
    with pytest.raises(ValueError, match="lifespan"):
        await application({"type": "lifespan"}, None, send)


@pytest.mark.parametrize("length", ["\u00b2", "-1", "1_0", " 3", "x", ""])
def test_a_length_that_is_no_number_is_ignored(length):
    request = make_request("POST", headers={"content-length": length})
    request.parse()


def test_a_form_that_ends_early_is_400():
    """A broken connection must not confirm with a part of the form."""
    headers = {"content-length": "9", "content-type": "application/x-www-form-urlencoded"}
    request = make_request("POST", headers=headers, body=b"typed=ad")
    with pytest.raises(PageError, match="incomplete"):
        request.parse()
