"""Participants of races in one process or several, for tests of every order of store calls.

With ``apart`` each participant has its own installation, like a separate process, and only the
store is shared. Otherwise the participants share one installation and its queue.
"""

import secrets
from dataclasses import dataclass

from sojourn.session import Session
from sojourn.sessions import Sessions
from sojourn.store import Store
from sojourn.testing import FakeClock, Visitor
from tests.support.interleave import Interleaving, interleave

SECRET = b"interleavings-7Jm2Qw9vXc4Rk1"


@dataclass
class Race:
    """The setup of a race: the store, tasks or threads, one installation or several."""

    store: Store
    threads: bool
    apart: bool

    def run(self, scenario, min_orders: tuple[int, int]) -> None:
        """Run a scenario in every order.

        Args:
            scenario: gets a ``MultiProcessModel``.
            min_orders: the least number of orders with several installations and with one, whose
                queue allows fewer.
        """

        async def run(interleaving: Interleaving) -> None:
            await scenario(MultiProcessModel(interleaving, self))

        orders = interleave(run, threads=self.threads)
        assert orders >= min_orders[0 if self.apart else 1] > 1


class MultiProcessModel:
    """Visitors with one cookie, in one installation or several; made for each order."""

    def __init__(self, interleaving: Interleaving, race: Race) -> None:
        self._apart = race.apart
        self._store = interleaving.wrap(race.store)
        self.clock = FakeClock()
        self.user = f"user-{secrets.token_hex(8)}"  # unique: the store is used for all orders
        self.together = interleaving.together
        self._first = self._visitor()

    def _visitor(self) -> Visitor:
        return Visitor(
            Sessions(store=self._store, secret=SECRET, clock=self.clock, touch_interval=60)
        )

    async def visitors(self, number: int, **data) -> list[Visitor]:
        """Create a session with data; return visitors with its cookie."""
        async with self._first.visit() as session:
            session.update(data)
        if not self._apart:
            return [self._first.at(self._first.sessions) for _ in range(number)]
        return [self._first.at(self._visitor().sessions) for _ in range(number)]

    @property
    def sessions(self) -> Sessions:
        """A new installation, like that of another process."""
        return self._visitor().sessions

    async def open(self, cookie: str | None) -> Session:
        """Return the session of a cookie, loaded in another process."""
        visitor = self._visitor()
        visitor.cookie = cookie
        return await visitor.load()

    async def data(self) -> dict:
        """Return the session data of the first cookie, loaded in another process."""
        return dict(await self.open(self._first.cookie))


async def write(visitor: Visitor, name: str) -> None:
    """Change shared keys with every mergeable operation, and one key of this visitor."""
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
