"""Small stores: one without capabilities, and one with every capability that needs no server."""

from sojourn.record import Record
from sojourn.store import SAVED, Purged
from sojourn.stores.memory import MemoryStore

METHODS = (
    *("load", "create", "save", "touch", "delete", "purge"),
    *("save_login", "list_by_index", "invalidate_logins", "invalidate_all"),
)


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


class CapableStore:
    """A store over a ``MemoryStore``, whose bulk and immediate calls are made of single calls.

    Subclasses override methods to break them; ``inner`` stays correct.
    """

    def __init__(self) -> None:
        self.inner = MemoryStore()
        # Attributes of the object, because a Protocol does not see ``__getattr__``.
        for name in METHODS:
            if not hasattr(type(self), name):
                setattr(self, name, getattr(self.inner, name))

    async def delete_many(self, session_ids):
        return [await self.inner.delete(session_id) for session_id in session_ids]

    async def create_many(self, records):
        return [await self.inner.create(record) for record in records]

    def peek(self, session_id):
        return complete(self.inner.load(session_id))

    def swap(self, record, expected_version):
        return complete(self.inner.save(record, expected_version)) is SAVED


def complete(coroutine):
    """Return the result of a coroutine that does not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the coroutine has suspended")
