"""Purge: deletes expired rows in small steps along the table, without an index on the expiry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from sojourn.store import Purged

#: Executes one statement with named parameters in a transaction of its own; returns the rows.
Execute = Callable[[str, dict[str, Any]], Awaitable[list[tuple[Any, ...]]]]

#: Records that one call examines, for each record that it may remove; see ``Store.purge``.
_EXAMINE_FACTOR: Final = 10

#: Pages that one call reads at most, because most may be empty after a purge: 4 MB, a few
#: milliseconds.
_MAX_PAGES: Final = 512

#: Before the first row: items of a page are numbered from 1.
_FIRST_PAGE: Final = 0

# One scan finds the rows; an index on ``expires_at`` would cost each update its HOT path and 75 %
# more WAL. The rows are locked and their expiry is checked again, because a save may have extended
# one since the scan. A row that another transaction holds is left to the next pass, so that two
# purges never wait for each other. TID range scans and ``max(tid)`` need PostgreSQL 14.
_STATEMENT: Final = """
WITH scanned AS (
    SELECT count(*) AS examined,
           max(tid) AS last,
           coalesce(array_agg(tid) FILTER (WHERE ended), '{{}}') AS tids
    FROM (
        SELECT ctid AS tid, {ended} AS ended
        FROM {table} AS session
        WHERE ctid > %(after)s::tid AND ctid < %(until)s::tid
        LIMIT %(examine)s
    ) AS rows
), removed AS (
    DELETE FROM {table} AS session
    WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM {table} AS session
        WHERE ctid = ANY((SELECT tids[1:%(limit)s] FROM scanned)::tid[]) AND {ended}
        FOR UPDATE SKIP LOCKED
    )) AND {ended}
    RETURNING 1
)
SELECT (SELECT count(*) FROM removed),
       CASE WHEN cardinality(tids) > %(limit)s THEN tids[%(limit)s]::text
            WHEN examined = %(examine)s THEN last::text
       END,
       pg_relation_size({regclass}) / current_setting('block_size')::int
FROM scanned
"""


class TablePurger:
    """Deletes the expired rows of one realm; keeps its position in the table between calls.

    Args:
        table: the quoted name.
        realm: whose rows are deleted; a table may contain those of several.
        invalid: SQL that is true for a row ``session`` that ended before it expired, such as by a
            cutoff; it may use no parameter but ``%(realm)s``.
    """

    __slots__ = ("_after", "_page", "_realm", "_statement")

    def __init__(self, table: str, realm: str, *, invalid: str | None = None) -> None:
        ended = "session.expires_at <= %(now)s"
        if invalid is not None:
            ended = f"({ended} OR {invalid})"
        literal = table.replace("'", "''").replace("%", "%%")
        self._statement = _STATEMENT.format(
            table=table.replace("%", "%%"),
            ended=f"(session.realm = %(realm)s AND {ended})",
            regclass=f"'{literal}'::regclass",
        )
        self._realm = realm
        self._page = _FIRST_PAGE
        self._after = f"({_FIRST_PAGE},0)"

    async def purge(self, execute: Execute, now: int, limit: int) -> Purged:
        """Delete up to ``limit`` rows that are expired at ``now``; see ``Store.purge``.

        Rows that another transaction holds stay until the next pass over the table.
        """
        until = self._page + _MAX_PAGES
        parameters = {
            "realm": self._realm,
            "now": now,
            "limit": limit,
            "examine": _EXAMINE_FACTOR * limit,
            "after": self._after,
            "until": f"({until},0)",
        }
        [(removed, last, pages)] = await execute(self._statement, parameters)
        if last is not None:  # there are more rows in these pages
            self._move_to(last)
        elif until < pages:
            self._move_to(f"({until},0)")
        else:
            self._move_to(f"({_FIRST_PAGE},0)")
        return Purged(removed, finished=last is None and until >= pages)

    def _move_to(self, position: str) -> None:
        self._after = position
        self._page = int(position[1:].partition(",")[0])
