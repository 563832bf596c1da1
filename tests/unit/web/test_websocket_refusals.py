"""Sockets are refused or closed because of an unhandled session error."""

from __future__ import annotations

import asyncio
import logging

import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse

import sojourn
from sojourn import Sessions
from sojourn.errors import (
    ConfigurationError,
    LimitReached,
    LoginRequired,
    SessionGone,
    SessionRequired,
    StoreError,
    StoreUnavailable,
)
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from tests.unit.web.asgi_client import Wire, begin, visit

pytestmark = pytest.mark.anyio

SECRET = "a secret for tests: 5f8c1e90"
ACCEPT = {"type": "websocket.accept"}


def close(code, reason):
    return {"type": "websocket.close", "code": code, "reason": reason}


async def for_users(scope, receive, send):
    """Accept users only."""
    await receive()
    user = scope["session"].require_user()
    await send(ACCEPT)
    await send({"type": "websocket.send", "text": user})


async def for_visitors(scope, receive, send):
    """Accept visitors with a session only."""
    await receive()
    scope["session"].require_existing()
    await send(ACCEPT)
    await send({"type": "websocket.send", "text": "hello"})


def logs_in(session):
    session.login("ada")


async def sent_to(app, sessions, **options):
    wire = Wire(app, sessions, **options).start()
    wire.disconnect()
    await wire.end()
    return wire.sent


class TestRequirements:
    async def test_socket_that_requires_a_user_is_accepted_and_closed_without_one(self):
        """W1, ASVS 7.4.1: a browser can read the close code; a refused handshake is always 1006."""
        sessions = Sessions(store="memory://")
        _, anonymous = await visit(sessions, begin)
        for cookie in (None, anonymous):
            sent = await sent_to(for_users, sessions, cookie=cookie)
            assert sent == [ACCEPT, close(4401, "login required")]
        _, cookie = await visit(sessions, logs_in, anonymous)
        sent = await sent_to(for_users, sessions, cookie=cookie)
        assert sent[1] == {"type": "websocket.send", "text": "ada"}

    async def test_socket_that_requires_a_session_is_accepted_and_closed_without_one(self):
        """W1."""
        sessions = Sessions(store="memory://", close_code=4000)
        assert await sent_to(for_visitors, sessions) == [ACCEPT, close(4000, "session required")]
        _, cookie = await visit(sessions, begin)
        sent = await sent_to(for_visitors, sessions, cookie=cookie)
        assert sent[1] == {"type": "websocket.send", "text": "hello"}

    async def test_socket_of_a_revoked_session_is_closed_with_the_reason(self):
        """W4: also after a reconnect."""
        sessions = Sessions(store="memory://")
        seen, cookie = await visit(sessions, logs_in)
        await sessions.arevoke(seen["id"], reason="stolen phone")
        sent = await sent_to(for_users, sessions, cookie=cookie)
        assert sent == [ACCEPT, close(4401, "stolen phone")]

    async def test_old_login_closes_a_socket_that_requires_a_recent_one(self):
        """ASVS 7.5.1."""

        async def handler(scope, receive, send):
            await receive()
            scope["session"].require_recent("5 minutes")

        sessions = Sessions(store="memory://")
        sent = await sent_to(handler, sessions)
        assert sent == [ACCEPT, close(4401, "recent login required")]

    async def test_requirement_after_the_accept_closes_the_socket(self):
        """W1."""

        async def handler(scope, receive, send):
            await receive()
            await send(ACCEPT)
            scope["session"].require_user()

        sent = await sent_to(handler, Sessions(store="memory://"))
        assert sent == [ACCEPT, close(4401, "login required")]

    async def test_refusal_selects_a_subprotocol(self):
        """RFC 6455 4.1: browsers fail a handshake that selects none of the offered subprotocols."""
        sent = await sent_to(
            for_users, Sessions(store="memory://"), subprotocols=["graphql-ws", "other"]
        )
        assert sent[0] == {**ACCEPT, "subprotocol": "graphql-ws"}

    async def test_refusal_has_the_ticket_of_a_rotation(self):
        """A9, W8: the rotation is committed although the handler fails."""

        async def handler(scope, receive, send):
            await receive()
            scope["session"].rotate()
            scope["session"].require_user()

        sessions = Sessions(store="memory://")
        _, cookie = await visit(sessions, begin)
        [accept, _] = await sent_to(handler, sessions, cookie=cookie)
        [(name, value)] = accept["headers"]
        assert name == b"set-cookie"
        after = value.split(b";")[0].removeprefix(b"sid=").decode()
        assert (await visit(sessions, cookie=after))[0]["counter"] == 0

    async def test_refusal_drops_the_changes_of_the_handler(self):
        """A10: and creates no session."""

        async def handler(scope, receive, send):
            await receive()
            scope["session"]["seen"] = True
            scope["session"].require_user()

        sessions = Sessions(store="memory://")
        assert await sent_to(handler, sessions) == [ACCEPT, close(4401, "login required")]
        assert await sessions.acount() == 0

    async def test_handler_may_catch_the_error_and_refuse(self):
        """A23."""

        async def handler(scope, receive, send):
            await receive()
            try:
                scope["session"].require_user()
            except SessionRequired:  # a base class of LoginRequired
                await send({"type": "websocket.close", "code": 4003, "reason": "members only"})

        assert await sent_to(handler, Sessions(store="memory://")) == [close(4003, "members only")]

    async def test_error_in_a_task_group_closes_the_socket(self):
        """A23: asyncio and anyio wrap it in an exception group."""

        async def handler(scope, receive, send):
            await receive()
            await send(ACCEPT)

            async def check():
                scope["session"].require_user()

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(receive())
                tasks.create_task(check())

        wire = Wire(handler, Sessions(store="memory://")).start()
        await wire.end()
        assert wire.sent == [ACCEPT, close(4401, "login required")]

    async def test_other_errors_in_the_group_are_raised(self):
        async def handler(scope, receive, send):
            await receive()
            raise ExceptionGroup("two", [LoginRequired(), ValueError("a bug")])

        with pytest.raises(ExceptionGroup):
            await sent_to(handler, Sessions(store="memory://"))

    async def test_disconnected_client_is_no_error(self):
        wire = Wire(for_users, Sessions(store="memory://"))
        wire.lost = True
        wire.start()
        await wire.end()
        assert wire.sent == []

    async def test_failing_store_is_not_a_missing_session(self):
        """A15: with on_store_failure="anonymous"."""
        store = FaultyStore(MemoryStore())
        sessions = Sessions(store=store, secret=SECRET, on_store_failure="anonymous")
        _, cookie = await visit(sessions, begin)
        store.fail()
        for app in (for_users, for_visitors):
            sent = await sent_to(app, sessions, cookie=cookie)
            assert sent == [ACCEPT, close(1013, "session store unavailable")]


class TestCloseCode:
    async def test_revoked_session_closes_with_the_configured_code(self):
        """W4."""
        sessions = Sessions(store="memory://", close_code=3000)
        codes = []

        async def handler(scope, receive, send):
            await receive()
            await send(ACCEPT)
            codes.append((await receive())["code"])

        seen, cookie = await visit(sessions, begin)
        wire = Wire(handler, sessions, cookie=cookie).start()
        await wire.recv()
        await sessions.arevoke(seen["id"])
        assert await wire.recv() == close(3000, "revoked")
        await wire.end()
        assert codes == [3000]

    @pytest.mark.parametrize("code", [1000, 1006, 1015, 2999, 5000, True, "4401", None, 4401.0])
    async def test_codes_of_the_protocol_are_refused(self, code):
        """RFC 6455 7.4: an application may not send most of them."""
        with pytest.raises(ConfigurationError, match="close_code expects a close code"):
            Sessions(store="memory://", close_code=code)

    @pytest.mark.parametrize("code", [1008, 3000, 4999])
    async def test_codes_for_applications_are_accepted(self, code):
        assert Sessions(store="memory://", close_code=code).web.config.close_code == code


class TestEndedSession:
    """An explicit call finds that another process ended the session."""

    @pytest.mark.parametrize("accepted", [True, False])
    @pytest.mark.parametrize("verb", ["arefresh", "acommit", "aclaim"])
    async def test_explicit_call_closes_with_the_reason(self, verb, accepted, caplog):
        """A21, W4: no traceback."""
        store = MemoryStore()
        here = Sessions(store=store, secret=SECRET)
        there = Sessions(store=store, secret=SECRET)

        async def handler(scope, receive, send):
            await receive()
            if accepted:
                await send(ACCEPT)
            await there.arevoke(seen["id"], reason="stolen phone")
            session = scope["session"]
            session["late"] = True
            await getattr(session, verb)(*(["late"] if verb == "aclaim" else []))

        seen, cookie = await visit(here, begin)
        with caplog.at_level(logging.INFO):
            sent = await sent_to(handler, here, cookie=cookie)
        assert sent == [ACCEPT, close(4401, "stolen phone")]
        assert {record.levelname for record in caplog.records} == {"INFO"}
        assert not any(record.exc_info for record in caplog.records)

    async def test_session_without_a_tombstone_closes_with_a_general_reason(self):
        """W4: as after a deletion of the record by an operator of the store."""
        store = MemoryStore()
        sessions = Sessions(store=store, secret=SECRET)

        async def handler(scope, receive, send):
            await receive()
            await send(ACCEPT)
            await store.delete(bytes.fromhex(seen["id"]))
            await scope["session"].arefresh()

        seen, cookie = await visit(sessions, begin)
        sent = await sent_to(handler, sessions, cookie=cookie)
        assert sent == [ACCEPT, close(4401, "ended")]

    async def test_handler_that_catches_the_error_is_closed_at_its_next_call(self):
        """W4."""
        store = MemoryStore()
        here = Sessions(store=store, secret=SECRET)
        there = Sessions(store=store, secret=SECRET)

        async def handler(scope, receive, send):
            await receive()
            await send(ACCEPT)
            await there.arevoke(seen["id"], reason="stolen phone")
            with pytest.raises(SessionGone):
                await scope["session"].arefresh()
            assert (await receive())["code"] == 4401

        seen, cookie = await visit(here, begin)
        wire = Wire(handler, here, cookie=cookie).start()
        await wire.end()
        assert wire.sent == [ACCEPT, close(4401, "stolen phone")]

    async def test_end_of_another_session_is_raised_as_an_error_of_the_handler(self):
        """A23: the socket's own session is valid."""
        sessions = Sessions(store="memory://")

        async def handler(scope, receive, send):
            await receive()
            await send(ACCEPT)
            raise SessionGone("00" * 16)

        _, cookie = await visit(sessions, begin)
        with pytest.raises(SessionGone):
            await sent_to(handler, sessions, cookie=cookie)


class TestFailingStore:
    @pytest.mark.parametrize(
        ("error", "code", "reason"),
        [
            (StoreUnavailable("down"), 1013, "session store unavailable"),
            (StoreError("damaged"), 1011, "session store failed"),
        ],
    )
    async def test_explicit_commit_closes_with_the_code_and_one_line(
        self, error, code, reason, caplog
    ):
        """A23, RFC 6455 7.4.1: 1013 is "try again later", 1011 an internal error."""
        store = FaultyStore(MemoryStore())
        sessions = Sessions(store=store, secret=SECRET)

        async def handler(scope, receive, send):
            await receive()
            await send(ACCEPT)
            store.fail("save", error=error)
            scope["session"]["a"] = 1
            await scope["session"].acommit()

        _, cookie = await visit(sessions, begin)
        sent = await sent_to(handler, sessions, cookie=cookie)
        assert sent == [ACCEPT, close(code, reason)]
        [record] = caplog.records
        assert str(error) in record.getMessage()
        assert record.exc_info is None

    async def test_failed_commit_at_the_end_closes_with_the_code(self, caplog):
        """A23: the handler has returned."""
        store = FaultyStore(MemoryStore())
        sessions = Sessions(store=store, secret=SECRET)

        async def handler(scope, receive, send):
            await receive()
            await send(ACCEPT)
            store.fail("save")
            scope["session"]["a"] = 1

        _, cookie = await visit(sessions, begin)
        sent = await sent_to(handler, sessions, cookie=cookie)
        assert sent == [ACCEPT, close(1013, "session store unavailable")]
        assert len(caplog.records) == 1

    async def test_error_of_the_handler_is_not_replaced_by_that_of_the_store(self, caplog):
        """A23: the commit after the failure fails as well."""
        store = FaultyStore(MemoryStore())
        sessions = Sessions(store=store, secret=SECRET)

        async def handler(scope, receive, send):
            await receive()
            await send(ACCEPT)
            store.fail()
            scope["session"].destroy()
            raise ValueError("a bug")

        _, cookie = await visit(sessions, begin)
        caplog.set_level(logging.DEBUG, "sojourn")
        with pytest.raises(ValueError, match="a bug"):
            await sent_to(handler, sessions, cookie=cookie)
        assert "was not committed" in caplog.text


DENIAL = {"extensions": {"websocket.http.response": {}}}


class TestOnError:
    """``on_error`` responds in place of the accept."""

    @staticmethod
    def denying(status=303, calls=None, *, only=Exception):
        """Return an ``on_error`` whose response is a plain ASGI application."""

        async def respond(scope, receive, send):
            headers = [(b"location", b"/login")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"see there"})

        def on_error(scope, error):
            if calls is not None:
                calls.append((scope["type"], scope["path"], type(error)))
            return respond if isinstance(error, only) else None

        return on_error

    @staticmethod
    def check(sent, status, *more):
        [start, body] = sent
        assert start["type"] == "websocket.http.response.start"
        assert start["status"] == status
        assert (b"location", b"/login") in start["headers"]
        for header in more:
            assert header in start["headers"]
        assert body == {"type": "websocket.http.response.body", "body": b"see there"}

    @pytest.mark.parametrize("asynchronous", [False, True])
    async def test_on_error_responds_to_a_missing_login(self, asynchronous):
        """A23: the response has ``Vary: Cookie`` (A13)."""
        calls = []
        function = on_error = self.denying(calls=calls)
        if asynchronous:

            async def on_error(scope, error):
                return function(scope, error)

        sessions = Sessions(store="memory://", on_error=on_error)
        sent = await sent_to(for_users, sessions, **DENIAL)
        self.check(sent, 303, (b"vary", b"Cookie"))
        assert calls == [("websocket", "/socket", LoginRequired)]

    async def test_on_error_responds_to_a_failed_load(self, caplog):
        """A23: before the handler runs."""
        store = FaultyStore(MemoryStore())
        sessions = Sessions(store=store, secret=SECRET, on_error=self.denying(503))
        _, cookie = await visit(sessions, begin)
        store.fail("load")
        self.check(await sent_to(for_users, sessions, cookie=cookie, **DENIAL), 503)
        [record] = caplog.records
        assert record.getMessage().startswith("the session store failed (load)")

    async def test_on_error_responds_to_a_failed_commit_at_the_accept(self):
        """A23: LimitReached is found at the commit."""

        async def handler(scope, receive, send):
            await receive()
            scope["session"].login("ada")
            await send(ACCEPT)

        calls = []
        sessions = Sessions(
            store="memory://",
            max_sessions=1,
            on_limit="refuse",
            on_error=self.denying(409, calls),
        )
        await visit(sessions, logs_in)
        self.check(await sent_to(handler, sessions, **DENIAL), 409)
        assert calls[0][2] is LimitReached

    async def test_on_error_responds_to_an_error_in_a_task_group(self):
        """A23."""

        async def handler(scope, receive, send):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(for_users(scope, receive, send))

        sessions = Sessions(store="memory://", on_error=self.denying())
        self.check(await sent_to(handler, sessions, **DENIAL), 303)

    async def test_error_response_has_the_ticket_of_a_rotation(self):
        """A9, A10."""

        async def handler(scope, receive, send):
            await receive()
            scope["session"].rotate()
            scope["session"]["lost"] = True
            scope["session"].require_user()

        sessions = Sessions(store="memory://", on_error=self.denying())
        _, cookie = await visit(sessions, begin)
        [start, _] = await sent_to(handler, sessions, cookie=cookie, **DENIAL)
        [value] = [value for name, value in start["headers"] if name == b"set-cookie"]
        after = value.split(b";")[0].removeprefix(b"sid=").decode()
        assert after != cookie
        assert "lost" not in (await visit(sessions, cookie=after))[0]

    def logging_out(self, before=lambda: None):
        """Return an ``on_error`` that logs out, and then responds as ``denying`` does."""
        respond = self.denying()

        def on_error(scope, error):
            before()
            scope["session"].logout()
            return respond(scope, error)

        return on_error

    async def test_on_error_that_logs_out_clears_the_cookie(self):
        """A10: changes of ``on_error`` are committed before its response."""
        sessions = Sessions(store="memory://", on_error=self.logging_out())
        _, cookie = await visit(sessions, begin)
        [start, body] = await sent_to(for_users, sessions, cookie=cookie, **DENIAL)
        assert (start["status"], body["body"]) == (303, b"see there")
        assert sum(name == b"set-cookie" for name, _ in start["headers"]) == 1
        assert await sessions.acount() == 0

    async def test_response_of_on_error_is_not_sent_if_its_logout_fails(self):
        """A10, A23: the response is 503 instead."""
        store = FaultyStore(MemoryStore())
        on_error = self.logging_out(lambda: store.fail("delete"))
        sessions = Sessions(store=store, secret=SECRET, on_error=on_error)
        _, cookie = await visit(sessions, begin)
        [start, _] = await sent_to(for_users, sessions, cookie=cookie, **DENIAL)
        assert start["status"] == 503
        assert (b"retry-after", b"2") in start["headers"]
        store.heal()
        assert (await visit(sessions, cookie=cookie))[1] == cookie

    async def test_on_error_that_returns_none_keeps_the_default(self):
        """A23: a close with the code and the reason."""
        sessions = Sessions(store="memory://", on_error=self.denying(only=StoreError))
        sent = await sent_to(for_users, sessions, **DENIAL)
        assert sent == [ACCEPT, close(4401, "login required")]

    async def test_server_without_denial_responses_sends_the_default(self):
        """A23: ``on_error`` is not called, because its response cannot be sent."""
        calls = []
        sessions = Sessions(store="memory://", on_error=self.denying(calls=calls))
        assert await sent_to(for_users, sessions) == [ACCEPT, close(4401, "login required")]
        assert calls == []

    async def test_on_error_is_not_called_after_the_accept(self):
        """A23: the handler may catch the error; otherwise the socket is closed."""

        async def handler(scope, receive, send):
            await receive()
            await send(ACCEPT)
            scope["session"].require_user()

        calls = []
        sessions = Sessions(store="memory://", on_error=self.denying(calls=calls))
        sent = await sent_to(handler, sessions, **DENIAL)
        assert sent == [ACCEPT, close(4401, "login required")]
        assert calls == []

    @pytest.mark.parametrize("error", [ValueError("a bug"), ConfigurationError("the set-up")])
    async def test_errors_of_the_application_are_raised(self, error):
        """A23."""

        async def handler(scope, receive, send):
            raise error

        calls = []
        sessions = Sessions(store="memory://", on_error=self.denying(calls=calls))
        with pytest.raises(type(error)):
            await sent_to(handler, sessions, **DENIAL)
        assert calls == []

    async def test_disconnected_client_is_no_error(self):
        """A12."""
        sessions = Sessions(store="memory://", on_error=self.denying())
        wire = Wire(for_users, sessions, **DENIAL)
        wire.lost = True
        await wire.start().end()
        assert wire.sent == []

    @pytest.mark.parametrize("layered", [False, True])
    async def test_response_of_starlette(self, layered):
        """A23: the argument has the members that ``Request`` and ``WebSocket`` share."""
        calls = []

        def on_error(connection, error):
            calls.append((type(connection), connection.url.path, connection.session.user))
            return PlainTextResponse("members only", 403)

        async def members(websocket):
            websocket.session.require_user()

        app = Starlette(routes=[WebSocketRoute("/members", members)], debug=layered)
        sojourn.install(app, store="memory://", on_error=on_error)
        with (
            pytest.raises(WebSocketDenialResponse) as denied,
            TestClient(app).websocket_connect("/members"),
        ):
            pass
        assert (denied.value.status_code, denied.value.text) == (403, "members only")
        assert denied.value.headers["vary"] == "Cookie"
        assert calls == [(HTTPConnection, "/members", None)]
