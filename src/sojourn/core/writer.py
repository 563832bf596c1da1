"""Writer: compare-and-set on one record until it succeeds, in turn and within bounds.

What lives here: the one loop behind every change of an existing record: commits, claims and leases.
What must not: what the change is (a function gives the new data) and creating records; a session
that has ended answers False here, and nothing can make it come back (law A7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from sojourn.core.drive import Turns
from sojourn.core.journal import Journal
from sojourn.core.policy import Policy, expired
from sojourn.core.record import Contents, Record, UnreadableRecord, pack_body
from sojourn.core.store import GONE, Conflict, Store
from sojourn.core.visit import Visit
from sojourn.errors import SessionConflict, SessionTooLarge, StoreError

#: How often a save is tried before ``SessionConflict``. Each round at least one contender wins, and
#: within a process commits queue up, so with N processes a commit fails with ((N-1)/N)**ATTEMPTS.
ATTEMPTS: Final = 100

#: From the newest record and its contents to the data it should have; None to leave it as it is.
Amendment = Callable[[Record, Contents], dict[str, bytes] | None]


class Writer:
    """Changes existing records.

    Args:
        store: where they live.
        policy: the limits that a save writes into the record.
        clock: milliseconds since 1970 UTC.
        journal: is told.
        max_bytes: the largest body.
    """

    __slots__ = ("_clock", "_journal", "_max_bytes", "_policy", "_store", "turns")

    def __init__(
        self,
        store: Store,
        policy: Policy,
        *,
        clock: Callable[[], int],
        journal: Journal,
        max_bytes: int,
    ) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock
        self._journal = journal
        self._max_bytes = max_bytes
        self.turns: Turns = Turns()

    async def write(  # noqa: C901, PLR0912 - one loop and all its ways out, from top to bottom
        self, visit: Visit, base: Record, amend: Amendment, now: int
    ) -> bool:
        """Save what ``amend`` makes of the newest data; False if the session has ended.

        Whoever waits behind another commit of the same session in this process starts from the
        record that one wrote, so contention costs no extra round trips.

        Args:
            visit: adopts the record that was written (or met, where ``amend`` left it).
            base: the visit's record.
            amend: called with ``base`` first, then with each newer record that is met.
            now: milliseconds since 1970 UTC; asked again after each wait.

        Raises:
            SessionConflict, SessionTooLarge, StoreError: nothing was written.
        """
        written: Record | None = None
        earlier: Record | None = None
        if not self.turns.take(base.id):
            earlier = await self.turns.begin(base.id)
            now = self._clock()
        try:
            if not visit._has(base.id):
                return True  # another task of the same handler destroyed it meanwhile
            if earlier is not None and earlier.version > base.version:
                base, contents = earlier, earlier.contents()
            else:
                contents = visit._contents or base.contents()
            attempts = 0
            while True:
                if expired(base, now) is not None:
                    # As far as we know: others may have kept it alive meanwhile.
                    newest = await self._store.load(base.id)
                    if newest is None or expired(newest, now) is not None:
                        return False
                    base, contents = newest, newest.contents()
                data = amend(base, contents)
                if data is None:
                    visit._adopt(base, contents)
                    return True
                contents = Contents(contents.user, contents.labels, data)
                record = self._next(visit, base, contents, now)
                result = await self._store.save(record, base.version)
                if not isinstance(result, Conflict):
                    break
                attempts += 1
                if attempts == ATTEMPTS:
                    raise SessionConflict(base.session_id, attempts)
                base, contents = result.newer, result.newer.contents()
                now = self._clock()
            if result is GONE:
                return False
            written = record
            if visit._has(record.id):
                visit._adopt(record, contents)
        except UnreadableRecord as damage:
            self._journal.unreadable(base.id, damage)
            return False
        except StoreError as error:
            self._journal.failed("save", base.id, error)
        finally:
            self.turns.end(base.id, written)
        self._journal.written(record, attempts=attempts)
        return True

    def _next(self, visit: Visit, base: Record, contents: Contents, now: int) -> Record:
        confirmed = base.confirmed or visit._returned
        return msgspec.structs.replace(
            base,
            version=base.version + 1,
            seen_at=max(base.seen_at, visit._seen_at or now),
            idle_timeout=self._policy.idle_timeout if confirmed else base.idle_timeout,
            confirmed=confirmed,
            body=self.pack(contents),
        )

    def pack(self, contents: Contents) -> bytes:
        """Encode a body.

        Raises:
            SessionTooLarge: it exceeds ``max_bytes``.
        """
        body = pack_body(contents.user, contents.labels, contents.data)
        if len(body) > self._max_bytes:
            sizes: list[tuple[str, Any]] = [(key, len(data)) for key, data in contents.data.items()]
            sizes.sort(key=lambda item: item[1], reverse=True)
            raise SessionTooLarge(len(body), self._max_bytes, sizes[:3])
        return body
