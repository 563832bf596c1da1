"""Visits the records and cutoffs of one installation, by the primary key; counts the sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from psycopg import pq

from sojourn.record import Record, UnreadableRecord
from sojourn.store import Count, CutoffPage, ListPage, parse_id_cursor
from sojourn.stores.postgresql.encoding import (
    decode_record,
    pack_bigint,
    pack_real,
    unpack_bigint,
)
from sojourn.stores.postgresql.pipeline import Query
from sojourn.stores.postgresql.statements import Statement, Statements
from sojourn.stores.postgresql.transactions import Command, Request

#: Pages of the table up to which ``count`` reads all: 1 GB, which takes about half a second if the
#: system has them in memory.
_MAX_COUNTED_PAGES: Final = 131_072

#: Pages that a count of a larger table reads, chosen at random by the server: 128 MB.
_SAMPLED_PAGES: Final = 16_384


class Lister:
    """Visits and counts the rows of one realm.

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
        result = await self._page(self._statements.list_page, parse_id_cursor(cursor), limit)
        value = result.get_value
        records: list[Record] = []
        for row in range(result.ntuples):
            try:
                records.append(decode_record(value(row, 0) or b"", value(row, 1), value(row, 2)))
            except UnreadableRecord:
                continue
        return ListPage(records, result.ntuples - len(records), _next_cursor(result, limit))

    async def list_cutoffs(self, cursor: str, limit: int) -> CutoffPage:
        """Return a page of cutoffs; see ``SupportsCutoffListing``."""
        after = parse_id_cursor(cursor)  # a digest, which has the size of an ID
        cutoffs: list[tuple[str, int]] = []
        if not cursor:
            query = Query(self._statements.load_all_cutoff, (self._realm,))
            found = await self._execute(query)
            cutoffs += [("", unpack_bigint(found.get_value(0, 0) or b""))] * found.ntuples
        result = await self._page(self._statements.list_cutoffs, after, limit)
        return CutoffPage(cutoffs, result.ntuples, _next_cursor(result, limit))

    async def count(self, now: int) -> Count:
        """Return the number of live sessions; see ``SupportsCount``."""
        found = await self._execute(Query(self._statements.table_pages, ()))
        pages = unpack_bigint(found.get_value(0, 0) or b"")
        if pages <= _MAX_COUNTED_PAGES:
            query = Query(self._statements.count, (self._realm, pack_bigint(now)))
            return Count(await self._number(query))
        sampled = _SAMPLED_PAGES / pages
        parameters = (self._realm, pack_bigint(now), pack_real(100 * sampled))
        query = Query(self._statements.count_sample, parameters)
        return Count(round(await self._number(query) / sampled), is_exact=False)

    async def _number(self, query: Query) -> int:
        return unpack_bigint((await self._execute(query)).get_value(0, 0) or b"")

    async def _page(self, statement: Statement, after: bytes, limit: int) -> pq.abc.PGresult:
        parameters = (self._realm, after, pack_bigint(limit))
        return await self._execute(Query(statement, parameters))

    async def _execute(self, query: Query) -> pq.abc.PGresult:
        (result,) = await self._submit(Command((query,), is_idempotent=True))
        found: pq.abc.PGresult = result
        return found


def _next_cursor(result: pq.abc.PGresult, limit: int) -> str:
    last = result.get_value(result.ntuples - 1, 0) if result.ntuples == limit else None
    return "" if last is None else last.hex()
