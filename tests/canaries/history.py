"""Canaries of the history of ended sessions and of the list of live ones."""

from sojourn.store import HistoryPage
from tests.canaries.registry import canary

HISTORY = "sojourn._core.history:History"
MEMORY = "sojourn.stores.memory:MemoryStore"
APPLICATIONS = "contract/test_history.py::TestASGI"

NO_RECORDS = {}


@canary("A7", f"{HISTORY}.add", tests=APPLICATIONS, raises="ValueError")
def an_ended_session_has_no_entry(add):
    async def faulty(self, session_ids, reason, *, actor=None, at, records=NO_RECORDS, user=None):
        pass

    return faulty


@canary("A7", f"{HISTORY}.add", tests=APPLICATIONS, raises="ValueError")
def an_ended_session_has_two_entries(add):
    async def faulty(self, session_ids, reason, *, actor=None, at, records=NO_RECORDS, user=None):
        await add(self, session_ids, reason, actor=actor, at=at, records=records, user=user)
        await add(self, session_ids, reason, actor=actor, at=at, records=records, user=user)

    return faulty


@canary("A7", f"{HISTORY}.add", tests=APPLICATIONS)
def an_entry_does_not_name_the_actor(add):
    async def faulty(self, session_ids, reason, *, actor=None, at, records=NO_RECORDS, user=None):
        await add(self, session_ids, reason, at=at, records=records, user=user)

    return faulty


@canary("A7", f"{HISTORY}.load", tests=APPLICATIONS, raises="KeyError")
def an_entry_does_not_name_the_user(load):
    async def faulty(self, session_id):
        return None

    return faulty


@canary("A15", f"{HISTORY}.add", tests=APPLICATIONS)
def a_failing_history_fails_the_logout(add):
    async def faulty(self, session_ids, reason, *, actor=None, at, records=NO_RECORDS, user=None):
        await self._history.add_history([], 0)
        await add(self, session_ids, reason, actor=actor, at=at, records=records, user=user)

    return faulty


@canary("S8", f"{MEMORY}._purge_history", tests="TestMemoryStore")
def memory_purge_removes_no_entry(purge_history):
    def faulty(self, now, limit):
        return True

    return faulty


@canary("S8", f"{MEMORY}._purge_history", tests="TestMemoryStore")
def memory_purge_removes_every_expired_entry_at_once(purge_history):
    def faulty(self, now, limit):
        return purge_history(self, now, 10**9)

    return faulty


@canary("S9", f"{MEMORY}.list_history", tests="TestMemoryStore")
def memory_history_loses_the_labels(list_history):
    async def faulty(self, cursor, limit):
        page = await list_history(self, cursor, limit)
        entries = [type(each)(*(getattr(each, name) for name in _NAMES)) for each in page.entries]
        return HistoryPage(entries, page.unreadable, page.cursor)

    return faulty


#: The fields of an entry before its labels.
_NAMES = ("session_id", "ended_at", "reason", "actor", "user", "created_at")
