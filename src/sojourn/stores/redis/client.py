"""Transports over an application's redis-py client, through redis-py's public API."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from redis import ConnectionPool, exceptions
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from sojourn._core.concurrency import offload, running_loop
from sojourn.stores.redis.connection import Line, read_info
from sojourn.stores.redis.errors import (
    ServerError,
    connect_failed,
    connection_lost,
)

#: redis-py removes the code of an error reply and raises a class for it; this restores the code.
#: The first class that fits counts.
_CODES: Final = (
    (exceptions.NoScriptError, "NOSCRIPT"),
    (exceptions.ReadOnlyError, "READONLY"),
    (exceptions.OutOfMemoryError, "OOM"),
    (exceptions.BusyLoadingError, "LOADING"),
    (exceptions.NoPermissionError, "NOPERM"),
    (exceptions.MovedError, "MOVED"),
    (exceptions.AskError, "ASK"),
    (exceptions.TryAgainError, "TRYAGAIN"),
    (exceptions.MasterDownError, "MASTERDOWN"),
    (exceptions.ClusterDownError, "CLUSTERDOWN"),
    (exceptions.AuthenticationError, "WRONGPASS"),
)

#: Error replies; some are subclasses of ConnectionError in redis-py.
_ERROR_REPLIES: Final = (
    exceptions.ResponseError,
    exceptions.BusyLoadingError,
    exceptions.AuthenticationError,
)

#: What redis-py raises when a connection cannot be established or breaks.
CONNECTION_ERRORS: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    OSError,
    TimeoutError,
)

#: Prefixes of settings that a pool adds for its own connections, with references to itself.
_POOL_SETTINGS: Final = ("maint", "oss_", "orig_", "himport", "event_")


def copy_pool(pool: Any, *, timeout: float, protocol: int | None = 2, **location: Any) -> Any:
    """Return a pool with the settings of another pool or node (TLS, credentials, Sentinel).

    It has the store's timeout and no retries: redis-py's commands repeat a save whose answer was
    lost, which could apply it twice.

    Args:
        pool: a pool of either kind, Sentinel's included, or a node of an asyncio cluster.
        timeout: seconds for connecting and for each reply.
        protocol: RESP2, which has no unsolicited data; None for the pool's.
        location: ``host`` and ``port``, if they differ.
    """
    is_async = inspect.iscoroutinefunction(pool.connection_class.connect)
    retry: Any = AsyncRetry if is_async else Retry
    own = pool.connection_kwargs.items()
    settings = {
        **{name: value for name, value in own if not name.startswith(_POOL_SETTINGS)},
        "connection_class": pool.connection_class,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": retry(NoBackoff(), 0),
        "health_check_interval": 0,
        **({} if protocol is None else {"protocol": protocol}),
        **location,
    }
    kind: Any = AsyncConnectionPool if is_async else ConnectionPool
    manager = getattr(pool, "sentinel_manager", None)
    if manager is None:
        return kind(**settings)
    # The application's connections to the Sentinels belong to its event loop.
    del settings["connection_pool"]
    manager = copy.copy(manager)
    manager.sentinels = [
        type(sentinel)(
            connection_pool=copy_pool(sentinel.connection_pool, timeout=timeout / 4, protocol=None),
            # Makes the connection a public attribute, so that close() can close it without waiting.
            **({"single_connection_client": True} if is_async else {}),
        )
        for sentinel in manager.sentinels
    ]
    of_sentinel: Any = type(pool)
    return of_sentinel(getattr(pool, "service_name"), manager, **settings)  # noqa: B009 - untyped


def sentinel_clients(pool: Any) -> list[Any]:
    """Return the clients with which a pool queries Sentinels; none for other pools."""
    manager = getattr(pool, "sentinel_manager", None)
    return [] if manager is None else list(manager.sentinels)


def as_server_error(error: Exception) -> ServerError:
    """Return an error reply that redis-py raised, with its code."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return ServerError(f"{code} {error}")
    return ServerError(str(error))


def translate(error: Exception, *, is_connected: bool) -> Exception:
    """Return the store's error for one of redis-py's; any other error unchanged."""
    if isinstance(error, _ERROR_REPLIES):
        return as_server_error(error)
    if not isinstance(error, CONNECTION_ERRORS):
        return error
    if isinstance(error, exceptions.TimeoutError):
        error = TimeoutError()
    return connection_lost(error) if is_connected else connect_failed(error)


def _read(reply: Any) -> Any:
    if isinstance(reply, list):
        return [as_server_error(part) if isinstance(part, Exception) else part for part in reply]
    return reply


class AsyncClientConnection:
    """A ``Transport`` over an asyncio pool of redis-py.

    Args:
        pool: a ``redis.asyncio.ConnectionPool`` or one of Sentinel's; closed with the transport.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.connection: Any = None  # the only one of the pool: one batch is in flight at a time

    async def exchange(
        self,
        lines: Sequence[Line],
        keys: Sequence[str],  # noqa: ARG002 - there is one node
        deadline: float,
    ) -> list[Any]:
        """Send commands and return their replies; see ``Transport``."""
        connection: Any = None
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                connection = self.connection = await self._pool.get_connection()
                packed = connection.pack_commands(lines)
                await connection.send_packed_command(packed, check_health=False)
                return [await self._read_reply(connection) for _ in lines]
        except BaseException as error:
            if connection is not None:  # replies may be in flight
                await connection.disconnect(nowait=True)
            if isinstance(error, Exception):
                raise translate(error, is_connected=connection is not None) from error
            raise
        finally:
            if connection is not None:
                await self._pool.release(connection)

    @staticmethod
    async def _read_reply(connection: Any) -> Any:
        try:
            return _read(await connection.read_response(disable_decoding=True))
        except _ERROR_REPLIES as error:
            return as_server_error(error)

    async def connect(self, deadline: float) -> dict[str, str]:
        """Check the connection; redis-py replaces a broken one. See ``Transport``."""
        (info,) = await self.exchange([("INFO",)], [""], deadline)
        return read_info(info)

    async def reset(self) -> None:
        """Close the connection; see ``Transport``."""
        if self.connection is not None:
            await self.connection.disconnect(nowait=True)

    def close(self) -> None:
        """Close the connections without waiting."""
        for client in (self, *sentinel_clients(self._pool)):
            if client.connection is not None:
                _complete(client.connection.disconnect(nowait=True))


def _complete(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine that does not suspend, as redis-py's ``disconnect(nowait=True)``."""
    with contextlib.suppress(RuntimeError):  # the connection's loop has ended and closed it
        if running_loop() is None:  # redis-py requires a current task
            with contextlib.closing(asyncio.new_event_loop()) as loop:
                loop.run_until_complete(coroutine)
        else:
            with contextlib.suppress(StopIteration):
                coroutine.send(None)
    coroutine.close()


class ClientConnection:
    """A ``Transport`` over a blocking pool of redis-py; under an event loop in worker threads.

    Args:
        pool: a ``redis.ConnectionPool`` or one of Sentinel's; closed with the transport.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def exchange(
        self,
        lines: Sequence[Line],
        keys: Sequence[str],  # noqa: ARG002 - there is one node
        deadline: float,
    ) -> list[Any]:
        """Send commands and return their replies; see ``Transport``."""
        return await offload(self._exchange, lines, deadline)

    def _exchange(self, lines: Sequence[Line], deadline: float) -> list[Any]:
        connection: Any = None
        try:
            connection = self._pool.get_connection()
            connection.send_packed_command(connection.pack_commands(lines), check_health=False)
            return [read_reply(connection, deadline) for _ in lines]
        except BaseException as error:
            if connection is not None:
                connection.disconnect()
            if isinstance(error, Exception):
                raise translate(error, is_connected=connection is not None) from error
            raise
        finally:
            if connection is not None:
                self._pool.release(connection)

    async def connect(self, deadline: float) -> dict[str, str]:
        """Check the connection; redis-py replaces a broken one. See ``Transport``."""
        (info,) = await self.exchange([("INFO",)], [""], deadline)
        return read_info(info)

    async def reset(self) -> None:
        """Close the connection; see ``Transport``."""
        self._pool.disconnect(inuse_connections=False)

    def close(self) -> None:
        """Close the pool."""
        close_pool(self._pool)


def read_reply(connection: Any, deadline: float) -> Any:
    """Return the next reply on a blocking connection of redis-py.

    Raises:
        TimeoutError: there is none before the deadline.
    """
    # redis-py has one timeout for all replies of a connection, so the wait is a call of its own.
    if not connection.can_read(timeout=max(deadline - time.monotonic(), 0)):
        raise TimeoutError
    try:
        return _read(connection.read_response(disable_decoding=True))
    except _ERROR_REPLIES as error:
        return as_server_error(error)


def close_pool(pool: Any) -> None:
    """Disconnect a blocking pool, and its connections to Sentinels."""
    pool.disconnect()
    for client in sentinel_clients(pool):
        client.connection_pool.disconnect()


class ClientPushConnection:
    """A subscriber's connection over a blocking pool of redis-py; as ``BlockingStream``.

    redis-py has no public access to the socket, so the subscriber polls it.

    Args:
        pool: closed with the connection.

    Raises:
        ConnectionLost: the server is unreachable.
        ServerError: the server rejected the connection.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        try:
            self._connection: Any = pool.get_connection()
            self._connection.send_command("INFO")
            deadline = time.monotonic() + pool.connection_kwargs["socket_timeout"]
            self.info: dict[str, str] = read_info(read_reply(self._connection, deadline))
        except Exception as error:
            close_pool(pool)
            raise translate(error, is_connected=False) from error

    def fileno(self) -> int | None:
        """Return None: the connection must be polled."""
        return None

    def send(self, data: bytes, deadline: float) -> None:  # noqa: ARG002 - the pool has a timeout
        """Send packed commands without waiting for replies."""
        try:
            self._connection.send_packed_command([data], check_health=False)
        except Exception as error:
            raise translate(error, is_connected=True) from error

    def receive_available(self) -> list[Any]:
        """Return the replies that have arrived, without waiting."""
        replies = []
        try:
            while self._connection.can_read(timeout=0):
                replies.append(read_reply(self._connection, time.monotonic()))
        except Exception as error:
            raise translate(error, is_connected=True) from error
        return replies

    def close(self) -> None:
        """Close the connection and its pool."""
        self._connection.disconnect()
        self._pool.release(self._connection)
        close_pool(self._pool)
