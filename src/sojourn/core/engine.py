"""Engine: the order of store calls for loading, committing and ending a session.

What lives here: load, refresh, commit, claim and end, each written once for sync and async. What
must not: locks, sleeps and deadlines of its own (they belong to stores and to ``drive.py``),
cookies and headers (``web/``). It decides nothing that ``plan.py`` and ``policy.py`` can decide.

Gone is gone (law A7): only ``_create`` creates. A save, touch or refresh that meets a session which
has ended drops what it had and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from hmac import compare_digest
from typing import Any, Final

import msgspec

from sojourn.core.codec import decode
from sojourn.core.journal import Journal
from sojourn.core.operations import Log, Merge
from sojourn.core.plan import (
    NOTHING,
    Create,
    Nothing,
    Plan,
    Remove,
    Save,
    Touch,
    Write,
    plan,
)
from sojourn.core.policy import Policy, expired
from sojourn.core.record import Contents, Record, UnreadableRecord
from sojourn.core.session import Session
from sojourn.core.state import StateSpec
from sojourn.core.store import Store
from sojourn.core.ticket import Ticket, hash_verifier, mint_id, mint_verifier
from sojourn.core.view import View
from sojourn.core.visit import Client, CookieChange
from sojourn.core.writer import Amendment, Writer
from sojourn.errors import ResponseStarted, SessionConflict, SessionGone, StoreError
from sojourn.events import Dispatcher

#: A 128-bit ID that is taken means a broken random source; three in a row mean a hostile one.
_CREATE_ATTEMPTS: Final = 3


class Engine:
    """Loads and commits sessions over one store.

    Args:
        store: where records live.
        policy: the limits.
        clock: returns milliseconds since 1970 UTC.
        dispatcher: who is told what happened.
        merges: how declared keys combine.
        state: what ``session.state`` gives.
        max_bytes: the largest body of a record.
        check_labels: labels that must not change during a session's life.
    """

    def __init__(
        self,
        store: Store,
        policy: Policy,
        *,
        clock: Callable[[], int],
        dispatcher: Dispatcher,
        merges: Mapping[str, Merge],
        state: StateSpec,
        max_bytes: int,
        check_labels: tuple[str, ...] = (),
    ) -> None:
        self.store = store
        self.policy = policy
        self.clock = clock
        self.merges = merges
        self.state = state
        self.journal: Journal = Journal(dispatcher)
        self.writer: Writer = Writer(
            store, policy, clock=clock, journal=self.journal, max_bytes=max_bytes
        )
        self._check_labels = check_labels

    # Loading

    async def load(self, ticket: Ticket | None, client: Client | None = None) -> Session[Any]:
        """Return the session that a ticket opens, an empty one for any other visitor.

        Raises:
            StoreUnavailable: the store failed; that is never an empty session (law A15).
        """
        if ticket is None:
            return Session(self, None, b"", client)
        try:
            record = await self.store.load(ticket.session_id)
        except UnreadableRecord as damage:
            self.journal.unreadable(ticket.session_id, damage)
            return Session(self, None, b"", client)
        except StoreError as error:
            self.journal.failed("load", ticket.session_id, error)
        if record is None:
            return self._reject(ticket, "unknown", client)
        if not compare_digest(record.verifier, ticket.digest):
            return self._reject(ticket, "replaced", client)
        if expired(record, self.clock()) is not None and await self._expire(record):
            return Session(self, None, b"", client)
        # Not Session[Any](...): calling the alias costs more than making the session.
        session: Session[Any] = Session(self, record, ticket.verifier, client)
        if self._check_labels and not self._labels_match(session, client):
            return self._reject(ticket, "labels", client)
        self.journal.read(record)
        return session

    async def _fetch(self, session_id: bytes) -> Record | None:
        try:
            return await self.store.load(session_id)
        except UnreadableRecord as damage:
            self.journal.unreadable(session_id, damage)
            return None
        except StoreError as error:
            self.journal.failed("load", session_id, error)

    def _reject(self, ticket: Ticket, reason: str, client: Client | None) -> Session[Any]:
        self.journal.rejected(ticket.session_id, reason)
        return Session(self, None, b"", client)

    def _labels_match(self, session: Session[Any], client: Client | None) -> bool:
        session._open()
        noted = session._contents.labels if session._contents else {}
        present = {} if client is None else client.labels()
        return all(noted.get(name) == present.get(name) for name in self._check_labels)

    async def _expire(self, record: Record) -> bool:
        """Remove a record that has passed a limit; tell whether it had."""
        limit = expired(record, self.clock())
        if limit is None:
            return False
        try:
            await self.store.delete(record.id)
        except StoreError as error:
            self.journal.failed("delete", record.id, error)
        self.journal.expired(record, limit)
        return True

    async def _revisit(self, record: Record) -> bool:
        """Look whether others kept a session alive that has passed a limit as far as we know."""
        newest = await self._fetch(record.id)
        return newest is not None and not await self._expire(newest)

    async def refresh(self, session: Session[Any], *, explicit: bool = False) -> bool:
        """Take in what others wrote; tell whether the session is still alive.

        Raises:
            SessionGone: it has ended, and the handler asked for this itself (``explicit``).
            StoreUnavailable: the store failed.
        """
        base = session._record
        if base is None:
            self._alive(session, explicit=explicit)
            return not session._gone
        newer = await self._fetch(base.id)
        if not session._has(base.id):  # another task of this handler has seen its end meanwhile
            return not session._gone
        contents = None
        base = session._record or base
        if newer is not None and newer.version > base.version:
            try:
                contents = newer.contents()
            except UnreadableRecord as damage:
                self.journal.unreadable(base.id, damage)
                newer = None
        if (
            newer is None
            or not compare_digest(newer.verifier, base.verifier)
            or await self._expire(newer)
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
        self, session: Session[Any], *, failed: bool = False, explicit: bool = False
    ) -> None:
        """Write what must be written, once, and nothing else.

        Args:
            session: of this engine.
            failed: the request fails; only destroying is carried out (law A10).
            explicit: the handler asked for it, so an ended session is an error.
        """
        now = self.clock()
        step = self.due(session, now, failed=failed)
        if not isinstance(step, Nothing):
            await self.carry_out(step, session, now, failed=failed, explicit=explicit)
        elif session._gone and explicit:
            self._alive(session, explicit=session._touched() and not failed)

    def due(self, session: Session[Any], now: int, *, failed: bool) -> Plan:
        """Decide what a commit would write now; it costs no coroutine, as most write nothing."""
        if session._gone:
            return NOTHING
        view = session._view
        return plan(
            session._record,
            changed=view is not None and not failed and view.changed(),
            destroyed=session._destroyed is not None,
            failed=failed,
            returned=session._returned,
            now=session._seen_at or now,
            policy=self.policy,
        )

    def carry_out(
        self, step: Write, session: Session[Any], now: int, *, failed: bool, explicit: bool = False
    ) -> Coroutine[Any, Any, None]:
        """Write what ``due`` decided at ``now``."""
        match step:
            case Save():
                return self._save(session, now, failed=failed, explicit=explicit)
            case Touch():
                return self._touch(session, explicit=explicit)
            case Create():
                return self._create(session, explicit=explicit)
            case Remove(create):
                return self._replace(session, create=create, explicit=explicit)

    async def _replace(self, session: Session[Any], *, create: bool, explicit: bool) -> None:
        await self._remove(session)
        if create:
            await self._create(session, explicit=explicit)

    async def _create(self, session: Session[Any], *, explicit: bool) -> None:
        view, turn = session._open(), session._raw_id()
        await self.writer.turns.begin(turn)
        try:
            first = session._record is None and session._view is view
            if first:
                await self._create_in_turn(session, view)
        finally:
            self.writer.turns.end(turn)
        if not first:  # another task of the same handler created or destroyed it meanwhile
            await self.commit(session, explicit=explicit)

    async def _create_in_turn(self, session: Session[Any], view: View) -> None:
        now = self.clock()
        verifier = mint_verifier()
        labels = {} if session._client is None else session._client.labels()
        log, data = view.take()
        if not data:
            return  # written and removed again: an empty session needs no record (B-53)
        contents = Contents(None, labels, data)
        try:
            if session._started:
                raise ResponseStarted  # noqa: TRY301 - what was taken is given back below
            record = Record(
                id=session._raw_id(),
                version=1,
                seen_at=now,
                created_at=now,
                absolute_at=self.policy.absolute_at(now),
                idle_timeout=self.policy.first_idle_timeout(),
                verifier=hash_verifier(verifier),
                body=self.writer.pack(contents),
                confirmed=self.policy.unconfirmed_timeout is None,
            )
            record = await self._insert(record)
        except Exception:
            view.give_back(log)
            raise
        self.journal.created(record)
        if session._view is not view:  # destroyed meanwhile
            session._destroyed = record
            return
        session._verifier = verifier
        session._cookie = CookieChange.SEND
        session._adopt(record, contents)

    async def _insert(self, record: Record) -> Record:
        """Create a record, with another ID where its own is taken (ASVS 7.2.3)."""
        for _ in range(_CREATE_ATTEMPTS):
            try:
                if await self.store.create(record):
                    return record
            except StoreError as error:
                self.journal.failed("create", record.id, error)
            record = msgspec.structs.replace(record, id=mint_id())
        raise SessionConflict(record.session_id, _CREATE_ATTEMPTS)

    async def _save(self, session: Session[Any], now: int, *, failed: bool, explicit: bool) -> None:
        view = session._open()
        base = session._record
        if base is None:
            return  # the record turned out to be unreadable: it counts as absent
        log: Log | None = None
        data: dict[str, bytes] = {}

        def replayed(current: Record, contents: Contents) -> dict[str, bytes]:
            nonlocal log, data
            if failed:
                return contents.data
            if log is None:  # taken when the turn has come: a cancelled wait takes nothing away
                log, data = view.take()
            return data if current is base else log.replay(contents.data)

        try:
            alive = await self.writer.write(session, base, replayed, now)
        except Exception:
            if log is not None:
                view.give_back(log)
            raise
        if not alive:
            await self._end(session, base, explicit=explicit)

    async def _touch(self, session: Session[Any], *, explicit: bool) -> None:
        record = session._record
        assert record is not None  # noqa: S101 - plan touches only what is stored
        seen = record.seen(session._seen_at or self.clock())
        try:
            alive = (
                expired(record, self.clock()) is None or await self._revisit(record)
            ) and await self.store.touch(seen)
        except StoreError as error:
            self.journal.failed("touch", record.id, error)
        if not alive:
            await self._end(session, record, explicit=explicit)
            return
        self.journal.touched()
        if session._record is record:
            session._record = seen

    async def claim(self, session: Session[Any], key: str, default: Any) -> Any:
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

    async def amend(self, session: Session[Any], amendment: Amendment) -> None:
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

    async def _remove(self, session: Session[Any]) -> None:
        record = session._destroyed
        assert record is not None  # noqa: S101 - plan removes only what was destroyed
        if await self.end(record.id, "destroyed"):
            # Only who ended it clears the cookie: a later answer may meet a new one (law A7).
            session._cookie = CookieChange.CLEAR
        session._destroyed = None

    async def end(self, session_id: bytes, reason: str) -> bool:
        """Remove a session and tell whoever has something of it open; False if it was gone."""
        try:
            existed = await self.store.delete(session_id)
        except StoreError as error:
            self.journal.failed("delete", session_id, error)
        if existed:
            self.journal.revoked(session_id, reason)
        return existed

    async def _end(self, session: Session[Any], record: Record, *, explicit: bool) -> None:
        """Drop what an ended session had; never a new one in its place (security.md B-38)."""
        if expired(record, self.clock()) is not None:
            await self._revisit(record)
        session._end(record.id)
        self.journal.rejected(record.id, "ended")
        self._alive(session, explicit=explicit)

    def _alive(self, session: Session[Any], *, explicit: bool) -> None:
        if session._gone and explicit:
            raise SessionGone(session._raw_id().hex())
