"""Transactions: what a batch of requests of the store becomes. Pure functions.

The loads of a batch are one statement, and so are its insertions and its deletions. Its saves and
touches are a statement each. Each kind is one transaction, so that its failure affects no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from psycopg import pq

from sojourn.record import Record, UnreadableRecord
from sojourn.store import GONE, SAVED, Conflict, SaveResult
from sojourn.stores.postgresql.encoding import (
    decode_record,
    pack_bigint,
    pack_bigints,
    pack_byteas,
    pack_ids,
)
from sojourn.stores.postgresql.pipeline import Query, Transaction
from sojourn.stores.postgresql.statements import ANY_VERSION, Statement, Statements

#: Bytes of the bodies that one statement of a batch sends, unless one record is larger. The time
#: for sending grows with the square of it: 256 records of 1 MB in one statement took 20 seconds.
_MAX_STATEMENT_BYTES: Final = 2**20

# Requests


class Load(msgspec.Struct, frozen=True, gc=False):
    """Requests a record; the result is None if there is none."""

    id: bytes


class Create(msgspec.Struct, frozen=True, gc=False):
    """Requests the insertion of a record; the result is whether its ID was free.

    Attributes:
        record: to insert.
        user_key, idp_key: where it is indexed; None for nowhere.
    """

    record: Record
    user_key: bytes | None = None
    idp_key: bytes | None = None


class Update(msgspec.Struct, frozen=True, gc=False):
    """Requests a save or a touch; the result is a ``SaveResult``.

    Attributes:
        record: to store, or with the new ``seen_at``.
        expected_version: ``ANY_VERSION`` for a touch.
    """

    record: Record
    expected_version: int


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Requests the deletion of a record; the result is whether there was one."""

    id: bytes


class Command(msgspec.Struct, frozen=True):
    """Requests a transaction of its own; the result is the list of its results.

    Attributes:
        transaction: the statements.
        is_idempotent: may be executed twice.
    """

    transaction: Transaction
    is_idempotent: bool = False


Request = Load | Create | Update | Delete | Command


def is_idempotent(request: Request) -> bool:
    """Return whether a request may be executed twice."""
    if isinstance(request, Update):
        return request.expected_version == ANY_VERSION
    return isinstance(request, Load) or (isinstance(request, Command) and request.is_idempotent)


#: The outcome of a save that found another version or none, until the stored record is loaded.
NOT_SAVED: Final = object()


def newer(stored: Record | Exception | None) -> SaveResult | Exception:
    """Return the result of a save that changed nothing, from what a load returned after it."""
    if stored is None:
        return GONE
    return stored if isinstance(stored, Exception) else Conflict(stored)


# Batches


class Step(msgspec.Struct, frozen=True):
    """One transaction of a batch.

    Attributes:
        transaction: to execute.
        positions: of its requests in the batch.
        distribute: sets the outcome of each request from the results of the transaction.
    """

    transaction: Transaction
    positions: Sequence[int]
    distribute: Callable[[list[pq.abc.PGresult], list[Any]], None]


class Planner:
    """Makes transactions of batches.

    Args:
        statements: of the tables.
        realm: the installation's namespace.
    """

    __slots__ = ("_prefix", "_realm", "_statements")

    def __init__(self, statements: Statements, realm: str) -> None:
        self._statements = statements
        self._realm = realm.encode()
        self._prefix = tuple(Query(statement, ()) for statement in statements.settings)

    def plan(self, requests: Sequence[Request]) -> list[Step]:
        """Return the transactions for a batch."""
        loads: list[int] = []
        creates: list[int] = []
        updates: list[int] = []
        deletes: list[int] = []
        steps: list[Step] = []
        for position, request in enumerate(requests):
            if isinstance(request, Load):
                loads.append(position)
            elif isinstance(request, Update):
                updates.append(position)
            elif isinstance(request, Create):
                creates.append(position)
            elif isinstance(request, Delete):
                deletes.append(position)
            else:
                steps.append(_command(request, position))
        if loads:
            steps.append(self._load(loads, requests))
        steps += [self._create(portion, requests) for portion in _portions(creates, requests)]
        steps += [self._update(portion, requests) for portion in _portions(updates, requests)]
        if deletes:
            steps.append(self._delete(deletes, requests))
        return steps

    def write(self, *queries: Query) -> Transaction:
        """Return the transaction of a write."""
        return (*self._prefix, *queries)

    def locking(self, lock: Query, query: Query) -> Transaction:
        """Return the transaction of a statement that must see what other transactions wrote.

        Under another isolation level, which may be the database's default, its snapshot would be
        that of the statement that waits for the lock. Always durable: logins may evict sessions,
        and cutoffs end them.

        Args:
            lock: the statement that waits.
            query: the statement that follows.
        """
        return (Query(self._statements.read_committed, ()), lock, query)

    def notify(self, query: Query) -> Transaction:
        """Return the transaction of messages, which nothing that is lost at a crash depends on."""
        return (Query(self._statements.relax, ()), query)

    def _load(self, positions: list[int], requests: Sequence[Any]) -> Step:
        ids = [requests[position].id for position in positions]
        query = Query(self._statements.load, (self._realm, pack_ids(ids)))

        def distribute(results: list[pq.abc.PGresult], outcomes: list[Any]) -> None:
            (result,) = results
            value = result.get_value
            found: dict[bytes | None, Record | Exception] = {}
            for row in range(result.ntuples):
                session_id = value(row, 0)
                assert session_id is not None  # noqa: S101 - a primary key
                try:
                    found[session_id] = decode_record(session_id, value(row, 1), value(row, 2))
                except UnreadableRecord as error:
                    found[session_id] = error
            for position, session_id in zip(positions, ids, strict=True):
                outcomes[position] = found.get(session_id)

        return Step((query,), positions, distribute)

    def _create(self, positions: list[int], requests: Sequence[Any]) -> Step:
        created: list[Create] = [requests[position] for position in positions]
        ordered = sorted(created, key=lambda request: request.record.id)
        records = [request.record for request in ordered]
        parameters = (
            self._realm,
            pack_ids([record.id for record in records]),
            pack_bigints([record.version for record in records]),
            pack_bigints([record.seen_at for record in records]),
            pack_bigints([record.expires_at for record in records]),
            pack_byteas([request.user_key for request in ordered]),
            pack_byteas([request.idp_key for request in ordered]),
            pack_byteas([record.to_bytes() for record in records]),
        )
        query = Query(self._statements.insert, parameters)

        def distribute(results: list[pq.abc.PGresult], outcomes: list[Any]) -> None:
            inserted = _column(results[-1])
            for position, request in zip(positions, created, strict=True):
                outcomes[position] = request.record.id in inserted
                inserted.discard(request.record.id)  # a second one of the batch has a taken ID

        return Step(self.write(query), positions, distribute)

    def _update(self, positions: list[int], requests: Sequence[Any]) -> Step:
        statements = self._statements
        save, touch = statements.save, statements.touch
        transaction: list[Query] = []
        if len(positions) > 1:
            positions.sort(key=lambda position: requests[position].record.id)
            save, touch = statements.save_in_batch, statements.touch_in_batch
            transaction.append(Query(statements.prepare_updates, (self._realm,)))
        start = len(transaction)
        for position in positions:
            request: Update = requests[position]
            transaction.append(
                self._touch(touch, request)
                if request.expected_version == ANY_VERSION
                else self._save(save, request)
            )

        def distribute(results: list[pq.abc.PGresult], outcomes: list[Any]) -> None:
            for position, result in zip(positions, results[start:], strict=True):
                if result.command_tuples:
                    outcomes[position] = SAVED
                elif requests[position].expected_version == ANY_VERSION:
                    outcomes[position] = GONE
                else:
                    outcomes[position] = NOT_SAVED

        return Step(transaction, positions, distribute)

    def _save(self, statement: Statement, request: Update) -> Query:
        record = request.record
        parameters = (
            self._realm,
            record.id,
            pack_bigint(request.expected_version),
            pack_bigint(record.seen_at),
            pack_bigint(record.idle_timeout),
            pack_bigint(record.absolute_at),
            record.to_bytes(),
            pack_bigint(record.version),
        )
        return Query(statement, parameters)

    def _touch(self, statement: Statement, request: Update) -> Query:
        record = request.record
        return Query(statement, (self._realm, record.id, pack_bigint(record.seen_at)))

    def _delete(self, positions: list[int], requests: Sequence[Any]) -> Step:
        ids = [requests[position].id for position in positions]
        query = Query(self._statements.delete, (self._realm, pack_ids(sorted(ids))))

        def distribute(results: list[pq.abc.PGresult], outcomes: list[Any]) -> None:
            deleted = _column(results[-1])
            for position, session_id in zip(positions, ids, strict=True):
                outcomes[position] = session_id in deleted
                deleted.discard(session_id)

        # Always durable: a session that was revoked must not come back after a crash.
        return Step((query,), positions, distribute)


def _command(request: Command, position: int) -> Step:
    def distribute(results: list[pq.abc.PGresult], outcomes: list[Any]) -> None:
        outcomes[position] = results

    return Step(request.transaction, (position,), distribute)


def _portions(positions: list[int], requests: Sequence[Any]) -> list[list[int]]:
    """Return groups of positions whose records one transaction sends."""
    sizes = [len(requests[position].record.body) for position in positions]
    if sum(sizes) <= _MAX_STATEMENT_BYTES:
        return [positions] if positions else []
    portions: list[list[int]] = []
    room = 0
    for position, size in zip(positions, sizes, strict=True):
        if size > room:
            portions.append([])
            room = _MAX_STATEMENT_BYTES
        portions[-1].append(position)
        room -= size
    return portions


def _column(result: pq.abc.PGresult) -> set[bytes | None]:
    return {result.get_value(row, 0) for row in range(result.ntuples)}
