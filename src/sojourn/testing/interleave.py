"""interleave: run a scene once for each order in which its participants' store calls can happen.

What lives here: the enumeration of schedules and ``Stage``, which a scene gets. What must not: how
participants are held and released (``stepping.py``).

Every wait of the engine is a store call, so the order of store calls is all there is to a race.
Each call of a store that was wrapped by ``stage.wrap`` pauses first; whenever everybody is paused,
waiting or done, the schedule says who takes the next step. Schedules are walked depth first until
none is left: no chance, no sleeping, and a failure names its schedule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from sojourn._core.concurrency import run
from sojourn.store import Store
from sojourn.testing.passing import Passing, Verb
from sojourn.testing.stepping import Stepper, TaskStepper, ThreadStepper, idle_loop

T = TypeVar("T")


class Schedule:
    """The choices of one run: a given beginning, then always the first participant that can go."""

    def __init__(self, beginning: Sequence[int]) -> None:
        self._beginning = beginning
        self._choices: list[tuple[int, int]] = []
        self.steps: list[str] = []

    def choose(self, ready: Sequence[tuple[int, str]]) -> int:
        """Return which of the ready participants goes on, and note the step."""
        depth = len(self._choices)
        choice = self._beginning[depth] if depth < len(self._beginning) else 0
        assert choice < len(ready), "the scene does not run the same way twice"
        self._choices.append((choice, len(ready)))
        participant, step = ready[choice]
        self.steps.append(f"{participant + 1}:{step}")
        return participant

    def following(self) -> list[int] | None:
        """Return the beginning of the next schedule, None if this was the last."""
        for depth in reversed(range(len(self._choices))):
            choice, ready = self._choices[depth]
            if choice + 1 < ready:
                return [earlier for earlier, _ in self._choices[:depth]] + [choice + 1]
        return None


class Stage:
    """What a scene gets: it wraps stores, and lets participants run in this schedule's order."""

    def __init__(self, schedule: Schedule, stepper: Callable[[Schedule], Stepper]) -> None:
        self._schedule = schedule
        self._stepper = stepper
        self.current: Stepper | None = None

    def wrap(self, store: Store) -> Store:
        """Return the store with a pause before each call that a participant makes."""
        return PausingStore(store, self)

    async def together(self, *participants: Coroutine[Any, Any, Any]) -> list[Any]:
        """Run coroutines in the order of this schedule and return their results.

        Raises:
            Exception: whatever a participant raised, once all are done.
        """
        self.current = self._stepper(self._schedule)
        try:
            results = await self.current.run(participants)
        finally:
            self.current = None
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results


Scene = Callable[[Stage], Coroutine[Any, Any, None]]


def interleave(scene: Scene, *, threads: bool = False, limit: int = 100_000) -> int:
    """Run a scene in every order of its participants' store calls.

    Args:
        scene: called anew for each order; sets up, calls ``stage.together`` and checks.
        threads: participants are threads without an event loop, not tasks of one.
        limit: more orders than this are an error: make the scene smaller.

    Returns:
        How many orders there were. Assert that it is what you expect, or at least more than one: a
        scene whose store was not wrapped has one order and proves nothing.

    Raises:
        Exception: what the scene raised, with a note that names the order.
    """
    beginning: list[int] | None = []
    count = 0
    while beginning is not None:
        schedule = Schedule(beginning)
        try:
            if threads:
                run(scene(Stage(schedule, ThreadStepper)))
            else:
                with asyncio.Runner(loop_factory=idle_loop) as runner:
                    runner.run(scene(Stage(schedule, TaskStepper)))
        except BaseException as error:
            error.add_note(f"in schedule {count + 1}: {' '.join(schedule.steps)}")
            raise
        count += 1
        assert count <= limit, f"more than {limit} orders: make the scene smaller"
        beginning = schedule.following()
    return count


class PausingStore(Passing):
    """SupportsTimeout for its turn before each call of a participant; see ``Stage.wrap``."""

    def __init__(self, store: Store, stage: Stage) -> None:
        super().__init__(store)
        self._stage = stage

    async def passed(self, verb: Verb, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make a call of the store behind when the schedule says so."""
        stepper = self._stage.current
        if stepper is None:
            return await call()
        async with stepper.step(verb):
            return await call()
