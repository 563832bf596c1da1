"""Clear-Site-Data: accepted directives, their quotes, and the responses that have it."""

import pytest

from sojourn.errors import ConfigurationError
from sojourn.web.clear_site_data import DIRECTIVES, ClearSiteData
from sojourn.web.transport_security import TransportSecurity


@pytest.mark.parametrize(
    ("directives", "sent"),
    [
        ((), None),
        (("cache",), b'"cache"'),
        ("cache", b'"cache"'),
        (("*",), b'"*"'),
        (("cache", "cookies", "storage"), b'"cache", "cookies", "storage"'),
        (["storage", "executionContexts"], b'"storage", "executionContexts"'),
        (("cache", "cache"), b'"cache"'),
    ],
)
def test_directives_are_quoted_in_the_header(directives, sent):
    """ASVS 14.3.1: browsers ignore a directive without its quotes."""
    assert ClearSiteData(directives).header(TransportSecurity.SECURE) == sent


def test_header_is_not_sent_by_default():
    """An application must enable it: it also clears data of sibling domains."""
    assert ClearSiteData().header(TransportSecurity.SECURE) is None


@pytest.mark.parametrize(
    "transport", [each for each in TransportSecurity if each is not TransportSecurity.SECURE]
)
def test_header_is_sent_over_https_only(transport):
    """NIST SESS-13: over http a network attacker could inject it to log visitors out."""
    assert ClearSiteData(DIRECTIVES).header(transport) is None
    assert ClearSiteData(DIRECTIVES).header(transport, new_cookie=True) is None


@pytest.mark.parametrize(
    "directive",
    ["Cache", "executioncontexts", '"cache"', "cache, cookies", "", " cache", "clientHints",
     "cache\r\nSet-Cookie: a=b", None, 1, b"cache"],
)  # fmt: skip
def test_directives_that_browsers_ignore_are_refused(directive):
    """B-60, B-58: no directive without an effect, and none that starts another header."""
    with pytest.raises(ConfigurationError, match="clear_site_data expects some of 'cache'"):
        ClearSiteData(("cache", directive))


@pytest.mark.parametrize(
    ("directives", "sent"),
    [
        ((), None),
        (("cookies",), None),
        (("cache", "cookies"), b'"cache"'),
        (("storage", "cache"), b'"storage", "cache"'),
        (("*",), b'"cache", "storage", "executionContexts"'),
        (("cache", "*"), b'"cache", "storage", "executionContexts"'),
    ],
)
def test_a_new_session_of_the_same_response_keeps_its_cookie(directives, sent):
    """ASVS 14.3.1: only data of the destroyed session is cleared."""
    assert ClearSiteData(directives).header(TransportSecurity.SECURE, new_cookie=True) == sent
