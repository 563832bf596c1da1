"""Sources of connections: the store's own, or a pool of the application."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from sojourn.errors import ConfigurationError, StoreError
from sojourn.stores.postgresql.connection import (
    AsyncConnection,
    BlockingConnection,
    Server,
    Transport,
)
from sojourn.stores.postgresql.pipeline import Preparation

#: Opens a transport.
Open = Callable[[Preparation], Transport]

#: Statements are UTF-8; otherwise the server would read them in the encoding of the database.
_DEFAULTS: Final = {"fallback_application_name": "sojourn", "client_encoding": "UTF8"}

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
        lambda preparation: AsyncConnection(server, preparation),
        lambda preparation: BlockingConnection(server, preparation),
        None,
        lambda timeout: connect(server, timeout),
    )


def connect(server: Server, timeout: float) -> psycopg.Connection[Any]:
    """Return a connection of psycopg in autocommit mode; to the primary, which alone can listen."""
    parameters: dict[str, Any] = {
        **_KEEPALIVE,
        "connect_timeout": str(max(math.ceil(timeout), 2)),
        **server.parameters_of_primary(),
    }
    return psycopg.Connection.connect("", autocommit=True, **parameters)


def parse_server(url: str, text: str) -> Server:
    """Return the server of a URL of libpq.

    Args:
        url: with the password.
        text: without it, for messages.

    Raises:
        ConfigurationError: the URL is invalid.
    """
    check_escaped(url, text)
    try:
        parameters = conninfo_to_dict(url)
    except (psycopg.ProgrammingError, UnicodeError):
        raise _invalid_url(text) from None  # the error may quote the password
    known = {name: str(value) for name, value in parameters.items() if value is not None}
    return Server({**_DEFAULTS, **known})


def check_escaped(url: str, text: str) -> None:
    """Reject a URL whose user or password contains a character that ends it.

    Raises:
        ConfigurationError: it does, so a part of the password would be taken for a host or an
            option, which messages show.
    """
    location = url.partition("://")[2]
    host_end = min((at for at in map(location.find, "/?#") if at >= 0), default=len(location))
    rest = location[host_end:]
    ports = [host.rpartition(":")[2] for host in location[:host_end].split(",") if ":" in host]
    is_cut = "@" not in location[:host_end] and not all(
        port.isdecimal() or port.endswith("]") or not port for port in ports
    )
    is_cut = is_cut or location[:host_end].count("@") > 1  # libpq stops at the first one
    if is_cut or "#" in rest or "@" in rest.partition("=")[0]:
        raise _invalid_url(text)


def _invalid_url(text: str) -> ConfigurationError:
    return ConfigurationError(
        f"{text}: expected a URL of libpq such as 'postgresql://user:password@host/database'; "
        "write '/', '@', ':', '?', '#' and '%' in a user or password as %2F, %40, %3A, %3F, %23 "
        "and %25"
    )


def from_pool(pool: object) -> Source:
    """Return the source of connections of a pool of the application.

    Raises:
        ConfigurationError: it is no pool of psycopg_pool.
    """
    if type(pool).__module__.partition(".")[0] == "psycopg_pool":  # then it is installed
        from psycopg_pool import AsyncConnectionPool, ConnectionPool

        from sojourn.stores.postgresql.pools import AsyncPoolTransport, BlockingPoolTransport

        name, connect_listener = _location(pool)
        if isinstance(pool, ConnectionPool):

            def open_blocking(preparation: Preparation) -> Transport:
                return BlockingPoolTransport(pool, preparation)

            return Source(name, open_blocking, open_blocking, None, connect_listener)
        if isinstance(pool, AsyncConnectionPool):
            is_first_loop = _first_loop_check()

            def open_async(preparation: Preparation) -> Transport:
                is_first_loop()
                return AsyncPoolTransport(pool, preparation)

            return Source(name, open_async, None, _USE_BLOCKING, connect_listener)
    raise ConfigurationError(
        "PostgresStore(pool=) expects psycopg_pool.ConnectionPool or AsyncConnectionPool, found "
        f"{type(pool).__module__}.{type(pool).__qualname__}; for a URL use "
        "Sessions(store='postgresql://...')"
    )


_USE_BLOCKING: Final = "use postgresql:// or a psycopg_pool.ConnectionPool"

#: Settings of psycopg's connection objects, which are no parameters of libpq.
_OBJECT_SETTINGS: Final = frozenset(
    {"autocommit", "context", "cursor_factory", "prepare_threshold", "row_factory"}
)


def _location(pool: Any) -> tuple[str, Callable[[float], psycopg.Connection[Any]]]:
    """Return the name of a pool's server, and what connects to it."""
    conninfo, settings = pool.conninfo, pool.kwargs or {}
    if callable(conninfo) or callable(settings):

        def refuse(_: float) -> psycopg.Connection[Any]:
            raise StoreError(
                "broadcast messages are received over a connection of their own, and the pool "
                "computes its address: give PostgresStore(listen_url='postgresql://...')"
            )

        return str(pool.name), refuse
    parameters = {name: value for name, value in settings.items() if name not in _OBJECT_SETTINGS}
    server = Server(
        {
            name: str(value)
            for name, value in conninfo_to_dict(conninfo, **parameters).items()
            if value is not None
        }
    )
    return server.name, lambda timeout: connect(server, timeout)


def _first_loop_check() -> Callable[[], None]:
    """Return a function that raises unless the event loop is that of its first call."""
    first: asyncio.AbstractEventLoop | None = None

    def check() -> None:
        nonlocal first
        loop = asyncio.get_running_loop()
        first = first or loop
        if loop is not first:
            raise ConfigurationError(
                "psycopg_pool.AsyncConnectionPool cannot leave the event loop that used it first; "
                f"for several loops, one after the other too, {_USE_BLOCKING}"
            )

    return check
