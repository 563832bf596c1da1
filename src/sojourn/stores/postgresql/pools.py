"""Transports over an application's pool of ``psycopg_pool``: a connection for each batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg_pool import (
    AsyncConnectionPool,
    ConnectionPool,
    PoolClosed,
    PoolTimeout,
    TooManyRequests,
)

from sojourn._core.concurrency import offload
from sojourn.errors import ConfigurationError
from sojourn.stores.postgresql.connection import (
    cancel_in_loop,
    cancel_in_thread,
    exchange_error,
    is_alive,
    run_blocking,
    run_in_loop,
)
from sojourn.stores.postgresql.errors import ConnectionLost, ServerError
from sojourn.stores.postgresql.pipeline import (
    Outcome,
    Preparation,
    PreparedStatements,
    Transaction,
    exchange,
    is_reusable,
)

_AnyConnection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]

_NO_CONNECTION: Final = (PoolTimeout, TooManyRequests)

_UNPREPARED: Final = PreparedStatements(Preparation(None))


class _PoolTransport:
    """What the two transports have in common."""

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation

    def _prepared_on(self, connection: _AnyConnection) -> PreparedStatements:
        if connection.prepare_threshold is None:  # the application's setting for its pool
            return _UNPREPARED
        return self._preparation.statements_on(connection)

    def reset(self) -> None:
        """Do nothing: a connection that failed was not returned to the pool."""

    def close(self) -> None:
        """Do nothing: the pool belongs to the application."""


class BlockingPoolTransport(_PoolTransport):
    """A ``Transport`` over a blocking pool; under an event loop in worker threads.

    Args:
        pool: of the application.
        preparation: of statements.
    """

    def __init__(self, pool: ConnectionPool[Any], preparation: Preparation) -> None:
        super().__init__(preparation)
        self._pool = pool

    async def connect(self, deadline: float) -> None:
        """Take a working connection and return it; see ``Transport``."""
        await offload(self._connect, deadline)

    async def exchange(self, transactions: Sequence[Transaction], deadline: float) -> list[Outcome]:
        """Execute transactions; see ``Transport``."""
        return await offload(self._exchange, transactions, deadline)

    def _connect(self, deadline: float) -> None:
        self._pool.putconn(self._acquire(deadline))

    def _acquire(self, deadline: float) -> psycopg.Connection[Any]:
        while True:
            try:
                connection: psycopg.Connection[Any] = self._pool.getconn(
                    timeout=max(deadline - time.monotonic(), 0)
                )
            except _NO_CONNECTION as error:
                raise _no_connection(error) from error
            except PoolClosed as error:
                raise _pool_closed(error) from error
            if is_alive(connection.pgconn):
                return connection
            connection.close()
            self._pool.putconn(connection)

    def _exchange(self, transactions: Sequence[Transaction], deadline: float) -> list[Outcome]:
        connection = self._acquire(deadline)
        pgconn = connection.pgconn
        try:
            pgconn.enter_pipeline_mode()
            generator = exchange(pgconn, transactions, self._prepared_on(connection))
            outcomes = run_blocking(generator, deadline)
            pgconn.exit_pipeline_mode()
        except BaseException as error:
            if isinstance(error, TimeoutError):
                cancel_in_thread(pgconn)
            connection.close()
            if isinstance(error, Exception):
                raise exchange_error(error) from error
            raise
        else:
            if has_failed(outcomes) or not is_reusable(pgconn):
                connection.close()
            return outcomes
        finally:
            self._pool.putconn(connection)


class AsyncPoolTransport(_PoolTransport):
    """A ``Transport`` over an asyncio pool, for the event loop in which it was opened.

    Args:
        pool: of the application.
        preparation: of statements.
    """

    def __init__(self, pool: AsyncConnectionPool[Any], preparation: Preparation) -> None:
        super().__init__(preparation)
        self._pool = pool

    async def connect(self, deadline: float) -> None:
        """Take a working connection and return it; see ``Transport``."""
        await self._pool.putconn(await self._acquire(deadline))

    async def _acquire(self, deadline: float) -> psycopg.AsyncConnection[Any]:
        while True:
            try:
                connection: psycopg.AsyncConnection[Any] = await self._pool.getconn(
                    timeout=max(deadline - time.monotonic(), 0)
                )
            except _NO_CONNECTION as error:
                raise _no_connection(error) from error
            except PoolClosed as error:
                raise _pool_closed(error) from error
            if is_alive(connection.pgconn):
                return connection
            await self._discard(connection)

    async def exchange(self, transactions: Sequence[Transaction], deadline: float) -> list[Outcome]:
        """Execute transactions; see ``Transport``."""
        connection = await self._acquire(deadline)
        pgconn = connection.pgconn
        try:
            pgconn.enter_pipeline_mode()
            generator = exchange(pgconn, transactions, self._prepared_on(connection))
            outcomes = await run_in_loop(generator, deadline)
            pgconn.exit_pipeline_mode()
        except BaseException as error:
            if isinstance(error, TimeoutError):
                cancel_in_loop(pgconn)
            await self._discard(connection)
            if isinstance(error, Exception):
                raise exchange_error(error) from error
            raise
        if has_failed(outcomes) or not is_reusable(pgconn):
            await connection.close()
        await self._pool.putconn(connection)
        return outcomes

    async def _discard(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Have the pool replace a connection."""
        await connection.close()
        await self._pool.putconn(connection)


def has_failed(outcomes: Sequence[Outcome]) -> bool:
    """Return whether the server of a connection rejects all work, such as a former primary."""
    return any(isinstance(outcome, ServerError) and outcome.is_transient for outcome in outcomes)


def _no_connection(error: Exception) -> ConnectionLost:
    return ConnectionLost(f"the pool has no connection: {error}", timed_out=True)


def _pool_closed(error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"PostgresStore(pool=): {error}. Open the pool before the first request, for example in "
        "the lifespan of the application, and close it after the last one"
    )
