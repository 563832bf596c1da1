"""A21: a verb that is interrupted at any suspension loses nothing and applies nothing twice.

Each case runs a verb, interrupts it at its n-th suspension, lets other requests commit, and then
uses the same session again, as a handler does that catches the timeout.
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

SECRET = "a secret for the tests of interruptions"


#: What an interrupted verb may raise.
INTERRUPTIONS = (asyncio.CancelledError, TimeoutError, StoreUnavailable)


class Visit:
    """A visitor, and one session of theirs that a handler holds."""

    def __init__(self, sessions: sojourn.Sessions, cookies: str = "") -> None:
        self.sessions = sessions
        self.cookies = cookies
        self.context = sessions.open(cookies=cookies or None)

    async def begin(self) -> Visit:
        await self.context.__aenter__()
        return self

    @property
    def session(self) -> sojourn.Session[Any]:
        return self.context.session

    async def end(self) -> str:
        """Commit as a response does; return the visitor's cookies after it."""
        await self.context.__aexit__(None, None, None)
        for name, value in self.context.response_headers():
            if name.lower() == "set-cookie":
                pair = value.partition(";")[0]
                self.cookies = "" if pair.endswith("=") else pair
        return self.cookies

    async def next(self) -> Visit:
        """Return the visitor's next request."""
        return await Visit(self.sessions, self.cookies).begin()


async def new_visit(sessions: sojourn.Sessions, **data: Any) -> Visit:
    visit = await Visit(sessions).begin()
    visit.session.update(data)
    await visit.end()
    return await visit.next()


async def other_commits(visit: Visit, times: int) -> None:
    """Have other requests of the same visitor commit."""
    for _ in range(times):
        other = await visit.next()
        other.session.increment("others")
        await other.end()


# Cases: a verb, and what must hold after it was interrupted and the session was used again


class Case(abc.ABC):
    """One verb of a session."""

    #: Other requests that commit between the interruption and the next commit.
    others = (0, 1, 3, 5)

    async def prepare(self, sessions: sojourn.Sessions) -> Visit:
        return await new_visit(sessions, n=0, log=[], once="value")

    @abc.abstractmethod
    async def verb(self, visit: Visit) -> Any:
        """Run the verb."""

    @abc.abstractmethod
    async def check(self, visit: Visit, *, result: Any, interrupted: bool) -> None:
        """Check the outcome with the visitor's next request."""


class Commit(Case):
    async def verb(self, visit: Visit) -> None:
        visit.session.increment("n")
        visit.session.append("log", "one")
        visit.session["set"] = 1
        await visit.session.acommit()

    async def check(self, visit: Visit, **_: Any) -> None:
        session = visit.session
        assert (session["n"], session["log"], session["set"]) == (1, ["one"], 1)


class CommitWithLaterChanges(Commit):
    """Changes after the interruption are neither lost nor merged with those before."""

    async def again(self, visit: Visit) -> None:
        visit.session.increment("n", 10)
        visit.session.append("log", "two")

    async def check(self, visit: Visit, **_: Any) -> None:
        session = visit.session
        assert (session["n"], session["log"], session["set"]) == (11, ["one", "two"], 1)


class CommitAfterConflict(Commit):
    """The save meets the commit of another request and is replayed."""

    async def prepare(self, sessions: sojourn.Sessions) -> Visit:
        visit = await super().prepare(sessions)
        visit.session["n"]  # loaded and decoded
        await other_commits(visit, 1)
        return visit


class Create(Case):
    others = (0,)

    async def prepare(self, sessions: sojourn.Sessions) -> Visit:
        return await Visit(sessions).begin()

    async def verb(self, visit: Visit) -> None:
        visit.session.increment("n")
        await visit.session.acommit()

    async def again(self, visit: Visit) -> None:
        visit.session.append("log", "two")

    async def check(self, visit: Visit, **_: Any) -> None:
        assert (visit.session["n"], visit.session["log"]) == (1, ["two"])


class Login(Case):
    others = (0,)
    numbers = iter(range(10**9))

    async def prepare(self, sessions: sojourn.Sessions) -> Visit:
        visit = await super().prepare(sessions)
        visit.user = f"user-{next(self.numbers)}"
        visit.old = visit.cookies
        return visit

    async def verb(self, visit: Visit) -> None:
        visit.session.increment("n")
        visit.session.login(visit.user, methods=("password",))
        await visit.session.acommit()

    async def again(self, visit: Visit) -> None:
        visit.session.append("log", "two")

    async def check(self, visit: Visit, **_: Any) -> None:
        first = visit.first
        assert (visit.session.user, visit.session["n"]) == (first.user, 1)
        assert visit.session["log"] == ["two"]
        listed = await visit.sessions.alist_user(first.user)
        assert [info.id for info in listed] == [visit.session.id]
        old = await Visit(visit.sessions, first.old).begin()
        assert old.session.user is None  # A9: the previous ticket is invalid at once


class LoginOfNewVisitor(Login):
    async def prepare(self, sessions: sojourn.Sessions) -> Visit:
        visit = await Visit(sessions).begin()
        visit.user = f"new-{next(self.numbers)}"
        visit.old = ""
        return visit


class Rotate(Case):
    async def verb(self, visit: Visit) -> None:
        visit.session.increment("n")
        visit.session.rotate()
        await visit.session.acommit()

    async def check(self, visit: Visit, **_: Any) -> None:
        assert visit.session["n"] == 1
        assert visit.cookies != visit.first.before


class Logout(Case):
    others = (0,)

    async def verb(self, visit: Visit) -> None:
        visit.session.logout()
        await visit.session.acommit()

    async def check(self, visit: Visit, **_: Any) -> None:
        assert visit.cookies == ""
        old = await Visit(visit.sessions, visit.first.before).begin()
        assert dict(old.session) == {}


class LogoutAndNewSession(Case):
    others = (0,)

    async def verb(self, visit: Visit) -> None:
        visit.session.logout()
        visit.session["fresh"] = True
        await visit.session.acommit()

    async def check(self, visit: Visit, **_: Any) -> None:
        assert dict(visit.session) == {"fresh": True}
        old = await Visit(visit.sessions, visit.first.before).begin()
        assert dict(old.session) == {}


class Claim(Case):
    """The value reaches exactly one caller."""

    async def verb(self, visit: Visit) -> Any:
        return await visit.session.aclaim("once")

    async def check(self, visit: Visit, *, result: Any, interrupted: bool) -> None:
        found = await visit.session.aclaim("once")
        assert [value for value in (result, found) if value is not None] == ["value"]
        assert await visit.session.aclaim("once") is None


class ClaimAgain(Case):
    """The same handler claims again after the timeout."""

    async def verb(self, visit: Visit) -> Any:
        return await visit.session.aclaim("once")

    async def again(self, visit: Visit) -> None:
        visit.claimed = await visit.session.aclaim("once")

    async def check(self, visit: Visit, *, result: Any, interrupted: bool) -> None:
        found = (result, visit.first.claimed)
        assert [value for value in found if value is not None] == ["value"]
        assert "once" not in visit.session


class Refresh(Case):
    async def prepare(self, sessions: sojourn.Sessions) -> Visit:
        visit = await super().prepare(sessions)
        await other_commits(visit, 1)
        return visit

    async def verb(self, visit: Visit) -> None:
        visit.session.increment("n")
        await visit.session.arefresh()

    async def check(self, visit: Visit, **_: Any) -> None:
        assert visit.session["n"] == 1


class UseGrant(Case):
    others = (0,)

    async def prepare(self, sessions: sojourn.Sessions) -> Visit:
        visit = await super().prepare(sessions)
        visit.session.grant("transfer")
        await visit.end()
        return await visit.next()

    async def verb(self, visit: Visit) -> bool:
        return await visit.session.ause_grant("transfer")

    async def check(self, visit: Visit, *, result: Any, interrupted: bool) -> None:
        found = await visit.session.ause_grant("transfer")
        assert [result, found].count(True) == 1


class Exclusive(Case):
    """The lease and the lock are released, and a body that ran is committed once."""

    async def verb(self, visit: Visit) -> None:
        visit.ran = False
        async with visit.session.exclusive(wait="1 second", lease="20 seconds"):
            visit.session.increment("n")
            visit.ran = True

    async def check(self, visit: Visit, **_: Any) -> None:
        async with visit.session.exclusive(wait="2 seconds"):
            assert visit.session["n"] == (1 if visit.first.ran else 0)


class Touch(Case):
    async def prepare(self, sessions: sojourn.Sessions) -> Visit:
        visit = await super().prepare(sessions)
        visit.session._copy.active_at = sessions.engine.clock() + 120_000
        return visit

    async def verb(self, visit: Visit) -> None:
        await visit.session.acommit()

    async def check(self, visit: Visit, **_: Any) -> None:
        assert visit.session["n"] == 0


class RevokeUser(Case):
    """A revocation that is interrupted is completed by the next one, or in the background."""

    others = (0,)

    async def prepare(self, sessions: sojourn.Sessions) -> Visit:
        user = f"revoked-{next(Login.numbers)}"
        tickets = []
        for _ in range(3):
            visit = await new_visit(sessions)
            visit.session.login(user)
            tickets.append(await visit.end())
        visit = await Visit(sessions).begin()
        visit.user, visit.tickets = user, tickets
        return visit

    async def verb(self, visit: Visit) -> None:
        await visit.sessions.arevoke_user(visit.user, reason="stolen")

    async def again(self, visit: Visit) -> None:
        await visit.sessions.arevoke_user(visit.user, reason="stolen")

    async def check(self, visit: Visit, **_: Any) -> None:
        assert await visit.sessions.alist_user(visit.first.user) == []
        for ticket in visit.first.tickets:
            old = await Visit(visit.sessions, ticket).begin()
            assert old.session.user is None
            if not visit.first.lost:  # the tombstone, or the knowledge of what was revoked
                assert old.session.ended_reason == "stolen"


class Request(Case):
    """A request is served whole or not at all; what its response confirmed is stored."""

    async def verb(self, visit: Visit) -> None:
        visit.sent = []

        async def handler(scope: Any, receive: Any, send: Any) -> None:
            scope["session"].increment("n")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})

        async def send(message: Any) -> None:
            await asyncio.sleep(0)
            visit.sent.append(message.get("status"))

        scope = {
            "type": "http",
            "method": "POST",
            "scheme": "https",
            "path": "/",
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"cookie", visit.cookies.encode())],
        }
        app = sojourn.asgi.SessionMiddleware(handler, visit.sessions)
        await app(scope, None, send)

    async def check(self, visit: Visit, **_: Any) -> None:
        assert visit.session["n"] in {0, 1}
        assert visit.first.sent in ([], [200], [200, None], [503], [503, None])
        if 200 in visit.first.sent:
            assert visit.session["n"] == 1


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
    """Interrupt a verb once and check what follows; return False if there was nothing to interrupt.

    Args:
        sessions: over the store.
        case: the verb.
        interrupt: runs a coroutine and interrupts it.
        others: the number of commits by other requests before the session is used again.
    """
    visit = await case.prepare(sessions)
    visit.before = visit.cookies
    outcome = await interrupt(case.verb(visit))
    failed = outcome.error is not None
    visit.lost = outcome.lost
    if failed:
        assert isinstance(outcome.error, INTERRUPTIONS), outcome.error
    if visit.cookies and others:
        await other_commits(visit, others)
    again: Callable[[Visit], Awaitable[None]] | None = getattr(case, "again", None)
    try:
        if again is not None:
            await again(visit)
        await visit.session.acommit()
    except CommitOutcomeUnknown:
        assert failed
        assert others > 3, "the record keeps the IDs of four commits"
        await visit.end()
    else:
        await visit.end()
        assert await background_tasks_ended()
        following = await visit.next()
        following.first = visit
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
        await asyncio.sleep(0.1)  # for the transports of the closed connections
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
    """Return the losses of the request, or of the answer, of the n-th store call."""

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
def test_on_a_store_that_suspends(detached):
    """A21, S13: before and after the effect of each store call."""
    sessions = make_sessions(SuspendingStore(detached=detached))
    total = asyncio.run(run_all(sessions, at_suspensions(KINDS, range(5))))
    assert total >= 1_000


def test_lost_requests_and_answers():
    """A21: the store fails before or after the effect of each call."""
    store = SuspendingStore()
    total = asyncio.run(run_all(make_sessions(store), at_store_calls(store)))
    assert total >= 100


def test_on_sqlite(tmp_path):
    """A21: calls wait for a worker thread."""
    sessions = make_sessions(f"sqlite:///{tmp_path}/sessions.db")
    total = asyncio.run(run_all(sessions, at_suspensions(("cancel", "timeout"), range(5))))
    assert total >= 200


def test_on_valkey(tmp_path):
    """A21: calls travel to a server in batches."""
    with running(Valkey(tmp_path)) as server:
        sessions = make_sessions(server.url)
        total = asyncio.run(run_all(sessions, at_suspensions(("cancel", "timeout"), range(5))))
    assert total >= 500
