"""Pools: links over redis-py's connections, for TLS, Sentinel, and clients of the application.

What lives here: one batch over one connection of a pool, in asyncio and blocking. What must not:
redis-py's commands and their retries: a save that is repeated blindly could be done twice. So only
its connections are used, which know about TLS, passwords, Sentinel and stale sockets. A pool is
always ours: that of an application is copied, with the deadline of a store.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import time
from collections.abc import Sequence
from typing import Any, Final

from redis import ConnectionPool, exceptions
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from sojourn._core.concurrency import run
from sojourn.stores.redis.inspection import parse_info
from sojourn.stores.redis.links import Broken, Link, probe_failed
from sojourn.stores.redis.replies import Refusal
from sojourn.stores.redis.requests import Command, Word

#: redis-py takes the code off an error and makes a class of it; these give it back. The order
#: matters: the first that fits.
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

#: Settings that a pool of redis-py makes for its own connections, with references to itself.
_OF_THE_POOL: Final = ("maint", "oss_", "orig_", "himport", "event_")

#: What redis-py raises when a connection cannot be made or breaks; asyncio's and the system's too.
FAILURES: Final = (exceptions.ConnectionError, exceptions.TimeoutError, OSError, TimeoutError)


def as_refusal(error: Exception) -> Refusal:
    """Return an error that the server answered, as redis-py understood it, with its code."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return Refusal(f"{code} {error}")
    return Refusal(str(error))


def as_broken(error: BaseException) -> Broken:
    """Return what a failed connection of redis-py is to the courier."""
    late = isinstance(error, TimeoutError | exceptions.TimeoutError)
    return Broken("no answer in time" if late else f"the connection broke ({error})", late=late)


def is_refusal(error: Exception) -> bool:
    """Tell whether the server answered; some of its errors are ConnectionErrors in redis-py."""
    answered = (
        exceptions.ResponseError,
        exceptions.BusyLoadingError,
        exceptions.AuthenticationError,
    )
    return isinstance(error, answered)


def _plain(reply: Any) -> Any:
    """Return a reply with the errors inside it as refusals."""
    if isinstance(reply, list):
        return [as_refusal(part) if isinstance(part, Exception) else part for part in reply]
    return reply


def like(pool: Any, *, timeout: float, protocol: int | None = 2) -> Any:
    """Return a pool with the settings of another, and the deadline of a store.

    Args:
        pool: of either kind; one of Sentinel's too, which gets ways of its own to the Sentinels:
            the application's are those of its own event loop.
        timeout: seconds that connecting, and each answer, may take.
        protocol: RESP2, in which nothing comes that was not asked for; None for the pool's.
    """
    is_async = isinstance(pool, AsyncConnectionPool)
    retry: Any = AsyncRetry if is_async else Retry
    own = pool.connection_kwargs.items()
    settings = {
        **{name: value for name, value in own if not name.startswith(_OF_THE_POOL)},
        "connection_class": pool.connection_class,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": retry(NoBackoff(), 0),
        "health_check_interval": 0,
        **({} if protocol is None else {"protocol": protocol}),
    }
    kind: Any = AsyncConnectionPool if is_async else ConnectionPool
    manager = getattr(pool, "sentinel_manager", None)
    if manager is None:
        return kind(**settings)
    del settings["connection_pool"]
    part = timeout / 4  # within which a Sentinel must answer, or the next is asked
    manager = copy.copy(manager)
    manager.sentinels = [
        type(client)(connection_pool=like(client.connection_pool, timeout=part, protocol=None))
        for client in manager.sentinels
    ]
    of_sentinel: Any = type(pool)
    return of_sentinel(getattr(pool, "service_name"), manager, **settings)  # noqa: B009 - untyped


def _of_sentinels(pool: Any) -> list[Any]:
    """Return the pools over which a pool asks Sentinels, if it does."""
    manager = getattr(pool, "sentinel_manager", None)
    return [] if manager is None else [client.connection_pool for client in manager.sentinels]


async def converse(connection: Any, lines: Sequence[tuple[Word, ...]]) -> list[Any]:
    """Send commands over an asyncio connection of redis-py and return their replies."""
    await connection.send_packed_command(connection.pack_commands(lines), check_health=False)
    replies: list[Any] = []
    for _ in lines:
        try:
            replies.append(_plain(await connection.read_response(disable_decoding=True)))
        except Exception as error:
            if not is_refusal(error):
                raise
            replies.append(as_refusal(error))
    return replies


def converse_blocking(connection: Any, lines: Sequence[tuple[Word, ...]]) -> list[Any]:
    """Send commands over a blocking connection of redis-py and return their replies."""
    connection.send_packed_command(connection.pack_commands(lines), check_health=False)
    return read_blocking(connection, len(lines))


def read_blocking(connection: Any, count: int) -> list[Any]:
    """Return the replies to commands that were sent."""
    replies: list[Any] = []
    for _ in range(count):
        try:
            replies.append(_plain(connection.read_response(disable_decoding=True)))
        except Exception as error:
            if not is_refusal(error):
                raise
            replies.append(as_refusal(error))
    return replies


def facts_of(reply: Any) -> dict[str, str]:
    """Return the fields of INFO's reply.

    Raises:
        Refusal: the server cannot work; that it hides INFO from us is no harm.
    """
    if isinstance(reply, Refusal):
        if reply.code == "NOPERM":
            return {}
        raise reply
    return parse_info(reply.decode("utf-8", "replace"))


class AsyncPool:
    """A link over an asyncio pool of redis-py.

    Args:
        pool: a ``redis.asyncio.ConnectionPool`` or one of Sentinel's.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._closing = (pool, *_of_sentinels(pool))

    async def exchange(
        self, commands: Sequence[Command], deadline: float, *, whole: bool = False
    ) -> list[Any]:
        """Send commands and return their replies; see ``Link``."""
        return await self._ask([command.line(whole=whole) for command in commands], deadline)

    async def probe(self, deadline: float) -> dict[str, str]:
        """Ask over a connection that is known to be good; see ``Link``."""
        (info,) = await self._ask([("INFO",)], deadline)
        return facts_of(info)

    async def _ask(self, lines: Sequence[tuple[Word, ...]], deadline: float) -> list[Any]:
        connection: Any = None
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                connection = await self._pool.get_connection()
                return await converse(connection, lines)
        except BaseException as error:
            if connection is not None:
                close_now(connection)  # replies may be under way
            if isinstance(error, Exception) and is_refusal(error):
                raise as_refusal(error) from error
            if isinstance(error, FAILURES):
                raise (probe_failed if connection is None else as_broken)(error) from error
            raise
        finally:
            if connection is not None:
                await self._pool.release(connection)

    def drop(self) -> None:
        """Let each connection be made anew when it is taken next."""
        for connection in _connections(self._pool):
            connection.mark_for_reconnect()

    def close(self) -> None:
        """Let go of the connections."""
        for pool in self._closing:
            for connection in _connections(pool):
                close_now(connection)


def _connections(pool: Any) -> list[Any]:
    return [*pool._available_connections, *pool._in_use_connections]  # noqa: SLF001 - see close_now


def close_now(connection: Any) -> None:
    """Close an asyncio connection without waiting, as ``Store.close`` must."""
    writer = connection._writer  # noqa: SLF001 - redis-py's public ways all wait
    if writer is not None:
        with contextlib.suppress(RuntimeError):  # its loop is closed, and asks for nothing more
            writer.transport.abort()
        connection._reader = connection._writer = None  # noqa: SLF001 - as above


def is_stale(connection: Any) -> bool:
    """Tell whether the server has closed an asyncio connection."""
    reader = connection._reader  # noqa: SLF001 - the public question waits, or is named by version
    return reader is not None and bool(reader.at_eof())


class BlockingPool:
    """A link over a blocking pool of redis-py.

    Args:
        pool: a ``redis.ConnectionPool`` or one of Sentinel's.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._closing = (pool, *_of_sentinels(pool))

    async def exchange(
        self, commands: Sequence[Command], deadline: float, *, whole: bool = False
    ) -> list[Any]:
        """Send commands and return their replies; see ``Link``."""
        return self._ask([command.line(whole=whole) for command in commands], deadline)

    async def probe(self, deadline: float) -> dict[str, str]:
        """Ask over a connection that is known to be good; see ``Link``."""
        (info,) = self._ask([("INFO",)], deadline)
        return facts_of(info)

    def _ask(self, lines: Sequence[tuple[Word, ...]], deadline: float) -> list[Any]:
        connection: Any = None
        try:
            connection = self._pool.get_connection()
            with within(connection, deadline):
                return converse_blocking(connection, lines)
        except BaseException as error:
            if connection is not None:
                connection.disconnect()
            if isinstance(error, Exception) and is_refusal(error):
                raise as_refusal(error) from error
            if isinstance(error, FAILURES):
                raise (probe_failed if connection is None else as_broken)(error) from error
            raise
        finally:
            if connection is not None:
                self._pool.release(connection)

    def drop(self) -> None:
        """Let go of the connections that nobody uses."""
        self._pool.disconnect(inuse_connections=False)

    def close(self) -> None:
        """Let go of the connections."""
        for pool in self._closing:
            pool.disconnect()


class within:  # noqa: N801 - reads as a word: `with within(connection, deadline)`
    """Let a blocking connection of redis-py keep a deadline, and its own limit afterwards."""

    def __init__(self, connection: Any, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def __enter__(self) -> None:
        socket = self._connection._sock  # noqa: SLF001 - redis-py takes one limit for a whole life
        if socket is not None:
            socket.settimeout(max(self._deadline - time.monotonic(), 0.001))

    def __exit__(self, *_: object) -> None:
        socket = self._connection._sock  # noqa: SLF001 - as above
        if socket is not None:
            socket.settimeout(self._connection.socket_timeout)


class Offloaded:
    """A blocking link under an event loop: each batch in a worker thread.

    Args:
        link: does the work; its methods never suspend.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    async def exchange(
        self, commands: Sequence[Command], deadline: float, *, whole: bool = False
    ) -> list[Any]:
        """Send commands and return their replies; see ``Link``."""
        return await asyncio.to_thread(
            lambda: run(_exchange(self._link, commands, deadline, whole=whole))
        )

    async def probe(self, deadline: float) -> dict[str, str]:
        """Ask over a connection that is known to be good; see ``Link``."""
        return await asyncio.to_thread(lambda: run(_probe(self._link, deadline)))

    def drop(self) -> None:
        """Let go of the connections that nobody uses."""
        self._link.drop()

    def close(self) -> None:
        """Let go of the connections."""
        self._link.close()


async def _probe(link: Link, deadline: float) -> dict[str, str]:
    return await link.probe(deadline)


async def _exchange(
    link: Link, commands: Sequence[Command], deadline: float, *, whole: bool
) -> list[Any]:
    return await link.exchange(commands, deadline, whole=whole)
