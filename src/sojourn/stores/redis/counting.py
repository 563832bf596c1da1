"""Counts the live sessions of one installation: all of few keys, an estimate of many."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Final

from redis.crc import key_slot

from sojourn.record import TRANSIT_VERSION
from sojourn.store import Count
from sojourn.stores.batching import Batchers
from sojourn.stores.redis.commands import RawCommand, Request
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.listing import Lister, parse_record_key
from sojourn.stores.redis.scripts import (
    ABSOLUTE_AT,
    CREATED_AT,
    DIGEST_BYTES,
    IDLE_TIMEOUT,
    MAX_NAMES,
    NO_NAMES,
    SEEN_AT,
)

#: Keys of all primaries up to which every session is counted.
_MAX_COUNTED: Final = 20_000

#: Live sessions that a sample contains, for an error of about one percent, unless it has examined
#: the most keys before.
_SAMPLED_SESSIONS: Final = 10_000
_MAX_SAMPLED_KEYS: Final = 100_000

#: Keys that one SCAN examines: less than a millisecond of the server's time.
_SCANNED: Final = 500

#: Hash tags that are examined together, and keys of the slot of each: a fraction of a millisecond
#: of the server's time for each.
_TAGS: Final = 16
_MAX_SLOT_KEYS: Final = 1_000

#: The bytes of a value that determine whether its session has ended.
_HEAD_BYTES: Final = 1 + MAX_NAMES * DIGEST_BYTES + IDLE_TIMEOUT + 8

_VERSION: Final = 2


class Counter:
    """Counts the records of one installation that are live sessions.

    The server places keys by a hash with a random seed, so those that SCAN returns first are a
    random sample of a server's keys. A cluster orders them by slot; there the sample is the records
    of random hash tags, over which session IDs are evenly distributed.

    Args:
        batchers: carry the requests.
        keys: the names of keys.
        lister: of the same installation.
    """

    __slots__ = ("_keys", "_lister", "_prefix", "_submit_all")

    def __init__(self, batchers: Batchers[Request, Any], keys: Keys, lister: Lister) -> None:
        self._submit_all = batchers.submit_all
        self._keys = keys
        self._lister = lister
        self._prefix, _ = keys.prefixes()

    async def count(self, now: int) -> Count:
        """Return the number of live sessions; see ``SupportsCount``."""
        primaries = await self._lister.representatives()
        total = sum(await self._submit_all([self._command(tag, "DBSIZE") for tag in primaries]))
        is_sample = total > _MAX_COUNTED
        if is_sample and self._keys.is_cluster:
            return await self._count_tags(now)
        live = 0
        for tag in primaries:
            found, examined = await self._scan(tag, now, is_sample=is_sample)
            if examined:
                return Count(round(total * found / examined), is_exact=False)
            live += found
        return Count(live)

    async def _scan(self, tag: str, now: int, *, is_sample: bool) -> tuple[int, int]:
        """Count the live sessions among the keys of a primary or among a sample of them.

        Returns:
            Their number, and the size of the sample: 0 if all keys were examined.
        """
        seen: set[bytes] = set()  # SCAN may return a key twice
        live, position = 0, b"0"
        while not is_sample or (live < _SAMPLED_SESSIONS and len(seen) < _MAX_SAMPLED_KEYS):
            scan = self._command(tag, "SCAN", position, "COUNT", _SCANNED)
            ((position, found),) = await self._submit_all([scan])
            new = set(found) - seen
            seen |= new
            live += await self._count_live(tag, map(self._parse_key, new), now)
            if position == b"0":
                return live, 0
        return live, len(seen)

    async def _count_tags(self, now: int) -> Count:
        """Return an estimate from random hash tags."""
        tags = self._keys.tags()
        random.shuffle(tags)
        live = 0.0
        examined = visited = 0
        while visited < len(tags) and live < _SAMPLED_SESSIONS and examined < _MAX_SAMPLED_KEYS:
            some = tags[visited : visited + _TAGS]
            visited += len(some)
            commands = [
                self._command(tag, "CLUSTER", *arguments)
                for tag in some
                for slot in [key_slot(tag.encode())]
                for arguments in (
                    ("COUNTKEYSINSLOT", slot),
                    ("GETKEYSINSLOT", slot, _MAX_SLOT_KEYS),
                )
            ]
            replies = await self._submit_all(commands)
            for tag, size, found in zip(some, replies[::2], replies[1::2], strict=True):
                ids = [each for key in found if (each := self._parse_key(key)) is not None]
                own = [each for each in ids if self._keys.tag(each) == tag]
                share = max(size / len(found), 1) if found else 0  # of a slot with more keys
                live += share * await self._count_live(tag, own, now)
                examined += len(found)
        return Count(round(live * len(tags) / visited), is_exact=False)

    def _parse_key(self, key: bytes) -> bytes | None:
        return parse_record_key(key.decode("utf-8", "surrogateescape"), self._prefix)

    async def _count_live(self, tag: str, session_ids: Iterable[bytes | None], now: int) -> int:
        """Return how many of the sessions of a primary live; None stands for a foreign key."""
        keys = [self._keys.record(each) for each in session_ids if each is not None]
        if not keys:
            return 0
        commands = [self._command(tag, "GET", self._keys.cutoff(tag))]
        commands += [
            RawCommand(("GETRANGE", key, 0, _HEAD_BYTES - 1), key, is_idempotent=True)
            for key in keys
        ]
        cutoff, *heads = await self._submit_all(commands)
        not_before = int.from_bytes(cutoff or b"")
        return sum(_is_live(head, now, not_before) for head in heads)

    def _command(self, tag: str, *line: str | bytes | int) -> RawCommand:
        """Return a command for the primary of a hash tag."""
        return RawCommand(line, self._keys.cutoff(tag), is_idempotent=True)


def _is_live(head: bytes, now: int, not_before: int) -> bool:
    """Return whether a value, given its first bytes, is that of a live session.

    Args:
        head: ``_HEAD_BYTES`` of the value; fewer if it is damaged, empty if there is none.
        now: milliseconds since 1970 UTC.
        not_before: the cutoff of ``invalidate_all``.
    """
    names = head[0] - NO_NAMES if head else -1
    start = 1 + DIGEST_BYTES * names
    if not 0 <= names <= MAX_NAMES or len(head) < start + IDLE_TIMEOUT + 8:
        return False

    def field(at: int) -> int:
        return int.from_bytes(head[start + at : start + at + 8])

    expires_at = min(field(SEEN_AT) + field(IDLE_TIMEOUT), field(ABSOLUTE_AT))
    is_session = 0 < field(_VERSION) < TRANSIT_VERSION
    return is_session and expires_at > now and field(CREATED_AT) >= not_before
