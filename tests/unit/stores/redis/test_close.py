"""Connections that are closed while another thread connects."""

import time

import pytest

from sojourn._core.concurrency import run
from sojourn.stores.redis.connection import BlockingStream, Connection, ServerAddress
from sojourn.stores.redis.errors import ConnectionLost


@pytest.fixture
def address(valkey):
    return ServerAddress("127.0.0.1", valkey.port)


def test_a_connection_closed_while_it_connects_closes_its_new_stream(address):
    opened = []

    async def locate(deadline):
        return address

    async def open_stream(address, deadline):
        opened.append(await BlockingStream.open(address, deadline))
        connection.close()
        return opened[0]

    connection = Connection(locate, open_stream)
    with pytest.raises(ConnectionLost):
        run(connection.exchange([("PING",)], (), time.monotonic() + 5))
    assert opened[0].fileno() == -1


def test_a_connection_that_was_reset_connects_again(address):
    async def locate(deadline):
        return address

    connection = Connection(locate, BlockingStream.open)
    deadline = time.monotonic() + 5
    assert run(connection.exchange([("PING",)], (), deadline)) == [b"PONG"]
    run(connection.reset())
    assert run(connection.exchange([("PING",)], (), deadline)) == [b"PONG"]
    connection.close()
