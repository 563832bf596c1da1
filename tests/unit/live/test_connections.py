"""Who is open, and that everything of a session closes when it ends.

Read next: ``test_socket.py``.
"""

import threading

from sojourn.events import Created, Dispatcher, Expired, Revoked
from sojourn.live.connections import ConnectionRegistry


class Open:
    def __init__(self):
        self.ended = []

    def end(self, reason):
        self.ended.append(reason)


def test_connections_are_counted_by_session():
    registry = ConnectionRegistry(Dispatcher())
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


def test_everything_of_the_session_ends_with_it_and_nothing_else():
    """W4, ASVS 7.4.1, B-41."""
    dispatcher = Dispatcher()
    registry = ConnectionRegistry(dispatcher)
    mine, mine_too, other = Open(), Open(), Open()
    for session_id, connection in (("a", mine), ("a", mine_too), ("b", other)):
        registry.add(session_id, connection)
    dispatcher.emit(Created("a"))
    assert mine.ended == []
    dispatcher.emit(Revoked("a", "stolen phone"))
    assert mine.ended == mine_too.ended == ["stolen phone"]
    assert other.ended == []
    dispatcher.emit(Expired("b", "idle"))
    assert other.ended == ["expired (idle)"]


def test_they_end_although_a_listener_of_the_application_raises():
    """B-34: ours was registered first."""
    dispatcher = Dispatcher()
    registry, connection = ConnectionRegistry(dispatcher), Open()

    def broken(_):
        raise RuntimeError("listener")

    dispatcher.on(Revoked, broken)
    registry.add("a", connection)
    dispatcher.emit(Revoked("a", "x"))
    assert connection.ended == ["x"]


def test_one_may_leave_while_all_are_ended():
    dispatcher = Dispatcher()
    registry = ConnectionRegistry(dispatcher)

    class Leaving(Open):
        def end(self, reason):
            super().end(reason)
            registry.remove("a", self)

    connections = [Leaving() for _ in range(3)]
    for connection in connections:
        registry.add("a", connection)
    dispatcher.emit(Revoked("a", "x"))
    assert [connection.ended for connection in connections] == [["x"]] * 3
    assert registry.total() == 0


def test_threads_lose_nobody():
    """Event loops in several threads may share an installation."""
    registry = ConnectionRegistry(Dispatcher())

    def come_and_go():
        for _ in range(500):
            connection = Open()
            registry.add("a", connection)
            registry.add("a", Open())
            registry.remove("a", connection)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.count("a") == 2_000
