"""Small stores: one without capabilities, and one with every capability that needs no server."""

from sojourn.record import Record
from sojourn.store import SAVED, Purged
from sojourn.stores.memory import MemoryStore


class PlainStore:
    """The six methods of a store, over a dictionary."""

    def __init__(self) -> None:
        self.records: dict[bytes, Record] = {}

    async def load(self, session_id):
        return self.records.get(session_id)

    async def create(self, record):
        return self.records.setdefault(record.id, record) is record

    async def save(self, record, expected_version):
        raise NotImplementedError

    async def touch(self, record):
        raise NotImplementedError

    async def delete(self, session_id):
        return self.records.pop(session_id, None) is not None

    async def purge(self, now, limit):
        return Purged(0, finished=True)


class DictStore(MemoryStore):
    """A memory store whose bulk and immediate methods are built of its other methods."""

    async def delete_many(self, session_ids):
        return [await self.delete(session_id) for session_id in session_ids]

    async def create_many(self, records):
        return [await self.create(record) for record in records]

    def peek(self, session_id):
        return complete(self.load(session_id))

    def swap(self, record, expected_version):
        return complete(self.save(record, expected_version)) is SAVED


def complete(coroutine):
    """Return the result of a coroutine that does not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the coroutine has suspended")
