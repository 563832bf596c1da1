"""A bounded sample of a store's records, and estimates from it for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from sojourn._core.policy import expired
from sojourn._core.revocation import TOMBSTONE_VERSION
from sojourn.errors import ConfigurationError
from sojourn.record import Record, UnreadableRecord
from sojourn.sessions import Sessions
from sojourn.store import SupportsListing

#: Bytes before the body of a record; see ``docs/formats.md``.
_HEADER_BYTES: Final = 138

#: Records of one page: a few milliseconds of a server's time.
_PAGE: Final = 500

_MINUTE: Final = 60_000


@dataclass(slots=True)
class Sample:
    """What a number of records are.

    Session IDs are random and records are listed in their order, so the first ones are a random
    sample of all.

    Attributes:
        now: milliseconds since 1970 UTC.
        examined: the number of records, also unreadable ones.
        is_complete: whether these are all records of the store.
        anonymous, logged_in: live sessions without and with a user.
        expired: sessions that the next purge removes.
        tombstones: records of why a session was revoked.
        unreadable: records that are damaged or of a newer format.
        sizes: bytes of each record.
        created: live sessions that were created within the last minute.
        logins: sessions that have logged in within the last minute.
        seen: live sessions that were seen within so many minutes.
        live_records: the live ones.
    """

    now: int
    examined: int = 0
    is_complete: bool = False
    anonymous: int = 0
    logged_in: int = 0
    expired: int = 0
    tombstones: int = 0
    unreadable: int = 0
    created: int = 0
    logins: int = 0
    sizes: list[int] = field(default_factory=list)
    seen: dict[int, int] = field(default_factory=lambda: {1: 0, 5: 0, 60: 0})
    live_records: list[Record] = field(default_factory=list)

    @property
    def live(self) -> int:
        """The number of live sessions in the sample."""
        return self.anonymous + self.logged_in

    def add(self, record: Record) -> None:
        """Count a record."""
        self.sizes.append(_HEADER_BYTES + len(record.body))
        if record.version == TOMBSTONE_VERSION:
            self.tombstones += 1
        elif expired(record, self.now) is not None:
            self.expired += 1
        elif not record.in_transit:
            self._add_live(record)

    def _add_live(self, record: Record) -> None:
        try:
            user = record.metadata().user
        except UnreadableRecord:
            self.unreadable += 1
            return
        self.live_records.append(record)
        if user is None:
            self.anonymous += 1
        else:
            self.logged_in += 1
        self.created += record.created_at >= self.now - _MINUTE
        self.logins += record.authenticated_at >= self.now - _MINUTE
        for minutes in self.seen:
            self.seen[minutes] += record.seen_at >= self.now - minutes * _MINUTE


async def take_sample(sessions: Sessions[Any], limit: int) -> Sample:
    """Read about ``limit`` records.

    Raises:
        ConfigurationError: the store cannot list its records.
        StoreError: the store failed.
    """
    store = sessions.store
    if not isinstance(store, SupportsListing):
        raise ConfigurationError(
            f"{store!r} cannot list its sessions; use a store that can, such as sqlite:///"
        )
    context = sessions.engine.context
    await context.begin()
    sample, cursor = Sample(now=context.clock()), ""
    while sample.examined < limit:
        page = await store.list_page(cursor, min(_PAGE, limit - sample.examined))
        sample.examined += len(page.records) + page.unreadable
        sample.unreadable += page.unreadable
        for record in page.records:
            sample.add(record)
        cursor = page.cursor
        if not cursor:
            sample.is_complete = True
            break
    return sample


async def count_sessions(sessions: Sessions[Any]) -> tuple[int, bool]:
    """Return the number of live sessions, and whether it is an estimate."""
    found = await sessions.acount()
    return int(found), not found.is_exact


async def extrapolate(sessions: Sessions[Any], sample: Sample) -> tuple[int, float]:
    """Return the number of live sessions, and how many records one of the sample stands for.

    The number is that of the sample if it is complete, and counted otherwise.
    """
    if sample.is_complete:
        return sample.live, 1.0
    total, _ = await count_sessions(sessions)
    return total, max(total / sample.live, 1.0) if sample.live else 1.0
