"""Engine: orders the store calls for loading, refreshing, committing and claiming.

Every step is written once for sync and async. Only ``_create`` inserts records: a save, touch or
refresh that meets a session which has ended drops its changes and reports it (law A7).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from sojourn._core.changes import ChangeTracker
from sojourn._core.codec import decode
from sojourn._core.concurrency import Deadline, monotonic, shielded
from sojourn._core.context import CoreContext
from sojourn._core.immediate_store import immediate_store
from sojourn._core.listing import Lister
from sojourn._core.loader import Loader
from sojourn._core.login import (
    Login,
    Rotation,
    contents_after_login,
    record_after_login,
    with_persistence,
)
from sojourn._core.observer import EngineObserver, ImmediateLoad, Load, Swap
from sojourn._core.operations import OperationLog
from sojourn._core.plan import Create, Plan, Remove, Save, Touch, Write, plan
from sojourn._core.policy import Policy, expired
from sojourn._core.revocation import Revoker
from sojourn._core.typed_state import StateSpec
from sojourn._core.unsettled_commits import Attempt, UnsettledCommits
from sojourn._core.working_copy import Client, CookieChange, WorkingCopy
from sojourn._core.writer import Amendment, PendingChanges, Writer
from sojourn._crypto.tickets import Ticket, hash_verifier, mint_id, mint_verifier
from sojourn.errors import (
    ResponseStarted,
    SessionConflict,
    SessionGone,
    SojournError,
    StoreError,
)
from sojourn.events import Created, Touched
from sojourn.record import (
    COMMIT_ID_BYTES,
    NO_COMMIT_IDS,
    Contents,
    Record,
    UnreadableRecord,
    new_commit_id,
)
from sojourn.store import GONE, SAVED, Store, SupportsGroupCommit

#: A 128-bit ID that is taken indicates a broken random source; three in a row a hostile one.
_MAX_CREATE_ATTEMPTS: Final = 3


class ClaimedKey(msgspec.Struct, eq=False):
    """The amendment of a claim: removes a key and keeps its value.

    Attributes:
        key: to be removed.
        value: the encoded value; None if there is none.
        attempt: see ``Amendment``.
    """

    key: str
    value: bytes | None = None
    attempt: Attempt | None = None

    def apply(self, _: Record, contents: Contents, /) -> dict[str, bytes] | None:
        """Return the data without the key; None if the key is absent."""
        self.value = contents.data.get(self.key)
        if self.value is None:
            return None
        return {key: value for key, value in contents.data.items() if key != self.key}


class Engine:
    """Loads and commits the sessions of one installation.

    Args:
        context: configuration and collaborators.
        state: describes ``session.state``.

    Attributes:
        loads_immediately: ``load_immediately`` may return a session; if not, ``load`` is called at
            once.
    """

    def __init__(self, context: CoreContext, state: StateSpec) -> None:
        self.context: CoreContext = context
        self.state: StateSpec = state
        self.store: Store = context.store
        self.policy: Policy = context.config.policy
        self.clock: Callable[[], int] = context.clock
        self.revoker: Revoker = Revoker(context)
        self.writer: Writer = Writer(context, self.revoker)
        self.lister: Lister = Lister(context)
        self._loader = Loader(context, self.revoker)
        self._observer: EngineObserver | None = None
        # Attributes, not methods that delegate: a method in between costs every request.
        self.loads_immediately: bool
        self.load_immediately: ImmediateLoad
        self.load_from_memory: ImmediateLoad
        self.load: Load
        self.fetch: Callable[[bytes], Coroutine[Any, Any, Record | None]] = self._loader.fetch
        self._swap: Swap | None
        self._choose_functions()

    def use_store(self, store: Store) -> None:
        """Replace the store by one that wraps it, or by the one that was wrapped.

        Args:
            store: with the records and the capabilities of the former one.
        """
        self.store = store
        self._loader.use_store(store)
        self.writer.use_store(store)
        self.revoker.use_store(store)
        self.lister.use_store(store)
        if self.context.history is not None:
            self.context.history.use_store(store)
        self._choose_functions()

    def observe(self, observer: EngineObserver | None) -> None:
        """Call an observer around each load and commit from now on; None ends it.

        A request that is under way may be observed in part. Without an observer, ordinary requests
        do not test whether there is one.
        """
        self._observer = observer
        self._choose_functions()

    @property
    def observed(self) -> bool:
        """Whether loads and commits are observed."""
        return self._observer is not None

    def _choose_functions(self) -> None:
        """Choose the functions that load and commit, once instead of for every request."""
        store = immediate_store(self.store)
        self._swap = None
        if store is not None and not isinstance(self.store, SupportsGroupCommit):
            self._swap = store.swap
        loader, key_fingerprint_check = self._loader, self.context.key_fingerprint_check
        self.loads_immediately = store is not None and self.context.near_cache is None
        if key_fingerprint_check is None or key_fingerprint_check.passed:
            self.load_immediately = loader.load_immediately
            self.load_from_memory = loader.load_from_memory
            self.load = loader.load
        else:  # the first contact with the store registers the fingerprints
            self.loads_immediately = False
            self.load_immediately = self.load_from_memory = _load_nothing
            self.load = self._load_first
        observer = self._observer
        if observer is not None:
            self.load_immediately = observer.observed_immediate_load(self.load_immediately)
            self.load_from_memory = observer.observed_immediate_load(self.load_from_memory)
            self.load = observer.observed_load(self.load)
            if self._swap is not None:
                self._swap = observer.observed_swap(self._swap)

    async def _load_first(self, ticket: Ticket | None, client: Client | None = None) -> WorkingCopy:
        """Load a session and check the installation's keys; replaced once they have passed."""
        copy = await self._loader.load(ticket, client)
        key_fingerprint_check = self.context.key_fingerprint_check
        if ticket is None or key_fingerprint_check is None:
            return copy  # no contact with the store
        await key_fingerprint_check.run()
        if key_fingerprint_check.passed:
            self._choose_functions()
        return copy

    async def refresh(self, copy: WorkingCopy, *, explicit: bool = False) -> bool:
        """Adopt the newest record; keep uncommitted operations.

        Returns:
            False if the session has ended.

        Raises:
            SessionGone: it has ended, and the handler requested the refresh (``explicit``).
            StoreUnavailable: the store failed.
        """
        base = copy.record
        if base is None:
            self._check_alive(copy, explicit=explicit)
            return not copy.revoked
        started = monotonic()
        newer = await self.fetch(base.id)
        if not copy.has_record(base.id):  # another task of this handler has found that it ended
            return not copy.revoked
        context = self.context
        contents = None
        base = copy.record or base
        authenticated_at = base.authenticated_at
        if newer is not None and newer.version > base.version:
            authenticated_at = copy.settle(newer) or authenticated_at
            try:
                if newer.authenticated_at == authenticated_at:
                    copy.follow_rotation(newer)
                    contents = context.cipher.decrypt(newer, copy.verifier)
            except UnreadableRecord as error:
                context.report_unreadable(base.id, error)
                newer = None
        if (
            newer is None
            or newer.authenticated_at != authenticated_at  # a login replaced this ticket
            or await Deadline(context.config.store_timeout, started).bound(
                self._loader.expire(newer)
            )
        ):
            deadline = Deadline(context.config.store_timeout, started)
            await deadline.bound(self._end(copy, base, explicit=explicit))
            return False
        context.report_read(newer)
        if contents is not None:
            copy.replace_record(newer, contents)
        elif newer.version == base.version:
            copy.record = newer
        return True

    # Committing

    async def commit(
        self, copy: WorkingCopy, *, failed: bool = False, explicit: bool = False
    ) -> None:
        """Write what has to be written.

        Args:
            copy: of this engine.
            failed: the request fails; only destroying and rotating are carried out (law A10).
            explicit: the handler requested the commit, so an ended session is an error.
        """
        now = self.clock()
        step = self.plan(copy, now, failed)
        if step is not None:
            await self.execute(step, copy, now, failed=failed, explicit=explicit)
        elif copy.revoked and explicit:
            self._check_alive(copy, explicit=copy.modified() and not failed)

    def commit_immediately(self, copy: WorkingCopy) -> bool:
        """Commit an ordinary successful request without a coroutine.

        Returns:
            False if ``plan`` and ``execute`` have to do it; nothing has changed then.
        """
        changes, swap = copy.changes, self._swap
        if swap is None and changes is not None and (changes.states or changes.cleared):
            return False  # `plan` looks for changes
        record = copy.record
        if (
            record is None
            or not record.confirmed
            or record.persistent
            or copy.revoked
            or copy.renewal is not None
            or copy.header_dirty
            or copy.persistence is not None
            or copy.destroyed_record is not None
            or copy.active_at
            or copy.unsettled is not None
        ):
            return False
        if swap is not None and changes is not None and changes.modified():
            contents = copy.contents
            return contents is not None and self.writer.write_immediately(
                copy, record, changes, contents, swap
            )
        clock = self.clock
        inactivity = clock() - record.seen_at  # as in `policy.touch_due`
        return inactivity < self.policy.touch_interval and 2 * inactivity < record.idle_timeout

    def plan(
        self,
        copy: WorkingCopy,
        now: int,
        failed: bool,  # noqa: FBT001 - positional: called for every request
    ) -> Plan:
        """Return what a commit has to write at ``now``; None for nothing.

        Args:
            copy: of this engine.
            now: milliseconds since 1970 UTC.
            failed: see ``commit``.
        """
        if copy.revoked:
            return None
        policy = self.policy
        changes = copy.changes
        record = copy.record
        renewal = copy.renewal
        if renewal is not None and failed and not _kept_on_failure(renewal):
            copy.renewal = renewal = None
        header_dirty = copy.header_dirty
        if failed:
            copy.persistence = None
        if record is not None:
            if record.persistent and not record.reauthentication_required:
                header_dirty = header_dirty or policy.reauthentication_required(record, now)
            if not (record.confirmed or copy.created_in_request):
                header_dirty = True
            if copy.persistence is not None:
                header_dirty = True
        # Also for a login: it detects in-place changes.
        modified = changes is not None and not failed and changes.modified()
        if copy.unsettled is not None:
            modified = modified or not failed or copy.unsettled.changes_failing_request()
        return plan(
            record,
            modified or renewal is not None,
            copy.destroyed_record is not None,
            header_dirty,
            copy.active_at or now,
            policy,
        )

    def execute(
        self, step: Write, copy: WorkingCopy, now: int, *, failed: bool, explicit: bool = False
    ) -> Coroutine[Any, Any, None]:
        """Return a coroutine that writes what ``plan`` returned at ``now``."""
        writing = (
            self._save(copy, now, failed=failed, explicit=explicit)
            if isinstance(step, Save)
            else self._write(step, copy, explicit=explicit)
        )
        observer = self._observer
        return writing if observer is None else observer.observed_commit(copy, writing)

    def _write(
        self, step: Touch | Create | Remove, copy: WorkingCopy, *, explicit: bool
    ) -> Coroutine[Any, Any, None]:
        if isinstance(step, Touch):
            return self._touch(copy, explicit=explicit)
        if isinstance(step, Create):
            return self._create(copy, explicit=explicit)
        return self._replace(copy, create=step.create, explicit=explicit)

    async def _replace(self, copy: WorkingCopy, *, create: bool, explicit: bool) -> None:
        deadline = Deadline(self.context.config.store_timeout)
        await deadline.bound(self._remove(copy))
        if create:
            await deadline.bound(self._create(copy, explicit=explicit))

    async def _create(self, copy: WorkingCopy, *, explicit: bool) -> None:
        changes, session_id = copy.decode(), copy.session_id()
        deadline = Deadline(self.context.config.store_timeout)
        if self.context.server_clock is not None:
            await self.context.synchronize_clock(session_id, deadline)
            copy.correct_instants()
        if not self.writer.locks.try_acquire(session_id):
            try:
                await self.writer.locks.acquire(session_id, timeout=deadline.remaining())
            except TimeoutError:
                self.context.raise_store_error("create", session_id, deadline.exceeded())
        complete = False
        try:
            if copy.record is None and copy.changes is changes:
                complete = await self._create_locked(copy, changes, deadline, explicit=explicit)
        finally:
            self.writer.locks.release(session_id)
        if not complete:  # it was created or destroyed by another task, or by an earlier commit
            await deadline.bound(self.commit(copy, explicit=explicit))

    async def _create_locked(  # noqa: C901 - every outcome of an insert
        self, copy: WorkingCopy, changes: ChangeTracker, deadline: Deadline, *, explicit: bool
    ) -> bool:
        """Create the record.

        Returns:
            False if an interrupted commit had created it, so the changes are still to be saved.
        """
        now = self.revoker.now()
        login = copy.renewal if isinstance(copy.renewal, Login) else None
        verifier = (copy.verifier or mint_verifier()) if login is None else login.verifier
        log, data = changes.take_operations()
        if not data and login is None and copy.unsettled is None:
            return True  # written and removed again: an empty session needs no record (B-53)
        contents = Contents(None, copy.labels(), data)
        if login is not None:
            contents = contents_after_login(contents, login)
        attempt = Attempt(new_commit_id(), 1)
        record: Record | None = None
        try:
            if copy.response_started:
                raise ResponseStarted  # noqa: TRY301 - the operations are restored below
            record = Record(
                id=copy.session_id(),
                version=1,
                seen_at=now,
                created_at=_creation(login, now),
                absolute_at=self.policy.anonymous.absolute_at(now),
                idle_timeout=self.policy.initial_idle_timeout(),
                verifier=hash_verifier(verifier),
                body=self.writer.pack(copy.session_id(), contents, verifier),
                confirmed=self.policy.unconfirmed_timeout is None,
                commit_ids=attempt.commit_id + NO_COMMIT_IDS[COMMIT_ID_BYTES:],
            )
            if login is not None:
                record = record_after_login(record, login, self.policy)
            if copy.persistence is not None:
                record = with_persistence(record, copy.user, copy.persistence, self.policy)
            if self.writer.limit_record is not None:
                record = self.writer.limit_record(record, contents)
            stored = await self._insert(
                record, contents, verifier, copy.unsettled, deadline, login=login is not None
            )
        except BaseException as error:
            if record is None or not _interrupted(error):
                changes.restore_operations(log)
            elif copy.changes is changes:
                copy.add_unsettled(attempt, log, created=record, verifier=verifier)
            copy.commit_failed(error)
            raise
        if stored is None:
            copy.mark_revoked(record.id)
            self.context.report_rejected(record.id, "ended")
            self._check_alive(copy, explicit=explicit)
            return True
        self.context.dispatcher.emit(Created(stored.session_id))
        if copy.changes is not changes:  # destroyed while the store was awaited
            copy.destroyed_record = stored
            return True
        copy.created_in_request = True
        copy.persistence = None
        copy.cookie_change = CookieChange.SEND
        if stored.commit_ids != record.commit_ids:
            self._adopt_created(copy, changes, stored, log)
            return False
        copy.verifier = verifier
        copy.unsettled = None
        copy.renewal_saved(stored)
        copy.replace_record(stored, contents)
        return True

    def _adopt_created(
        self, copy: WorkingCopy, changes: ChangeTracker, stored: Record, log: OperationLog
    ) -> None:
        """Continue on the record that an interrupted commit has created (law A21)."""
        unsettled = copy.unsettled
        assert unsettled is not None  # noqa: S101 - `_insert` has found the record by it
        copy.verifier = unsettled.verifier_of(stored)
        copy.settle(stored)
        changes.restore_operations(log)
        copy.replace_record(stored, self.context.cipher.decrypt(stored, copy.verifier))

    async def _insert(
        self,
        record: Record,
        contents: Contents,
        verifier: bytes,
        unsettled: UnsettledCommits | None,
        deadline: Deadline,
        *,
        login: bool,
    ) -> Record | None:
        """Insert a record; use another ID if its own is taken (ASVS 7.2.3).

        Args:
            record: to be inserted.
            contents: of the record.
            verifier: of the record.
            unsettled: earlier commits, one of which may have inserted the record.
            deadline: of the commit.
            login: the record is to be indexed.

        Returns:
            The stored record, which may be that of an earlier commit; None if its user was revoked
            during the login.
        """
        for _ in range(_MAX_CREATE_ATTEMPTS):
            try:
                await deadline.bound(self.context.check_keys(deadline))
                if login:
                    result = await deadline.bound(self.writer.save_login(record, 0, self.clock()))
                    if result is GONE:
                        return None
                    if result is SAVED:
                        return record
                elif await self.store.create(record):
                    return record
                if unsettled is not None:
                    existing = await deadline.bound(self._loader.fetch(record.id))
                    if existing is not None and unsettled.verifier_of(existing):
                        return existing
            except StoreError as error:
                self.context.raise_store_error("create", record.id, error)
            session_id = mint_id()
            body = self.writer.pack(session_id, contents, verifier)
            record = msgspec.structs.replace(record, id=session_id, body=body)
        raise SessionConflict(record.session_id, _MAX_CREATE_ATTEMPTS)

    async def _save(self, copy: WorkingCopy, now: int, *, failed: bool, explicit: bool) -> None:
        changes = copy.changes or copy.decode()
        base = copy.record
        if base is None:
            return  # the record turned out to be unreadable and counts as absent
        pending = PendingChanges(copy, changes, base, failed)
        try:
            alive = await self.writer.write(copy, base, pending, now)
        except BaseException as error:
            _keep_operations(copy, pending)
            copy.commit_failed(error)
            raise
        if not alive:
            await self._end(copy, base, explicit=explicit)

    async def _touch(self, copy: WorkingCopy, *, explicit: bool) -> None:
        record = copy.record
        assert record is not None  # noqa: S101 - plan touches only what is stored
        touched = record.with_seen_at(copy.active_at or self.clock())
        try:
            alive = (
                expired(record, self.clock()) is None or await self._loader.still_alive(record)
            ) and await self.store.touch(touched)
        except StoreError as error:
            self.context.raise_store_error("touch", record.id, error)
        finally:
            self.context.discard_from_memory(record.id)
        if not alive:
            await self._end(copy, record, explicit=explicit)
            return
        self.context.dispatcher.emit(Touched(record.session_id))
        if copy.record is record:
            copy.record = touched

    async def touch(self, copy: WorkingCopy) -> None:
        """Record activity now, even if no touch is due; the working copy must have a record.

        Raises:
            SessionGone: the session has ended.
        """
        await self._touch(copy, explicit=True)

    async def remove(self, copy: WorkingCopy) -> None:
        """Delete the record that the handler has destroyed, and nothing else."""
        await self._remove(copy)

    async def claim(self, copy: WorkingCopy, key: str, default: Any) -> Any:
        """Remove a key and return its value to one claimer; all others get ``default``.

        Raises:
            SessionGone: the session has ended.
        """
        deadline = Deadline(self.context.config.store_timeout)
        await deadline.bound(self.commit(copy, explicit=True))
        claim = ClaimedKey(key)
        try:
            await deadline.bound(self.amend(copy, claim))
        except BaseException:
            if claim.attempt is not None and claim.value is not None:
                copy.add_unsettled_claim(key, claim.attempt, claim.value)
            raise
        if claim.value is None:
            return default
        copy.decode().untrack(key)
        return decode(claim.value)

    async def amend(self, copy: WorkingCopy, amendment: Amendment) -> None:
        """Write what an amendment returns for the newest data.

        Raises:
            SessionGone: the session has ended.
        """
        base = copy.record
        if base is None:
            self._check_alive(copy, explicit=True)
            return
        writing: Coroutine[Any, Any, bool]
        writing = self.writer.write(copy, base, amendment, self.clock())
        if self._observer is not None:
            writing = self._observer.observed_commit(copy, writing)
        if not await writing:
            await self._end(copy, base, explicit=True)

    # Ending

    async def _remove(self, copy: WorkingCopy) -> None:
        record = copy.destroyed_record
        assert record is not None  # noqa: S101 - plan removes only what was destroyed
        try:
            removed = await shielded(self.revoker.revoke(record.id, "destroyed", record=record))
            if not removed and copy.removal_interrupted:
                # An earlier attempt of this commit has removed it, unless a tombstone states why
                # another party did (law A21).
                removed = await self.revoker.reason(record.id) is None
        except BaseException:
            copy.removal_interrupted = True
            raise
        copy.removal_interrupted = False
        if removed:
            # Only this response clears the cookie: a later one may meet a new cookie (law A7).
            copy.cookie_change = CookieChange.CLEAR
            copy.destroyed_by_visitor = True
        copy.destroyed_record = None

    async def _end(self, copy: WorkingCopy, record: Record, *, explicit: bool) -> None:
        """Drop the changes of a session that has ended; create no new one (security.md B-38)."""
        if expired(record, self.clock()) is not None:
            await self._loader.still_alive(record)
        copy.mark_revoked(record.id)
        self.context.report_rejected(record.id, "ended")
        self._check_alive(copy, explicit=explicit)

    def _check_alive(self, copy: WorkingCopy, *, explicit: bool) -> None:
        if copy.revoked and explicit:
            raise SessionGone(copy.session_id().hex())


def _creation(login: Login | None, now: int) -> int:
    """Return the instant of creation: a revocation of all since the check meets the session."""
    return now if login is None or not login.checked_at else min(now, login.checked_at)


def _load_nothing(_: Ticket, __: Client | None) -> None:
    return None


def _interrupted(error: BaseException) -> bool:
    """Return whether a store call that ended with ``error`` may have been carried out."""
    return isinstance(error, StoreError) or not isinstance(error, SojournError)


def _keep_operations(copy: WorkingCopy, pending: PendingChanges) -> None:
    """Keep the operations of a commit that was not carried out, or perhaps was (law A21)."""
    changes, log = pending.changes, pending.log
    if copy.changes is not changes:
        return  # the session was destroyed meanwhile
    if pending.attempt is not None and pending.failed:
        if copy.unsettled is not None:
            copy.unsettled.add_attempt(pending.attempt, failed=True)
    elif pending.attempt is not None:
        copy.add_unsettled(pending.attempt, log or OperationLog())
    elif log is not None:
        changes.restore_operations(log)


def _kept_on_failure(renewal: Login | Rotation) -> bool:
    """Return whether a failing request carries out a renewal: only a requested rotation (law A10).

    A login takes effect only if its request succeeds.
    """
    return isinstance(renewal, Rotation) and not renewal.automatic
