"""Canaries of the HTTP rules: cookies, cache headers, origins, transports, paths."""

import re

from sojourn.web.transport_security import TransportSecurity
from tests.canaries.registry import canary

COOKIES = "sojourn.web.cookies"
CACHING = "sojourn.web.cache_headers"
PROXIES = "test_caching_proxies"
WEBSOCKET = "sojourn.web.websocket"
WSGI = "sojourn.web.wsgi"
EXCHANGE = "sojourn.web.asgi_exchange"


@canary(
    "A14, B-60", f"{COOKIES}:CookieSettings._resolve", tests="TestBareASGI unit/web/test_cookies"
)
def cookies_are_not_secure(resolve):
    def faulty(self, default_name, *, secure):
        return resolve(self, default_name, secure=False)

    return faulty


@canary("A14, B-44", f"{COOKIES}:Cookie.delete", tests="TestBareASGI unit/web/test_cookies")
def the_deleting_cookie_is_not_in_the_past(delete):
    def faulty(self):
        return delete(self).replace(b"Max-Age=0", b"Max-Age=3600")

    return faulty


@canary("A14", f"{COOKIES}:MAX_PAIR_BYTES", tests="unit/web/test_cookies")
def a_cookie_may_have_4097_bytes(limit):
    return limit + 1


@canary("B-58", f"{COOKIES}:_VALUE", tests="unit/web/test_cookies")
def a_cookie_value_may_hold_semicolons(pattern):
    return re.compile(r"(?s).*")


@canary("B-58", f"{COOKIES}:_PATH", tests="unit/web/test_cookies")
def a_cookie_path_may_hold_newlines(pattern):
    return re.compile(r"(?s).*")


@canary("B-27", f"{COOKIES}:CookieReader.__init__", tests="unit/web/test_cookies")
def a_cookie_without_a_name_is_accepted(init):
    def faulty(self, name):
        self.name = name
        self._values = re.compile(rb";[ \t]*+=?+%b=([^;]*+)" % re.escape(name.encode())).findall

    return faulty


@canary("A19, B-57", f"{COOKIES}:CookieReader.find", tests="unit/web/test_cookies")
def cookies_are_parsed_in_quadratic_time(find):
    def faulty(self, header):
        for position in range(0, len(header), 8):
            header[position:].count(b";")
        return find(self, header)

    return faulty


@canary("A8", f"{COOKIES}:CookieReader.find", tests="test_lifecycle TestBareASGI")
def the_first_of_two_cookies_wins(find):
    def faulty(self, header):
        return find(self, header)[:1]

    return faulty


@canary("B-56", f"{COOKIES}:CookieReader.find", tests="security/test_tickets")
def chunks_of_a_cookie_are_joined(find):
    def faulty(self, header):
        values = find(self, header)
        return ("".join(values),) if values else ()

    return faulty


@canary("A13, B-2", "sojourn.web.installation:VARY_COOKIE", tests="TestBareASGI")
def responses_vary_on_another_header(header):
    return (b"vary", b"Accept")


@canary("B-1, B-6", f"{CACHING}:PRIVATE_NO_STORE", tests="unit/web/test_cache_headers")
def a_response_with_the_cookie_may_be_stored(header):
    return (b"cache-control", b"private")


@canary("B-7", f"{CACHING}:add_private_headers", tests="unit/web/test_cache_headers TestBareASGI")
def the_page_of_a_user_may_be_stored(add_private_headers):
    def faulty(headers, private, vary=(b"vary", b"Cookie")):
        return add_private_headers(headers, False, vary)

    return faulty


@canary("B-5", f"{CACHING}:_add_names", tests="unit/web/test_cache_headers")
def vary_of_the_application_is_replaced(add_names):
    def faulty(vary, names):
        return names

    return faulty


@canary("A13, B-4, B-6, B-8", f"{CACHING}:_unshared", tests="TestBareASGI test_cache_headers")
def cache_control_public_stays_beside_the_cookie(unshared):
    def faulty(control):
        return control

    return faulty


@canary(
    "B-3",
    f"{CACHING}:add_private_headers",
    f"{CACHING}:apply",
    tests="TestBareASGI test_cache_headers",
)
def access_to_the_session_adds_no_header(function):
    def apply(headers, *, accessed, private, set_cookie, overruled=None, ticket_name=b"", vary=()):
        return list(headers)

    def add_private_headers(headers, private, vary=()):
        return list(headers)

    return apply if function.__name__ == "apply" else add_private_headers


@canary("B-9", f"{CACHING}:PRIVATE_NO_STORE", tests=PROXIES)
def a_response_with_the_cookie_is_cached(header):
    return (b"cache-control", b"max-age=600")


@canary(
    "W1, B-43",
    "sojourn.web.origin:origin_allowed",
    tests="web/test_websocket.py security/test_sockets",
)
def every_origin_opens_a_socket(origin_allowed):
    def faulty(*args, **kwargs):
        return True

    return faulty


@canary("B-43", "sojourn.web.origin:check_request", tests="unit/web/test_origin")
def unsafe_requests_of_every_origin_are_accepted(check_request):
    def faulty(*args, **kwargs):
        return None

    return faulty


@canary("B-58", "sojourn.web.clear_site_data:DIRECTIVES", tests="test_clear_site_data")
def every_directive_is_accepted(directives):
    class Everything(frozenset):
        def __contains__(self, directive):
            return True

    return Everything(directives)


@canary("B-23, B-28", "sojourn.web.asgi:SessionMiddleware.__call__", tests="security/test_tickets")
def a_ticket_is_read_from_another_header(call):
    async def faulty(self, scope, receive, send):
        headers = [
            (b"cookie", b"sid=" + value) if name == b"x-session-id" else (name, value)
            for name, value in scope.get("headers", ())
        ]
        await call(self, {**scope, "headers": headers}, receive, send)

    return faulty


@canary(
    "A14",
    "sojourn.web.transport_security:classify",
    tests="TestBareASGI test_lifecycle test_transport_security",
)
def every_transport_is_plain(classify):
    def faulty(scheme, host, *, secure):
        return TransportSecurity.LOCAL

    return faulty


@canary(
    "A21",
    f"{WEBSOCKET}:WebSocketConnection._receive_message",
    tests="unit/web/test_websocket_cancellation",
    raises="TimeoutError",
)
def a_cancelled_receive_drops_its_message(receive_message):
    async def faulty(self, copy):
        self._undelivered = None
        return await receive_message(self, copy)

    return faulty


@canary(
    "A21, W4",
    f"{WEBSOCKET}:WebSocketConnection._close_for_error",
    tests="unit/web/test_websocket_refusals",
    raises="SessionGone",
)
def a_revocation_is_an_error_of_the_websocket(end_for):
    async def faulty(self, error):
        return False

    return faulty


@canary("A13", f"{WSGI}:WSGIExchange._is_complete_body", tests="unit/web/test_wsgi.py")
def every_body_counts_as_complete(is_complete_body):
    def faulty(self, chunk):
        return True

    return faulty


@canary("A23", f"{WSGI}:WSGIExchange._find_response", tests="unit/web/test_wsgi_errors")
def errors_do_not_reach_the_application(find_response):
    def faulty(self, error):
        return None

    return faulty


@canary("A13", f"{EXCHANGE}:HTTPExchange._send_start", tests="unit/web/test_streams")
def every_response_counts_as_complete(send_start):
    def faulty(self, message, complete):
        return send_start(self, message, True)

    return faulty


@canary(
    "A13, B-6",
    "sojourn.web.asgi_exchange:combine_added",
    tests="unit/web/test_asgi_exchange unit/frameworks/test_starlette_caching",
)
def a_middleware_makes_a_page_with_a_ticket_public(combine_added):
    return lambda web, headers, added: [*headers, *added]


@canary("A23", f"{EXCHANGE}:HTTPExchange.answer", tests="unit/web/test_errors")
def errors_are_left_to_the_server(answer):
    async def faulty(self, *arguments, **options):
        return False

    return faulty


@canary(
    "A23",
    "sojourn.frameworks.starlette.middleware_stack:_find_handler",
    tests="unit/frameworks/test_errors",
)
def handlers_of_the_application_are_not_called(find_handler):
    return lambda handlers, error: None


@canary("A24", f"{EXCHANGE}:HTTPExchange.adopt_replacement", tests="unit/web/test_replaced_session")
def a_replaced_session_is_ignored(adopt_replacement):
    return lambda self: None


@canary(
    "A24", f"{WSGI}:WSGIExchange.adopt_replacement", tests="unit/web/test_replaced_wsgi_session"
)
def a_replaced_wsgi_session_is_ignored(adopt_replacement):
    return lambda self: None


@canary(
    "A24",
    f"{WEBSOCKET}:WebSocketConnection.adopt_replacement",
    tests="unit/web/test_replaced_websocket_session",
)
def a_replaced_session_of_a_socket_is_ignored(adopt_replacement):
    return lambda self: None


@canary("A24", f"{WSGI}:WSGIExchange._release", tests="unit/web/test_nested_wsgi")
def the_outer_session_does_not_come_back(release):
    def faulty(self):
        self._outer = None
        release(self)

    return faulty


@canary(
    "A23",
    f"{WEBSOCKET}:WebSocketConnection._answer",
    tests="unit/web/test_websocket_refusals",
)
def on_error_is_not_called_for_sockets(answer):
    async def faulty(self, raised, framework):
        return False

    return faulty


@canary(
    "A24",
    "sojourn.web.installation:WebInstallation.check_nested",
    tests="unit/frameworks/test_nested",
)
def nested_installations_may_share_a_cookie(check_nested):
    return lambda self, outer: None
