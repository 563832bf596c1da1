"""Visits the records and cutoffs of one installation, in the order of the primary key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from psycopg import pq

from sojourn.record import Record, UnreadableRecord
from sojourn.store import CutoffPage, ListPage
from sojourn.stores.postgresql.encoding import decode_record, pack_bigint, unpack_bigint
from sojourn.stores.postgresql.protocol import Query
from sojourn.stores.postgresql.requests import Command, Request
from sojourn.stores.postgresql.statements import Statement, Statements


class Lister:
    """Visits the rows of one realm.

    The cursor is the key of the last row of a page, as hex digits.

    Args:
        submit: executes a request.
        statements: over the tables.
        realm: the installation's namespace.
    """

    __slots__ = ("_realm", "_statements", "_submit")

    def __init__(
        self, submit: Callable[[Request], Awaitable[Any]], statements: Statements, realm: bytes
    ) -> None:
        self._submit = submit
        self._statements = statements
        self._realm = realm

    async def list_page(self, cursor: str, limit: int) -> ListPage:
        """Return a page of records; see ``SupportsListing``."""
        result = await self._page(self._statements.list_page, cursor, limit)
        value = result.get_value
        records: list[Record] = []
        for row in range(result.ntuples):
            try:
                records.append(decode_record(value(row, 0) or b"", value(row, 1), value(row, 2)))
            except UnreadableRecord:
                continue
        return ListPage(records, result.ntuples - len(records), _next_cursor(result, limit))

    async def list_cutoffs(self, cursor: str, limit: int) -> CutoffPage:
        """Return a page of cutoffs; see ``SupportsListing``."""
        cutoffs: list[tuple[str, int]] = []
        if not cursor:
            query = Query(self._statements.load_all_cutoff, (self._realm,))
            found = await self._execute(query)
            cutoffs += [("", unpack_bigint(found.get_value(0, 0) or b""))] * found.ntuples
        result = await self._page(self._statements.list_cutoffs, cursor, limit)
        return CutoffPage(cutoffs, result.ntuples, _next_cursor(result, limit))

    async def _page(self, statement: Statement, cursor: str, limit: int) -> pq.abc.PGresult:
        parameters = (self._realm, bytes.fromhex(cursor), pack_bigint(limit))
        return await self._execute(Query(statement, parameters))

    async def _execute(self, query: Query) -> pq.abc.PGresult:
        (result,) = await self._submit(Command((query,), is_idempotent=True))
        found: pq.abc.PGresult = result
        return found


def _next_cursor(result: pq.abc.PGresult, limit: int) -> str:
    last = result.get_value(result.ntuples - 1, 0) if result.ntuples == limit else None
    return "" if last is None else last.hex()
