"""Clear-Site-Data: what is accepted as a directive, how it is spelled, and where it is sent."""

import pytest

from sojourn.errors import ConfigurationError
from sojourn.web.clear_site_data import DIRECTIVES, ClearSiteData
from sojourn.web.transport import Transport


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
def test_directives_are_quoted_on_the_wire(directives, sent):
    """ASVS 14.3.1: browsers ignore a directive without its quotes."""
    assert ClearSiteData(directives).header(Transport.SECURE) == sent


def test_nothing_is_cleared_by_default():
    """It hits siblings and other applications too, so it is the developer's decision."""
    assert ClearSiteData().header(Transport.SECURE) is None


@pytest.mark.parametrize("transport", [each for each in Transport if each is not Transport.SECURE])
def test_it_is_sent_over_https_alone(transport):
    """NIST SESS-13: an attacker in the network must not log visitors out of everything."""
    assert ClearSiteData(DIRECTIVES).header(transport) is None
    assert ClearSiteData(DIRECTIVES).header(transport, new_cookie=True) is None


@pytest.mark.parametrize(
    "directive",
    ["Cache", "executioncontexts", '"cache"', "cache, cookies", "", " cache", "clientHints",
     "cache\r\nSet-Cookie: a=b", None, 1, b"cache"],
)  # fmt: skip
def test_what_browsers_would_ignore_is_refused(directive):
    """B-60, B-58: no directive that does nothing, and none that is another header."""
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
    """ASVS 14.3.1: what is thrown away is of the session that ended."""
    assert ClearSiteData(directives).header(Transport.SECURE, new_cookie=True) == sent
