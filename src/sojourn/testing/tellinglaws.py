"""The laws of stores that announce: S17, and that realms are apart there too (S14).

What lives here: what ``announce``, ``listen`` and a ``Subscription`` must do, told through one store
object and heard through another, as two processes do. What must not: what a message means for a
socket (``live/``). All of it runs without an event loop, as ``live/broadcast.py`` calls a store.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final, Protocol, cast

import pytest

from sojourn._core.concurrency import run
from sojourn.errors import StoreError, StoreUnavailable
from sojourn.record import Record
from sojourn.store import (
    SAVED,
    BroadcastMessage,
    MessageKind,
    Store,
    Subscription,
    SupportsBroadcast,
)
from sojourn.testing.records import HOUR, make_record, next_version, now
from sojourn.testing.running import PATIENCE
from sojourn.testing.storekit import StoreKit, close

ONE: Final = b"1" * 16
TWO: Final = b"2" * 16

#: What every process is told, with all that may go with it.
TOLD: Final = (
    BroadcastMessage(1, "revoked", ONE, 7, "stolen phone"),
    BroadcastMessage(1, "rotated", ONE, 8, "login"),
    BroadcastMessage(1, "all-before", b"", now(), "administrator"),
)


class AnnouncingStore(Store, SupportsBroadcast, Protocol):
    """A store that also announces."""


class Ear:
    """A listener that notes what it hears, each gap as None.

    Args:
        store: whose.
    """

    def __init__(self, store: AnnouncingStore) -> None:
        self._heard: queue.SimpleQueue[BroadcastMessage | None] = queue.SimpleQueue()
        self.listening: Subscription = store.subscribe(
            self._heard.put, lambda: self._heard.put(None)
        )
        assert self.next() is None, "a message was heard before the gap at the beginning"

    def next(self, patience: float | None = None) -> BroadcastMessage | None:
        """Return what is heard next, None for a gap.

        Raises:
            AssertionError: nothing is heard.
        """
        try:
            return self._heard.get(timeout=PATIENCE if patience is None else patience)
        except queue.Empty:
            raise AssertionError("nothing is heard, and no gap was told") from None

    def until(self, wanted: BroadcastMessage | None) -> list[BroadcastMessage | None]:
        """Listen until something is heard; return all that came before it."""
        before = []
        while (found := self.next()) != wanted:
            before.append(found)
        return before

    def until_it_hears(self, act: Callable[[], BroadcastMessage]) -> None:
        """Do something again and again until one of the messages it leads to is heard.

        Args:
            act: returns the message it leads to.
        """
        expected = []
        last = time.monotonic() + PATIENCE
        while time.monotonic() < last:
            with suppress(StoreUnavailable):  # whoever tells has to find its way back, too
                expected.append(act())
            with suppress(AssertionError):
                while (found := self.next(_MOMENT)) not in expected or found is None:
                    pass
                return
        raise AssertionError("it is not heard, however often it happens")

    def rest(self) -> list[BroadcastMessage | None]:
        """Return what was heard and not asked for yet."""
        found = []
        while not self._heard.empty():
            found.append(self._heard.get())
        return found


#: Seconds until something is done again of which nothing was heard.
_MOMENT: Final = 0.1


def tell(store: AnnouncingStore, told: BroadcastMessage) -> BroadcastMessage:
    """Announce something to every process; return it."""
    run(store.publish(told.kind, told.session_id, version=told.version, reason=told.reason))
    return told


def revoked(session_id: bytes, version: int = 1) -> BroadcastMessage:
    """Return a message that every process hears."""
    return BroadcastMessage(1, "revoked", session_id, version, "")


class Saves:
    """Saves a session again and again.

    Args:
        store: through which.
        record: as it is stored.
    """

    def __init__(self, store: AnnouncingStore, record: Record) -> None:
        self._store = store
        self.record: Record = record

    def __call__(self) -> BroadcastMessage:
        """Save once; return what whoever watches hears."""
        expected, self.record = self.record.version, next_version(self.record)
        assert run(self._store.save(self.record, expected)) is SAVED
        return BroadcastMessage(1, "changed", self.record.id, self.record.version, "")


class TellingLaws(StoreKit):
    """What processes tell each other."""

    # Telling

    def test_what_is_told_is_heard_in_every_process(self) -> None:
        """S17: as it was told, by who told it too, and by several listeners of one process."""
        with self.two_stores() as (store, other):
            ears = [Ear(store), Ear(other), Ear(other)]
            for told in TOLD:
                tell(store, told)
            for ear in ears:
                heard = [ear.next() for _ in TOLD]
                assert sorted(map(repr, heard)) == sorted(map(repr, TOLD))

    def test_realms_do_not_hear_each_other(self) -> None:
        """S14, S17: one server, two installations."""
        with self.two_stores() as (store, _), self.two_stores("other") as (foreign, _):
            ear = Ear(store)
            tell(foreign, revoked(ONE))
            told = [tell(store, revoked(TWO, version)) for version in (1, 2)]
            assert [ear.next(), ear.next(), *ear.rest()] == told

    def test_what_is_told_is_a_hint_and_changes_no_record(self) -> None:
        """S17: told twice, or of what did not happen."""
        with self.two_stores() as (store, other):
            ear = Ear(other)
            record = make_record()
            assert run(store.create(record)) is True
            kinds: tuple[MessageKind, ...] = ("revoked", "rotated", "changed", "all-before")
            for kind in kinds:
                for session_id in (record.id, record.id, ONE):
                    named = b"" if kind == "all-before" else session_id
                    tell(
                        store, BroadcastMessage(1, kind, named, record.created_at + HOUR, "rumour")
                    )
            tell(store, revoked(TWO))
            ear.until(revoked(TWO))
            for each in (store, other):
                assert run(each.load(record.id)) == record
                assert run(each.load(ONE)) is None
            assert run(other.save(next_version(record), 1)) is SAVED

    # Changes

    def test_a_change_is_told_to_who_watches_the_session(self) -> None:
        """S17: by its save, with the new version; what was not saved is not told."""
        with self.two_stores() as (store, other):
            self.needs_telling_saves()
            ear = Ear(other)
            watched, ignored = make_record(), make_record()
            for record in (watched, ignored):
                assert run(store.create(record)) is True
            ear.listening.watch(watched.id)
            save = Saves(store, watched)
            ear.until_it_hears(save)
            assert run(store.save(next_version(ignored), 1)) is SAVED
            assert run(store.save(next_version(save.record), 1)) is not SAVED
            tell(store, revoked(ONE))
            heard = ear.until(revoked(ONE))
            assert {each.session_id for each in heard if each is not None} <= {watched.id}
            late = BroadcastMessage(1, "changed", watched.id, save.record.version + 1, "")
            assert late not in heard

    def test_what_is_unwatched_is_heard_no_more(self) -> None:
        """S17: as often as it was watched; and soon, for nobody waits for the server."""
        with self.two_stores() as (store, other):
            self.needs_telling_saves()
            ear = Ear(other)
            record = make_record()
            assert run(store.create(record)) is True
            save = Saves(store, record)
            ear.listening.watch(record.id)
            ear.listening.watch(record.id)
            ear.until_it_hears(save)
            ear.listening.unwatch(record.id)
            ear.until_it_hears(save)
            ear.listening.unwatch(record.id)
            last = time.monotonic() + self.deadline
            while True:
                change = save()
                sign = tell(store, revoked(ONE, change.version))
                if change not in ear.until(sign):
                    break
                assert time.monotonic() < last, "its changes are still heard"

    # Subscription

    def test_a_closed_listener_hears_nothing_more(self) -> None:
        """S17: nothing once ``close`` has returned, which may be repeated; others go on."""
        with self.two_stores() as (store, other):
            closed, stays = Ear(other), Ear(other)
            for _ in range(2):
                closed.listening.close()
            closed.rest()
            for version in range(1, 20):  # time enough for what was told first to be heard late
                stays.until(tell(store, revoked(ONE, version)))
            assert closed.rest() == []

    def test_closed_listeners_leave_no_thread(self) -> None:
        """S17: however many there were."""
        with self.two_stores() as (_, other):
            Ear(other).listening.close()
            before = set(threading.enumerate())
            for _ in range(5):
                Ear(other).listening.close()
            for thread in set(threading.enumerate()) - before:
                thread.join(self.deadline)
                assert not thread.is_alive(), f"{thread.name} is left of a listener"

    def test_a_listener_that_was_away_is_told_of_the_gap(self) -> None:
        """S17: nobody can tell it anything meanwhile; afterwards it hears all it wanted to."""
        with self.two_stores() as (store, other):
            ear = Ear(other)
            tell(store, revoked(ONE))
            ear.until(revoked(ONE))
            record = make_record()
            with self.outage("refuse"):
                with pytest.raises(StoreError):
                    tell(store, revoked(TWO))
                began = time.monotonic()
                ear.listening.watch(record.id)
                assert time.monotonic() - began < self.deadline / 2, "watching waits for the server"
            ear.until(None)
            ear.until_it_hears(lambda: tell(store, revoked(TWO)))
            if self.tells_changes:
                assert run(store.create(record)) is True
                ear.until_it_hears(Saves(store, record))

    # For these laws

    @contextmanager
    def two_stores(
        self, realm: str = "default"
    ) -> Iterator[tuple[AnnouncingStore, AnnouncingStore]]:
        """Give two store objects over the same records; skip where they do not announce."""
        if self.requires_event_loop:
            pytest.skip("threads tell and hear, and this store works under an event loop only")
        with ExitStack() as stack:
            made = []
            for _ in range(2):
                store = self.make_store(realm)
                stack.callback(close, store)
                if not isinstance(store, SupportsBroadcast):
                    pytest.skip("this store announces nothing")
                made.append(cast("AnnouncingStore", store))
            yield made[0], made[1]

    def needs_telling_saves(self) -> None:
        """Skip a law about changes where saves tell nobody."""
        if not self.tells_changes:
            pytest.skip("the saves of this store tell nobody")
