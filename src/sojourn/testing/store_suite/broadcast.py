"""Messages between processes: law S17, and S14 for them.

Two store objects stand for two processes. The tests run without an event loop, as
``SupportsBroadcast`` is called.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

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
from sojourn.testing.decorators import WAIT_TIMEOUT
from sojourn.testing.records import HOUR, make_record, next_version, now
from sojourn.testing.store_suite.base import StoreTests

ONE: Final = b"1" * 16
TWO: Final = b"2" * 16

#: One message of each kind that every subscriber receives.
MESSAGES: Final = (
    BroadcastMessage(1, "revoked", ONE, 7, "stolen phone"),
    BroadcastMessage(1, "rotated", ONE, 8, "login"),
    BroadcastMessage(1, "all-before", b"", now(), "administrator"),
)

#: Seconds until an action is repeated whose message did not arrive.
_RETRY_INTERVAL: Final = 0.1


class BroadcastStore(Store, SupportsBroadcast, Protocol):
    """A store with broadcast."""


class Subscriber:
    """A subscription whose messages are queued; a gap is queued as None."""

    def __init__(self, store: BroadcastStore) -> None:
        self._received: queue.SimpleQueue[BroadcastMessage | None] = queue.SimpleQueue()
        self.subscription: Subscription = store.subscribe(
            self._received.put, lambda: self._received.put(None)
        )
        assert self.next() is None, "a message arrived before the gap at the start"

    def next(self, timeout: float | None = None) -> BroadcastMessage | None:
        """Return the next message, None for a gap.

        Raises:
            AssertionError: nothing arrived within the timeout in seconds.
        """
        try:
            return self._received.get(timeout=WAIT_TIMEOUT if timeout is None else timeout)
        except queue.Empty:
            raise AssertionError("neither a message nor a gap arrived") from None

    def until(self, expected: BroadcastMessage | None) -> list[BroadcastMessage | None]:
        """Wait for a message; return those that arrived before it."""
        before = []
        while (found := self.next()) != expected:
            before.append(found)
        return before

    def repeat_until_received(self, publish: Callable[[], BroadcastMessage]) -> None:
        """Call a function that publishes a message until one of its messages arrives."""
        expected = []
        end = time.monotonic() + WAIT_TIMEOUT
        while time.monotonic() < end:
            with suppress(StoreUnavailable):  # the publisher may be reconnecting, too
                expected.append(publish())
            with suppress(AssertionError):
                while (found := self.next(_RETRY_INTERVAL)) not in expected or found is None:
                    pass
                return
        raise AssertionError("no message arrived")

    def received(self) -> list[BroadcastMessage | None]:
        """Return all messages that have arrived."""
        found = []
        while not self._received.empty():
            found.append(self._received.get())
        return found


def publish(store: BroadcastStore, message: BroadcastMessage) -> BroadcastMessage:
    """Publish a message and return it."""
    run(
        store.publish(
            message.kind, message.session_id, version=message.version, reason=message.reason
        )
    )
    return message


def revoked(session_id: bytes, version: int = 1) -> BroadcastMessage:
    """Return a message that every subscriber receives."""
    return BroadcastMessage(1, "revoked", session_id, version, "")


class Writer:
    """Saves a new version of a record at each call and returns the message about it."""

    def __init__(self, store: BroadcastStore, record: Record) -> None:
        self._store = store
        self.record: Record = record

    def __call__(self) -> BroadcastMessage:
        """Save once."""
        expected, self.record = self.record.version, next_version(self.record)
        assert run(self._store.save(self.record, expected)) is SAVED
        return BroadcastMessage(1, "changed", self.record.id, self.record.version, "")


class BroadcastTests(StoreTests):
    """Tests of publish and subscribe."""

    # Messages to every subscriber

    def test_every_subscriber_receives_a_message(self) -> None:
        """S17: unchanged, also in the publishing process and with several subscribers in one."""
        with self._two_stores() as (store, other):
            subscribers = [Subscriber(store), Subscriber(other), Subscriber(other)]
            for message in MESSAGES:
                publish(store, message)
            for subscriber in subscribers:
                received = [subscriber.next() for _ in MESSAGES]
                assert sorted(map(repr, received)) == sorted(map(repr, MESSAGES))

    def test_one_call_publishes_a_message_for_each_session(self) -> None:
        """S17, S18: a revocation of many sessions is one call."""
        with self._two_stores() as (store, other):
            subscriber = Subscriber(other)
            session_ids = [number.to_bytes(16) for number in range(1, 301)]
            run(store.publish("revoked", *session_ids, reason="reason"))
            received = [subscriber.next() for _ in session_ids]
            assert {each.session_id for each in received if each is not None} == set(session_ids)

    def test_messages_of_realms_are_isolated(self) -> None:
        """S14, S17: two installations on one server."""
        with self._two_stores() as (store, _), self._two_stores("other") as (foreign, _):
            subscriber = Subscriber(store)
            publish(foreign, revoked(ONE))
            published = [publish(store, revoked(TWO, version)) for version in (1, 2)]
            received = [subscriber.next(), subscriber.next(), *subscriber.received()]
            assert received == published

    def test_a_message_changes_no_record(self) -> None:
        """S17: even if it is duplicated or false."""
        with self._two_stores() as (store, other):
            subscriber = Subscriber(other)
            record = make_record()
            assert run(store.create(record)) is True
            kinds: tuple[MessageKind, ...] = ("revoked", "rotated", "changed", "all-before")
            for kind in kinds:
                for session_id in (record.id, record.id, ONE):
                    target = b"" if kind == "all-before" else session_id
                    instant = record.created_at + HOUR
                    publish(store, BroadcastMessage(1, kind, target, instant, "false"))
            publish(store, revoked(TWO))
            subscriber.until(revoked(TWO))
            for each in (store, other):
                assert run(each.load(record.id)) == record
                assert run(each.load(ONE)) is None
            assert run(other.save(next_version(record), 1)) is SAVED

    # Messages about changes

    def test_a_save_is_published_to_watching_subscribers(self) -> None:
        """S17: with the new version; a save that fails is not published."""
        with self._two_stores() as (store, other):
            self._check_publishes_changes()
            subscriber = Subscriber(other)
            watched, ignored = make_record(), make_record()
            for record in (watched, ignored):
                assert run(store.create(record)) is True
            subscriber.subscription.watch(watched.id)
            writer = Writer(store, watched)
            subscriber.repeat_until_received(writer)
            assert run(store.save(next_version(ignored), 1)) is SAVED
            assert run(store.save(next_version(writer.record), 1)) is not SAVED
            publish(store, revoked(ONE))
            received = subscriber.until(revoked(ONE))
            assert {each.session_id for each in received if each is not None} <= {watched.id}
            version = writer.record.version + 1
            assert BroadcastMessage(1, "changed", watched.id, version, "") not in received

    def test_unwatch_ends_the_messages_about_a_session(self) -> None:
        """S17: after as many calls as of ``watch``, within the deadline."""
        with self._two_stores() as (store, other):
            self._check_publishes_changes()
            subscriber = Subscriber(other)
            record = make_record()
            assert run(store.create(record)) is True
            writer = Writer(store, record)
            subscriber.subscription.watch(record.id)
            subscriber.subscription.watch(record.id)
            subscriber.repeat_until_received(writer)
            subscriber.subscription.unwatch(record.id)
            subscriber.repeat_until_received(writer)
            subscriber.subscription.unwatch(record.id)
            end = time.monotonic() + self.deadline
            while True:
                change = writer()
                later = publish(store, revoked(ONE, change.version))
                if change not in subscriber.until(later):
                    break
                assert time.monotonic() < end, "changes are still received"

    # Subscriptions

    def test_a_closed_subscription_receives_nothing(self) -> None:
        """S17: after ``close`` has returned, which is idempotent; others stay open."""
        with self._two_stores() as (store, other):
            closed, remaining = Subscriber(other), Subscriber(other)
            for _ in range(2):
                closed.subscription.close()
            closed.received()
            for version in range(1, 20):
                remaining.until(publish(store, revoked(ONE, version)))
            time.sleep(_RETRY_INTERVAL)  # a message may be delivered late
            assert closed.received() == []

    def test_closed_subscriptions_leave_no_thread(self) -> None:
        """S17: after any number of subscriptions."""
        with self._two_stores() as (_, other):
            Subscriber(other).subscription.close()
            before = set(threading.enumerate())
            for _ in range(5):
                Subscriber(other).subscription.close()
            for thread in set(threading.enumerate()) - before:
                thread.join(self.deadline)
                assert not thread.is_alive(), f"{thread.name} did not end"

    def test_a_disconnected_subscriber_receives_a_gap(self) -> None:
        """S17: after the outage it receives every message that it has subscribed to."""
        with self._two_stores() as (store, other):
            subscriber = Subscriber(other)
            publish(store, revoked(ONE))
            subscriber.until(revoked(ONE))
            record = make_record()
            with self.outage("refuse"):
                with pytest.raises(StoreError):
                    publish(store, revoked(TWO))
                start = time.monotonic()
                subscriber.subscription.watch(record.id)
                assert time.monotonic() - start < self.deadline / 2, "watch waits for the server"
            subscriber.until(None)
            subscriber.repeat_until_received(lambda: publish(store, revoked(TWO)))
            if self.publishes_changes:
                assert run(store.create(record)) is True
                subscriber.repeat_until_received(Writer(store, record))

    @contextmanager
    def _two_stores(self, realm: str = "default") -> Iterator[list[BroadcastStore]]:
        with self.blocking_stores(2, realm=realm, requires=SupportsBroadcast) as stores:
            yield stores

    def _check_publishes_changes(self) -> None:
        if not self.publishes_changes:
            pytest.skip("save of this store publishes no changes")
