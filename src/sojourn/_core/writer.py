"""Writer: changes existing records by compare-and-set, with replay on conflicts.

Commits, claims, leases, logins and rotations all use it. It never creates a record: for a session
that has ended it returns False, and nothing brings the session back (law A7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from sojourn._core.changes import ChangeTracker
from sojourn._core.concurrency import Deadline, KeyedLock, monotonic, shielded
from sojourn._core.context import CoreContext, error_in_transit
from sojourn._core.login import (
    Login,
    contents_after_login,
    end_of_grace_period,
    record_after_login,
    record_after_rotation,
    with_persistence,
)
from sojourn._core.operations import OperationLog
from sojourn._core.policy import expired
from sojourn._core.revocation import Revoker
from sojourn._core.unsettled_commits import Attempt
from sojourn._core.working_copy import WorkingCopy
from sojourn.errors import (
    LimitReached,
    NotSerializable,
    SessionConflict,
    SessionTooLarge,
    SojournError,
    StoreError,
    StoreUnavailable,
)
from sojourn.events import Conflicted, Written
from sojourn.record import (
    NO_COMMIT_ID,
    NO_COMMIT_IDS,
    Contents,
    Record,
    UnreadableRecord,
    new_commit_id,
)
from sojourn.store import (
    GONE,
    LIMIT_REACHED,
    REVOKED,
    SAVED,
    Conflict,
    LoginSaved,
    SaveLoginResult,
    SaveResult,
    Store,
    SupportsUserIndex,
)

#: Number of saves before ``SessionConflict``. In each round at least one contender succeeds, and
#: commits of one process queue, so with N processes a commit fails with ((N-1)/N)**MAX_ATTEMPTS.
MAX_ATTEMPTS: Final = 100


class Amendment(Protocol):
    """Computes the data to save from a record and its contents.

    Attributes:
        attempt: set by ``Writer.write`` if its last save was interrupted; None otherwise.
    """

    attempt: Attempt | None

    def apply(self, record: Record, contents: Contents, /) -> dict[str, bytes] | None:
        """Return the data that the record should have; None to leave it as it is."""
        ...


class PendingChanges(msgspec.Struct, eq=False, gc=False):
    """The amendment of a commit: a handler's changes, replayed on each newer record.

    A struct without garbage collection instead of a closure: every request that waits for its store
    holds one, and each collection of young objects examines the objects of waiting requests.

    Attributes:
        copy: of the session; its unsettled operations are applied first.
        changes: of the copy.
        base: the record whose data the changes were made on.
        failed: the request fails, so its changes are not written (law A10).
        log: the operations that were taken from ``changes``; None before that.
        data: the result of the operations on the base's data.
        attempt: see ``Amendment``.
    """

    copy: WorkingCopy
    changes: ChangeTracker
    base: Record
    failed: bool
    log: OperationLog | None = None
    data: dict[str, bytes] = {}
    attempt: Attempt | None = None

    def apply(self, record: Record, contents: Contents, /) -> dict[str, bytes] | None:
        """Return the data that ``record`` should have; None if it contains every change."""
        unsettled = self.copy.unsettled
        data = contents.data
        if self.failed:
            return data if unsettled is None else unsettled.apply(data, failed=True)
        log = self.log
        if log is None:  # taken under the lock, so that a cancelled wait keeps the operations
            log, self.data = self.changes.take_operations()
            self.log = log
        if record is self.base:
            return self.data
        if unsettled is not None:
            data = unsettled.apply(data)
        elif (
            not log.keys
            and not log.cleared
            and not self.copy.header_dirty
            and self.copy.persistence is None
        ):
            return None
        return log.replay(data)


class Writer:
    """Changes existing records of one engine.

    Args:
        context: of the engine.
        revoker: reports sessions that a login evicts.

    Attributes:
        locks: one commit at a time for each session of this process.
        limit_record: returns a record with the limits that its contents request, as ``set_expiry``
            of Django does; None, the default, for the limits of the policy.
    """

    __slots__ = ("_context", "_revoker", "_store", "limit_record", "locks")

    def __init__(self, context: CoreContext, revoker: Revoker) -> None:
        self._context = context
        self._revoker = revoker
        self._store = context.store
        self.locks: KeyedLock = KeyedLock()
        self.limit_record: Callable[[Record, Contents], Record] | None = None

    def use_store(self, store: Store) -> None:
        """Write to another store; see ``Engine.use_store``."""
        self._store = store

    async def write(  # noqa: C901, PLR0912, PLR0915 - one loop with all its exits, top to bottom
        self, copy: WorkingCopy, base: Record, amendment: Amendment, now: int
    ) -> bool:
        """Save what ``amendment`` returns for the newest data.

        A commit that waited for another one of the same session starts from the record which that
        one wrote, so contention within a process costs no extra round trips.

        Args:
            copy: continues on the record that was written, or found if ``amendment`` returned None.
                Its pending login or rotation is written in the same step.
            base: the record of the working copy.
            amendment: applied to ``base`` first, then to each newer record.
            now: milliseconds since 1970 UTC; read again after each wait.

        Returns:
            False if the session has ended, also if a login has replaced this ticket (law A9).

        Raises:
            SessionConflict, SessionTooLarge, LimitReached, StoreError: nothing was written.
        """
        context = self._context
        outcome: Record | StoreError | None = None  # for the next commit in the queue
        earlier: Record | StoreError | None = None
        original = base
        commit_id = new_commit_id()
        calling = False
        timeout, started = context.config.store_timeout, monotonic()
        if not self.locks.try_acquire(base.id):
            earlier = await self._wait_for_lock(base.id, Deadline(timeout, started))
            now = context.clock()
        try:
            if earlier is not None and isinstance(earlier, StoreError):
                raise StoreUnavailable(str(earlier)) from earlier  # noqa: TRY301 - the failure is passed on below
            if copy.record is not original and not copy.has_record(base.id):
                return True  # another task of the same handler has destroyed it
            contents = copy.contents
            authenticated_at = original.authenticated_at
            if earlier is not None and earlier.version > base.version:
                base, contents = earlier, None
            attempts = 0
            while True:
                if now >= base.absolute_at or now >= base.seen_at + base.idle_timeout:
                    # As `expired`. Another request may have extended it.
                    loading = self._store.load(base.id)
                    newest = await Deadline(timeout, started).bound(loading)
                    if newest is not None and newest.in_transit:
                        raise error_in_transit(newest)  # noqa: TRY301 - reported below
                    if newest is None or expired(newest, now) is not None:
                        return False
                    base, contents = newest, None
                if contents is None:
                    authenticated_at = copy.settle(base) or authenticated_at
                    if base.authenticated_at != authenticated_at:
                        return False
                    copy.follow_rotation(base)
                    contents = context.cipher.decrypt(base, copy.verifier)
                data = amendment.apply(base, contents)
                if data is None:
                    if copy.renewal is None:
                        copy.replace_record(base, contents)
                        return True
                    data = contents.data
                contents = Contents(contents.user, contents.labels, data)
                if copy.renewal is None or not isinstance(copy.renewal, Login):
                    record = self._next_record(copy, base, contents, now, commit_id)
                    calling = True
                    if attempts or earlier is not None:
                        saving = self._store.save(record, base.version)
                        result = await Deadline(timeout, started).bound(saving)
                    else:  # bounded by the store
                        result = await self._store.save(record, base.version)
                else:
                    contents = contents_after_login(contents, copy.renewal)
                    record = self._next_record(copy, base, contents, now, commit_id)
                    calling = True
                    login = self.save_login(record, base.version, now)
                    result = await Deadline(timeout, started).bound(login)
                calling = False
                if not isinstance(result, Conflict):
                    break
                attempts += 1
                if attempts == MAX_ATTEMPTS:
                    raise SessionConflict(base.session_id, attempts)  # noqa: TRY301 - the lock is released below
                if result.newer.in_transit:
                    raise error_in_transit(result.newer)  # noqa: TRY301 - reported below
                base, contents = result.newer, None
                now = context.clock()
            if result is GONE:
                return False
            outcome = record
            if copy.record is original or copy.has_record(record.id):
                copy.written = True
                if copy.renewal is not None or copy.header_dirty:
                    copy.renewal_saved(record)
                if copy.persistence is not None:
                    copy.persistence = None
                    copy.send_cookie()
                if copy.unsettled is not None and isinstance(amendment, PendingChanges):
                    copy.unsettled = None  # its operations were part of this commit
                try:
                    copy.replace_record(record, contents)
                except NotSerializable:  # a value was changed in place
                    if not (isinstance(amendment, PendingChanges) and amendment.failed):
                        raise
                    copy.changes = None  # a failed request drops its changes
                    copy.replace_record(record, contents)
        except UnreadableRecord as error:
            context.report_unreadable(base.id, error)
            return False
        except BaseException as error:
            if calling and (isinstance(error, StoreError) or not isinstance(error, SojournError)):
                amendment.attempt = Attempt(commit_id, base.version + 1)
            if isinstance(error, StoreError):
                outcome = error
                context.report_store_error("save", base.id, error)
            raise
        finally:
            self.locks.release(base.id, outcome)
            if context.near_cache is not None:
                context.near_cache.discard(original.id)
        dispatcher = context.dispatcher
        if attempts:
            dispatcher.emit(Conflicted(record.session_id, attempts), times=attempts)
        if Written in dispatcher.listeners:
            dispatcher.emit(Written(record.session_id, record.version))
        else:  # on the path of every write: no event without a listener
            dispatcher.counts[Written] += 1
        return True

    async def _wait_for_lock(
        self, session_id: bytes, deadline: Deadline
    ) -> Record | StoreError | None:
        """Wait for the earlier commits of a session; return what the previous one handed over.

        Raises:
            StoreUnavailable: they did not end in time.
        """
        earlier: Record | StoreError | None
        try:
            earlier = await self.locks.acquire(session_id, timeout=deadline.remaining())
        except TimeoutError:
            error = deadline.exceeded()
            self._context.raise_store_error("save", session_id, error)
        return earlier

    def write_immediately(
        self,
        copy: WorkingCopy,
        base: Record,
        changes: ChangeTracker,
        contents: Contents,
        swap: Callable[[Record, int], bool],
    ) -> bool:
        """Save the ordinary change without a coroutine; return False if ``write`` has to do it.

        Ordinary means: the session is confirmed, there is neither a login nor a rotation, no other
        commit of this session is under way, and the stored version is the expected one.

        Args:
            copy: of a request.
            base: its record.
            changes: its keys, modified.
            contents: of the record.
            swap: of a store with ``SupportsImmediate``.
        """
        context = self._context
        now = context.clock()
        if (
            now >= base.absolute_at
            or now >= base.seen_at + base.idle_timeout
            # The commit in progress may be of this copy, and would apply its operations twice.
            or self.locks.is_locked(base.id)
        ):
            return False
        log, data = changes.take_operations()
        user = contents.user
        contents = Contents(user, contents.labels, data)
        body = context.cipher.encrypt(base.id, contents, verifier=copy.verifier, base=base.body)
        if len(body) <= context.config.max_bytes:
            commit_ids = base.commit_ids
            if commit_ids != NO_COMMIT_IDS:
                commit_ids = base.next_commit_ids(NO_COMMIT_ID)
            record = Record(  # positional: a third of the cost of ``replace``
                base.id,
                base.version + 1,
                max(now, base.seen_at),
                base.created_at,
                base.absolute_at,
                context.config.policy.limits(user, False).idle_timeout,
                base.verifier,
                body,
                base.authenticated_at,
                base.previous_verifier,
                base.previous_valid_until,
                True,
                False,
                base.reauthentication_required,
                commit_ids,
            )
            if self.limit_record is not None:
                record = self.limit_record(record, contents)
            if swap(record, base.version):
                copy.record = record
                copy.contents = contents
                changes.data = data
                changes.drop_states()
                dispatcher = context.dispatcher
                if Written in dispatcher.listeners:
                    dispatcher.emit(Written(record.session_id, record.version))
                else:  # as in `write`
                    dispatcher.counts[Written] += 1
                return True
        changes.restore_operations(log)
        return False

    def _next_record(
        self,
        copy: WorkingCopy,
        base: Record,
        contents: Contents,
        now: int,
        commit_id: bytes,
    ) -> Record:
        """Return the record to save: times, verifiers and body."""
        verifier, body = copy.verifier, base.body
        confirmed = base.confirmed or not copy.created_in_request
        renewal = copy.renewal
        if (
            renewal is not None
            or copy.header_dirty
            or base.persistent
            or copy.persistence is not None
        ):
            base = self._next_header(copy, base, contents, now)
            body = base.body
            if renewal is not None:
                verifier = renewal.verifier
                if isinstance(renewal, Login):
                    confirmed, body = True, b""  # no earlier verifier decrypts the new body
        config = self._context.config
        # `pack`, inlined: every write calls this method.
        body = self._context.cipher.encrypt(base.id, contents, verifier=verifier, base=body)
        if len(body) > config.max_bytes:
            raise _too_large(body, contents, config.max_bytes)
        active_at = copy.active_at or now
        limits = config.policy.limits(contents.user, base.persistent)
        record = Record(  # positional: a third of the cost of ``replace``
            base.id,
            base.version + 1,
            active_at if active_at > base.seen_at else base.seen_at,  # noqa: FURB136 - half of max()
            base.created_at,
            base.absolute_at,
            limits.idle_timeout if confirmed else base.idle_timeout,
            base.verifier,
            body,
            base.authenticated_at,
            base.previous_verifier,
            base.previous_valid_until,
            confirmed,
            base.persistent,
            base.reauthentication_required,
            base.next_commit_ids(commit_id),
        )
        return record if self.limit_record is None else self.limit_record(record, contents)

    def _next_header(self, copy: WorkingCopy, base: Record, contents: Contents, now: int) -> Record:
        """Return the header with what the request changed in it."""
        base = self._renewed_header(copy, base, now)
        if copy.persistence is None:
            return base
        policy = self._context.config.policy
        return with_persistence(base, contents.user, copy.persistence, policy)

    def _renewed_header(self, copy: WorkingCopy, base: Record, now: int) -> Record:
        """Return the header with the login, the rotation, or the mark that a ticket was seen."""
        policy = self._context.config.policy
        renewal = copy.renewal
        if isinstance(renewal, Login):
            return record_after_login(base, renewal, policy)
        if policy.reauthentication_required(base, now):
            base = msgspec.structs.replace(base, reauthentication_required=True)
        if renewal is not None:
            body = self._context.cipher.rewrap(base, copy.verifier, new=renewal.verifier)
            return msgspec.structs.replace(record_after_rotation(base, renewal), body=body)
        if copy.header_dirty:  # the new ticket was seen (law A9)
            until = end_of_grace_period(base, now)
            return msgspec.structs.replace(base, previous_valid_until=until)
        return base

    async def save_login(self, record: Record, expected_version: int, now: int) -> SaveResult:
        """Save a record with a new login; with version 0 expected, insert it.

        Returns:
            As ``Store.save``; ``GONE`` also if the user was revoked during the login.

        Raises:
            LimitReached: the user has the maximum number of sessions and none may be evicted.
        """
        store, limit = self._store, self._context.config.session_limit
        if not isinstance(store, SupportsUserIndex):
            if expected_version:
                return await store.save(record, expected_version)
            return SAVED if await store.create(record) else Conflict(record)
        # Shielded: the sessions that it evicts have to be reported.
        result = await shielded(self._save_login(store, record, expected_version, now))
        if isinstance(result, LoginSaved):
            return SAVED
        if result is LIMIT_REACHED:
            assert limit is not None  # noqa: S101 - only a limit can be reached
            raise LimitReached(limit.max_sessions)
        return GONE if result is REVOKED else result

    async def _save_login(
        self, store: SupportsUserIndex, record: Record, expected_version: int, now: int
    ) -> SaveLoginResult:
        limit = self._context.config.session_limit
        result = await store.save_login(record, expected_version, limit=limit, now=now)
        if isinstance(result, LoginSaved) and result.evicted:
            user = record.metadata().user
            await self._revoker.report(result.evicted, "limit", user=user)
        return result

    def pack(self, session_id: bytes, contents: Contents, verifier: bytes) -> bytes:
        """Encode and encrypt the body of a new session.

        Raises:
            SessionTooLarge: it exceeds ``max_bytes``.
        """
        context = self._context
        body = context.cipher.encrypt(session_id, contents, verifier=verifier)
        if len(body) > context.config.max_bytes:
            raise _too_large(body, contents, context.config.max_bytes)
        return body


def _too_large(body: bytes, contents: Contents, max_bytes: int) -> SessionTooLarge:
    """Return the error for a body that exceeds ``max_bytes``, with its largest keys."""
    sizes: list[tuple[str, int]] = [
        (key, len(key.encode()) + len(data)) for key, data in contents.data.items()
    ]
    sizes.sort(key=lambda item: item[1], reverse=True)
    return SessionTooLarge(len(body), max_bytes, sizes[:3])
