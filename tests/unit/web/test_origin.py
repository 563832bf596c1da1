"""Which requests that change something are let through, by where they come from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.errors import ConfigurationError
from sojourn.web.origin import SAFE_METHODS, Refusal, check_protect, check_request, refusal_response
from sojourn.web.transport import validate_origins

HOST = "shop.example.com"
OURS, SIBLING, FOREIGN = f"https://{HOST}", "https://blog.example.com", "https://evil.test"
ALLOWED = validate_origins([SIBLING])
UNSAFE = ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "PROPFIND", "get", "Get", ""]

unsafe = pytest.mark.parametrize("method", UNSAFE)


def judged(method="POST", scheme="https", **request):
    """Judge a request of a logged-in visitor from elsewhere, as the test changes it."""
    usual = {"site": None, "origin": None, "host": HOST, "local": False, "ticket": True}
    return check_request(method, scheme, **{**usual, "allowed": ALLOWED, **request})


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("site", [None, "cross-site", "same-site", "none", "?"])
@pytest.mark.parametrize("origin", [None, "null", FOREIGN])
def test_safe_methods_pass_from_everywhere(method, site, origin):
    """Links from other sites work, and so do CORS preflights (RFC 9110 9.2.1)."""
    assert judged(method, site=site, origin=origin) is None


def test_no_other_method_is_safe():
    """ASVS 3.5.3."""
    assert {"GET", "HEAD", "OPTIONS", "TRACE"} == SAFE_METHODS


@unsafe
@pytest.mark.parametrize("site", ["same-origin", "none"])
@pytest.mark.parametrize("origin", [None, OURS])
def test_our_own_pages_pass(method, site, origin):
    assert judged(method, site=site, origin=origin) is None


@unsafe
@pytest.mark.parametrize("origin", [None, "null", OURS, SIBLING, FOREIGN])
@pytest.mark.parametrize("ticket", [True, False])
@pytest.mark.parametrize("local", [True, False])
def test_other_sites_are_refused(method, origin, ticket, local):
    """ASVS 3.5.1, 3.5.3: whatever else the request says; also without a ticket (login CSRF)."""
    found = judged(method, site="cross-site", origin=origin, ticket=ticket, local=local)
    assert found is Refusal.CROSS_SITE


@unsafe
def test_siblings_are_refused_unless_allowed(method):
    """ASVS 3.5.1, B-27: a subdomain that is taken over is not our page."""
    for origin in (None, "null", FOREIGN, "https://x.example.com", SIBLING + ":8443"):
        assert judged(method, site="same-site", origin=origin) is Refusal.SAME_SITE
    assert judged(method, site="same-site", origin=SIBLING) is None
    assert judged(method, site="same-site", origin=SIBLING.upper()) is None
    assert judged(method, site="same-site", origin=SIBLING, allowed=()) is Refusal.SAME_SITE
    # The same host by another scheme is a sibling too: anyone on the path can serve that page.
    assert judged(method, site="same-site", origin=f"http://{HOST}") is Refusal.SAME_SITE


@unsafe
@pytest.mark.parametrize(
    "site", [None, "", "future-site", "same-origin, cross-site", "SAME-ORIGIN"]
)
def test_without_a_known_site_the_origin_decides(method, site):
    """ASVS 3.5.1, A.6: the fallback is mandatory; unknown values are as good as none."""
    assert judged(method, site=site, origin=OURS) is None
    assert judged(method, site=site, origin=SIBLING) is None
    for origin in (FOREIGN, "null", "", f"http://{HOST}", f"{OURS}:8443", f"{OURS}.evil.test"):
        assert judged(method, site=site, origin=origin) is Refusal.ORIGIN


@pytest.mark.parametrize("host", [None, "", "other.example.com"])
def test_an_origin_that_no_host_answers_for_is_refused(host):
    assert judged(origin=OURS, host=host) is Refusal.ORIGIN


def test_http_behind_a_proxy_that_took_the_encryption_off_accepts_our_https_page():
    assert judged(scheme="http", origin=OURS) is None
    assert judged(scheme="http", origin=f"http://{HOST}") is None
    assert judged(scheme="http", origin=FOREIGN) is Refusal.ORIGIN


@unsafe
def test_a_request_without_the_headers_passes_only_without_a_ticket(method):
    """ASVS 3.5.1: a program has nothing to forge with; a browser that was silenced is refused."""
    assert judged(method, ticket=False) is None
    assert judged(method, ticket=True) is Refusal.UNKNOWN
    assert judged(method, ticket=True, local=True) is None


def test_a_page_of_another_port_of_this_machine_is_refused():
    """Test clients on this machine need no Origin, but an Origin that is sent is checked."""
    host = "localhost:8000"
    for origin, passes in (("http://localhost:8000", True), ("http://localhost:3000", False)):
        found = judged(scheme="http", host=host, local=True, origin=origin)
        assert (found is None) is passes


@given(
    st.text(max_size=10),
    st.none() | st.sampled_from(["cross-site", "same-site"]) | st.text(max_size=10),
    st.sampled_from(["null", FOREIGN, f"{OURS}@evil.test"]) | st.text(max_size=20),
)
def test_nothing_of_another_origin_passes(method, site, origin):
    """B-43 for requests: the attacker chooses its page, its method and when, not our page."""
    if method in SAFE_METHODS or site in ("same-origin", "none"):
        return
    if origin.lower() not in {OURS, SIBLING}:
        assert isinstance(judged(method, site=site, origin=origin), Refusal)


@pytest.mark.parametrize("refusal", Refusal)
def test_the_response_states_the_reason_and_is_not_cacheable(refusal):
    """ASVS 14.3.2; security.md A.6: Vary names what the answer depends on."""
    headers, body = refusal_response(refusal)
    fields = dict(headers)
    assert refusal.value in body.decode()
    assert int(fields[b"content-length"]) == len(body)
    assert fields[b"content-type"] == b"text/plain; charset=utf-8"
    assert fields[b"cache-control"] == b"no-store"
    assert fields[b"vary"] == b"Sec-Fetch-Site, Origin, Cookie"
    assert all(name == name.lower() for name in fields)


def test_protection_and_every_origin_contradict_each_other():
    """B-60: no option that is set and protects nothing."""
    with pytest.raises(ConfigurationError, match=r"protect=True .* allowed_origins='\*'"):
        check_protect(protect=True, allowed_origins=validate_origins("*"))
    assert check_protect(protect=True, allowed_origins=ALLOWED) is True
    assert check_protect(protect=False, allowed_origins=validate_origins("*")) is False
