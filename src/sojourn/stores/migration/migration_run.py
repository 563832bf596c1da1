"""``migrate``: moves every session from one store to another, while the application runs.

Its position is the old store itself: what has been moved is gone from there. So a run that was
killed is continued by the next one, and two runs at the same time do no harm.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Final

import msgspec

from sojourn._core.concurrency import running_loop
from sojourn.errors import ConfigurationError
from sojourn.record import (
    ID_BYTES,
    NO_VERIFIER,
    Record,
    UnreadableRecord,
    check_user,
    pack_body,
    user_index_name,
)
from sojourn.store import (
    REVOKED,
    Closeable,
    Store,
    SupportsCutoffListing,
    SupportsListing,
    SupportsTimeout,
    SupportsUserIndex,
)
from sojourn.stores.migration.mover import InNew, InOld, InTransit, Mover
from sojourn.stores.migration.store import each
from sojourn.stores.migration.transit import Moved, interpret
from sojourn.stores.urls import open_store

#: Sessions that are moved together: a few milliseconds of a server's time for each step.
_BATCH_SIZE: Final = 256

#: The lifetime of the record with which a cutoff is checked, in milliseconds; it is never stored.
_PROBE_LIFETIME: Final = 60_000


class MigrationProgress(msgspec.Struct, frozen=True):
    """What a run of ``migrate`` has done so far.

    Attributes:
        moved: sessions and tombstones that this run has moved.
        completed: moves of a run that was killed, or of a process that stopped, completed by it.
        unreadable: records in the old store that are damaged or of a newer format. They stay there;
            their sessions cannot be loaded from any store (law S9).
        cutoffs: cutoffs of users that were copied.
        unnamed_cutoffs: cutoffs that could not be copied, because the old store has only a digest
            of their users; see ``users`` of ``migrate``.
        passes: how often the old store was visited from its first record to its last.
        finished: the last pass has found no session in the old store.
    """

    moved: int = 0
    completed: int = 0
    unreadable: int = 0
    cutoffs: int = 0
    unnamed_cutoffs: int = 0
    passes: int = 0
    finished: bool = False


def migrate(
    old: str | Store,
    new: str | Store,
    *,
    realm: str = "default",
    timeout: float = 2.0,
    batch_size: int = _BATCH_SIZE,
    max_rate: float | None = None,
    users: Iterable[str | int] = (),
    on_progress: Callable[[MigrationProgress], object] | None = None,
) -> MigrationProgress:
    """Move every session from one store to another; the application may run meanwhile.

    All its processes must use ``migrating(old, new)``. A run that fails or is killed is continued
    by the next one. It ends when a whole pass over the old store has found no session.

    Args:
        old: the URL or the store that sessions leave; it must have ``SupportsListing``.
        new: the URL or the store that they enter.
        realm: the installation's namespace, for URLs; the same as in ``Sessions``.
        timeout: seconds that a store call may take.
        batch_size: sessions that are moved together.
        max_rate: sessions that are moved in a second at most; None for no limit.
        users: all users of the application. Needed only if the old store has only digests of their
            names, as Valkey and Redis do: ``revoke_user`` then also applies to logins by a
            "remember me" cookie.
        on_progress: called after each batch, in the thread or loop of the caller.

    Returns:
        The totals.

    Raises:
        ConfigurationError: an argument is wrong, or the old store cannot be scanned.
        StoreError: a store failed. Nothing is lost; call it again.
    """
    if running_loop() is not None:
        raise ConfigurationError(
            "migrate() was called where an event loop runs, which would stop every other request; "
            "await amigrate() instead"
        )
    return asyncio.run(
        amigrate(
            old,
            new,
            realm=realm,
            timeout=timeout,
            batch_size=batch_size,
            max_rate=max_rate,
            users=users,
            on_progress=on_progress,
        )
    )


async def amigrate(
    old: str | Store,
    new: str | Store,
    *,
    realm: str = "default",
    timeout: float = 2.0,
    batch_size: int = _BATCH_SIZE,
    max_rate: float | None = None,
    users: Iterable[str | int] = (),
    on_progress: Callable[[MigrationProgress], object] | None = None,
) -> MigrationProgress:
    """Move every session from one store to another; see ``migrate``."""
    if batch_size < 1 or (max_rate is not None and max_rate <= 0):
        raise ConfigurationError(
            "migrate() expects a batch_size of 1 or more and a max_rate above 0, found "
            f"{batch_size} and {max_rate}"
        )
    with ExitStack() as opened:
        source, target = (_open(each, realm, timeout, opened) for each in (old, new))
        if not isinstance(source, SupportsListing):
            raise ConfigurationError(
                "migrate(old=) expects a store that can list its records (SupportsListing), found "
                f"{source!r}; without it, serve from migrating(old, new) until its sessions have "
                "expired"
            )
        return await _Run(source, target, batch_size, max_rate, on_progress).run(users)


def _open(store: str | Store, realm: str, timeout: float, opened: ExitStack) -> Store:
    if not isinstance(store, str):
        return store
    result = open_store(store, realm=realm, timeout=timeout)
    if isinstance(result, SupportsTimeout):
        result.set_timeout(timeout)
    if isinstance(result, Closeable):
        opened.callback(result.close)
    return result


class _Run:
    """One run of ``migrate``.

    Args:
        old: has ``SupportsListing``.
        new: the other store.
        batch_size: see ``migrate``.
        max_rate: see ``migrate``.
        on_progress: see ``migrate``.
    """

    def __init__(
        self,
        old: Store,
        new: Store,
        batch_size: int,
        max_rate: float | None,
        on_progress: Callable[[MigrationProgress], object] | None,
    ) -> None:
        self._old = old
        self._new = new
        self._mover = Mover(old, new)
        self._batch_size = batch_size
        self._max_rate = max_rate
        self._on_progress = on_progress
        self._progress = MigrationProgress()
        self._started = time.monotonic()

    async def run(self, users: Iterable[str | int]) -> MigrationProgress:
        """Move everything; return the totals."""
        await self._copy_cutoffs()
        await self._copy_cutoffs_of(users)
        while not self._progress.finished:
            before = self._progress
            unreadable = await self._scan_once()
            now = self._progress
            self._report(
                passes=before.passes + 1,
                unreadable=unreadable,
                finished=now.moved == before.moved and now.completed == before.completed,
            )
        return self._progress

    def _report(self, **changes: int) -> None:
        self._progress = msgspec.structs.replace(self._progress, **changes)
        if self._on_progress is not None:
            self._on_progress(self._progress)

    async def _scan_once(self) -> int:
        """Visit the old store once; return the number of unreadable records."""
        assert isinstance(self._old, SupportsListing)  # noqa: S101 - checked by `amigrate`
        unreadable, cursor, is_last = 0, "", False
        while not is_last:
            page = await self._old.list_page(cursor, self._batch_size)
            moves = [
                self._move(record) for record in page.records if _is_unmoved_or_unreadable(record)
            ]
            outcomes = await each(moves)
            moved, completed = outcomes.count("moved"), outcomes.count("completed")
            unreadable += page.unreadable + outcomes.count("unreadable")
            cursor, is_last = page.cursor, not page.cursor
            if moves:
                self._report(
                    moved=self._progress.moved + moved,
                    completed=self._progress.completed + completed,
                )
                await self._pause()
        return unreadable

    async def _pause(self) -> None:
        if self._max_rate is not None:
            done = self._progress.moved + self._progress.completed
            due = self._started + done / self._max_rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _move(self, stored: Record) -> str:
        """Move what a scan has found; return what was done."""
        mover = self._mover
        try:
            found = interpret(stored)
            if isinstance(found, Record):
                # The record in hand saves two calls. If it is not the latest any more, the first
                # compare-and-set fails.
                done = await mover.move_record(found) or await mover.move(found.id)
                return "moved" if done else "ended"
            location = await mover.find(stored.id)
            if isinstance(location, InTransit):
                await mover.complete(location)
                return "completed"
            if isinstance(found, Moved):
                await mover.retire(found)
                return "completed" if isinstance(location, InNew) else "ended"
            # A pending copy in the old store is of the other direction. `find` has completed its
            # move if it had begun; otherwise the copy is void and expires.
            is_in_old = isinstance(location, InOld)
            return "moved" if is_in_old and await mover.move(stored.id) else "ended"
        except UnreadableRecord:
            return "unreadable"

    # Cutoffs

    async def _copy_cutoffs(self) -> None:
        """Copy the cutoffs that the old store can name."""
        new, cursor, is_last = self._new, "", False
        if not isinstance(self._old, SupportsCutoffListing) or not isinstance(
            new, SupportsUserIndex
        ):
            return
        while not is_last:
            page = await self._old.list_cutoffs(cursor, self._batch_size)
            calls = [
                new.invalidate_logins(name, before) if name else new.invalidate_all(before)
                for name, before in page.cutoffs
            ]
            await each(calls)
            cursor, is_last = page.cursor, not page.cursor
            self._report(
                cutoffs=self._progress.cutoffs + len(calls),
                unnamed_cutoffs=self._progress.unnamed_cutoffs + page.unnamed,
            )

    async def _copy_cutoffs_of(self, users: Iterable[str | int]) -> None:
        """Copy the cutoffs of users, which are found by logins that a cutoff rejects."""
        new = self._new
        if not isinstance(new, SupportsUserIndex):
            return
        for user in users:
            before = await self._cutoff_of(check_user(user))
            if before:
                await new.invalidate_logins(user_index_name(check_user(user)), before)
                self._report(cutoffs=self._progress.cutoffs + 1)

    async def _cutoff_of(self, user: str) -> int:
        """Return the cutoff of a user in the old store, 0 if there is none."""
        if not await self._is_rejected(user, 0):
            return 0
        rejected, accepted = 0, 2 * int(time.time() * 1000)
        while accepted - rejected > 1:
            middle = (accepted + rejected) // 2
            if await self._is_rejected(user, middle):
                rejected = middle
            else:
                accepted = middle
        return accepted

    async def _is_rejected(self, user: str, authenticated_at: int) -> bool:
        """Return whether the old store rejects a login; its session does not exist."""
        old = self._old
        if not isinstance(old, SupportsUserIndex):
            return False
        login = Record(
            id=secrets.token_bytes(ID_BYTES),
            version=2,
            seen_at=authenticated_at,
            created_at=authenticated_at,
            absolute_at=authenticated_at + _PROBE_LIFETIME,
            idle_timeout=_PROBE_LIFETIME,
            verifier=NO_VERIFIER,
            body=pack_body(user, {}, {}),
            authenticated_at=authenticated_at,
        )
        return await old.save_login(login, 1, limit=None, now=authenticated_at) is REVOKED


def _is_unmoved_or_unreadable(stored: Record) -> bool:
    """Return whether a record of the old store is more than the trace of a session that moved."""
    try:
        found = interpret(stored)
    except UnreadableRecord:
        return True
    return not (isinstance(found, Moved) and found.is_retired)
