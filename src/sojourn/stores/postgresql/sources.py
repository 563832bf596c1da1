"""Sources of connections: the store's own, or a pool of the application."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import msgspec
import psycopg

from sojourn.errors import ConfigurationError
from sojourn.stores.postgresql.connection import (
    AsyncConnection,
    BlockingConnection,
    Server,
    Transport,
)

#: Opens a transport; takes the threshold of prepared statements.
Open = Callable[[int | None], Transport]

#: Seconds between two keepalive probes of a connection that only listens.
_KEEPALIVE: Final = {"keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}


class Source(msgspec.Struct, frozen=True):
    """Where the store gets its connections.

    Attributes:
        name: of the server, without user and password.
        open_async: opens a transport for the running event loop.
        open_blocking: opens one that never suspends; None if the source has none.
        advice: what to use instead without an event loop; None if ``open_blocking`` is given.
        connect: returns an open connection in autocommit mode, for a thread that listens.
    """

    name: str
    open_async: Open
    open_blocking: Open | None
    advice: str | None
    connect: Callable[[float], psycopg.Connection[Any]]


def own_connections(server: Server) -> Source:
    """Return the source of connections that the store opens and closes."""
    return Source(
        server.name,
        lambda threshold: AsyncConnection(server, threshold),
        lambda threshold: BlockingConnection(server, threshold),
        None,
        lambda timeout: connect(server, timeout),
    )


def connect(server: Server, timeout: float) -> psycopg.Connection[Any]:
    """Return a connection of psycopg in autocommit mode."""
    parameters: dict[str, Any] = {
        **_KEEPALIVE,
        "connect_timeout": str(max(math.ceil(timeout), 2)),
        **server.parameters,
    }
    return psycopg.Connection.connect("", autocommit=True, **parameters)


def from_pool(pool: object) -> Source:
    """Return the source of connections of a pool of the application.

    Raises:
        ConfigurationError: it is no pool of psycopg_pool.
    """
    raise ConfigurationError(
        "PostgresStore(pool=) expects psycopg_pool.ConnectionPool or AsyncConnectionPool, found "
        f"{type(pool).__module__}.{type(pool).__qualname__}; for a URL use "
        "Sessions(store='postgresql://...')"
    )
