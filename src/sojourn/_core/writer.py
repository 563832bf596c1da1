"""Writer: compare-and-set on one record until it succeeds, in turn and within bounds.

What lives here: the one loop behind every change of an existing record: commits, claims, leases,
logins and rotations. What must not: what the change is (functions say so) and creating records; a
session that has ended answers False here, and nothing can make it come back (law A7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from sojourn._core.concurrency import KeyedLock
from sojourn._core.journal import Journal
from sojourn._core.login import STRAGGLERS, Login, after_login, after_rotation, logged_in
from sojourn._core.policy import Policy, expired
from sojourn._core.revocation import Revoker
from sojourn._core.working_copy import WorkingCopy
from sojourn._crypto.encryption import Sealer
from sojourn.errors import LimitReached, SessionConflict, SessionTooLarge, StoreError
from sojourn.record import Contents, Record, UnreadableRecord
from sojourn.store import (
    GONE,
    LIMIT_REACHED,
    REVOKED,
    SAVED,
    Conflict,
    LoginSaved,
    SaveResult,
    SessionLimit,
    Store,
    SupportsUserIndex,
)

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
        ender: notes why sessions ended that had to make room.
        sealer: packs and opens bodies.
        max_bytes: the largest body.
        limit: how many sessions a user may have; None for any number.
    """

    __slots__ = (
        "_clock",
        "_ender",
        "_journal",
        "_limit",
        "_max_bytes",
        "_policy",
        "_sealer",
        "_store",
        "turns",
    )

    def __init__(
        self,
        store: Store,
        policy: Policy,
        *,
        clock: Callable[[], int],
        journal: Journal,
        ender: Revoker,
        sealer: Sealer,
        max_bytes: int,
        limit: SessionLimit | None,
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._limit = limit
        self._ender = ender
        self._policy = policy
        self._clock = clock
        self._journal = journal
        self._max_bytes = max_bytes
        self.turns: KeyedLock = KeyedLock()

    async def write(  # noqa: C901, PLR0912, PLR0915 - one loop and all its ways out, from top to bottom
        self, visit: WorkingCopy, base: Record, amend: Amendment, now: int
    ) -> bool:
        """Save what ``amend`` makes of the newest data; False if the session has ended.

        For a ticket, a session has also ended when somebody logged in since (law A9). Whoever waits
        behind another commit of the same session in this process starts from the record that one
        wrote, so contention costs no extra round trips.

        Args:
            visit: adopts the record that was written (or met, where ``amend`` left it). The
                renewal it asks for is carried out in the same step.
            base: the visit's record.
            amend: called with ``base`` first, then with each newer record that is met.
            now: milliseconds since 1970 UTC; asked again after each wait.

        Raises:
            SessionConflict, SessionTooLarge, LimitReached, StoreError: nothing was written.
        """
        written: Record | None = None
        earlier: Record | None = None
        began = base
        if not self.turns.take(base.id):
            earlier = await self.turns.begin(base.id)
            now = self._clock()
        try:
            if visit._record is not began and not visit._has(base.id):
                return True  # another task of the same handler destroyed it meanwhile
            contents = visit._contents
            if earlier is not None and earlier.version > base.version:
                base, contents = earlier, None
            attempts = 0
            while True:
                if expired(base, now) is not None:
                    # As far as we know: others may have kept it alive meanwhile.
                    newest = await self._store.load(base.id)
                    if newest is None or expired(newest, now) is not None:
                        return False
                    base, contents = newest, None
                if base.authenticated_at != began.authenticated_at:
                    return False
                if contents is None:
                    visit._follow(base)
                    contents = self._sealer.open(base, visit._verifier)
                data = amend(base, contents)
                if data is None:
                    if visit._renewal is None:
                        visit._adopt(base, contents)
                        return True
                    data = contents.data
                contents = Contents(contents.user, contents.labels, data)
                if visit._renewal is None or not isinstance(visit._renewal, Login):
                    record = self._next(visit, base, contents, now)
                    result = await self._store.save(record, base.version)
                else:
                    contents = logged_in(contents, visit._renewal)
                    record = self._next(visit, base, contents, now)
                    result = await self.save_login(record, base.version, now)
                if not isinstance(result, Conflict):
                    break
                attempts += 1
                if attempts == ATTEMPTS:
                    raise SessionConflict(base.session_id, attempts)
                base, contents = result.newer, None
                now = self._clock()
            if result is GONE:
                return False
            written = record
            if visit._record is began or visit._has(record.id):
                if visit._renewal is not None or visit._upkeep:
                    visit._renewed(record)
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

    def _next(self, visit: WorkingCopy, base: Record, contents: Contents, now: int) -> Record:
        """Return the record to save: the header's times, its verifiers, and the body."""
        verifier, body = visit._verifier, base.body
        confirmed = base.confirmed or visit._returned
        renewal = visit._renewal
        if renewal is not None or visit._upkeep or base.persistent:
            base = self._renewable(visit, base, now)
            body = base.body
            if renewal is not None:
                verifier = renewal.verifier
                if isinstance(renewal, Login):
                    confirmed, body = True, b""  # nothing of before opens what is sealed now
        seen_at = visit._seen_at or now
        limits = self._policy.limits(contents.user, base.persistent)
        return Record(  # by position, at a third of the price of ``replace``
            base.id,
            base.version + 1,
            max(base.seen_at, seen_at),
            base.created_at,
            base.absolute_at,
            limits.idle_timeout if confirmed else base.idle_timeout,
            base.verifier,
            self.pack(base.id, contents, verifier, body),
            base.authenticated_at,
            base.previous_verifier,
            base.previous_valid_until,
            confirmed,
            base.persistent,
            base.reauthentication_required,
        )

    def _renewable(self, visit: WorkingCopy, base: Record, now: int) -> Record:
        """Return the header with a login, a rotation, or what there is to note of the visit."""
        renewal = visit._renewal
        if isinstance(renewal, Login):
            return after_login(base, renewal, self._policy)
        if self._policy.lapses(base, now):
            base = msgspec.structs.replace(base, reauthentication_required=True)
        if renewal is not None:
            body = self._sealer.rewrap(base, visit._verifier, new=renewal.verifier)
            return msgspec.structs.replace(after_rotation(base, renewal, now), body=body)
        if visit._upkeep:  # the new one was seen (law A9)
            until = min(base.previous_valid_until, now + STRAGGLERS)
            return msgspec.structs.replace(base, previous_valid_until=until)
        return base

    async def save_login(self, record: Record, expected_version: int, now: int) -> SaveResult:
        """Save or insert a record that somebody logged in to.

        Raises:
            LimitReached: its user has as many sessions as are allowed, and none may go.
        """
        if not isinstance(self._store, SupportsUserIndex):
            if expected_version:
                return await self._store.save(record, expected_version)
            return SAVED if await self._store.create(record) else Conflict(record)
        result = await self._store.save_login(record, expected_version, limit=self._limit, now=now)
        if isinstance(result, LoginSaved):
            for session_id in result.evicted:
                await self._ender.note(session_id, "limit")
            return SAVED
        if result is LIMIT_REACHED:
            assert self._limit is not None  # noqa: S101 - nothing else is full
            raise LimitReached(self._limit.max_sessions)
        return GONE if result is REVOKED else result

    def pack(
        self, session_id: bytes, contents: Contents, verifier: bytes, base: bytes = b""
    ) -> bytes:
        """Encode and seal a body.

        Raises:
            SessionTooLarge: it exceeds ``max_bytes``.
        """
        body = self._sealer.seal(session_id, contents, verifier=verifier, base=base)
        if len(body) > self._max_bytes:
            sizes: list[tuple[str, Any]] = [(key, len(data)) for key, data in contents.data.items()]
            sizes.sort(key=lambda item: item[1], reverse=True)
            raise SessionTooLarge(len(body), self._max_bytes, sizes[:3])
        return body
