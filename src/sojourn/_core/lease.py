"""SessionLease: one at a time in one session, across tasks, threads, processes and machines.

What lives here: the lease behind ``session.exclusive()``. What must not: anything that the merge of
parallel changes already solves; this is for the rare block that must not overlap with itself.

Within a process those who want the same session queue up. Between processes the lease is a value in
the record itself, taken and returned by compare-and-set, so every store can do it. It names an end:
a holder that dies is waited for no longer than that.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from sojourn._core.codec import decode, encode
from sojourn._core.concurrency import pause, run
from sojourn._core.reserved_keys import LEASE
from sojourn._core.policy import Duration, milliseconds
from sojourn.errors import ExclusiveTimeout, SessionConflict, SojournError
from sojourn.record import Contents, Record

if TYPE_CHECKING:
    from sojourn._core.engine import Engine
    from sojourn._core.session import Session

#: Before the session ID: the turn of a whole block is not the turn of one commit inside it.
_TURN: Final = b"exclusive"

#: Seconds between two looks at a lease that another process holds.
_PAUSE: Final = 0.01


class SessionLease:
    """The block of ``session.exclusive()``, for ``with`` and ``async with``; used once."""

    __slots__ = ("_engine", "_lease", "_name", "_session", "_token", "_wait")

    def __init__(
        self, session: Session[Any], engine: Engine, *, wait: Duration, lease: Duration
    ) -> None:
        self._session = session
        self._engine = engine
        self._wait = milliseconds(wait, option="exclusive(wait=)")
        self._lease = milliseconds(lease, option="exclusive(lease=)")
        self._token = secrets.token_hex(8)
        self._name = b""

    async def __aenter__(self) -> Self:
        """Wait for the turn and take in what others wrote before."""
        await self._acquire()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Commit what was done inside (not if it raised) and give the turn back."""
        await self._release(failed=kind is not None)

    def __enter__(self) -> Self:
        """Wait for the turn and take in what others wrote before."""
        run(self._acquire(), instead="`async with session.exclusive()`")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Commit what was done inside (not if it raised) and give the turn back."""
        run(self._release(failed=kind is not None), instead="`async with session.exclusive()`")

    async def _acquire(self) -> None:
        session, engine = self._session, self._engine
        if session._record is None and not session._gone:
            return  # nobody else can have a session that is not stored yet
        deadline = engine.clock() + self._wait
        name = _TURN + session._raw_id()
        try:
            await engine.writer.turns.begin(name, timeout=self._wait / 1000)
        except TimeoutError:
            raise self._late() from None
        self._name = name
        paused = 0.0  # milliseconds, in case the clock stands still as in a test
        try:
            while not await self._try_lease():
                if engine.clock() >= deadline or paused >= self._wait:
                    raise self._late()  # noqa: TRY301 - the turn is given back below
                await pause(_PAUSE)
                paused += _PAUSE * 1000
        except BaseException:
            self._end_turn()
            raise

    async def _try_lease(self) -> bool:
        taken = False

        def take(_: Record, contents: Contents) -> dict[str, bytes] | None:
            nonlocal taken
            now = self._engine.clock()
            held = contents.data.get(LEASE)
            taken = held is None or decode(held)[1] <= now
            lease = encode(LEASE, [self._token, now + self._lease])
            return {**contents.data, LEASE: lease} if taken else None

        await self._engine.refresh(self._session, explicit=True)
        try:
            await self._engine.amend(self._session, take)
        except BaseException:
            if taken:  # cancelled or failed while it was being written, so it may be there
                with suppress(SojournError):
                    await self._engine.refresh(self._session, explicit=True)
                    await self._return_lease()
            raise
        return taken

    async def _return_lease(self) -> bool:
        """Take the lease out of the record; False if it was somebody else's by now."""
        ours = False

        def without(_: Record, contents: Contents) -> dict[str, bytes] | None:
            nonlocal ours
            held = contents.data.get(LEASE)
            ours = held is not None and decode(held)[0] == self._token
            return {k: v for k, v in contents.data.items() if k != LEASE} if ours else None

        await self._engine.amend(self._session, without)
        return ours

    async def _release(self, *, failed: bool) -> None:
        kept = True
        try:
            try:
                # Destroying is carried out in any case; a record that is gone took its lease along.
                if not failed or self._session._destroyed is not None:
                    await self._engine.commit(self._session, failed=failed, explicit=not failed)
            finally:
                if self._name and self._session._has(self._name.removeprefix(_TURN)):
                    kept = await self._return_lease()
        finally:
            if self._name:
                self._end_turn()
        if not kept and not failed:
            raise SessionConflict(
                self._session._raw_id().hex(),
                0,
                f"the block of session.exclusive() outlasted its lease of {self._lease} ms, so "
                "somebody else may have been inside too. What it did was merged and is saved. "
                "Make the block shorter, or allow more: session.exclusive(lease=...).",
            )

    def _end_turn(self) -> None:
        self._engine.writer.turns.end(self._name)
        self._name = b""

    def _late(self) -> ExclusiveTimeout:
        return ExclusiveTimeout(self._session._raw_id().hex(), self._wait / 1000)
