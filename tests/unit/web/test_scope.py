"""Reading an ASGI scope."""

import pytest

from sojourn.web.asgi_scope import read_headers, read_path


@pytest.mark.parametrize(
    ("root", "path", "own"),
    [
        ("", "/account", "/account"),
        ("/api", "/api/account", "/account"),
        ("/api", "/api", "/"),
        ("/api", "/account", "/account"),
        ("/api", "/apikeys/new", "/apikeys/new"),
        ("/api", "/api/api/x", "/api/x"),
        ("", "", "/"),
    ],
)
def test_a_path_is_as_the_routes_are_written(root, path, own):
    assert read_path({"path": path, "root_path": root}) == own
    assert read_path({"path": own}) == own


def test_cookie_headers_are_joined_and_others_passed_over():
    """HTTP/2 splits the Cookie header (RFC 9113 8.2.3)."""
    headers = [(b"accept", b"x"), (b"cookie", b"a=1"), (b"host", b"h"), (b"cookie", b"b=2")]
    assert read_headers({"headers": headers}) == (b"h", b"a=1; b=2", None, False)


@pytest.mark.parametrize("name", [b"via", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto"])
def test_what_a_proxy_adds_shows(name):
    assert read_headers({"headers": [(name, b"x"), (b"origin", b"o")]}) == (None, None, b"o", True)
