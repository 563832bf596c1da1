"""Visits the records and cutoffs of one installation with SCAN, also in a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from redis.crc import key_slot

from sojourn.record import ID_BYTES, Record, UnreadableRecord
from sojourn.store import CutoffPage, ListPage
from sojourn.stores.batching import Batchers
from sojourn.stores.redis.commands import GetRaw, RawCommand, Request
from sojourn.stores.redis.encoding import decode_value
from sojourn.stores.redis.keys import Keys

#: The characters that have a meaning in a pattern of SCAN.
_SPECIAL: Final = re.compile(r"([\[\]*?\\^-])")


class Lister:
    """Visits the keys of one installation.

    In a cluster each primary is scanned in turn. Its representative is the first hash tag of the
    store's that it serves; the representatives are visited in their order. Slots that are migrated
    to another primary during a scan may be missed.

    The cursor is the present representative and the cursor of SCAN there.

    Args:
        batchers: carry the requests.
        keys: the names of keys.
    """

    __slots__ = ("_keys", "_submit", "_submit_all")

    def __init__(self, batchers: Batchers[Request, Any], keys: Keys) -> None:
        self._submit = batchers.submit
        self._submit_all = batchers.submit_all
        self._keys = keys

    async def list_page(self, cursor: str, limit: int) -> ListPage:
        """Return a page of records; see ``SupportsListing``."""
        prefix, _ = self._keys.prefixes()
        found, cursor = await self._scan_keys(prefix, cursor, limit)
        ids = [session_id for key in found if (session_id := _parse_id(key, prefix)) is not None]
        values = await self._submit_all([GetRaw(session_id) for session_id in ids])
        records: list[Record] = []
        unreadable = 0
        for session_id, value in zip(ids, values, strict=True):
            if value is None:  # deleted or expired since, or ended by invalidate_all
                continue
            try:
                records.append(decode_value(session_id, value))
            except UnreadableRecord:
                unreadable += 1
        return ListPage(records, unreadable, cursor)

    async def list_cutoffs(self, cursor: str, limit: int) -> CutoffPage:
        """Return a page of cutoffs; see ``SupportsListing``. Keys have digests of names only."""
        cutoffs: list[tuple[str, int]] = []
        if not cursor:
            key = self._keys.cutoff(self._keys.tags()[0])
            before = await self._submit(RawCommand(("GET", key), key, is_idempotent=True))
            if before is not None:
                cutoffs.append(("", int.from_bytes(before)))
        found, cursor = await self._scan_keys(self._keys.cutoff_prefix(), cursor, limit)
        return CutoffPage(cutoffs, len(found), cursor)

    async def _scan_keys(self, prefix: str, cursor: str, limit: int) -> tuple[list[str], str]:
        """Return keys with a prefix, each once, and the next cursor."""
        pattern = _SPECIAL.sub(r"\\\1", prefix) + "*"
        nodes = await self._representatives()
        tag, _, position = cursor.partition(":") if cursor else (nodes[0], "", "0")
        if tag not in nodes:  # another primary serves it now
            tag, position = next((node for node in nodes if node > tag), ""), "0"
            if not tag:
                return [], ""
        key = self._keys.cutoff(tag)
        command = ("SCAN", position or "0", "MATCH", pattern, "COUNT", limit)
        after, found = await self._submit(RawCommand(command, key, is_idempotent=True))
        names = list(dict.fromkeys(each.decode("utf-8", "surrogateescape") for each in found))
        if after != b"0":
            return names, f"{tag}:{after.decode()}"
        following = [node for node in nodes if node > tag]
        return names, f"{following[0]}:0" if following else ""

    async def _representatives(self) -> list[str]:
        """Return the first hash tag of each primary, in order; without a cluster, an empty tag."""
        if not self._keys.is_cluster:
            return [""]
        command = RawCommand(("CLUSTER", "SLOTS"), self._keys.events, is_idempotent=True)
        ranges = [
            (start, end, tuple(primary[:2]))
            for start, end, primary, *_ in await self._submit(command)
        ]
        return list(_first_tags(self._keys.tags(), ranges))


def _first_tags(tags: list[str], ranges: list[tuple[int, int, Any]]) -> Iterator[str]:
    known = set()
    for tag in tags:
        slot = key_slot(tag.encode())
        primary = next((node for start, end, node in ranges if start <= slot <= end), None)
        if primary is not None and primary not in known:
            known.add(primary)
            yield tag


def _parse_id(key: str, prefix: str) -> bytes | None:
    """Return the session ID of a record's key; None for a foreign key."""
    digits = key.removeprefix(prefix).replace("{", "").replace("}", "")
    try:
        session_id = bytes.fromhex(digits)
    except ValueError:
        return None
    return session_id if len(session_id) == ID_BYTES else None
