"""HistoryStream: the history of ended sessions of one installation, as a stream.

An entry of the stream has two fields: ``e``, the encoded ``HistoryEntry``, and ``x``, when its
lifetime ends. The server assigns the IDs, so the order is that of the additions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sojourn.store import HistoryEntry, HistoryPage
from sojourn.stores.batching import Batchers
from sojourn.stores.history import decode_entries, encode_entry, parse_cursor
from sojourn.stores.redis.commands import RawCommand, Request, call_script
from sojourn.stores.redis.connection import Argument
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.scripts import ADD_HISTORY, TRIM_HISTORY

#: Entries that one script adds: about a millisecond of the server.
_MAX_ADDED: Final = 200

#: Entries that one script examines for the end of their lifetime: as long.
_MAX_TRIMMED: Final = 200

_ENTRY: Final = b"e"


class HistoryStream:
    """Adds, lists and trims the entries of one installation.

    Args:
        batchers: carry the requests.
        keys: the names of keys.
    """

    __slots__ = ("_key", "_submit", "_submit_all", "_trimmed_until")

    def __init__(self, batchers: Batchers[Request, Any], keys: Keys) -> None:
        self._submit = batchers.submit
        self._submit_all = batchers.submit_all
        self._key = keys.history
        self._trimmed_until = b""

    async def add(self, entries: Sequence[HistoryEntry], lifetime: int) -> None:
        """Add entries in one batch; see ``SupportsHistory``."""
        calls = []
        for start in range(0, len(entries), _MAX_ADDED):
            arguments: list[Argument] = [lifetime]
            for entry in entries[start : start + _MAX_ADDED]:
                arguments += (encode_entry(entry), entry.ended_at + lifetime)
            calls.append(call_script(ADD_HISTORY, (self._key,), arguments))
        await self._submit_all(calls)

    async def list_page(self, cursor: str, limit: int) -> HistoryPage:
        """Return a page of entries; the cursor is the ID of the last one."""
        instant, number = parse_cursor(cursor)
        if not instant and not number:  # the server rejects the range before the first ID
            return HistoryPage([], 0, "")
        end = f"({instant}-{number}" if cursor else "+"
        command = ("XREVRANGE", self._key, end, "-", "COUNT", limit)
        rows = await self._submit(RawCommand(command, self._key, is_idempotent=True))
        entries, unreadable = decode_entries(_field(fields) for _, fields in rows)
        next_cursor = rows[-1][0].decode() if len(rows) == limit else ""
        return HistoryPage(entries, unreadable, next_cursor)

    async def trim(self, now: int, limit: int) -> bool:
        """Examine the next entries, and remove those whose lifetime is over.

        All are examined, because the lifetime of an older entry may end later.

        Returns:
            Whether none follows; the next call then begins with the oldest entry.
        """
        arguments = (now, min(limit, _MAX_TRIMMED), self._trimmed_until)
        reply = await self._submit(call_script(TRIM_HISTORY, (self._key,), arguments))
        self._trimmed_until = reply
        return not reply


def _field(fields: Sequence[bytes]) -> bytes | None:
    """Return the encoded entry; None if the fields are those of another program."""
    return dict(zip(fields[::2], fields[1::2], strict=True)).get(_ENTRY)
