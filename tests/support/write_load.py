"""Continuous saves and a count of their outcomes, for tests that disturb servers."""

import asyncio
import contextlib
import time

from sojourn.errors import StoreUnavailable
from sojourn.store import SAVED, Conflict
from sojourn.testing.records import make_record, next_version


class Load:
    """Eight sessions that are saved constantly, and the outcomes of the saves.

    Attributes:
        acknowledged: the version of the last acknowledged save, by session.
        failures: instants of failed calls.
        rolled_back: number of acknowledged versions that were missing, by session.
        lowest: the lowest version that was found when some were missing, by session.
    """

    def __init__(self, store):
        self.store = store
        self.acknowledged = {}
        self.failures = []
        self.rolled_back = {}
        self.lowest = {}
        self.ending = False

    async def run(self):
        records = [make_record() for _ in range(8)]
        for record in records:
            await self.store.create(record)
        await asyncio.gather(*(self._write(record) for record in records))

    async def _write(self, record):
        current = record
        self.acknowledged[record.id] = current.version
        while not self.ending:
            try:
                answer = await self.store.save(next_version(current), current.version)
                if answer is SAVED:
                    current = next_version(current)
                else:  # an earlier save whose reply was lost
                    current = answer.newer if isinstance(answer, Conflict) else current
                    self._found(current)
                self.acknowledged[record.id] = current.version
            except StoreUnavailable:
                self.failures.append(time.monotonic())
                with contextlib.suppress(StoreUnavailable):
                    current = await self.store.load(record.id) or current
                    self._found(current)
            await asyncio.sleep(0.005)  # limits the number of requests

    def _found(self, current):
        """Count the acknowledged versions that are missing; continue from the version found."""
        missing = self.acknowledged[current.id] - current.version
        if missing > 0:
            self.rolled_back[current.id] = self.rolled_back.get(current.id, 0) + missing
            self.lowest[current.id] = min(current.version, self.lowest.get(current.id, 1 << 62))
        self.acknowledged[current.id] = current.version

    def outage(self):
        """Return the seconds between the first and the last failed call."""
        return self.failures[-1] - self.failures[0] if self.failures else 0.0

    async def lost(self):
        """Return the number of acknowledged versions that are missing in the store."""
        missing = sum(self.rolled_back.values())
        for session_id, version in self.acknowledged.items():
            found = await self.store.load(session_id)
            missing += version if found is None else max(version - found.version, 0)
        return missing


async def under_load(store, disturb):
    """Run the load while a function of it runs in a thread; return the load."""
    load = Load(store)
    task = asyncio.ensure_future(load.run())
    while len(load.acknowledged) < 8:  # noqa: ASYNC110 - the load has no event for it
        await asyncio.sleep(0.01)
    await asyncio.to_thread(disturb, load)
    await asyncio.sleep(1.0)  # continue after the disturbance
    load.ending = True
    await task
    return load
