"""Random histories of several browsers, of which each step is checked against a sequential model.

A history has rounds. In each, a few operations run at the same time over a store that lets one call
after the other go on, in an order drawn at random; then the answers arrive, in any order or never,
and some time passes. Everything follows from a seed, which a failure names. Read next: ``life.py``,
and ``test_lives_interleaved.py`` for every order of two.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import Counter
from typing import Any

import pytest

from sojourn._crypto.tickets import hash_verifier
from sojourn.errors import ResponseStarted, SessionGone
from sojourn.record import Record
from sojourn.sessions import Sessions
from sojourn.store import SAVED, LoginSaved
from sojourn.stores.memory import MemoryStore
from sojourn.stores.sqlite import SQLiteStore
from sojourn.testing import FakeClock, Visitor
from sojourn.testing.interleave import Stage
from sojourn.testing.passing import Passing
from sojourn.testing.stepping import TaskStepper, idle_loop
from tests.contract.life import IDLE, LONGEST, TICK, Model, Operation, Ticket

SECRET = b"histories-7Jm2Qw9vXc4Rk1-Zt"

#: What is done, and how often beside the others.
KINDS = {"write": 5, "read": 3, "login": 3, "rotate": 4, "socket": 2, "logout": 1, "revoke": 1}

#: What passes between two rounds, in milliseconds.
PAUSES = (0, 0, 0, 1, 700, 1_999, 2_000, 5_000, 9_999, 10_000, 21_000, 30_000)

#: How many histories share an installation and a store.
SHARED = 100

#: A history is one of these, seeded with this and its number.
SEED = "lives"

_doing: contextvars.ContextVar[Operation | None] = contextvars.ContextVar("doing", default=None)


class Dice:
    """The order in which participants go on, drawn at random; see ``stepping.Chooser``."""

    def __init__(self) -> None:
        self.chance = random.Random()
        self.steps: list[str] = []

    def choose(self, ready: Any) -> int:
        participant, step = self.chance.choice(ready)
        self.steps.append(f"{participant + 1}:{step}")
        return participant


class Told(Passing):
    """Tells the model what each call did; its records of ended sessions' reasons are not told."""

    def __init__(self, store: Any, clock: FakeClock) -> None:
        super().__init__(store)
        self.model = Model()
        self.now = clock
        self.save_login = self._save_login

    async def passed(self, _verb: Any, call: Any) -> Any:
        return await call()

    @property
    def _operation(self) -> Operation:
        operation = _doing.get()
        assert operation is not None
        return operation

    async def load(self, session_id: bytes) -> Record | None:
        record = await super().load(session_id)
        operation = _doing.get()
        if operation is not None:
            self.model.loaded(operation, self.now())
        return record

    async def create(self, record: Record) -> bool:
        done = await super().create(record)
        if done and record.version:
            self.model.created(record, self._operation, self.now())
        return done

    async def save(self, record: Record, expected_version: int) -> Any:
        result = await super().save(record, expected_version)
        if result is SAVED:
            self.model.saved(record, self._operation, self.now())
        return result

    async def touch(self, record: Record) -> bool:
        done = await super().touch(record)
        if done:
            self.model.touched(record, self.now())
        return done

    async def delete(self, session_id: bytes) -> bool:
        done = await super().delete(session_id)
        if done:
            self.model.deleted(session_id, _doing.get(), self.now())
        return done

    async def _save_login(self, record: Record, expected_version: int, **options: Any) -> Any:
        result = await self.store.save_login(record, expected_version, **options)
        if isinstance(result, LoginSaved):
            self.model.contents_after_login(record, self._operation, self.now())
        return result


class World:
    """Two processes and a third that only looks, over one store."""

    def __init__(self, store: Any, *, rotate_interval: str | None) -> None:
        self.clock = FakeClock()
        self.dice = Dice()
        self.stage = Stage(self.dice, TaskStepper)
        self.told = Told(store, self.clock)
        options: dict[str, Any] = {
            "secret": SECRET,
            "clock": self.clock,
            "timeout": IDLE / 1000,
            "absolute_timeout": LONGEST / 1000,
            "anonymous_timeout": IDLE / 1000,
            "anonymous_absolute_timeout": LONGEST / 1000,
            "touch_interval": 1,
            "rotate_interval": rotate_interval,
        }
        paused = self.stage.wrap(self.told)
        self.processes = [Sessions(store=paused, **options) for _ in range(2)]
        self.onlooker = Sessions(store=self.told, on_reuse="ignore", **options)

    def ticket(self, cookie: str | None) -> Ticket | None:
        """Return what a cookie holds, without asking the store."""
        if cookie is None:
            return None
        gate = self.onlooker.web
        ticket = gate.ticket(gate.transport("http", b"localhost", proxied=False), cookie.encode())
        assert ticket is not None
        return ticket.session_id, hash_verifier(ticket.verifier)


class History:
    """One history: its browsers, and every cookie there ever was."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.chance = random.Random(f"{SEED} {number}")
        world.dice.chance = random.Random(f"{SEED} {number} order")
        world.dice.steps.clear()
        world.told.model = self.model = Model()
        self.users = [f"{name}-{number}" for name in ("ada", "bob")]
        self.browsers: list[str | None] = [None, None, None]
        self.cookies: list[str] = []
        self.done: Counter[str] = Counter()

    async def play(self) -> None:
        await self._round([(0, "login"), (2, "write")])
        self.browsers[1] = self.browsers[0]  # two tabs
        for _ in range(self.chance.randint(4, 8)):
            kinds = self.chance.choices(
                list(KINDS), list(KINDS.values()), k=self.chance.randint(2, 4)
            )
            await self._round([(self.chance.randrange(3), kind) for kind in kinds])
            self.world.clock.now += self.chance.choice(PAUSES)
            await self._look(self.chance.sample(self.cookies, min(3, len(self.cookies))))
        await self._look(self.cookies)

    async def _round(self, plan: list[tuple[int, str]]) -> None:
        self.model.new_round()
        under_way = []
        for browser, kind in plan:
            cookie = self.browsers[browser]
            if self.cookies and self.chance.random() < 0.1:
                cookie = self.chance.choice(self.cookies)  # somebody who kept, or stole, an old one
            visitor = Visitor(self.chance.choice(self.world.processes), cookie=cookie)
            operation = Operation(kind, self.world.ticket(cookie), self.chance.choice(self.users))
            under_way.append((browser, cookie, visitor, operation))
        self.world.dice.steps.append(f"| {' '.join(kind for _, kind in plan)}:")
        await self.world.stage.together(*(self._do(v, o) for _, _, v, o in under_way))
        self.chance.shuffle(under_way)
        for browser, before, visitor, operation in under_way:
            self.done[operation.kind] += 1
            if visitor.cookie != before:
                self.model.check_cookie(operation.ticket, self.world.ticket(visitor.cookie))
                if visitor.cookie is not None:
                    self.cookies.append(visitor.cookie)
                if self.chance.random() < 0.9:  # otherwise the answer is lost
                    self.browsers[browser] = visitor.cookie
            if operation.kind == "revoke":
                self.model.check_revoked(operation)

    async def _do(self, visitor: Visitor, operation: Operation) -> None:
        _doing.set(operation)
        try:
            if operation.kind == "revoke":
                await visitor.load()
                self._begin(operation)
                await visitor.sessions.arevoke_user(operation.user)
            elif operation.kind == "socket":
                await self._hold_socket(visitor)
            else:
                async with visitor.visit() as session:
                    self._act(session, operation)
        except (SessionGone, ResponseStarted):
            pass  # as it may be told; what must not have happened the model knows

    def _begin(self, operation: Operation) -> None:
        self.world.clock.now += TICK
        operation.began = self.world.clock()

    def _act(self, session: Any, operation: Operation) -> None:
        match operation.kind:
            case "write":
                session.increment("n")
            case "read":
                session.get("n")
            case "login":
                self._begin(operation)
                session.login(operation.user)
            case "rotate":
                session.rotate()
            case "logout":
                session.logout()

    async def _hold_socket(self, visitor: Visitor) -> None:
        """Write twice over one session, with what others did in between taken in."""
        session = await visitor.load()
        session._copy.response_started = True
        for _ in range(2):
            session.increment("n")
            await session.acommit()
            await session.arefresh()

    async def _look(self, cookies: list[str]) -> None:
        """Check what each cookie opens, and the lists of users."""
        now = self.world.clock()
        for cookie in cookies:
            ticket = self.world.ticket(cookie)
            assert ticket is not None
            session = await Visitor(self.world.onlooker, cookie=cookie).load()
            found = None if session.new else (session.user, session.get("n", 0))
            expected = self.model.expected(ticket, now)
            assert found == expected, f"A7, A9, A17: a ticket opens {found}, not {expected}"
        for user in self.users:
            infos = await self.world.onlooker.alist_user(user)
            assert {info.id for info in infos} == self.model.listed(user, now), "S15"


def play(store: Any, numbers: range) -> Counter[str]:
    """Play histories over one store; return how often each kind of operation was done."""
    total: Counter[str] = Counter()
    world = World(store, rotate_interval="20 seconds" if numbers[0] // SHARED % 2 else None)
    with asyncio.Runner(loop_factory=idle_loop) as runner:
        for number in numbers:
            history = History(world, number)
            try:
                runner.run(history.play())
            except BaseException as error:
                error.add_note(f"in history {number}: {' '.join(world.dice.steps)}")
                raise
            total += history.done
    return total


def play_many(kind: str, folder: Any, histories: int) -> Counter[str]:
    """Play so many histories, a new store for every hundred."""
    total: Counter[str] = Counter()
    for start in range(0, histories, SHARED):
        store = MemoryStore() if kind == "memory" else SQLiteStore(folder / f"{start}.db")
        numbers = range(start, min(start + SHARED, histories))
        try:
            total += play(store, numbers)
        finally:
            if kind == "sqlite":
                store.close()
    assert set(total) == set(KINDS)
    return total


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_no_history_breaks_a_law(kind, tmp_path):
    """A7, A9, A17, S15, S16: logins, rotations, writes, touches, ends and time, interleaved."""
    play_many(kind, tmp_path, 150)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_no_history_of_thousands_breaks_a_law(kind, tmp_path):
    """A7, A9, A17, S15, S16: the same, 10,000 times over each store."""
    assert play_many(kind, tmp_path, 10_000).total() > 150_000
