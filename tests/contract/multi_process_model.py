"""Who takes part in races, and where: used by the tests that go through every order of store calls.

What lives here: settings, visitors, and what participants do. What must not: laws. With ``apart``
each participant has an installation of its own, as in another process, so they meet at the store
alone; otherwise they share one and its queue.
"""

import secrets
from dataclasses import dataclass

from sojourn.session import Session
from sojourn.sessions import Sessions
from sojourn.store import Store
from sojourn.testing import FakeClock, Stage, Visitor, interleave

SECRET = b"interleavings-7Jm2Qw9vXc4Rk1"


@dataclass
class Setting:
    """One combination: which store, tasks or threads, together or apart."""

    store: Store
    threads: bool
    apart: bool

    def play(self, scene, fewest: tuple[int, int]) -> None:
        """Run a scene in every order; assert that there were at least so many, apart or in line.

        A queue leaves fewer orders than there would be without it, but never one alone.
        """

        async def whole(stage: Stage) -> None:
            await scene(Company(stage, self))

        orders = interleave(whole, threads=self.threads)
        assert orders >= fewest[0 if self.apart else 1] > 1


class Company:
    """Who takes part in one run: visitors with one cookie, in one or several installations."""

    def __init__(self, stage: Stage, setting: Setting) -> None:
        self._apart = setting.apart
        self._store = stage.wrap(setting.store)
        self.clock = FakeClock()
        self.user = f"user-{secrets.token_hex(8)}"  # of this run: the store has those of others
        self.together = stage.together
        self._first = self._visitor()

    def _visitor(self) -> Visitor:
        return Visitor(
            Sessions(store=self._store, secret=SECRET, clock=self.clock, touch_interval=60)
        )

    async def visitors(self, number: int, **data) -> list[Visitor]:
        """Begin a session with data; return visitors who have its cookie."""
        async with self._first.visit() as session:
            session.update(data)
        if not self._apart:
            return [self._first.at(self._first.sessions) for _ in range(number)]
        return [self._first.at(self._visitor().sessions) for _ in range(number)]

    @property
    def sessions(self) -> Sessions:
        """An installation that nobody of them has: a later process."""
        return self._visitor().sessions

    async def open(self, cookie: str | None) -> Session:
        """Return what a cookie opens for a later request, in any process."""
        visitor = self._visitor()
        visitor.cookie = cookie
        return await visitor.load()

    async def data(self) -> dict:
        """Return what a later request finds with the first cookie."""
        return dict(await self.open(self._first.cookie))


async def write(visitor: Visitor, name: str) -> None:
    """Change a key that others change too, in every way that merges, and one of its own."""
    async with visitor.visit() as session:
        session.increment("n")
        session[name] = name
        session.setdefault("nested", {})[name] = 1
        session.append("log", name)


async def destroy(visitor: Visitor) -> None:
    async with visitor.visit() as session:
        session.destroy()


async def touch(visitor: Visitor) -> None:
    async with visitor.visit() as session:
        session.get("n")
