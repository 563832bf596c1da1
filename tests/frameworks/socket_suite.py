"""SocketSuite: the laws of WebSockets for frameworks with a server of their own."""

import asyncio
import contextlib

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sojourn.errors import ResponseStarted
from sojourn.legacy import StarletteCookie
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from sojourn.testing.app_suite.handlers import HANDLERS
from sojourn.testing.app_suite.served_app import SECRET
from tests.support.legacy_cookies import LEGACY_SECRET, starlette_cookie

#: Seconds within which a socket is closed after a revocation (law W4).
CLOSED_WITHIN = 1.0


async def react(session, message):
    """Reply to one message of a socket."""
    match message:
        case "write":
            return str(session.increment("n"))
        case "read":
            return str(session.get("n"))
        case "who":
            return str(session.user)
        case "login" | "create":
            try:
                if message == "login":
                    session.login("eve")
                else:
                    session["n"] = 1
            except ResponseStarted:
                return "too late"
        case "logout":
            session.logout()
        case "members":
            session.increment("n", 100)
            session.require_user()
        case "fail":
            session.increment("n", 100)
            raise LookupError("planned by the test")
    return "done"


class Served:
    """A served application and its clients."""

    def __init__(self, port, sessions, store):
        self.sessions = sessions
        self.store = store
        self.host = f"localhost:{port}"
        self.http = httpx.AsyncClient(base_url=f"http://{self.host}")

    async def get(self, path):
        """Return the body of a page."""
        return (await self.http.get(path)).text

    def socket(self, path="/ws", **options):
        """Return a client of a socket, with the cookies of the pages."""
        cookies = "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())
        headers = {"Cookie": cookies} if cookies else {}
        return connect(f"ws://{self.host}{path}", additional_headers=headers, proxy=None, **options)


async def exchange(socket, message):
    """Send a message and return the answer."""
    await socket.send(message)
    return await asyncio.wait_for(socket.recv(), 5)


def names_of(cookies):
    """Return the names of Set-Cookie headers."""
    return [each.partition("=")[0] for each in cookies]


async def closed(socket):
    """Wait for the close of a socket; return its code and reason."""
    with pytest.raises(ConnectionClosed) as caught:
        await asyncio.wait_for(socket.recv(), CLOSED_WITHIN)
    return caught.value.rcvd.code, caught.value.rcvd.reason


@pytest.mark.anyio
class SocketSuite:
    """W1 to W8; a subclass has ``build_sockets`` and ``running``.

    Attributes:
        handshake_has_headers: a response to a handshake can have the headers of the session.
    """

    handshake_has_headers = True

    @contextlib.asynccontextmanager
    async def serve(self, **options):
        """Serve pages, and a socket at ``/ws`` that answers each message with ``react``."""
        store = FaultyStore(MemoryStore())
        app, sessions = self.build_sockets(HANDLERS, react, store=store, secret=SECRET, **options)
        async with self.running(app) as port:
            served = Served(port, sessions, store)
            try:
                yield served
            finally:
                await served.http.aclose()
        sessions.close()

    async def test_a_socket_has_the_session_of_its_page(self):
        """W1, W2, W3: each reads the changes of the other."""
        async with self.serve() as served:
            await served.get("/write")
            async with served.socket() as socket:
                assert await exchange(socket, "read") == "1"
                assert await exchange(socket, "write") == "2"
                assert await served.get("/read") == "2"
                await served.get("/write")
                assert await exchange(socket, "read") == "3"
            assert await served.get("/read") == "3"

    async def test_a_visitor_without_a_session_has_an_empty_one(self):
        """W1, W8: a socket does not create a session after its handshake."""
        async with self.serve() as served, served.socket() as socket:
            assert await exchange(socket, "read") == "None"
            assert await exchange(socket, "create") == "too late"
            assert await exchange(socket, "login") == "too late"
            assert await exchange(socket, "who") == "None"

    async def test_a_foreign_origin_is_refused(self):
        """W1, B-43: before the handshake response."""
        async with self.serve() as served:
            await served.get("/write")
            with pytest.raises(InvalidStatus) as refused:
                async with served.socket(origin="https://evil.example"):
                    pass
            assert refused.value.response.status_code == 403
            async with served.socket(origin=f"http://{served.host}") as socket:
                assert await exchange(socket, "read") == "1"

    @pytest.mark.parametrize("how", ["revoke", "revoke_user", "revoke_all", "logout"])
    async def test_a_socket_is_closed_when_its_session_ends(self, how):
        """W4: with code 4401 and the reason, within a second."""
        async with self.serve() as served:
            await served.get("/login")
            async with served.socket() as socket:
                assert await exchange(socket, "who") == "ada"
                if how == "logout":
                    await served.get("/logout")
                elif how == "revoke":
                    [info] = await served.sessions.alist_user("ada")
                    await served.sessions.arevoke(info.id, reason="stolen phone")
                elif how == "revoke_user":
                    await served.sessions.arevoke_user("ada", reason="stolen phone")
                else:
                    await served.sessions.arevoke_all(reason="stolen phone")
                code, reason = await closed(socket)
                assert code == 4401
                assert reason == ("destroyed" if how == "logout" else "stolen phone")
            assert served.sessions.usage().connections == 0

    async def test_a_socket_that_logs_out_is_closed(self):
        """W4, A7: after the reply to the message."""
        async with self.serve() as served:
            await served.get("/login")
            async with served.socket() as socket:
                assert await exchange(socket, "logout") == "done"
                assert (await closed(socket))[0] == 4401
            assert (await served.get("/who")).startswith("None")

    async def test_a_socket_stays_open_after_a_rotation(self):
        """W5."""
        async with self.serve() as served:
            await served.get("/write")
            async with served.socket() as socket:
                await served.get("/rotate")
                assert await exchange(socket, "write") == "2"

    async def test_a_socket_is_closed_when_its_session_expires(self):
        """W6: also without a message."""
        async with self.serve(timeout="1 second", recheck_interval="30 seconds") as served:
            await served.get("/write")
            async with served.socket() as socket:
                assert await exchange(socket, "read") == "1"
                with pytest.raises(ConnectionClosed) as caught:
                    await asyncio.wait_for(socket.recv(), 5)
                assert caught.value.rcvd.code == 4401
                assert "expired" in caught.value.rcvd.reason

    async def test_a_failing_handler_drops_its_uncommitted_changes(self):
        """A10."""
        async with self.serve() as served:
            await served.get("/write")
            async with served.socket() as socket:
                assert await exchange(socket, "write") == "2"
                await socket.send("fail")
                with pytest.raises(ConnectionClosed):
                    # Tornado before 6.5 ends the connection five seconds after the close frame.
                    await asyncio.wait_for(socket.recv(), 10)
            assert await served.get("/read") == "2"

    async def test_a_handler_that_requires_a_user_closes_the_socket(self):
        """W4, A10: with the reason, after an accept; its changes are dropped."""
        async with self.serve() as served:
            await served.get("/write")
            async with served.socket() as socket:
                await socket.send("members")
                assert await closed(socket) == (4401, "login required")
            assert await served.get("/read") == "1"

    @pytest.mark.parametrize("call", ["load", "save"])
    async def test_a_failing_store_closes_the_socket(self, call):
        """A23: the client may try again later."""
        async with self.serve() as served:
            await served.get("/write")
            async with served.socket() as socket:
                assert await exchange(socket, "read") == "1"
                served.store.fail(call, times=1)
                await socket.send("write")
                assert await closed(socket) == (1013, "session store unavailable")
            assert await served.get("/read") == "1"

    async def test_a_closed_socket_does_not_overwrite_newer_data(self):
        """A6: the data loaded at the handshake is never written back."""
        async with self.serve() as served:
            await served.get("/write")
            async with served.socket() as socket:
                assert await exchange(socket, "read") == "1"
                await served.get("/write")
            await asyncio.sleep(0.05)  # the server processes the close
            assert await served.get("/read") == "2"

    async def test_a_failing_store_refuses_the_handshake(self):
        """A15: with 503; later requests have the session."""
        async with self.serve() as served:
            await served.get("/write")
            served.store.fail("load", times=1)
            with pytest.raises(InvalidStatus) as refused:
                async with served.socket():
                    pass
            assert refused.value.response.status_code == 503
            assert await served.get("/read") == "1"

    async def test_the_ticket_may_be_a_subprotocol(self, caplog):
        """W1: it is accepted; no response or log contains it."""
        async with self.serve(transport=["cookie", "header"]) as served:
            page = await served.http.get("/write", headers={"Authorization": "Session"})
            ticket = f"sojourn-ticket.{page.headers['session-ticket']}"
            for offered, accepted in ((["sojourn", ticket], "sojourn"), ([ticket], None)):
                async with served.socket(subprotocols=offered) as socket:
                    assert socket.subprotocol == accepted
                    assert await exchange(socket, "write") in "23"
            assert served.http.cookies == {}
            assert ticket not in caplog.text

    async def test_the_ticket_may_be_in_the_header_of_a_handshake(self):
        """W1, W4: from a page of another origin; the socket is closed with its session."""
        async with self.serve(transport="header") as served:
            page = await served.http.get("/login", headers={"Authorization": "Session"})
            header = {"Authorization": f"Session {page.headers['session-ticket']}"}
            url = f"ws://{served.host}/ws"
            origin = "https://app.example"
            async with connect(url, additional_headers=header, origin=origin, proxy=None) as socket:
                assert await exchange(socket, "who") == "ada"
                await served.sessions.arevoke_user("ada", reason="stolen phone")
                assert await closed(socket) == (4401, "stolen phone")
            with pytest.raises(InvalidStatus) as refused:
                async with served.socket(origin=origin):
                    pass
            assert refused.value.response.status_code == 403

    async def test_a_handshake_converts_the_session_of_another_library(self):
        """W8: the response sets the cookie and deletes the old one, if it can have headers."""
        reader = StarletteCookie(LEGACY_SECRET, user="user")
        options = {"read_legacy": [reader], "read_legacy_until": "2099-12-31"}
        async with self.serve(**options) as served:
            cookie = starlette_cookie({"user": "ada", "n": 7})
            served.http.cookies.set("session", cookie)
            async with served.socket() as socket:
                assert await exchange(socket, "who") == "ada"
                assert await exchange(socket, "write") == "8"
                cookies = names_of(socket.response.headers.get_all("set-cookie"))
                assert cookies == (["sid", "session"] if self.handshake_has_headers else [])
            page = await served.http.get("/read")  # the client ignored the cookies
            assert page.text == "8"
            assert names_of(page.headers.get_list("set-cookie")) == ["sid", "session"]

    async def test_sockets_after_uninstall_have_no_session(self):
        """A20: an open socket keeps its session."""
        async with self.serve() as served:
            await served.get("/write")
            async with served.socket() as socket:
                assert await exchange(socket, "write") == "2"
                self.uninstall_sockets(served)
                assert await exchange(socket, "write") == "3"

    def uninstall_sockets(self, served):
        """Uninstall sessions from the served application."""
        served.sessions.web.active = False
