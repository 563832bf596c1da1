"""interleave: run a scenario once for each order of its participants' store calls.

The engine waits only for store calls, so their order determines the result of a race. A participant
is held before each call of a store from ``interleaving.wrap``; when all are held, waiting or done,
the schedule chooses the next one. Schedules are enumerated depth first; nothing is random.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from sojourn._core.concurrency import run
from sojourn.store import Store
from sojourn.testing.forwarding import ForwardingStore, Verb
from tests.support.scheduler import Scheduler, TaskScheduler, ThreadScheduler, idle_loop

T = TypeVar("T")


class ReplayedSchedule:
    """The choices of one run: a given prefix, then always the first participant.

    Attributes:
        steps: what was chosen, for messages.
    """

    def __init__(self, prefix: Sequence[int]) -> None:
        self._prefix = prefix
        self._choices: list[tuple[int, int]] = []
        self.steps: list[str] = []

    def choose(self, ready: Sequence[tuple[int, str]]) -> int:
        """Return which of the ready participants continues."""
        depth = len(self._choices)
        choice = self._prefix[depth] if depth < len(self._prefix) else 0
        assert choice < len(ready), "the scenario is not deterministic"
        self._choices.append((choice, len(ready)))
        participant, step = ready[choice]
        self.steps.append(f"{participant + 1}:{step}")
        return participant

    def next_prefix(self) -> list[int] | None:
        """Return the prefix of the next schedule; None after the last one."""
        for depth in reversed(range(len(self._choices))):
            choice, ready = self._choices[depth]
            if choice + 1 < ready:
                return [earlier for earlier, _ in self._choices[:depth]] + [choice + 1]
        return None


class Interleaving:
    """One run of a scenario: wraps stores and runs participants in the order of a schedule."""

    def __init__(self, schedule: Any, scheduler: Callable[[Any], Scheduler]) -> None:
        self._schedule = schedule
        self._scheduler = scheduler
        self.current: Scheduler | None = None

    def wrap(self, store: Store) -> Store:
        """Return a store that holds a participant before each call."""
        return _HoldingStore(store, self)

    async def together(self, *participants: Coroutine[Any, Any, Any]) -> list[Any]:
        """Run coroutines in the order of the schedule and return their results.

        Raises:
            Exception: the first that a participant raised, after all are done.
        """
        self.current = self._scheduler(self._schedule)
        try:
            results = await self.current.run(participants)
        finally:
            self.current = None
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results


Scenario = Callable[[Interleaving], Coroutine[Any, Any, None]]


def interleave(scenario: Scenario, *, threads: bool = False, limit: int = 100_000) -> int:
    """Run a scenario in every order of its participants' store calls.

    Args:
        scenario: called once for each order; sets up, calls ``together`` and checks.
        threads: run participants in threads without an event loop instead of tasks.
        limit: the most orders; more are an error.

    Returns:
        The number of orders. Assert that it is more than one: a scenario whose store is not wrapped
        has one order.

    Raises:
        Exception: raised by the scenario, with a note that names the order.
    """
    prefix: list[int] | None = []
    count = 0
    while prefix is not None:
        schedule = ReplayedSchedule(prefix)
        try:
            if threads:
                run(scenario(Interleaving(schedule, ThreadScheduler)))
            else:
                with asyncio.Runner(loop_factory=idle_loop) as runner:
                    runner.run(scenario(Interleaving(schedule, TaskScheduler)))
        except BaseException as error:
            error.add_note(f"in schedule {count + 1}: {' '.join(schedule.steps)}")
            raise
        count += 1
        assert count <= limit, f"more than {limit} orders: make the scenario smaller"
        prefix = schedule.next_prefix()
    return count


class _HoldingStore(ForwardingStore):
    """Holds the caller before each call; see ``Interleaving.wrap``."""

    def __init__(self, store: Store, interleaving: Interleaving) -> None:
        super().__init__(store)
        self._interleaving = interleaving

    async def forward(self, verb: Verb, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Perform the call when the schedule chooses the caller."""
        scheduler = self._interleaving.current
        if scheduler is None:
            return await call()
        async with scheduler.step(verb):
            return await call()
