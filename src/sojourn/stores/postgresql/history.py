"""HistoryTable: the history of ended sessions of one installation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from sojourn.store import HistoryEntry, HistoryPage
from sojourn.stores.history import decode_entries, encode_entry, make_cursor, parse_cursor
from sojourn.stores.postgresql.encoding import (
    pack_bigint,
    pack_bigints,
    pack_byteas,
    unpack_bigint,
)
from sojourn.stores.postgresql.pipeline import Query, Transaction
from sojourn.stores.postgresql.statements import Statements
from sojourn.stores.postgresql.transactions import Command

#: Entries of one statement; see ``_MAX_STATEMENT_BYTES`` in ``transactions.py``.
_MAX_INSERTED: Final = 1_000

#: Executes requests in one batch.
SubmitAll = Callable[[Sequence[Command]], Awaitable[list[Any]]]


class HistoryTable:
    """Adds, lists and deletes the entries of one realm.

    Args:
        submit_writes: executes writes.
        submit_reads: executes reads.
        write: returns the transaction of a write; with the durability of the store.
        statements: over the tables.
        realm: the installation's namespace.
    """

    __slots__ = ("_realm", "_statements", "_submit_reads", "_submit_writes", "_write")

    def __init__(
        self,
        submit_writes: SubmitAll,
        submit_reads: SubmitAll,
        write: Callable[[Query], Transaction],
        *,
        statements: Statements,
        realm: bytes,
    ) -> None:
        self._submit_writes = submit_writes
        self._submit_reads = submit_reads
        self._write = write
        self._statements = statements
        self._realm = realm

    async def add(self, entries: Sequence[HistoryEntry], lifetime: int) -> None:
        """Add entries in one batch; see ``SupportsHistory``."""
        commands = []
        for start in range(0, len(entries), _MAX_INSERTED):
            part = entries[start : start + _MAX_INSERTED]
            parameters = (
                self._realm,
                pack_bigints([entry.ended_at for entry in part]),
                pack_byteas([encode_entry(entry) for entry in part]),
                pack_bigint(lifetime),
            )
            query = Query(self._statements.add_history, parameters)
            commands.append(Command(self._write(query)))
        await self._submit_writes(commands)

    async def list_page(self, cursor: str, limit: int) -> HistoryPage:
        """Return a page of entries; see ``SupportsHistory``."""
        after = map(pack_bigint, parse_cursor(cursor))
        query = Query(self._statements.list_history, (self._realm, *after, pack_bigint(limit)))
        [[result]] = await self._submit_reads([Command((query,), is_idempotent=True)])
        rows, value = result.ntuples, result.get_value
        entries, unreadable = decode_entries(value(row, 2) for row in range(rows))
        if rows < limit:
            return HistoryPage(entries, unreadable, "")
        last = [unpack_bigint(value(rows - 1, column) or b"") for column in (0, 1)]
        return HistoryPage(entries, unreadable, make_cursor(*last))

    async def purge(self, now: int, limit: int) -> bool:
        """Delete up to ``limit`` entries whose lifetime is over; return whether these were all."""
        parameters = (self._realm, pack_bigint(now), pack_bigint(limit))
        query = Query(self._statements.delete_history, parameters)
        [results] = await self._submit_writes([Command(self._write(query))])
        return bool(results[-1].ntuples < limit)
