"""SessionLease: mutual exclusion for one session, across tasks, threads, processes and machines."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

import msgspec

from sojourn._core.codec import decode, encode
from sojourn._core.concurrency import Deadline, run, shielded, sleep
from sojourn._core.durations import Duration, milliseconds
from sojourn._core.engine import Engine
from sojourn._core.reserved_keys import LEASE
from sojourn._core.unsettled_commits import Attempt
from sojourn._core.working_copy import WorkingCopy
from sojourn.errors import (
    ExclusiveTimeout,
    NotSerializable,
    SessionConflict,
    SojournError,
    StoreError,
)
from sojourn.record import Contents, Record

#: Prefix of the lock's name: a block and a commit inside it use different locks.
_LOCK_PREFIX: Final = b"exclusive"

#: Seconds between two attempts while another process holds the lease.
_POLL_INTERVAL: Final = 0.01


class AddedLease(msgspec.Struct, eq=False):
    """The amendment that adds a lease to a record, unless another holder has it.

    Attributes:
        token: of the holder.
        clock: of the engine.
        duration: milliseconds.
        acquired: the lease was free.
        attempt: see ``Amendment``.
    """

    token: str
    clock: Callable[[], int]
    duration: int
    acquired: bool = False
    attempt: Attempt | None = None

    def apply(self, _: Record, contents: Contents, /) -> dict[str, bytes] | None:
        """Return the data with the lease; None if it is held."""
        now = self.clock()
        held = contents.data.get(LEASE)
        self.acquired = held is None or decode(held)[1] <= now
        lease = encode(LEASE, [self.token, now + self.duration])
        return {**contents.data, LEASE: lease} if self.acquired else None


class RemovedLease(msgspec.Struct, eq=False):
    """The amendment that removes a lease from a record.

    Attributes:
        token: of the holder.
        own: the record held this lease.
        attempt: see ``Amendment``.
    """

    token: str
    own: bool = False
    attempt: Attempt | None = None

    def apply(self, _: Record, contents: Contents, /) -> dict[str, bytes] | None:
        """Return the data without the lease; None if another holder has it."""
        held = contents.data.get(LEASE)
        if held is None or decode(held)[0] != self.token:
            self.own = self.attempt is not None  # removed by the interrupted attempt
            return None
        self.own = True
        return {key: value for key, value in contents.data.items() if key != LEASE}


class SessionLease:
    """The block of ``session.exclusive()``, for ``with`` and ``async with``; used once.

    Within a process, blocks queue for a lock. Between processes the lease is a value in the record,
    acquired and released by compare-and-set, so every store supports it. It has an end, so the
    lease of a process that died blocks others no longer than that.

    Args:
        copy: of the session.
        engine: of the session.
        wait: how long to wait for the lease.
        lease: how long to hold it at most.
    """

    __slots__ = (
        "_abandoned",
        "_acquired",
        "_copy",
        "_engine",
        "_lease",
        "_lock_name",
        "_token",
        "_wait",
    )

    def __init__(
        self, copy: WorkingCopy, engine: Engine, *, wait: Duration, lease: Duration
    ) -> None:
        self._copy = copy
        self._engine = engine
        self._wait = milliseconds(wait, option="exclusive(wait=)")
        self._lease = milliseconds(lease, option="exclusive(lease=)")
        self._token = secrets.token_hex(8)
        self._lock_name = b""
        self._acquired = False  # the record holds the lease
        self._abandoned = False  # the caller of `_acquire` was cancelled

    async def __aenter__(self) -> Self:
        """Acquire the lease and adopt the newest record."""
        await self._acquire()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Commit the block's changes, unless it raised, and release the lease."""
        await shielded(self._release(failed=kind is not None))

    def __enter__(self) -> Self:
        """Acquire the lease and adopt the newest record."""
        run(self._acquire(), instead="`async with session.exclusive()`")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Commit the block's changes, unless it raised, and release the lease."""
        run(self._release(failed=kind is not None))

    async def _acquire(self) -> None:
        copy, engine = self._copy, self._engine
        if copy.record is None and not copy.revoked:
            return  # a session that is not stored has no other users
        copy.modified()  # a value that cannot be stored is reported before the lease is acquired
        deadline = engine.clock() + self._wait
        name = _LOCK_PREFIX + copy.session_id()
        try:
            await engine.writer.locks.acquire(name, timeout=self._wait / 1000)
        except TimeoutError:
            raise self._timeout() from None
        self._lock_name = name
        try:
            await shielded(self._acquire_lease(deadline))
        except BaseException:
            self._abandoned = True
            if self._acquired:  # cancelled between the acquisition and its report
                await shielded(self._undo())
            raise

    async def _acquire_lease(self, deadline: int) -> None:
        """Wait for the lease; without it, release the lock.

        Continues after a cancellation of the caller, until it is known whether the record holds the
        lease (law A21).
        """
        engine = self._engine
        waited = 0.0  # milliseconds; a test's clock may stand still
        try:
            while not self._abandoned and not await self._try_acquire():
                if engine.clock() >= deadline or waited >= self._wait:
                    raise self._timeout()  # noqa: TRY301 - the lock is released below
                await sleep(_POLL_INTERVAL)
                waited += _POLL_INTERVAL * 1000
        except BaseException:
            self._release_lock()
            raise
        if self._abandoned:
            await self._undo()

    async def _undo(self) -> None:
        """Release the lease and the lock of a block that was cancelled before it began."""
        try:
            if self._acquired:
                await self._remove_lease()
        except SojournError as error:
            # The lease ends by itself.
            self._engine.context.report_store_error("release_lease", self._copy.session_id(), error)
        finally:
            self._release_lock()

    async def _try_acquire(self) -> bool:
        engine, copy = self._engine, self._copy
        add_lease = AddedLease(self._token, engine.clock, self._lease)
        await engine.refresh(copy)
        try:
            await engine.amend(copy, add_lease)
        except BaseException:
            if add_lease.attempt is not None:  # the record may hold the lease
                with suppress(SojournError):
                    await engine.refresh(copy)
                    await self._remove_lease()
            raise
        self._acquired = add_lease.acquired
        return self._acquired

    async def _remove_lease(self) -> bool:
        """Remove the lease from the record; return False if another holder has it by now."""
        engine, remove_lease = self._engine, RemovedLease(self._token)
        deadline = Deadline(engine.context.config.store_timeout)
        try:
            await deadline.bound(engine.amend(self._copy, remove_lease))
        except StoreError:  # a lost connection; otherwise the lease would last until its end
            await deadline.bound(engine.amend(self._copy, remove_lease))
        return remove_lease.own

    async def _release(self, *, failed: bool) -> None:
        held = True
        copy = self._copy
        try:
            try:
                # Destroying is carried out in any case; a deleted record has no lease.
                if not failed or copy.destroyed_record is not None:
                    await self._engine.commit(copy, failed=failed, explicit=not failed)
            finally:
                if self._lock_name and copy.has_record(self._lock_name.removeprefix(_LOCK_PREFIX)):
                    with suppress(NotSerializable):  # raised by the block's commit
                        held = await self._remove_lease()
        finally:
            self._release_lock()
        if not held and not failed:
            raise SessionConflict(
                copy.session_id().hex(),
                0,
                f"the block of session.exclusive() outlasted its lease of {self._lease} ms, so "
                "another block may have run at the same time. Its changes were merged and saved. "
                "Shorten the block, or extend the lease: session.exclusive(lease=...).",
            )

    def _release_lock(self) -> None:
        if self._lock_name:
            self._engine.writer.locks.release(self._lock_name)
            self._lock_name = b""

    def _timeout(self) -> ExclusiveTimeout:
        return ExclusiveTimeout(self._copy.session_id().hex(), self._wait / 1000)
