"""Listeners receive the events that they registered for, and their errors have no effect."""

import functools
import logging
import os

import msgspec
import pytest

import sojourn
from sojourn import Sessions, events
from sojourn.errors import ConfigurationError
from sojourn.events import KINDS, Created, Dispatcher, Event, Read, Revoked, Written


class Listener:
    def __init__(self):
        self.received = []

    def __call__(self, event):
        self.received.append(event)


def test_listeners_receive_events_of_their_kind_in_the_order_of_registration():
    dispatcher, order = Dispatcher(), []
    dispatcher.on(Created, lambda event: order.append(("first", event)))
    dispatcher.on(Created, lambda event: order.append(("second", event)))
    dispatcher.on(Revoked, lambda event: order.append(("other", event)))
    dispatcher.emit(Created("1"))
    dispatcher.emit(Read("2", 1))
    assert order == [("first", Created("1")), ("second", Created("1"))]
    assert Created in dispatcher.listeners
    assert Read not in dispatcher.listeners


def test_a_listener_can_be_removed():
    """A kind without listeners has no entry, so that emitting it costs one lookup."""
    dispatcher, first, second = Dispatcher(), Listener(), Listener()
    for listener in (first, second):
        dispatcher.on(Read, listener)
    dispatcher.off(Read, first)
    dispatcher.emit(Read("1", 1))
    assert (first.received, second.received) == ([], [Read("1", 1)])
    dispatcher.off(Read, second)
    dispatcher.off(Read, second)
    assert Read not in dispatcher.listeners


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_registers_listeners_although_a_thread_of_its_parent_did_so():
    """S12: at the first failure of the store, the log of outages would wait forever."""
    sessions = Sessions(store="memory://")
    lock = sessions.dispatcher._lock
    lock.acquire()
    child = os.fork()
    if child == 0:
        os._exit(0 if sessions.dispatcher._lock.acquire(timeout=0) else 1)
    lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sessions.close()


def test_a_listener_that_raises_is_logged_and_ignored(caplog):
    """B-34."""
    dispatcher, after = Dispatcher(), Listener()

    def broken(_):
        raise RuntimeError("listener")

    dispatcher.on(Created, broken)
    dispatcher.on(Created, after)
    with caplog.at_level(logging.ERROR, logger="sojourn"):
        dispatcher.emit(Created("1"))
    assert after.received == [Created("1")]
    assert "a listener for Created failed" in caplog.text


def test_a_session_is_revoked_although_a_listener_raises(caplog):
    """B-34: Jetty's CVE-2021-34428."""
    sessions = Sessions(store="memory://")

    def broken(_):
        raise RuntimeError("listener")

    for kind in KINDS:
        sessions.on(kind, broken)

    with sessions.open() as visit:
        session = visit.session
        session["a"] = 1
        session.commit()
        session["a"] = 2
    session_id = session.id
    assert sessions.revoke(session_id)
    assert sessions.get(session_id) is None
    assert sessions.usage().writes == 1
    sessions.close()


@pytest.mark.parametrize("kind", [int, "Revoked", None, Event, Created("1"), [], object()])
def test_only_event_kinds_can_be_registered(kind):
    with pytest.raises(ConfigurationError, match=r"an event class such as sojourn\.Revoked"):
        Dispatcher().on(kind, print)


async def listener(_):
    """A coroutine function, which cannot be registered."""


@pytest.mark.parametrize("wrong", [listener, functools.partial(listener), None, 5, "print"])
def test_a_coroutine_function_is_refused_as_a_listener(wrong):
    with pytest.raises(ConfigurationError, match="expects a plain function") as caught:
        Dispatcher().on(Created, wrong)
    assert "create_task" in str(caught.value)


def test_any_callable_object_is_accepted_as_a_listener():
    dispatcher, one, two = Dispatcher(), Listener(), []
    dispatcher.on(Written, one)
    dispatcher.on(Written, two.append)
    dispatcher.emit(Written("1", 2))
    assert one.received == two == [Written("1", 2)]


@pytest.mark.parametrize("kind", sorted(KINDS, key=lambda kind: kind.__name__))
def test_every_event_is_public_and_frozen_and_has_only_a_public_id(kind):
    """A18: no field could contain a ticket."""
    assert getattr(sojourn, kind.__name__) is kind
    names = [field.name for field in msgspec.structs.fields(kind)]
    assert names[0] == "session_id"
    assert set(names) <= {
        "session_id",
        "user",
        "methods",
        "version",
        "reason",
        "actor",
        "instant",
        "limit",
        "attempts",
        "operation",
        "error",
    }
    event = kind(*["x"] * len(names))
    with pytest.raises(AttributeError):
        event.session_id = "y"


def test_every_event_class_can_be_registered():
    found = {x for x in vars(events).values() if isinstance(x, type) and issubclass(x, Event)}
    assert found - {Event} == KINDS
