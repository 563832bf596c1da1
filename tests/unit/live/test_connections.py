"""ConnectionRegistry and LiveControl: everything open of a session closes when it ends."""

import os
import threading

import pytest

from sojourn import Sessions
from sojourn.events import Revoked
from sojourn.live.connection_control import LiveControl
from sojourn.live.connections import LOGGED_IN, ConnectionRegistry

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"
A, B, C = (bytes([n]) * 16 for n in range(1, 4))


class Open:
    def __init__(self):
        self.ended = []

    def end(self, reason):
        self.ended.append(reason)


class Broadcast:
    def __init__(self):
        self.published = []

    def publish(self, kind, session_ids, *, version=0, reason=""):
        self.published.append((kind, list(session_ids), version, reason))


def test_connections_are_counted_by_session():
    registry = ConnectionRegistry()
    one, two, other = Open(), Open(), Open()
    registry.add("a", one)
    registry.add("a", two)
    registry.add("b", other)
    assert (registry.count("a"), registry.count("b"), registry.count("c")) == (2, 1, 0)
    assert registry.total() == 3
    registry.remove("a", one)
    registry.remove("a", one)
    registry.remove("c", one)
    assert (registry.count("a"), registry.total()) == (1, 2)
    registry.remove("a", two)
    registry.remove("b", other)
    assert registry._connections == {}, "nothing is left of a session without connections"


class Observer:
    def __init__(self):
        self.opened_ids = []

    def opened(self, session_id):
        self.opened_ids.append(session_id)

    def closed(self, session_id):
        self.opened_ids.remove(session_id)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_no_connections_of_its_parent():
    """W4: it subscribes to the messages of a session with the first connection of its own."""
    registry, observer = ConnectionRegistry(), Observer()
    registry.observer = observer
    registry.add("a", Open())
    registry.lock.acquire()  # by another thread, which is not in the child
    child = os.fork()
    if child == 0:
        free = registry.lock.acquire(timeout=0)
        if free:
            registry.lock.release()
            registry.add("a", Open())
        os._exit(0 if (registry.total(), observer.opened_ids) == (1, ["a", "a"]) else 1)
    registry.lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert registry.total() == 1


def opened(*session_ids):
    registry = ConnectionRegistry()
    connections = [Open() for _ in session_ids]
    for session_id, connection in zip(session_ids, connections, strict=True):
        registry.add(session_id.hex(), connection)
    return registry, connections


def test_the_connections_of_the_sessions_that_ended_are_closed_and_no_others():
    """W4, ASVS 7.4.1, B-41."""
    registry, (mine, mine_too, other, third) = opened(A, A, B, C)
    broadcast = Broadcast()
    control = LiveControl(registry, broadcast)
    control.verifier_rotated(A)
    assert mine.ended == [], "W5"
    control.sessions_ended([A, B], "stolen phone")
    assert mine.ended == mine_too.ended == other.ended == ["stolen phone"]
    assert third.ended == []
    control.session_expired(C, "idle")
    assert third.ended == ["expired (idle)"]
    assert broadcast.published == [
        ("rotated", [A], 0, ""),
        ("revoked", [A, B], 0, "stolen phone"),
    ], "other processes notice an expiry by themselves"


def test_a_login_closes_what_was_opened_with_the_previous_ticket():
    """A9, W4."""
    registry, (mine, other) = opened(A, B)
    broadcast = Broadcast()
    LiveControl(registry, broadcast).user_logged_in(A)
    assert (mine.ended, other.ended) == ([LOGGED_IN], [])
    assert broadcast.published == [("rotated", [A], 0, LOGGED_IN)]


def test_everything_closes_when_all_sessions_end():
    """W4."""
    registry, connections = opened(A, B)
    broadcast = Broadcast()
    LiveControl(registry, broadcast).all_sessions_ended(17, "incident")
    assert [each.ended for each in connections] == [["incident"]] * 2
    assert broadcast.published == [("all-before", [b""], 17, "incident")]


@pytest.mark.parametrize(
    "act",
    [
        lambda control: control.sessions_ended([A], "x"),
        lambda control: control.all_sessions_ended(17, "x"),
        lambda control: control.user_logged_in(A),
        lambda control: control.verifier_rotated(A),
    ],
)
def test_a_store_without_broadcast_closes_here_alone(act):
    registry, (mine, other) = opened(A, B)
    act(LiveControl(registry, None))
    assert len(mine.ended) <= 1
    assert len(other.ended) <= 1


def test_they_close_although_a_listener_of_the_application_raises():
    """B-34: closing does not depend on listeners."""
    sessions = Sessions(store="memory://", secret=SECRET)
    connection = Open()

    def broken(_):
        raise RuntimeError("listener")

    sessions.on(Revoked, broken)
    with sessions.open() as visit:
        visit.session["a"] = 1
    sessions.connections.add(visit.session.id, connection)
    assert sessions.revoke(visit.session.id, reason="x")
    assert connection.ended == ["x"]


def test_a_connection_may_be_removed_while_all_are_closed():
    registry = ConnectionRegistry()

    class Leaving(Open):
        def end(self, reason):
            super().end(reason)
            registry.remove(A.hex(), self)

    connections = [Leaving() for _ in range(3)]
    for connection in connections:
        registry.add(A.hex(), connection)
    LiveControl(registry, None).sessions_ended([A], "x")
    assert [connection.ended for connection in connections] == [["x"]] * 3
    assert registry.total() == 0


def test_threads_lose_no_connection():
    """Event loops in several threads may share an installation."""
    registry = ConnectionRegistry()

    def add_and_remove():
        for _ in range(500):
            connection = Open()
            registry.add("a", connection)
            registry.add("a", Open())
            registry.remove("a", connection)

    threads = [threading.Thread(target=add_and_remove) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.count("a") == 2_000
