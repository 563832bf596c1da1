"""Visits the records and cutoffs of one installation with SCAN, also in a cluster."""

from __future__ import annotations

import re
from typing import Any, Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from sojourn.record import Record, UnreadableRecord, parse_session_id
from sojourn.store import CutoffPage, ListPage, invalid_cursor
from sojourn.stores.batching import Batchers
from sojourn.stores.redis.commands import GetRaw, RawCommand, Request
from sojourn.stores.redis.encoding import decode_value
from sojourn.stores.redis.keys import Keys

#: The characters that have a meaning in a pattern of SCAN.
_PATTERN_CHARACTERS: Final = re.compile(r"([\[\]*?\\^-])")


#: Keys that one SCAN examines at most: less than a millisecond of the server's time.
_MAX_SCANNED: Final = 2_000

#: The largest growth: 4 times as many keys for each step.
_MAX_GROWTH: Final = 5

_CURSOR: Final = re.compile(rf"([0-9a-f]*):([0-9]{{1,20}}):([0-{_MAX_GROWTH}])")


class Lister:
    """Visits the keys of one installation.

    In a cluster each primary is scanned in turn. Its representative is the first hash tag of the
    store's that it serves; the representatives are visited in their order. Keys may be missed whose
    slot is migrated to another primary during a scan, and those of a server that is replaced by its
    replica: the cursor of SCAN belongs to one process of a server.

    The cursor is the current representative, the cursor of SCAN there, and the growth: where SCAN
    finds keys of others only, the next pages examine more keys.

    Args:
        batchers: carry the requests.
        keys: the names of keys.
    """

    __slots__ = ("_keys", "_slots", "_submit", "_submit_all", "_tags")

    def __init__(self, batchers: Batchers[Request, Any], keys: Keys) -> None:
        self._submit = batchers.submit
        self._submit_all = batchers.submit_all
        self._keys = keys
        self._tags = keys.tags()
        self._slots: list[int] = []  # of the tags; computed at the first use

    async def list_page(self, cursor: str, limit: int) -> ListPage:
        """Return a page of records; see ``SupportsListing``."""
        prefix, _ = self._keys.prefixes()
        found, cursor = await self._scan_keys(prefix, cursor, limit)
        ids = [
            session_id for key in found if (session_id := parse_record_key(key, prefix)) is not None
        ]
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
        return ListPage(records, unreadable, cursor, is_ordered=False)

    async def list_cutoffs(self, cursor: str, limit: int) -> CutoffPage:
        """Return a page of cutoffs, without names: the keys have digests of them only."""
        cutoffs: list[tuple[str, int]] = []
        if not cursor:
            key = self._keys.cutoff(self._tags[0])
            before = await self._submit(RawCommand(("GET", key), key, is_idempotent=True))
            if before is not None:
                cutoffs.append(("", int.from_bytes(before)))
        found, cursor = await self._scan_keys(self._keys.cutoff_prefix(), cursor, limit)
        return CutoffPage(cutoffs, len(found), cursor)

    async def _scan_keys(self, prefix: str, cursor: str, limit: int) -> tuple[list[str], str]:
        """Return keys with a prefix, each once, and the next cursor."""
        pattern = _PATTERN_CHARACTERS.sub(r"\\\1", prefix) + "*"
        tag, position, growth = self._parse_cursor(cursor)
        nodes = await self.representatives()
        if tag not in nodes:  # the first page, or another primary serves it now
            tag, position = next((node for node in nodes if node > tag), ""), "0"
            if not tag:
                return [], ""
        count = max(limit, min(limit << 2 * growth, _MAX_SCANNED))
        command = ("SCAN", position, "MATCH", pattern, "COUNT", count)
        request = RawCommand(command, self._keys.cutoff(tag), is_idempotent=True)
        after, found = await self._submit(request)
        names = list(dict.fromkeys(each.decode("utf-8", "surrogateescape") for each in found))
        if not names:
            growth = min(growth + 1, _MAX_GROWTH)
        elif len(names) > limit:
            growth = max(growth - 1, 0)
        if after != b"0":
            return names, f"{tag}:{after.decode()}:{growth}"
        following = [node for node in nodes if node > tag]
        return names, f"{following[0]}:0:{growth}" if following else ""

    def _parse_cursor(self, cursor: str) -> tuple[str, str, int]:
        """Return the representative, the cursor of SCAN and the growth.

        Raises:
            ValueError: the cursor is not one of this kind of server.
        """
        match = _CURSOR.fullmatch(cursor or ":0:0")
        if match is None or (cursor and match[1] not in self._tags):
            raise invalid_cursor(cursor)
        return match[1], match[2], int(match[3])

    async def representatives(self) -> list[str]:
        """Return the first hash tag of each primary, in order; without a cluster, an empty tag."""
        if not self._keys.is_cluster:
            return [""]
        command = RawCommand(("CLUSTER", "SLOTS"), self._keys.events, is_idempotent=True)
        primary_of: list[Any] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for start, end, primary, *_ in await self._submit(command):
            primary_of[start : end + 1] = [tuple(primary[:2])] * (end + 1 - start)
        self._slots = self._slots or [key_slot(tag.encode()) for tag in self._tags]
        first: dict[Any, str] = {}
        for tag, slot in zip(self._tags, self._slots, strict=True):
            if primary_of[slot] is not None:
                first.setdefault(primary_of[slot], tag)
        return list(first.values())


def parse_record_key(key: str, prefix: str) -> bytes | None:
    """Return the session ID of a record's key; None for a foreign key.

    Args:
        key: of the server.
        prefix: of the keys of records.
    """
    if not key.startswith(prefix):
        return None
    digits = key.removeprefix(prefix).replace("{", "").replace("}", "")
    return parse_session_id(digits)
