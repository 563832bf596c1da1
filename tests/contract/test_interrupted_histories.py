"""Random histories of interrupted requests, against the sequential model (A6, A21, A22).

Handlers of two processes, whose clocks differ by up to two hours, change one session in parallel.
Their commits are cancelled, time out, or lose a request or a reply of the store, and are repeated.
Each change has a token. A token whose commit returned is stored exactly once, any other token at
most once, and the changes of one commit are stored together. A seed determines a history; a failure
reports its number.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any

import pytest

from sojourn.errors import CommitOutcomeUnknown, StoreUnavailable
from sojourn.sessions import Sessions
from sojourn.stores.memory import MemoryStore
from tests.support.interruptions import (
    KINDS,
    STORE_CALLS,
    background_tasks_ended,
    interrupted,
)
from tests.support.server_time import HOUR, machine_clocks

SECRET = b"interrupted-7Jm2Qw9vXc4Rk1-Zt"

#: The seed of a history is this and its number.
SEED = "interruptions"

#: Milliseconds by which the wall clock of a machine is wrong.
SKEWS = (-HOUR, -3_000, 0, 60_000, HOUR)

#: The number of histories that share two installations and a store.
SHARED = 200


class UnreliableStore:
    """A ``MemoryStore`` whose calls take a random time, and sometimes lose a request or a reply.

    It has the clock of a server.

    Attributes:
        random: the source of randomness.
        lost: the probability that a call is lost.
    """

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.random = random.Random()
        self.lost = 0.0
        for name in STORE_CALLS:
            setattr(self, name, self._unreliable(getattr(self.inner, name)))

    def _unreliable(self, call: Any) -> Any:
        async def pause() -> None:
            for _ in range(self.random.randrange(4)):
                await asyncio.sleep(0)

        async def slow(*args: Any, **kwargs: Any) -> Any:
            lost = self.random.random() < self.lost
            before_effect = lost and self.random.random() < 0.5
            await pause()
            if before_effect:
                raise StoreUnavailable("the request was lost")
            result = await call(*args, **kwargs)
            await pause()
            if lost:
                raise StoreUnavailable("the answer was lost")
            return result

        async def unreliable(*args: Any, **kwargs: Any) -> Any:
            if self.random.random() < 0.5:  # the call takes effect despite the cancellation
                return await asyncio.shield(asyncio.create_task(slow(*args, **kwargs)))
            return await slow(*args, **kwargs)

        return unreliable

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def purge(self, now: int, limit: int) -> Any:
        return await self.inner.purge(now, limit)

    async def server_time(self) -> int:
        await asyncio.sleep(0)
        return time.time_ns() // 1_000_000


class History:
    """One history.

    Attributes:
        stored: tokens whose commit returned.
        open: tokens whose commit failed, or whose outcome is unknown.
        claimed: the values that claims returned.
        done: the number of events of each kind.
    """

    def __init__(self, processes: list[Sessions], store: UnreliableStore, number: int) -> None:
        self.processes = processes
        self.store = store
        self.random = random.Random(f"{SEED} {number}")
        store.random = random.Random(f"{SEED} {number} store")
        self.stored: set[str] = set()
        self.open: set[str] = set()
        self.claimed: list[str] = []
        self.done: Counter[str] = Counter()
        self.user = f"user-{number}"

    async def run(self) -> None:
        self.store.lost = 0.0
        async with self.processes[0].open() as first:
            first.session.update(n=0, log=[], nested={}, once="value")
        cookies = cookie_of(first)
        self.store.lost = self.random.choice((0.0, 0.05, 0.2))
        handlers = [self._handle(cookies, name) for name in "abcd"[: self.random.randint(2, 4)]]
        await asyncio.gather(*handlers)
        self.store.lost = 0.0
        assert await background_tasks_ended()
        async with self.processes[1].open(cookies=cookies) as last:
            self._check(dict(last.session))
        if self.random.random() < 0.2:
            await self._check_logins()
            await self._check_exclusive(cookies)
        for process in self.processes:
            assert not process.engine.writer.locks._waiters

    async def _handle(self, cookies: str, name: str) -> None:
        """Serve one request, or stream, that commits several times."""
        context = self.random.choice(self.processes).open(cookies=cookies)
        try:
            await context.__aenter__()
        except StoreUnavailable:
            return
        session = context.session
        pending: set[str] = set()
        for step in range(self.random.randint(1, 4)):
            await asyncio.sleep(0)
            if self.random.random() < 0.15:
                await self._try(self._claim(session), pending)
            token = f"{name}{step}"
            pending.add(token)
            session.increment("n")
            session.append("log", token)
            session["nested"][token] = True
            session[token] = True
            if self.random.random() < 0.2:
                await self._try(session.arefresh(), pending, commits=False)
            await self._try(session.acommit(), pending)
        for _ in range(self.random.randint(0, 3)):
            if pending:
                await self._try(session.acommit(), pending)
        failed = bool(pending) and self.random.random() < 0.3
        try:
            await context.__aexit__(ValueError if failed else None, None, None)
        except (StoreUnavailable, CommitOutcomeUnknown):
            failed = True
        (self.open if failed else self.stored).update(pending)

    async def _claim(self, session: Any) -> None:
        value = await session.aclaim("once")
        if value is not None:
            self.claimed.append(value)

    async def _try(self, verb: Any, pending: set[str], *, commits: bool = True) -> None:
        """Await a method call, which may be interrupted."""
        if self.random.random() < 0.5:
            outcome = await interrupted(
                verb,
                self.random.randint(1, 6),
                self.random.choice(KINDS),
                delay=self.random.randrange(4),
            )
            error = outcome.error
        else:
            error = await _error_of(verb)
        self.done["-" if error is None else type(error).__name__] += 1
        match error:
            case None if commits:
                self.stored |= pending
                pending.clear()
            case None | StoreUnavailable() | asyncio.CancelledError() | TimeoutError():
                pass
            case CommitOutcomeUnknown():
                unknown = set(error.keys) & pending
                self.open |= unknown
                pending -= unknown
            case _:
                raise error

    def _check(self, data: dict[str, Any]) -> None:
        tokens = data["log"]
        found = set(tokens)
        assert len(tokens) == len(found), f"applied twice: {Counter(tokens).most_common(1)}"
        assert self.stored <= found, f"lost: {self.stored - found}"
        assert found <= self.stored | self.open
        assert data["n"] == len(tokens)
        assert set(data["nested"]) == found
        assert {key for key in data if key not in {"n", "log", "nested", "once"}} == found
        self.done["claimed"] += len(self.claimed)
        assert len(self.claimed) <= 1
        assert not (self.claimed and "once" in data)

    async def _check_logins(self) -> None:
        """A22: a revocation ends earlier logins of every process; later logins succeed."""
        one, two = self.random.sample(self.processes, 2)
        cookies = []
        for process in (one, two):
            async with process.open() as visit:
                visit.session.login(self.user)
            cookies.append(cookie_of(visit))
        assert await one.arevoke_user(self.user) == 2
        for cookie in cookies:
            async with self.random.choice(self.processes).open(cookies=cookie) as visit:
                assert visit.session.user is None
        async with one.open() as visit:
            visit.session.login(self.user)
        assert len(await two.alist_user(self.user)) == 1
        self.done["revoked"] += 1

    async def _check_exclusive(self, cookies: str) -> None:
        """A22: the blocks of two processes do not overlap."""
        inside = 0

        async def block(process: Sessions) -> None:
            nonlocal inside
            async with process.open(cookies=cookies) as visit, visit.session.exclusive():
                inside += 1
                assert inside == 1
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*map(block, self.processes))


def cookie_of(visit: Any) -> str:
    """Return the cookie that a response set."""
    headers = {name.lower(): value for name, value in visit.response_headers()}
    return headers["set-cookie"].partition(";")[0]


async def _error_of(verb: Any) -> BaseException | None:
    try:
        await verb
    except Exception as error:  # noqa: BLE001 - the caller distinguishes them
        return error
    return None


@pytest.mark.parametrize("number", [5015, 31806, 52752, 81653])
def test_histories_of_fixed_bugs(number):
    """A21: a claimed value was restored twice after a lost reply."""
    run_histories(range(number, number + 1))


def machine_with_skew(store: UnreliableStore, skew: int) -> Sessions:
    """Return an installation on a machine whose wall clock is wrong by ``skew`` milliseconds."""
    with machine_clocks(lambda: time.time_ns() // 1_000_000 + skew):
        return Sessions(store=store, secret=SECRET)


def run_histories(numbers: range) -> Counter[str]:
    """Run histories; return the number of outcomes of each kind."""
    total: Counter[str] = Counter()
    for start in range(numbers.start, numbers.stop, SHARED):
        store = UnreliableStore()
        processes = [
            machine_with_skew(store, skew)
            for skew in random.Random(f"{SEED} {start} clocks").sample(SKEWS, 2)
        ]
        with asyncio.Runner() as runner:
            for number in range(start, min(start + SHARED, numbers.stop)):
                history = History(processes, store, number)
                try:
                    runner.run(history.run())
                except BaseException as error:
                    error.add_note(f"in history {number}")
                    raise
                total += history.done
    return total


def test_no_history_loses_or_duplicates_a_change():
    """A6, A21."""
    total = run_histories(range(400))
    assert total["CancelledError"] > 100
    assert total["TimeoutError"] > 50
    assert total["StoreUnavailable"] > 50
    assert total["claimed"] > 20
    assert total["revoked"] > 20


@pytest.mark.slow
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("part", range(4))
def test_no_history_of_100_000_loses_or_duplicates_a_change(part):
    """A6, A21: 25,000 histories in each part."""
    run_histories(range(part * 25_000, (part + 1) * 25_000))
