"""The response has the ticket, although the application changed the headers after it was added."""

import logging

import pytest

from sojourn import Sessions
from sojourn.web.ticket_protection import combine_added, find_added, protect_ticket

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"

TYPE = (b"content-type", b"text/html")
VARY = (b"vary", b"Cookie")
NO_STORE = (b"cache-control", b"private, no-store")
TICKET = (b"set-cookie", b"sid=1; Path=/")
WRITTEN = (b"set-cookie", b"sid-written=1")
CLEAR = (b"clear-site-data", b'"cache"')


@pytest.fixture
def web():
    return Sessions(store="memory://", secret=SECRET).web


class TestFindAdded:
    @pytest.mark.parametrize("added", [[TICKET], [TICKET, WRITTEN], [TICKET, WRITTEN, CLEAR]])
    def test_added_headers_are_those_after_cache_control(self, web, added):
        own = [TYPE, (b"set-cookie", b"theme=dark"), VARY, NO_STORE]
        assert find_added(web, own + added) == added
        assert find_added(web, [NO_STORE, *added]) == added

    @pytest.mark.parametrize(
        "headers",
        [
            [],
            [TYPE],
            [NO_STORE],
            [TICKET],
            [TICKET, CLEAR],
            [TYPE, TICKET],
            [NO_STORE, TYPE, TICKET],
            [NO_STORE, TICKET, TYPE],
            [TICKET, VARY, NO_STORE],
        ],
    )
    def test_cookie_before_cache_control_is_the_applications(self, web, headers):
        assert find_added(web, headers) == []

    def test_ticket_of_the_header_transport_is_found(self):
        web = Sessions(store="memory://", secret=SECRET, transport="header").web
        ticket = (web.header_transport.response_header, b"ticket")
        assert find_added(web, [TYPE, NO_STORE, ticket]) == [ticket]


class TestCombineAdded:
    def test_headers_that_the_application_kept_are_sent_once(self, web):
        headers = [TYPE, VARY, NO_STORE, TICKET, CLEAR]
        assert combine_added(web, headers, [TICKET, CLEAR]) == headers

    def test_a_ticket_that_the_application_removed_is_sent(self, web):
        assert combine_added(web, iter([TYPE]), [TICKET, WRITTEN, CLEAR]) == [
            TYPE, VARY, NO_STORE, TICKET, WRITTEN, CLEAR,
        ]  # fmt: skip

    def test_response_with_a_ticket_gets_no_store(self, web, caplog):
        """A13: the application is warned that its header was replaced."""
        public = (b"Cache-Control", b"public, max-age=60")
        with caplog.at_level(logging.WARNING):
            sent = combine_added(web, [public, TYPE, TICKET], [TICKET])
        assert sent == [TYPE, VARY, NO_STORE, TICKET]
        assert "public, max-age=60" in caplog.text

    def test_a_stricter_header_of_the_application_is_kept(self, web):
        strict = (b"cache-control", b"no-store")
        sent = combine_added(web, [strict, (b"vary", b"Accept")], [TICKET])
        assert sent == [(b"vary", b"Accept, Cookie"), strict, TICKET]

    def test_the_header_transport_varies_by_its_own_header(self):
        """A13."""
        web = Sessions(store="memory://", secret=SECRET, transport="header").web
        ticket = (web.header_transport.response_header, b"ticket")
        sent = combine_added(web, [TYPE, ticket], [ticket])
        assert sent == [TYPE, (b"vary", web.header_transport.vary), NO_STORE, ticket]
        assert web.vary != VARY


class TestProtectTicket:
    def test_replaces_the_caching_headers_without_the_ticket(self, web):
        """A13: the response of the framework has the ticket already."""
        selected = [(b"Cache-Control", b"public"), (b"vary", b"Accept")]
        sent = protect_ticket(web, selected, [TICKET, CLEAR])
        assert sent == [(b"vary", b"Accept, Cookie"), NO_STORE]

    def test_adds_those_that_the_application_removed(self, web):
        """A13."""
        assert protect_ticket(web, [], [TICKET]) == [VARY, NO_STORE]
