"""The laws of stores that announce (S17) notice a store that breaks them, fault by fault.

What lives here: a store that announces within one process and keeps them all, and what may be wrong
with one. What must not: a server; over one the laws are kept in ``tests/unit/stores/redis``.
"""

import queue
import threading
import time
from contextlib import contextmanager

import pytest
from sojourn.testing.tellinglaws import TellingLaws

from sojourn.errors import StoreUnavailable
from sojourn.store import SAVED, BroadcastMessage
from sojourn.stores.memory import MemoryStore
from sojourn.testing import tellinglaws

#: Seconds that a law waits for what a broken store never does.
PATIENCE = 0.5


class Server:
    """What the store objects of one test share."""

    def __init__(self):
        self.records = {}
        self.listeners = []
        self.threads = []
        self.is_down = False

    @contextmanager
    def outage(self):
        self.is_down = True
        yield
        self.is_down = False
        for listener in self.listeners:
            listener.is_back()

    def stop(self):
        for tasks in self.threads:
            tasks.put(None)


class Listener:
    """One thread, which calls whatever it is given."""

    def __init__(self, server, realm, heard, gap):
        self.server, self.realm, self.heard, self.gap = server, realm, heard, gap
        self.tasks = queue.SimpleQueue()
        self.watched = {}
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        server.threads.append(self.tasks)
        server.listeners.append(self)
        self.begin()

    def run(self):
        while (task := self.tasks.get()) is not None:
            task()

    def begin(self):
        self.tasks.put(self.gap)

    def is_back(self):
        self.tasks.put(self.gap)

    def take(self, realm, message):
        watched = message.kind != "changed" or self.watched.get(message.session_id, 0) > 0
        if realm == self.realm and watched:
            self.tasks.put(lambda: self.heard(message))

    def watch(self, session_id):
        self.watched[session_id] = self.watched.get(session_id, 0) + 1

    def unwatch(self, session_id):
        self.watched[session_id] -= 1

    def close(self):
        if self in self.server.listeners:
            self.server.listeners.remove(self)
            self.tasks.put(None)
            self.thread.join()


class Store:
    """Records in memory, and everybody who listens to them."""

    listener = Listener

    def __init__(self, server, realm):
        self.server = server
        self.realm = realm
        self.records = server.records.setdefault(realm, MemoryStore())

    def __getattr__(self, name):
        return getattr(self.records, name)

    async def save(self, record, expected_version):
        answer = await self.records.save(record, expected_version)
        if answer is SAVED:
            self.tell("changed", record.id, record.version, "")
        return answer

    async def publish(self, kind, session_id, *, version=0, reason=""):
        if self.server.is_down:
            raise StoreUnavailable("the server is away. Try again later")
        self.tell(kind, session_id, version, reason)

    def tell(self, *what):
        for listener in list(self.server.listeners):
            listener.take(self.realm, BroadcastMessage(1, *what))

    def subscribe(self, on_message, gap):
        return self.listener(self.server, self.realm, on_message, gap)


class Judging(TellingLaws):
    """How the laws get at it."""

    deadline = 1.0

    def __init__(self, store=Store):
        self.store = store
        self.server = Server()

    def make_store(self, realm):
        return self.store(self.server, realm)

    def outage(self, kind):
        return self.server.outage()


LAWS = [name for name in dir(TellingLaws) if name.startswith("test_")]


@pytest.mark.parametrize("law", LAWS)
def test_a_store_that_keeps_the_laws_is_found_to_keep_them(law):
    """S17."""
    judging = Judging()
    getattr(judging, law)()
    judging.server.stop()


# What may be wrong with a store


class Silent(Store):
    def tell(self, *what):
        pass


class Brief(Store):
    def tell(self, kind, session_id, version, reason):
        super().tell(kind, session_id, version, "")


class Everywhere(Store):
    def tell(self, *what):
        for listener in list(self.server.listeners):
            listener.take(listener.realm, BroadcastMessage(1, *what))


class Credulous(Store):
    async def publish(self, kind, session_id, *, version=0, reason=""):
        await super().publish(kind, session_id, version=version, reason=reason)
        if kind == "revoked":
            await self.records.delete(session_id)


class Hasty(Store):
    async def save(self, record, expected_version):
        self.tell("changed", record.id, record.version, "")
        return await self.records.save(record, expected_version)


class Secretive(Store):
    async def save(self, record, expected_version):
        return await self.records.save(record, expected_version)


class Careless(Store):
    async def publish(self, kind, session_id, *, version=0, reason=""):
        if not self.server.is_down:
            await super().publish(kind, session_id, version=version, reason=reason)


# What may be wrong with a listener


class SureOfItself(Listener):
    def begin(self):
        pass


class Curious(Listener):
    def take(self, realm, message):
        if realm == self.realm:
            self.tasks.put(lambda: self.heard(message))


class Forgetful(Listener):
    def unwatch(self, session_id):
        self.watched[session_id] = 0


class Clinging(Listener):
    def unwatch(self, session_id):
        pass


class Open(Listener):
    def close(self):
        pass


class Lingering(Listener):
    def close(self):
        if self in self.server.listeners:
            self.server.listeners.remove(self)


class Unaware(Listener):
    def is_back(self):
        pass


class Blank(Listener):
    def is_back(self):
        self.watched.clear()
        super().is_back()


class Waiting(Listener):
    def watch(self, session_id):
        super().watch(session_id)
        if self.server.is_down:
            time.sleep(0.6)  # this is what is wrong with it


HEARD = "test_what_is_told_is_heard_in_every_process"
CHANGE = "test_a_change_is_told_to_who_watches_the_session"
UNWATCHED = "test_what_is_unwatched_is_heard_no_more"
AWAY = "test_a_listener_that_was_away_is_told_of_the_gap"


@pytest.mark.parametrize(
    ("law", "fault"),
    [
        (HEARD, Silent),
        (HEARD, Brief),
        (HEARD, SureOfItself),
        ("test_realms_do_not_hear_each_other", Everywhere),
        ("test_what_is_told_is_a_hint_and_changes_no_record", Credulous),
        (CHANGE, Secretive),
        (CHANGE, Hasty),
        (CHANGE, Curious),
        (UNWATCHED, Forgetful),
        (UNWATCHED, Clinging),
        ("test_a_closed_listener_hears_nothing_more", Open),
        ("test_closed_listeners_leave_no_thread", Lingering),
        (AWAY, Careless),
        (AWAY, Unaware),
        (AWAY, Blank),
        (AWAY, Waiting),
    ],
)
def test_a_store_that_breaks_a_law_is_found_out(law, fault, monkeypatch):
    """S17: each law fails for a store or a listener with a fault that it is about."""
    monkeypatch.setattr(tellinglaws, "PATIENCE", PATIENCE)
    broken = fault
    if issubclass(fault, Listener):
        broken = type(fault.__name__, (Store,), {"listener": fault})
    judging = Judging(broken)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(judging, law)()
    judging.server.stop()
