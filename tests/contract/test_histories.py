"""Random histories of several browsers; ``session_model.py`` checks the effect of each store call.

A history has rounds. In each round some operations run in parallel, and the order of their store
calls is random. Then the responses arrive in random order, or are lost, and the clock advances. A
seed determines the history; a failure reports it.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import Counter
from collections.abc import Sequence
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
from sojourn.testing.forwarding import ForwardingStore
from tests.contract.session_model import ABSOLUTE, IDLE, TICK, Operation, SessionModel, Ticket
from tests.support.interleave import Interleaving
from tests.support.scheduler import TaskScheduler, idle_loop
from tests.support.working_copies import copy_of

SECRET = b"histories-7Jm2Qw9vXc4Rk1-Zt"

#: Operations and their relative frequency.
KINDS = {"write": 5, "read": 3, "login": 3, "rotate": 4, "socket": 2, "logout": 1, "revoke": 1}

#: Milliseconds between two rounds.
PAUSES = (0, 0, 0, 1, 700, 1_999, 2_000, 5_000, 9_999, 10_000, 21_000, 30_000)

#: The number of histories that share an installation and a store.
SHARED = 100

#: The seed of a history is this and its number.
SEED = "lives"

_doing: contextvars.ContextVar[Operation | None] = contextvars.ContextVar("doing", default=None)


class RandomSchedule:
    """Chooses participants at random; see ``scheduler.Schedule``."""

    def __init__(self) -> None:
        self.random = random.Random()
        self.steps: list[str] = []

    def choose(self, ready: Any) -> int:
        participant, step = self.random.choice(ready)
        self.steps.append(f"{participant + 1}:{step}")
        return participant


class CheckedStore(ForwardingStore):
    """Reports the effect of each call to the model, except calls for tombstones."""

    def __init__(self, store: Any, clock: FakeClock) -> None:
        super().__init__(store)
        self.model = SessionModel()
        self.now = clock
        self.save_login = self._save_login
        self.delete_many = self._delete_many

    async def forward(self, _verb: Any, call: Any) -> Any:
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

    async def _delete_many(self, session_ids: Sequence[bytes]) -> list[bool]:
        results: list[bool] = await self.store.delete_many(session_ids)
        for session_id, done in zip(session_ids, results, strict=True):
            if done:
                self.model.deleted(session_id, _doing.get(), self.now())
        return results

    async def _save_login(self, record: Record, expected_version: int, **options: Any) -> Any:
        result = await self.store.save_login(record, expected_version, **options)
        if isinstance(result, LoginSaved):
            self.model.contents_after_login(record, self._operation, self.now())
        return result


class Installations:
    """Two installations, and a third that only reads, over one store."""

    def __init__(self, store: Any, *, rotate_interval: str | None) -> None:
        self.clock = FakeClock()
        self.schedule = RandomSchedule()
        self.interleaving = Interleaving(self.schedule, TaskScheduler)
        self.checked_store = CheckedStore(store, self.clock)
        options: dict[str, Any] = {
            "secret": SECRET,
            "clock": self.clock,
            "timeout": IDLE / 1000,
            "absolute_timeout": ABSOLUTE / 1000,
            "anonymous_timeout": IDLE / 1000,
            "anonymous_absolute_timeout": ABSOLUTE / 1000,
            "touch_interval": 1,
            "rotate_interval": rotate_interval,
        }
        paused = self.interleaving.wrap(self.checked_store)
        self.processes = [Sessions(store=paused, **options) for _ in range(2)]
        self.reader = Sessions(store=self.checked_store, on_reuse="ignore", **options)

    def ticket(self, cookie: str | None) -> Ticket | None:
        """Return the ticket of a cookie, without a store call."""
        if cookie is None:
            return None
        web = self.reader.web
        ticket = web.read_ticket(web.classify("http", b"localhost", False), cookie.encode())
        assert ticket is not None
        return ticket.session_id, hash_verifier(ticket.verifier)


class History:
    """One history: its browsers, and every cookie that was set."""

    def __init__(self, installations: Installations, number: int) -> None:
        self.installations = installations
        self.random = random.Random(f"{SEED} {number}")
        installations.schedule.random = random.Random(f"{SEED} {number} order")
        installations.schedule.steps.clear()
        installations.checked_store.model = self.model = SessionModel()
        self.users = [f"{name}-{number}" for name in ("ada", "bob")]
        self.browsers: list[str | None] = [None, None, None]
        self.cookies: list[str] = []
        self.done: Counter[str] = Counter()

    async def run(self) -> None:
        await self._round([(0, "login"), (2, "write")])
        self.browsers[1] = self.browsers[0]  # two tabs
        for _ in range(self.random.randint(4, 8)):
            kinds = self.random.choices(
                list(KINDS), list(KINDS.values()), k=self.random.randint(2, 4)
            )
            await self._round([(self.random.randrange(3), kind) for kind in kinds])
            self.installations.clock.now += self.random.choice(PAUSES)
            await self._look(self.random.sample(self.cookies, min(3, len(self.cookies))))
        await self._look(self.cookies)

    async def _round(self, plan: list[tuple[int, str]]) -> None:
        self.model.new_round()
        under_way = []
        for browser, kind in plan:
            cookie = self.browsers[browser]
            if self.cookies and self.random.random() < 0.1:
                cookie = self.random.choice(self.cookies)  # an old or stolen cookie
            visitor = Visitor(self.random.choice(self.installations.processes), cookie=cookie)
            operation = Operation(
                kind, self.installations.ticket(cookie), self.random.choice(self.users)
            )
            under_way.append((browser, cookie, visitor, operation))
        self.installations.schedule.steps.append(f"| {' '.join(kind for _, kind in plan)}:")
        await self.installations.interleaving.together(
            *(self._do(v, o) for _, _, v, o in under_way)
        )
        self.random.shuffle(under_way)
        for browser, before, visitor, operation in under_way:
            self.done[operation.kind] += 1
            if visitor.cookie != before:
                self.model.check_cookie(operation.ticket, self.installations.ticket(visitor.cookie))
                if visitor.cookie is not None:
                    self.cookies.append(visitor.cookie)
                if self.random.random() < 0.9:  # otherwise the response is lost
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
            pass  # a permitted error; the model checks the effects

    def _begin(self, operation: Operation) -> None:
        self.installations.clock.now += TICK
        operation.started_at = self.installations.clock()

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
        """Write twice to one session, with a refresh in between."""
        session = await visitor.load()
        copy_of(session).response_started = True
        for _ in range(2):
            session.increment("n")
            await session.acommit()
            await session.arefresh()

    async def _look(self, cookies: list[str]) -> None:
        """Check the session of each cookie and the sessions of each user."""
        now = self.installations.clock()
        for cookie in cookies:
            ticket = self.installations.ticket(cookie)
            assert ticket is not None
            session = await Visitor(self.installations.reader, cookie=cookie).load()
            found = None if session.new else (session.user, session.get("n", 0))
            expected = self.model.expected(ticket, now)
            assert found == expected, f"A7, A9, A17: a ticket opens {found}, expected {expected}"
        for user in self.users:
            infos = await self.installations.reader.alist_user(user)
            assert {info.id for info in infos} == self.model.listed(user, now), "S15"


def run_batch(store: Any, numbers: range) -> Counter[str]:
    """Run histories over one store; return the number of operations of each kind."""
    total: Counter[str] = Counter()
    installations = Installations(
        store, rotate_interval="20 seconds" if numbers[0] // SHARED % 2 else None
    )
    with asyncio.Runner(loop_factory=idle_loop) as runner:
        for number in numbers:
            history = History(installations, number)
            try:
                runner.run(history.run())
            except BaseException as error:
                error.add_note(f"in history {number}: {' '.join(installations.schedule.steps)}")
                raise
            total += history.done
    return total


def run_histories(kind: str, folder: Any, histories: int) -> Counter[str]:
    """Run histories, with a new store for every hundred."""
    total: Counter[str] = Counter()
    for start in range(0, histories, SHARED):
        store = MemoryStore() if kind == "memory" else SQLiteStore(folder / f"{start}.db")
        numbers = range(start, min(start + SHARED, histories))
        try:
            total += run_batch(store, numbers)
        finally:
            if kind == "sqlite":
                store.close()
    assert set(total) == set(KINDS)
    return total


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_no_history_breaks_a_law(kind, tmp_path):
    """A7, A9, A17, S15, S16: logins, rotations, writes, touches, revocations and timeouts."""
    run_histories(kind, tmp_path, 150)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_no_history_of_thousands_breaks_a_law(kind, tmp_path):
    """A7, A9, A17, S15, S16: 10,000 histories over each store."""
    assert run_histories(kind, tmp_path, 10_000).total() > 150_000
