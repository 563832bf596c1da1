"""Executes transactions through libpq in pipeline mode. Generators yield what they wait for.

With ``psycopg.pq`` each of 32 loads takes 2 us of CPU, with psycopg's cursors 7: parameters and
results are arrays in binary format, which need no adapters.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Generator, Sequence
from enum import Enum
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

import msgspec
import psycopg
from psycopg import pq

from sojourn.stores.postgresql.errors import ConnectionLost, ServerError
from sojourn.stores.postgresql.statements import Statement

T = TypeVar("T")


class Query(msgspec.Struct, frozen=True):
    """A statement with its parameters, in the formats of the statement."""

    statement: Statement
    parameters: Sequence[bytes | None]


#: Statements of one transaction.
Transaction = Sequence[Query]

#: The result of each statement of a transaction, or what rolled it back.
Outcome = list[pq.abc.PGresult] | ServerError


class Wait(Enum):
    """What a generator waits for."""

    READ = "read"
    WRITE = "write"
    READ_OR_WRITE = "read or write"


#: Yields the descriptor of a socket and what to wait for, and returns its result.
Waiting = Generator[tuple[int, Wait], None, T]


def connect(conninfo: str) -> Waiting[pq.abc.PGconn]:
    """Connect to one server.

    Raises:
        ConnectionLost: it is unreachable or rejected the connection.
    """
    pgconn = pq.PGconn.connect_start(conninfo.encode())
    try:
        while pgconn.status != pq.ConnStatus.BAD:
            status = pgconn.connect_poll()
            if status == pq.PollingStatus.READING:
                yield pgconn.socket, Wait.READ
            elif status == pq.PollingStatus.WRITING:
                yield pgconn.socket, Wait.WRITE
            elif status == pq.PollingStatus.OK:
                pgconn.nonblocking = 1
                return pgconn
            else:
                break
        raise _connect_error(pgconn)  # noqa: TRY301 - the connection must be closed
    except BaseException:
        pgconn.finish()
        raise


def _connect_error(pgconn: pq.abc.PGconn) -> ConnectionLost:
    text = _one_line(pgconn.get_error_message())
    if pgconn.needs_password:
        text += ": put user and password into the URL"
    elif pgconn.used_password:
        text += ": are user, password and database in the URL those of the server?"
    return ConnectionLost(f"it could not be reached ({text})")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def exchange(
    pgconn: pq.abc.PGconn, transactions: Sequence[Transaction], prepared: PreparedStatements
) -> Waiting[list[Outcome]]:
    """Execute transactions in one round trip; return the outcome of each.

    The connection must be in pipeline mode. Each transaction ends with a synchronization point: the
    server commits there, so a result counts only once the point was reported.

    Raises:
        psycopg.OperationalError: the connection broke.
    """
    expected: list[list[bool]] = []
    for transaction in transactions:
        results: list[bool] = []
        previous: Statement | None = None
        for query in transaction:
            results += prepared.send(pgconn, query, previous)
            previous = query.statement
        expected.append(results)
        pgconn.pipeline_sync()
        # Before the next one: libpq moves all that it has not sent yet at each partial sending.
        while pgconn.flush():
            yield pgconn.socket, Wait.READ_OR_WRITE
            pgconn.consume_input()  # the server may wait until its results are read
    outcomes: list[Outcome] = []
    for transaction, results in zip(transactions, expected, strict=True):
        outcome = yield from _receive(pgconn)
        if isinstance(outcome, ServerError):
            for query in transaction:
                prepared.invalidate(query.statement)
        else:
            outcome = list(itertools.compress(outcome, results))
        outcomes.append(outcome)
    return outcomes


def is_reusable(pgconn: pq.abc.PGconn) -> bool:
    """Return whether no transaction is open after an exchange: one that failed before COMMIT is."""
    return pgconn.transaction_status == pq.TransactionStatus.IDLE


def _receive(pgconn: pq.abc.PGconn) -> Waiting[Outcome]:
    """Return the outcome of a transaction when its synchronization point was reported."""
    results: list[pq.abc.PGresult] = []
    error: ServerError | None = None
    is_end = False  # two ends in a row: libpq expects no further result
    while True:
        while pgconn.is_busy():
            yield pgconn.socket, Wait.READ
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            if is_end:
                raise psycopg.OperationalError("the server sent no result")
            is_end = True
            continue
        is_end = False
        status = result.status
        if status in _SUCCESSES:
            results.append(result)
        elif status == pq.ExecStatus.PIPELINE_SYNC:
            return results if error is None else error
        elif status == pq.ExecStatus.FATAL_ERROR:
            error = error or _server_error(result)
            if error.closes_connection or pgconn.status == pq.ConnStatus.BAD:
                raise error


_SUCCESSES: Final = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)


def _server_error(result: pq.abc.PGresult) -> ServerError:
    def field(code: pq.DiagnosticField) -> str:
        return (result.error_field(code) or b"").decode(errors="replace")

    text = field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.get_error_message()
    severity = field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)
    return ServerError(
        _one_line(text),
        sqlstate=field(pq.DiagnosticField.SQLSTATE) or None,
        closes_connection=severity in {"FATAL", "PANIC"},
    )


#: Seconds after which a statement is prepared again: at first, and at most. The server reuses a
#: plan that it made for a small table until the statistics change, a minute later. A new
#: installation may have grown meanwhile to a size at which that plan scans the whole table for each
#: batch.
_FIRST_REPLAN: Final = 1.0
_MAX_REPLAN: Final = 60.0


class _Prepared:
    """A statement that is executed repeatedly on a connection.

    Attributes:
        executions: how often it was executed.
        name: on the server; None until it is prepared.
        lifetime: seconds until it is prepared again.
        expires_at: when it is prepared again, by ``time.monotonic``.
    """

    __slots__ = ("executions", "expires_at", "lifetime", "name")

    def __init__(self) -> None:
        self.executions = 0
        self.name: bytes | None = None
        self.lifetime = _FIRST_REPLAN
        self.expires_at = 0.0


def _deallocate(pgconn: pq.abc.PGconn, name: bytes) -> None:
    """Queue the end of a prepared statement."""
    try:
        pgconn.send_close_prepared(name)  # poolers do not understand the statement
    except psycopg.NotSupportedError:  # libpq before 17
        pgconn.send_query_params(b'DEALLOCATE "' + name + b'"', None)


class Preparation:
    """Whether the connections of one store prepare statements.

    Attributes:
        threshold: executions before a statement is prepared; None to prepare none.
    """

    __slots__ = ("_by_connection", "threshold")

    def __init__(self, threshold: int | None) -> None:
        self.threshold: int | None = threshold
        self._by_connection: WeakKeyDictionary[object, PreparedStatements] = WeakKeyDictionary()

    def statements_on(self, connection: object) -> PreparedStatements:
        """Return the prepared statements of a pool's connection, for each transport the same.

        Args:
            connection: of the pool; used by one transport at a time.
        """
        prepared = self._by_connection.get(connection)
        if prepared is None:
            prepared = self._by_connection[connection] = PreparedStatements(self)
        return prepared


class PreparedStatements:
    """The prepared statements of one connection.

    Args:
        preparation: of the store.
    """

    __slots__ = ("_generation", "_namespace", "_preparation", "_statements")

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        # Random, because other stores may use the same connection of a pool or of a pooler, with
        # statements of the same name for other tables.
        self._namespace = secrets.token_hex(4)
        self._statements: dict[Statement, _Prepared] = {}
        self._generation = 0

    def send(
        self, pgconn: pq.abc.PGconn, query: Query, previous: Statement | None = None
    ) -> tuple[bool, ...]:
        """Queue a statement, after its preparation if that is due.

        Args:
            pgconn: in pipeline mode.
            query: to send.
            previous: the statement before it in its transaction. If it is the same, the server
                still has it as its unnamed statement, through any pooler.

        Returns:
            For each result to expect, whether it is that of the statement.
        """
        statement = query.statement
        threshold = self._preparation.threshold
        if threshold is None or statement.name is None:
            if statement is previous:
                pgconn.send_query_prepared(b"", query.parameters, statement.formats, _BINARY)
                return _RESULT
            pgconn.send_query_params(
                statement.text, query.parameters, statement.types, statement.formats, _BINARY
            )
            return _RESULT
        prepared = self._statements.get(statement)
        if prepared is None:
            prepared = self._statements[statement] = _Prepared()
        expected: tuple[bool, ...] = _RESULT
        if prepared.name is None or time.monotonic() >= prepared.expires_at:
            prepared.executions += 1
            if prepared.executions <= threshold:
                pgconn.send_query_params(
                    statement.text, query.parameters, statement.types, statement.formats, _BINARY
                )
                return _RESULT
            expected = self._prepare(pgconn, statement, prepared)
        assert prepared.name is not None  # noqa: S101 - set above
        pgconn.send_query_prepared(prepared.name, query.parameters, statement.formats, _BINARY)
        return expected

    def _prepare(
        self, pgconn: pq.abc.PGconn, statement: Statement, prepared: _Prepared
    ) -> tuple[bool, ...]:
        expected: tuple[bool, ...] = (False, True)
        if prepared.name is not None:
            _deallocate(pgconn, prepared.name)
            expected = (False, False, True)
        self._generation += 1
        prepared.name = f"sojourn_{statement.name}_{self._namespace}_{self._generation}".encode()
        pgconn.send_prepare(prepared.name, statement.text, statement.types)
        prepared.expires_at = time.monotonic() + prepared.lifetime
        prepared.lifetime = min(2 * prepared.lifetime, _MAX_REPLAN)
        return expected

    def invalidate(self, statement: Statement) -> None:
        """Prepare a statement again, because its preparation may have failed with the rest."""
        prepared = self._statements.get(statement)
        if prepared is not None:
            prepared.name = None


_BINARY: Final = pq.Format.BINARY
_RESULT: Final = (True,)
