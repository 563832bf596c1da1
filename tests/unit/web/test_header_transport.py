"""The ticket in a header or a WebSocket subprotocol: reading, sending and refusing it."""

import asyncio
import time

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import sojourn
from sojourn import Sessions
from sojourn.errors import ConfigurationError
from sojourn.events import Rejected
from sojourn.testing import HandlerResponse, open_session
from sojourn.web.header_transport import HeaderTransport, accepted_protocol, application_protocols
from sojourn.web.lifecycle import SessionLifecycle
from tests.frameworks.apps import asgi_app, wsgi_app
from tests.unit.web.asgi_client import Wire

pytestmark = pytest.mark.anyio

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"
BOTH = ["cookie", "header"]


async def count(session):
    return HandlerResponse(body=str(session.increment("n")).encode())


async def look(session):
    return HandlerResponse(body=str(session.get("n")).encode())


async def logout(session):
    session.logout()


HANDLERS = {"/count": count, "/look": look, "/logout": logout}


class Client:
    """A client without a cookie jar, of an application over ASGI or WSGI."""

    def __init__(self, kind, **options):
        options = {"store": "memory://", "secret": SECRET, **options}
        self.app, self.sessions = (asgi_app if kind == "asgi" else wsgi_app).build(
            HANDLERS, **options
        )
        self.rejected = []
        self.sessions.on(Rejected, lambda event: self.rejected.append(event.reason))
        self._wsgi = kind == "wsgi"

    async def get(self, path, *headers, method="GET", url="http://localhost"):
        if self._wsgi:  # in a thread without an event loop
            with httpx.Client(transport=httpx.WSGITransport(self.app), base_url=url) as client:
                return await asyncio.to_thread(client.request, method, path, headers=list(headers))
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url=url) as client:
            return await client.request(method, path, headers=list(headers))

    async def start(self, *headers):
        """Return the ticket of a session with ``n == 1``."""
        response = await self.get("/count", *(headers or [("Authorization", "Session")]))
        assert "set-cookie" not in response.headers
        return response.headers["session-ticket"]


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request):
    return request.param


def bearing(ticket):
    return ("Authorization", f"Session {ticket}")


class TestHeader:
    async def test_new_ticket_is_sent_in_the_response_header(self, kind):
        """A2, A4: once, and without a cookie."""
        client = Client(kind, transport="header")
        ticket = await client.start()
        response = await client.get("/count", bearing(ticket))
        assert response.text == "2"
        assert {"session-ticket", "set-cookie"}.isdisjoint(response.headers)

    async def test_destroyed_session_sends_an_empty_header(self, kind):
        """A7."""
        client = Client(kind, transport="header")
        ticket = await client.start()
        response = await client.get("/logout", bearing(ticket))
        assert response.headers["session-ticket"] == ""
        assert (await client.get("/look", bearing(ticket))).text == "None"

    @pytest.mark.parametrize("scheme", ["Session", "session", "SESSION"])
    async def test_the_scheme_is_case_insensitive(self, kind, scheme):
        """RFC 9110 11.1."""
        client = Client(kind, transport="header")
        ticket = await client.start()
        response = await client.get("/look", ("Authorization", f"{scheme}  {ticket} "))
        assert response.text == "1"

    async def test_another_scheme_is_not_a_ticket(self, kind):
        """A8."""
        client = Client(kind, transport=BOTH)
        ticket = await client.start()
        response = await client.get("/count", ("Authorization", f"Bearer {ticket}"))
        assert (response.text, client.rejected) == ("1", [])
        assert "set-cookie" in response.headers

    async def test_header_name_is_an_option(self, kind):
        client = Client(kind, transport="header", header="X-Session")
        response = await client.get("/count")
        ticket = response.headers["x-session"]
        response = await client.get("/count", ("X-Session", ticket))
        assert (response.text, response.headers["vary"]) == ("2", "X-Session")

    async def test_cookies_are_not_read(self, kind):
        client = Client(kind, transport="header")
        ticket = await client.start()
        assert (await client.get("/look", ("Cookie", f"sid={ticket}"))).text == "None"

    async def test_no_ticket_over_an_insecure_transport(self, kind):
        """A8: as with cookies."""
        client = Client(kind, transport="header")
        ticket = await client.start()
        with pytest.raises(sojourn.errors.InsecureTransport):
            await client.get("/count", bearing(ticket), url="http://shop.example")

    async def test_ticket_is_bound_to_the_cookie_name(self, kind):
        """B-14: the same associated data as with cookies."""
        ticket = await Client(kind, transport="header", cookie="one").start()
        other = Client(kind, transport="header", cookie="two")
        await other.get("/look", bearing(ticket))
        assert other.rejected == ["forged"]


def cpu_seconds(call):
    """Return the CPU time of a call in this thread: the minimum of several, without other load."""
    best = float("inf")
    for _ in range(7):
        started = time.thread_time()
        call()
        best = min(best, time.thread_time() - started)
    return best


class TestInvalid:
    @pytest.mark.parametrize(
        "value", ["x", "A" * 66, "../../etc/passwd", "%00", "ü" * 66, "A" * 65_536, "A, " * 20_000]
    )
    async def test_invalid_ticket_is_rejected_without_a_store_call(self, kind, value):
        """A8, A19, B-22: 64 KiB cost less than 5 ms."""
        client = Client(kind, transport=BOTH)
        read = {"authorization": f"Session {value}"}.get
        web = client.sessions.web
        web.read_header_ticket(web.classify("https", None, False), b"sid=x", read)
        client.rejected.clear()

        def read_ticket():
            return web.read_header_ticket(web.classify("https", None, False), None, read)

        ticket = read_ticket()
        rejected = list(client.rejected)
        assert cpu_seconds(read_ticket) < 0.005
        reason = "forged" if value == "A" * 66 else "malformed"
        assert (ticket, rejected) == (None, [reason])

    @pytest.mark.parametrize("offered", ["sojourn-ticket.," * 4_000, "sojourn-ticket.a, " * 3_500])
    async def test_hostile_subprotocols_are_parsed_in_bounded_time(self, offered):
        """A19."""
        web = Sessions(store="memory://", transport="header").web
        read = {"sec-websocket-protocol": offered}.get

        def read_ticket():
            return web.read_header_ticket(web.classify("https", None, False), None, read)

        assert read_ticket() is None
        assert cpu_seconds(read_ticket) < 0.005

    async def test_new_session_replaces_an_invalid_ticket(self, kind):
        client = Client(kind, transport=BOTH)
        response = await client.get("/count", bearing("A" * 66))
        assert len(response.headers["session-ticket"]) == 66


class TestFind:
    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ({}, ()),
            ({"authorization": "Session"}, ("",)),
            ({"authorization": "Session a"}, ("a",)),
            ({"authorization": "Session a", "sec-websocket-protocol": "sojourn-ticket.a"}, ("a",)),
            ({"authorization": "Session", "sec-websocket-protocol": "sojourn-ticket.a"}, ("a",)),
            ({"authorization": "Session a", "sec-websocket-protocol": "sojourn-ticket."}, ("a",)),
            ({"sec-websocket-protocol": "chat, sojourn-ticket.a"}, ("a",)),
            ({"sec-websocket-protocol": "sojourn-ticket.a" + ", chat" * 200}, ("a",)),
        ],
    )
    def test_ticket_takes_precedence_over_a_request_for_one(self, headers, expected):
        found = HeaderTransport("Authorization", cookies=False).find(headers.get)
        assert found == expected

    def test_two_tickets_are_both_found(self):
        """A8: the caller rejects both."""
        headers = {"authorization": "Session a", "sec-websocket-protocol": "sojourn-ticket.b"}
        found = HeaderTransport("Authorization", cookies=False).find(headers.get)
        assert found == ("a", "b")

    def test_number_of_subprotocols_that_are_read_is_bounded(self):
        """A19."""
        offered = "chat, " * 200 + "sojourn-ticket.a"
        headers = {"sec-websocket-protocol": offered}
        assert HeaderTransport("X-Session", cookies=False).find(headers.get) == ()

    @pytest.mark.parametrize(
        ("header", "ticket", "expected"),
        [
            ("Authorization", "a", "Session a"),
            ("Authorization", "", "Session"),
            ("X-Session", "a", "a"),
        ],
    )
    def test_header_written_by_request_header_is_found(self, header, ticket, expected):
        transport = HeaderTransport(header, cookies=False)
        assert transport.request_header(ticket) == (header, expected)
        assert transport.find({header.lower(): expected}.get) == (ticket,)


class TestBoth:
    async def test_response_uses_the_transport_of_the_request(self, kind):
        """Never both in one response."""
        client = Client(kind, transport=BOTH)
        response = await client.get("/count")
        assert "set-cookie" in response.headers
        assert "session-ticket" not in response.headers
        assert response.headers["vary"] == "Cookie, Authorization"
        response = await client.get("/count", ("Authorization", "Session"))
        assert "set-cookie" not in response.headers
        assert "session-ticket" in response.headers

    async def test_equal_tickets_in_cookie_and_header_are_one(self, kind):
        """A8."""
        client = Client(kind, transport=BOTH)
        ticket = await client.start()
        response = await client.get("/count", bearing(ticket), ("Cookie", f"sid={ticket}"))
        assert response.text == "2"

    async def test_different_tickets_in_cookie_and_header_are_rejected(self, kind):
        """A8, B-27: like two cookies with different values."""
        client = Client(kind, transport=BOTH)
        one, two = await client.start(), await client.start()
        response = await client.get("/look", bearing(one), ("Cookie", f"sid={two}"))
        assert (response.text, client.rejected) == ("None", ["duplicate"])

    async def test_ticket_is_valid_in_cookie_and_header(self, kind):
        client = Client(kind, transport=BOTH)
        ticket = await client.start()
        assert (await client.get("/look", ("Cookie", f"sid={ticket}"))).text == "1"


class TestCrossOrigin:
    FOREIGN = (("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.test"))
    URL = "https://shop.example"

    async def test_request_with_a_ticket_in_a_header_is_accepted(self, kind):
        """ASVS 3.5.1: the header made the browser send a preflight request."""
        client = Client(kind, transport=BOTH, protect=True)
        headers = (("Authorization", "Session"), *self.FOREIGN)
        assert (await client.get("/count", *headers, method="POST", url=self.URL)).text == "1"

    @pytest.mark.parametrize("header", [("Authorization", "Bearer x"), ("X-Other", "1")])
    async def test_request_without_a_ticket_in_a_header_is_refused(self, kind, header):
        """ASVS 3.5.1."""
        client = Client(kind, transport=BOTH, protect=True)
        response = await client.get("/count", header, *self.FOREIGN, method="POST", url=self.URL)
        assert response.status_code == 403

    async def test_request_with_header_and_cookie_is_refused(self, kind):
        """ASVS 3.5.1: the browser adds the cookie without the page's intent."""
        client = Client(kind, transport=BOTH, protect=True)
        headers = (("Authorization", "Session x"), ("Cookie", "__Host-sid=x"), *self.FOREIGN)
        response = await client.get("/count", *headers, method="POST", url=self.URL)
        assert response.status_code == 403


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"transport": "url"}, "'cookie', 'header' or"),
            ({"transport": []}, "'cookie', 'header' or"),
            ({"header": "X-Session"}, "needs transport="),
            ({"transport": "header", "header": ""}, "a header name is"),
            ({"transport": "header", "header": "X Session"}, "a header name is"),
            ({"transport": "header", "header": "X-Session\r\nX: y"}, "a header name is"),
            ({"transport": "header", "header": "Content-Type"}, "a meaning of its own"),
            ({"transport": "header", "header": "Sec-Session"}, "a meaning of its own"),
            ({"transport": "header", "header": "cookie"}, "a meaning of its own"),
            ({"transport": "header", "header": 1}, "header expects text"),
        ],
    )
    def test_a_wrong_option_is_refused(self, options, message):
        with pytest.raises(ConfigurationError, match=message):
            Sessions(store="memory://", **options)

    def test_adapter_that_cannot_read_headers_raises(self):
        """A24: the request does not continue without the session."""
        lifecycle = SessionLifecycle(Sessions(store="memory://", transport="header").web)
        with pytest.raises(ConfigurationError, match=r"override SessionLifecycle\.header"):
            lifecycle.begin("https", b"localhost", None)


class TestOpen:
    def test_a_ticket_in_a_header(self):
        sessions = Sessions(store="memory://", transport=BOTH)
        with sessions.open(headers={"Authorization": "Session"}) as visit:
            visit.session["a"] = 1
        ticket = dict(visit.response_headers())["session-ticket"]
        with sessions.open(headers={"authorization": f"Session {ticket}"}) as visit:
            assert visit.session["a"] == 1


def read_and_accept(subprotocol=None, seen=None):
    async def handler(scope, receive, send):
        if seen is not None:
            seen.append((list(scope.get("subprotocols", ())), scope["session"].get("n")))
        await receive()
        scope["session"]["socket"] = True
        await send({"type": "websocket.accept", "subprotocol": subprotocol})
        await receive()

    return handler


def offering(*protocols, origin=None):
    headers = [(b"sec-websocket-protocol", ", ".join(protocols).encode())]
    if origin is not None:
        headers.append((b"origin", origin))
    return {"headers": headers, "subprotocols": list(protocols)}


class TestSubprotocol:
    @pytest.mark.parametrize(
        ("others", "chosen", "accepted"),
        [
            (["sojourn"], None, "sojourn"),
            (["chat", "sojourn"], "chat", "chat"),
            (["chat"], None, None),
            ([], None, None),
        ],
    )
    async def test_ticket_subprotocol_loads_the_session_and_is_not_selected(
        self, others, chosen, accepted
    ):
        """W1, A18: the handshake response does not contain the ticket."""
        client = Client("asgi", transport="header")
        ticket, seen = await client.start(), []
        scope = offering(f"sojourn-ticket.{ticket}", *others)
        wire = Wire(read_and_accept(chosen, seen), client.sessions, **scope).start()
        await wire.waited_for()
        assert seen == [([name for name in others if name != "sojourn"], 1)]
        assert wire.sent[0].get("subprotocol") == accepted
        wire.disconnect()
        await wire.end()
        assert ticket not in str(wire.sent)

    async def test_an_application_cannot_accept_the_ticket(self):
        """A18: also if it selects the first subprotocol of the raw header."""
        client = Client("asgi", transport="header")
        protocol = f"sojourn-ticket.{await client.start()}"
        wire = Wire(read_and_accept(protocol), client.sessions, **offering(protocol, "sojourn"))
        wire.start()
        await wire.waited_for()
        assert wire.sent[0]["subprotocol"] == "sojourn"
        wire.disconnect()
        await wire.end()

    async def test_new_ticket_is_in_the_handshake_response(self):
        """W8."""
        client = Client("asgi", transport=BOTH)
        wire = Wire(read_and_accept(), client.sessions, **offering("sojourn-ticket.", "sojourn"))
        wire.start()
        await wire.waited_for()
        ((name, ticket),) = wire.sent[0]["headers"]
        assert name == b"session-ticket"
        assert (await client.get("/look", bearing(ticket.decode()))).text == "None"
        assert client.rejected == []
        wire.disconnect()
        await wire.end()

    async def test_a_revocation_closes_the_socket(self):
        """W4."""
        client = Client("asgi", transport="header")
        ticket = await client.start()
        scope = offering(f"sojourn-ticket.{ticket}", "sojourn")
        wire = Wire(read_and_accept(), client.sessions, **scope).start()
        await wire.waited_for()
        await client.get("/logout", bearing(ticket))
        await wire.end()
        assert wire.sent[-1]["code"] == 4401

    @pytest.mark.parametrize(
        ("valid", "origin", "cookie", "allowed"),
        [
            (True, None, False, True),
            (False, None, False, True),
            (True, b"https://evil.test", False, True),
            (False, b"https://evil.test", False, False),
            (True, b"https://evil.test", True, False),
            (True, None, True, False),
        ],
    )
    async def test_ticket_subprotocol_is_accepted_from_any_origin(
        self, valid, origin, cookie, allowed
    ):
        """W1, ASVS 4.4.2, B-43: a page of another site cannot know the ticket."""
        client = Client("asgi", transport=BOTH)
        url = "https://shop.example"
        response = await client.get("/count", ("Authorization", "Session"), url=url)
        ticket = response.headers["session-ticket"]
        scope = offering(f"sojourn-ticket.{ticket if valid else 'x'}", "sojourn", origin=origin)
        scope["headers"].append((b"host", b"shop.example"))
        if cookie:
            scope["headers"].append((b"cookie", b"__Host-sid=" + ticket.encode()))
        wire = Wire(read_and_accept(), client.sessions, scheme="wss", **scope).start()
        if allowed:
            await wire.waited_for()
            wire.disconnect()
        await wire.end()
        assert wire.sent[0]["type"] == ("websocket.accept" if allowed else "websocket.close")

    async def test_subprotocols_are_unchanged_without_the_option(self):
        client = Client("asgi")
        seen = []
        scope = offering("sojourn-ticket.x", "sojourn")
        wire = Wire(read_and_accept("sojourn", seen), client.sessions, **scope).start()
        await wire.waited_for()
        assert seen == [(["sojourn-ticket.x", "sojourn"], None)]
        wire.disconnect()
        await wire.end()

    def test_ticket_is_never_selected_as_subprotocol(self):
        offered = ["sojourn-ticket.x", "chat", "sojourn"]
        assert application_protocols(offered) == ["chat"]
        assert accepted_protocol(offered, "sojourn-ticket.x") == "sojourn"
        assert accepted_protocol(["sojourn-ticket.x"], None) is None


@pytest.mark.parametrize("transport", ["header", BOTH])
def test_open_session_returns_the_header(transport):
    app = Starlette(routes=[Route("/", lambda r: JSONResponse(r.session.increment("n")))])
    sojourn.install(app, store="memory://", transport=transport, header="X-Session")
    opened = open_session(app, n=1)
    assert TestClient(app).get("/", headers=opened.headers).json() == 2
    assert opened.data() == {"n": 2}


def test_open_session_without_a_header():
    with pytest.raises(ConfigurationError, match="needs transport='header'"):
        _ = open_session(Sessions(store="memory://")).headers
