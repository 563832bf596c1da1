"""BlockingStream: deadlines and closed connections, with a plain socket and a polled one."""

import os
import signal
import socket
import threading
import time

import pytest

from sojourn._core.concurrency import run
from sojourn.stores.redis.connection import BlockingStream
from sojourn.stores.redis.errors import ConnectionLost

PING = b"*1\r\n$4\r\nPING\r\n"


class PolledSocket(socket.socket):
    """A socket with its own ``recv``, as those of TLS and gevent."""

    def recv(self, *arguments):
        return super().recv(*arguments)


@pytest.fixture(params=[socket.socket, PolledSocket], ids=["plain", "polled"])
def connected(request):
    """A stream and the socket at its other end, over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connected = request.param(socket.AF_INET)
        connected.connect(server.getsockname())
        other, _ = server.accept()
    stream = BlockingStream(connected)
    with other:
        yield stream, other
    stream.close()


def exchange(stream, *, seconds, count=1):
    return run(stream.roundtrip(PING, count, time.monotonic() + seconds))


def in_thread(function):
    """Call a function in another thread; return its result or its exception."""
    results = []

    def call():
        try:
            results.append(function())
        except ConnectionLost as error:
            results.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return results[0]


def test_in_another_thread_each_call_has_its_own_deadline(connected):
    """S12: after a call with a much longer one, and with a shorter one."""
    stream, other = connected
    for seconds in (30.0, 0.5, 30.0):
        other.sendall(b"+PONG\r\n")
        assert in_thread(lambda seconds=seconds: exchange(stream, seconds=seconds)) == [b"PONG"]
        other.recv(1000)
    started = time.monotonic()
    assert in_thread(lambda: exchange(stream, seconds=0.2)).timed_out
    assert 0.15 < time.monotonic() - started < 5


def test_signals_do_not_extend_the_deadline(connected):
    """S12: in a process with a timer, such as a profiler's; the server does not answer."""
    stream, _ = connected
    previous = signal.signal(signal.SIGUSR1, lambda *_: None)
    done = threading.Event()

    def send_signals():
        for _ in range(60):
            if done.wait(0.05):
                return
            os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=send_signals)
    thread.start()
    try:
        started = time.monotonic()
        with pytest.raises(ConnectionLost) as raised:
            exchange(stream, seconds=0.3)
        assert raised.value.timed_out
        assert time.monotonic() - started < 2
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGUSR1, previous)


def test_a_reply_that_arrives_in_pieces_is_read_completely(connected):
    stream, other = connected
    other.sendall(b"+PONG\r\n$3\r\na")
    with pytest.raises(ConnectionLost) as raised:
        exchange(stream, seconds=0.2, count=2)
    assert raised.value.timed_out


def test_each_call_has_its_own_deadline(connected):
    """S12: after a call with a much longer one, and with a shorter one."""
    stream, other = connected
    for seconds in (30.0, 0.5, 30.0):
        other.sendall(b"+PONG\r\n")
        assert exchange(stream, seconds=seconds) == [b"PONG"]
        other.recv(1000)
    started = time.monotonic()
    with pytest.raises(ConnectionLost) as raised:
        exchange(stream, seconds=0.2)
    assert raised.value.timed_out
    assert 0.15 < time.monotonic() - started < 5


def test_a_connection_that_the_server_closed_is_not_usable(connected):
    """S12: detected before a save is sent, because a save is not repeated."""
    stream, other = connected
    assert stream.is_usable()
    other.shutdown(socket.SHUT_WR)
    deadline = time.monotonic() + 5
    while stream.is_usable():
        assert time.monotonic() < deadline
        time.sleep(0.001)  # the end of the connection arrives asynchronously


def test_a_closed_connection_is_reported_as_lost(connected):
    stream, other = connected
    other.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionLost) as raised:
        exchange(stream, seconds=5)
    assert not raised.value.timed_out


def test_an_additional_reply_makes_the_connection_unusable(connected):
    """S13: the next call would take it for its own."""
    stream, other = connected
    other.sendall(b"+PONG\r\n+MORE\r\n")
    assert exchange(stream, seconds=5) == [b"PONG"]
    assert not stream.is_usable()


def test_an_additional_reply_that_comes_later_makes_the_connection_unusable(connected):
    """S13: detected before it is read."""
    stream, other = connected
    other.sendall(b"+PONG\r\n")
    assert exchange(stream, seconds=5) == [b"PONG"]
    assert stream.is_usable()
    other.sendall(b"+MORE\r\n")
    deadline = time.monotonic() + 5
    while stream.is_usable():
        assert time.monotonic() < deadline
        time.sleep(0.001)  # the reply arrives asynchronously


def test_outside_of_the_main_thread_a_plain_socket_does_not_poll(connected, monkeypatch):
    """The main thread must wait in `poll` because of signals."""
    stream, other = connected
    polls = []
    monkeypatch.setattr(BlockingStream, "_wait_readable", lambda *_: polls.append(1) or True)
    for _ in range(3):
        other.sendall(b"+PONG\r\n")
        in_thread(lambda: exchange(stream, seconds=5))
        stream.is_usable()
    assert bool(polls) is isinstance(stream._socket, PolledSocket)
