"""Engine: the order of store calls for refreshing, committing and ending a session.

What lives here: refresh, commit, claim and destroy, each written once for sync and async. What must
not: locks, sleeps and deadlines of its own (they belong to stores and to ``drive.py``), cookies and
headers (``web/``). It decides nothing that ``plan.py`` and ``policy.py`` can decide. Its rooms next
door: ``loader.py`` opens sessions, ``writer.py`` changes records, ``ender.py`` ends them on order.

Gone is gone (law A7): only ``_create`` creates. A save, touch or refresh that meets a session which
has ended drops what it had and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import msgspec

from sojourn._core.changes import ChangeTracker
from sojourn._core.codec import decode
from sojourn._core.journal import Journal
from sojourn._core.loader import Loader
from sojourn._core.login import Login, Rotation, after_login, logged_in
from sojourn._core.operations import Merge
from sojourn._core.plan import Create, Plan, Save, Touch, Write, plan
from sojourn._core.policy import Policy, expired
from sojourn._core.replaying import Replaying
from sojourn._core.revocation import Revoker
from sojourn._core.session import Session
from sojourn._core.typed_state import StateSpec
from sojourn._core.working_copy import CookieChange, WorkingCopy
from sojourn._core.writer import Amendment, Writer
from sojourn._crypto.csrf import CsrfTokens
from sojourn._crypto.encryption import Sealer
from sojourn._crypto.rotation import Chain
from sojourn._crypto.tickets import hash_verifier, mint_id, mint_verifier
from sojourn.errors import ResponseStarted, SessionConflict, SessionGone, StoreError
from sojourn.events import Dispatcher
from sojourn.record import Contents, Record, UnreadableRecord
from sojourn.store import GONE, SAVED, SessionLimit, Store

#: A 128-bit ID that is taken means a broken random source; three in a row mean a hostile one.
_CREATE_ATTEMPTS: Final = 3


class Engine:
    """Loads and commits sessions over one store.

    Args:
        store: where records live.
        policy: the limits.
        clock: returns milliseconds since 1970 UTC.
        dispatcher: who is told what happened.
        chain: derives verifiers for rotations.
        sealer: packs and opens the bodies of records.
        csrf: makes tokens for forms.
        merges: how declared keys combine.
        state: what ``session.state`` gives.
        max_bytes: the largest body of a record.
        check_labels: labels that must not change during a session's life.
        limit: how many sessions a user may have; None for any number.
        revoke_reused: whether a replaced ticket that is used again ends its session.
    """

    def __init__(
        self,
        store: Store,
        policy: Policy,
        *,
        clock: Callable[[], int],
        dispatcher: Dispatcher,
        chain: Chain,
        sealer: Sealer,
        csrf: CsrfTokens,
        merges: Mapping[str, Merge],
        state: StateSpec,
        max_bytes: int,
        check_labels: tuple[str, ...] = (),
        limit: SessionLimit | None = None,
        revoke_reused: bool = True,
    ) -> None:
        self.store = store
        self.policy = policy
        self.clock = clock
        self.chain = chain
        self.sealer = sealer
        self.csrf = csrf
        self.merges = merges
        self.state = state
        self.journal: Journal = Journal(dispatcher)
        self.ender: Revoker = Revoker(store, clock=clock, journal=self.journal)
        self.writer: Writer = Writer(
            store,
            policy,
            clock=clock,
            journal=self.journal,
            ender=self.ender,
            sealer=sealer,
            max_bytes=max_bytes,
            limit=limit,
        )
        self._loader = Loader(self, check_labels=check_labels, revoke_reused=revoke_reused)
        #: See ``Loader``; not methods of their own, which would cost every request a coroutine.
        self.load: Callable[..., Coroutine[Any, Any, Session[Any]]] = self._loader.load
        self.fetch: Callable[[bytes], Coroutine[Any, Any, Record | None]] = self._loader.fetch

    async def refresh(self, session: WorkingCopy, *, explicit: bool = False) -> bool:
        """Take in what others wrote; tell whether the session is still alive.

        Raises:
            SessionGone: it has ended, and the handler asked for this itself (``explicit``).
            StoreUnavailable: the store failed.
        """
        base = session._record
        if base is None:
            self._alive(session, explicit=explicit)
            return not session._gone
        newer = await self._loader.fetch(base.id)
        if not session._has(base.id):  # another task of this handler has seen its end meanwhile
            return not session._gone
        contents = None
        base = session._record or base
        if newer is not None and newer.version > base.version:
            try:
                if newer.authenticated_at == base.authenticated_at:
                    session._follow(newer)
                    contents = self.sealer.open(newer, session._verifier)
            except UnreadableRecord as damage:
                self.journal.unreadable(base.id, damage)
                newer = None
        if (
            newer is None
            or newer.authenticated_at != base.authenticated_at  # our ticket died at that login
            or await self._loader.expire(newer)
        ):
            await self._end(session, base, explicit=explicit)
            return False
        self.journal.read(newer)
        if contents is not None:
            session._adopt(newer, contents)
        elif newer.version == base.version:
            session._record = newer
        return True

    # Committing

    async def commit(
        self, session: WorkingCopy, *, failed: bool = False, explicit: bool = False
    ) -> None:
        """Write what must be written, once, and nothing else.

        Args:
            session: of this engine.
            failed: the request fails; only destroying is carried out (law A10).
            explicit: the handler asked for it, so an ended session is an error.
        """
        now = self.clock()
        step = self.due(session, now, failed)
        if step is not None:
            await self.carry_out(step, session, now, failed=failed, explicit=explicit)
        elif session._gone and explicit:
            self._alive(session, explicit=session._touched() and not failed)

    def due(
        self,
        session: WorkingCopy,
        now: int,
        failed: bool,  # noqa: FBT001 - by position, as every request comes this way
    ) -> Plan:
        """Decide what a commit would write now; it costs no coroutine, as most write nothing."""
        if session._gone:
            return None
        policy = self.policy
        view = session._view
        record = session._record
        renewal = session._renewal
        if renewal is not None and failed and not _kept(renewal):
            session._renewal = renewal = None
        upkeep = session._upkeep
        if record is not None:
            if record.persistent and not record.reauthentication_required:
                upkeep = upkeep or policy.lapses(record, now)
            if session._returned and not record.confirmed:  # its cookie came back
                upkeep = True
        # Asked for at a login, too: it finds what was changed in place.
        changed = view is not None and not failed and view.changed()
        return plan(
            record,
            changed or renewal is not None,
            session._destroyed is not None,
            upkeep,
            session._seen_at or now,
            policy,
        )

    def carry_out(
        self, step: Write, session: WorkingCopy, now: int, *, failed: bool, explicit: bool = False
    ) -> Coroutine[Any, Any, None]:
        """Write what ``due`` decided at ``now``."""
        if isinstance(step, Save):
            return self._save(session, now, failed=failed, explicit=explicit)
        if isinstance(step, Touch):
            return self._touch(session, explicit=explicit)
        if isinstance(step, Create):
            return self._create(session, explicit=explicit)
        return self._replace(session, create=step.create, explicit=explicit)

    async def _replace(self, session: WorkingCopy, *, create: bool, explicit: bool) -> None:
        await self._remove(session)
        if create:
            await self._create(session, explicit=explicit)

    async def _create(self, session: WorkingCopy, *, explicit: bool) -> None:
        view, turn = session._open(), session._raw_id()
        await self.writer.turns.begin(turn)
        try:
            first = session._record is None and session._view is view
            if first:
                await self._create_in_turn(session, view, explicit=explicit)
        finally:
            self.writer.turns.end(turn)
        if not first:  # another task of the same handler created or destroyed it meanwhile
            await self.commit(session, explicit=explicit)

    async def _create_in_turn(
        self, session: WorkingCopy, view: ChangeTracker, *, explicit: bool
    ) -> None:
        now = self.ender.now()
        login = session._renewal if isinstance(session._renewal, Login) else None
        verifier = (session._verifier or mint_verifier()) if login is None else login.verifier
        log, data = view.take()
        if not data and login is None:
            return  # written and removed again: an empty session needs no record (B-53)
        contents = Contents(None, session._labels(), data)
        if login is not None:
            contents = logged_in(contents, login)
        try:
            if session._started:
                raise ResponseStarted  # noqa: TRY301 - what was taken is given back below
            record = Record(
                id=session._raw_id(),
                version=1,
                seen_at=now,
                created_at=now,
                absolute_at=self.policy.anonymous.absolute_at(now),
                idle_timeout=self.policy.first_idle_timeout(),
                verifier=hash_verifier(verifier),
                body=self.writer.pack(session._raw_id(), contents, verifier),
                confirmed=self.policy.unconfirmed_timeout is None,
            )
            if login is not None:
                record = after_login(record, login, self.policy)
            stored = await self._insert(record, contents, verifier, login=login is not None)
        except Exception as error:
            view.give_back(log)
            session._refused(error)
            raise
        if stored is None:
            session._end(record.id)
            self.journal.rejected(record.id, "ended")
            self._alive(session, explicit=explicit)
            return
        self.journal.created(stored)
        if session._view is not view:  # destroyed meanwhile
            session._destroyed = stored
            return
        session._verifier = verifier
        session._cookie = CookieChange.SEND
        session._renewed(stored)
        session._adopt(stored, contents)

    async def _insert(
        self, record: Record, contents: Contents, verifier: bytes, *, login: bool
    ) -> Record | None:
        """Create a record, with another ID where its own is taken (ASVS 7.2.3).

        Returns:
            The record as stored; None if its user was revoked while logging in.
        """
        for _ in range(_CREATE_ATTEMPTS):
            try:
                if login:
                    answer = await self.writer.save_login(record, 0, self.clock())
                    if answer is GONE:
                        return None
                    if answer is SAVED:
                        return record
                elif await self.store.create(record):
                    return record
            except StoreError as error:
                self.journal.failed("create", record.id, error)
            session_id = mint_id()
            body = self.writer.pack(session_id, contents, verifier)
            record = msgspec.structs.replace(record, id=session_id, body=body)
        raise SessionConflict(record.session_id, _CREATE_ATTEMPTS)

    async def _save(self, session: WorkingCopy, now: int, *, failed: bool, explicit: bool) -> None:
        view = session._open()
        base = session._record
        if base is None:
            return  # the record turned out to be unreadable: it counts as absent
        replaying = Replaying(view, base, failed)
        try:
            alive = await self.writer.write(session, base, replaying, now)
        except Exception as error:
            if replaying.log is not None:
                view.give_back(replaying.log)
            session._refused(error)
            raise
        if not alive:
            await self._end(session, base, explicit=explicit)

    async def _touch(self, session: WorkingCopy, *, explicit: bool) -> None:
        record = session._record
        assert record is not None  # noqa: S101 - plan touches only what is stored
        seen = record.with_seen_at(session._seen_at or self.clock())
        try:
            alive = (
                expired(record, self.clock()) is None or await self._loader.revisit(record)
            ) and await self.store.touch(seen)
        except StoreError as error:
            self.journal.failed("touch", record.id, error)
        if not alive:
            await self._end(session, record, explicit=explicit)
            return
        self.journal.touched()
        if session._record is record:
            session._record = seen

    async def claim(self, session: WorkingCopy, key: str, default: Any) -> Any:
        """Remove a key and return its value, if nobody else did before."""
        await self.commit(session, explicit=True)
        taken: list[bytes] = []

        def without(_: Record, contents: Contents) -> dict[str, bytes] | None:
            taken[:] = [contents.data[key]] if key in contents.data else []
            return {k: v for k, v in contents.data.items() if k != key} if taken else None

        await self.amend(session, without)
        if not taken:
            return default
        session._open().release(key)
        return decode(taken[0])

    async def amend(self, session: WorkingCopy, amendment: Amendment) -> None:
        """Write what an amendment makes of the newest data.

        Raises:
            SessionGone: the session has ended.
        """
        base = session._record
        if base is None:
            self._alive(session, explicit=True)
        elif not await self.writer.write(session, base, amendment, self.clock()):
            await self._end(session, base, explicit=True)

    # Ending

    async def _remove(self, session: WorkingCopy) -> None:
        record = session._destroyed
        assert record is not None  # noqa: S101 - plan removes only what was destroyed
        if await self.ender.end(record.id, "destroyed"):
            # Only who ended it clears the cookie: a later answer may meet a new one (law A7).
            session._cookie = CookieChange.CLEAR
            session._departed = True
        session._destroyed = None

    async def _end(self, session: WorkingCopy, record: Record, *, explicit: bool) -> None:
        """Drop what an ended session had; never a new one in its place (security.md B-38)."""
        if expired(record, self.clock()) is not None:
            await self._loader.revisit(record)
        session._end(record.id)
        self.journal.rejected(record.id, "ended")
        self._alive(session, explicit=explicit)

    def _alive(self, session: WorkingCopy, *, explicit: bool) -> None:
        if session._gone and explicit:
            raise SessionGone(session._raw_id().hex())


def _kept(renewal: Login | Rotation) -> bool:
    """Whether a failing request carries out a renewal: what its handler asked for (law A10).

    A login is none of it: whoever fails after it has not let anybody in.
    """
    return isinstance(renewal, Rotation) and not renewal.automatic
