"""A21: a method that is interrupted at any suspension applies each change exactly once.

Each case calls a method, interrupts it at its n-th suspension, commits other requests, and then
uses the same session again, like a handler that catches the timeout.
"""

from __future__ import annotations

import abc
import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

import sojourn
from sojourn.errors import CommitOutcomeUnknown, StoreUnavailable
from tests.integration.valkey import Valkey, running
from tests.support.interruptions import (
    KINDS,
    Outcome,
    SuspendingStore,
    background_tasks_ended,
    interrupted,
)
from tests.support.working_copies import copy_of

SECRET = "a secret for the tests of interruptions"


#: Exceptions that an interrupted call may raise.
INTERRUPTIONS = (asyncio.CancelledError, TimeoutError, StoreUnavailable)


class Exchange:
    """One HTTP exchange of a visitor; a handler uses its session."""

    def __init__(self, sessions: sojourn.Sessions, cookies: str = "") -> None:
        self.sessions = sessions
        self.cookies = cookies
        self.context = sessions.open(cookies=cookies or None)

    async def begin(self) -> Exchange:
        await self.context.__aenter__()
        return self

    @property
    def session(self) -> sojourn.Session[Any]:
        return self.context.session

    async def end(self) -> str:
        """Commit as before a response; return the visitor's cookies after it."""
        await self.context.__aexit__(None, None, None)
        for name, value in self.context.response_headers():
            if name.lower() == "set-cookie":
                pair = value.partition(";")[0]
                self.cookies = "" if pair.endswith("=") else pair
        return self.cookies

    async def next(self) -> Exchange:
        """Return the visitor's next request."""
        return await Exchange(self.sessions, self.cookies).begin()


async def new_exchange(sessions: sojourn.Sessions, **data: Any) -> Exchange:
    exchange = await Exchange(sessions).begin()
    exchange.session.update(data)
    await exchange.end()
    return await exchange.next()


async def other_commits(exchange: Exchange, times: int) -> None:
    """Commit other requests of the same visitor."""
    for _ in range(times):
        other = await exchange.next()
        other.session.increment("others")
        await other.end()


# Cases: a call, and the expected state after its interruption and a further use of the session


class Case(abc.ABC):
    """One method call of a session."""

    #: Other requests that commit between the interruption and the next commit.
    others = (0, 1, 3, 5)

    async def prepare(self, sessions: sojourn.Sessions) -> Exchange:
        return await new_exchange(sessions, n=0, log=[], once="value")

    @abc.abstractmethod
    async def verb(self, exchange: Exchange) -> Any:
        """Call the method."""

    @abc.abstractmethod
    async def check(self, exchange: Exchange, *, result: Any, interrupted: bool) -> None:
        """Check the outcome with the visitor's next request."""


class Commit(Case):
    async def verb(self, exchange: Exchange) -> None:
        exchange.session.increment("n")
        exchange.session.append("log", "one")
        exchange.session["set"] = 1
        await exchange.session.acommit()

    async def check(self, exchange: Exchange, **_: Any) -> None:
        session = exchange.session
        assert (session["n"], session["log"], session["set"]) == (1, ["one"], 1)


class CommitWithLaterChanges(Commit):
    """Changes after the interruption are neither lost nor merged with those before."""

    async def again(self, exchange: Exchange) -> None:
        exchange.session.increment("n", 10)
        exchange.session.append("log", "two")

    async def check(self, exchange: Exchange, **_: Any) -> None:
        session = exchange.session
        assert (session["n"], session["log"], session["set"]) == (11, ["one", "two"], 1)


class CommitAfterConflict(Commit):
    """The save conflicts with the commit of another request and is replayed."""

    async def prepare(self, sessions: sojourn.Sessions) -> Exchange:
        exchange = await super().prepare(sessions)
        exchange.session["n"]  # loaded and decoded
        await other_commits(exchange, 1)
        return exchange


class Create(Case):
    others = (0,)

    async def prepare(self, sessions: sojourn.Sessions) -> Exchange:
        return await Exchange(sessions).begin()

    async def verb(self, exchange: Exchange) -> None:
        exchange.session.increment("n")
        await exchange.session.acommit()

    async def again(self, exchange: Exchange) -> None:
        exchange.session.append("log", "two")

    async def check(self, exchange: Exchange, **_: Any) -> None:
        assert (exchange.session["n"], exchange.session["log"]) == (1, ["two"])


class Login(Case):
    others = (0,)
    numbers = iter(range(10**9))

    async def prepare(self, sessions: sojourn.Sessions) -> Exchange:
        exchange = await super().prepare(sessions)
        exchange.user = f"user-{next(self.numbers)}"
        exchange.old = exchange.cookies
        return exchange

    async def verb(self, exchange: Exchange) -> None:
        exchange.session.increment("n")
        exchange.session.login(exchange.user, methods=("password",))
        await exchange.session.acommit()

    async def again(self, exchange: Exchange) -> None:
        exchange.session.append("log", "two")

    async def check(self, exchange: Exchange, **_: Any) -> None:
        first = exchange.first
        assert (exchange.session.user, exchange.session["n"]) == (first.user, 1)
        assert exchange.session["log"] == ["two"]
        listed = await exchange.sessions.alist_user(first.user)
        assert [info.id for info in listed] == [exchange.session.id]
        old = await Exchange(exchange.sessions, first.old).begin()
        assert old.session.user is None  # A9: the previous ticket is invalid at once


class LoginOfNewVisitor(Login):
    async def prepare(self, sessions: sojourn.Sessions) -> Exchange:
        exchange = await Exchange(sessions).begin()
        exchange.user = f"new-{next(self.numbers)}"
        exchange.old = ""
        return exchange


class Rotate(Case):
    async def verb(self, exchange: Exchange) -> None:
        exchange.session.increment("n")
        exchange.session.rotate()
        await exchange.session.acommit()

    async def check(self, exchange: Exchange, **_: Any) -> None:
        assert exchange.session["n"] == 1
        assert exchange.cookies != exchange.first.before


class Logout(Case):
    others = (0,)

    async def verb(self, exchange: Exchange) -> None:
        exchange.session.logout()
        await exchange.session.acommit()

    async def check(self, exchange: Exchange, **_: Any) -> None:
        assert exchange.cookies == ""
        old = await Exchange(exchange.sessions, exchange.first.before).begin()
        assert dict(old.session) == {}


class LogoutAndNewSession(Case):
    others = (0,)

    async def verb(self, exchange: Exchange) -> None:
        exchange.session.logout()
        exchange.session["fresh"] = True
        await exchange.session.acommit()

    async def check(self, exchange: Exchange, **_: Any) -> None:
        assert dict(exchange.session) == {"fresh": True}
        old = await Exchange(exchange.sessions, exchange.first.before).begin()
        assert dict(old.session) == {}


class Claim(Case):
    """Exactly one caller gets the value."""

    async def verb(self, exchange: Exchange) -> Any:
        return await exchange.session.aclaim("once")

    async def check(self, exchange: Exchange, *, result: Any, interrupted: bool) -> None:
        found = await exchange.session.aclaim("once")
        assert [value for value in (result, found) if value is not None] == ["value"]
        assert await exchange.session.aclaim("once") is None


class ClaimAgain(Case):
    """The same handler claims again after the timeout."""

    async def verb(self, exchange: Exchange) -> Any:
        return await exchange.session.aclaim("once")

    async def again(self, exchange: Exchange) -> None:
        exchange.claimed = await exchange.session.aclaim("once")

    async def check(self, exchange: Exchange, *, result: Any, interrupted: bool) -> None:
        found = (result, exchange.first.claimed)
        assert [value for value in found if value is not None] == ["value"]
        assert "once" not in exchange.session


class Refresh(Case):
    async def prepare(self, sessions: sojourn.Sessions) -> Exchange:
        exchange = await super().prepare(sessions)
        await other_commits(exchange, 1)
        return exchange

    async def verb(self, exchange: Exchange) -> None:
        exchange.session.increment("n")
        await exchange.session.arefresh()

    async def check(self, exchange: Exchange, **_: Any) -> None:
        assert exchange.session["n"] == 1


class UseGrant(Case):
    others = (0,)

    async def prepare(self, sessions: sojourn.Sessions) -> Exchange:
        exchange = await super().prepare(sessions)
        exchange.session.grant("transfer")
        await exchange.end()
        return await exchange.next()

    async def verb(self, exchange: Exchange) -> bool:
        return await exchange.session.ause_grant("transfer")

    async def check(self, exchange: Exchange, *, result: Any, interrupted: bool) -> None:
        found = await exchange.session.ause_grant("transfer")
        assert [result, found].count(True) == 1


class Exclusive(Case):
    """The lease and the lock are released, and a body that ran is committed once."""

    async def verb(self, exchange: Exchange) -> None:
        exchange.ran = False
        async with exchange.session.exclusive(wait="1 second", lease="20 seconds"):
            exchange.session.increment("n")
            exchange.ran = True

    async def check(self, exchange: Exchange, **_: Any) -> None:
        async with exchange.session.exclusive(wait="2 seconds"):
            assert exchange.session["n"] == (1 if exchange.first.ran else 0)


class Touch(Case):
    async def prepare(self, sessions: sojourn.Sessions) -> Exchange:
        exchange = await super().prepare(sessions)
        copy_of(exchange.session).active_at = sessions.engine.clock() + 120_000
        return exchange

    async def verb(self, exchange: Exchange) -> None:
        await exchange.session.acommit()

    async def check(self, exchange: Exchange, **_: Any) -> None:
        assert exchange.session["n"] == 0


class RevokeUser(Case):
    """A revocation that is interrupted is completed by the next one, or in the background."""

    others = (0,)

    async def prepare(self, sessions: sojourn.Sessions) -> Exchange:
        user = f"revoked-{next(Login.numbers)}"
        tickets = []
        for _ in range(3):
            exchange = await new_exchange(sessions)
            exchange.session.login(user)
            tickets.append(await exchange.end())
        exchange = await Exchange(sessions).begin()
        exchange.user, exchange.tickets = user, tickets
        return exchange

    async def verb(self, exchange: Exchange) -> None:
        await exchange.sessions.arevoke_user(exchange.user, reason="stolen")

    async def again(self, exchange: Exchange) -> None:
        await exchange.sessions.arevoke_user(exchange.user, reason="stolen")

    async def check(self, exchange: Exchange, **_: Any) -> None:
        assert await exchange.sessions.alist_user(exchange.first.user) == []
        for ticket in exchange.first.tickets:
            old = await Exchange(exchange.sessions, ticket).begin()
            assert old.session.user is None
            if not exchange.first.lost:  # the tombstone or the cutoff
                assert old.session.ended_reason == "stolen"


class Request(Case):
    """A request is served completely or not at all; changes before its response are stored."""

    async def verb(self, exchange: Exchange) -> None:
        exchange.sent = []

        async def handler(scope: Any, receive: Any, send: Any) -> None:
            scope["session"].increment("n")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})

        async def send(message: Any) -> None:
            await asyncio.sleep(0)
            exchange.sent.append(message.get("status"))

        scope = {
            "type": "http",
            "method": "POST",
            "scheme": "https",
            "path": "/",
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"cookie", exchange.cookies.encode())],
        }
        app = sojourn.asgi.SessionMiddleware(handler, exchange.sessions)
        await app(scope, None, send)

    async def check(self, exchange: Exchange, **_: Any) -> None:
        assert exchange.session["n"] in {0, 1}
        assert exchange.first.sent in ([], [200], [200, None], [503], [503, None])
        if 200 in exchange.first.sent:
            assert exchange.session["n"] == 1


CASES = [
    Commit(),
    CommitWithLaterChanges(),
    CommitAfterConflict(),
    Create(),
    Login(),
    LoginOfNewVisitor(),
    Rotate(),
    Logout(),
    LogoutAndNewSession(),
    Claim(),
    ClaimAgain(),
    Refresh(),
    UseGrant(),
    Exclusive(),
    Touch(),
    RevokeUser(),
    Request(),
]


async def run_case(
    sessions: sojourn.Sessions,
    case: Case,
    interrupt: Callable[[Any], Awaitable[Outcome]],
    *,
    others: int,
) -> bool:
    """Interrupt a call once and check the outcome; return False if it was not interrupted.

    Args:
        sessions: over the store.
        case: the call.
        interrupt: runs a coroutine and interrupts it.
        others: the number of commits by other requests before the session is used again.
    """
    exchange = await case.prepare(sessions)
    exchange.before = exchange.cookies
    outcome = await interrupt(case.verb(exchange))
    failed = outcome.error is not None
    exchange.lost = outcome.lost
    if failed:
        assert isinstance(outcome.error, INTERRUPTIONS), outcome.error
    if exchange.cookies and others:
        await other_commits(exchange, others)
    again: Callable[[Exchange], Awaitable[None]] | None = getattr(case, "again", None)
    try:
        if again is not None:
            await again(exchange)
        await exchange.session.acommit()
    except CommitOutcomeUnknown:
        assert failed
        assert others > 3, "the record keeps the IDs of four commits"
        await exchange.end()
    else:
        await exchange.end()
        assert await background_tasks_ended()
        following = await exchange.next()
        following.first = exchange
        await case.check(following, result=outcome.result, interrupted=failed)
        await following.end()
    assert await background_tasks_ended()
    assert not sessions.engine.writer.locks._waiters
    return outcome.reached


async def run_all(
    sessions: sojourn.Sessions,
    kinds: Iterable[Callable[[int], Callable[[Any], Awaitable[Outcome]]]],
) -> int:
    """Run every case with each kind of interruption at each point; return their number.

    Args:
        sessions: over the store.
        kinds: from the number of a point to a function that interrupts there.
    """
    total = 0
    try:
        for case, kind in itertools.product(CASES, kinds):
            for others in case.others:
                for point in itertools.count(1):
                    if not await run_case(sessions, case, kind(point), others=others):
                        break
                    total += 1
    finally:
        sessions.close()
        await asyncio.sleep(0.1)  # until the transports of the closed connections are released
    return total


def at_suspensions(
    kinds: Iterable[str], delays: Iterable[int]
) -> list[Callable[[int], Callable[[Any], Awaitable[Outcome]]]]:
    """Return the interruptions at the n-th suspension of a task."""

    def make(kind: str, delay: int) -> Callable[[int], Callable[[Any], Awaitable[Outcome]]]:
        return lambda point: lambda verb: interrupted(verb, point, kind, delay=delay)

    return [make(kind, delay) for kind, delay in itertools.product(kinds, delays)]


def at_store_calls(
    store: SuspendingStore,
) -> list[Callable[[int], Callable[[Any], Awaitable[Outcome]]]]:
    """Return the interruptions that lose the request or the reply of the n-th store call."""

    def make(answer: bool) -> Callable[[int], Callable[[Any], Awaitable[Outcome]]]:
        def at(point: int) -> Callable[[Any], Awaitable[Outcome]]:
            async def lose(verb: Any) -> Outcome:
                store.set_loss(point, answer=answer)
                try:
                    result = await verb
                except StoreUnavailable as error:
                    return Outcome(reached=True, result=None, error=error, lost=True)
                finally:
                    reached = store.calls >= point
                    store.set_loss(0, answer=False)
                return Outcome(reached, result, None, lost=reached)

            return lose

        return at

    return [make(answer) for answer in (False, True)]


def make_sessions(store: Any) -> sojourn.Sessions:
    return sojourn.Sessions(store=store, secret=SECRET, merge={})


@pytest.mark.parametrize("detached", [False, True], ids=["in place", "detached"])
def test_interruptions_on_a_store_that_suspends(detached):
    """A21, S13: before and after the effect of each store call."""
    sessions = make_sessions(SuspendingStore(detached=detached))
    total = asyncio.run(run_all(sessions, at_suspensions(KINDS, range(5))))
    assert total >= 1_000


def test_lost_requests_and_replies():
    """A21: the store fails before or after the effect of each call."""
    store = SuspendingStore()
    total = asyncio.run(run_all(make_sessions(store), at_store_calls(store)))
    assert total >= 100


def test_interruptions_on_sqlite(tmp_path):
    """A21: calls wait for a worker thread."""
    sessions = make_sessions(f"sqlite:///{tmp_path}/sessions.db")
    total = asyncio.run(run_all(sessions, at_suspensions(("cancel", "timeout"), range(5))))
    assert total >= 200


def test_interruptions_on_valkey(tmp_path):
    """A21: calls are sent to a server in batches."""
    with running(Valkey(tmp_path)) as server:
        sessions = make_sessions(server.url)
        total = asyncio.run(run_all(sessions, at_suspensions(("cancel", "timeout"), range(5))))
    assert total >= 500
