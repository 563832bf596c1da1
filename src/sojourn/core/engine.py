"""Engine: the order of store calls for loading, committing and ending a session.

What lives here: load, commit, refresh, claim and end, each written once for sync and async. What
must not: locks, sleeps and deadlines of its own (they belong to stores and to ``drive.py``), cookies
and headers (``web/``). It decides nothing that ``plan.py`` and ``policy.py`` can decide.

Gone is gone (law A7): only ``_create`` creates. A save, touch or refresh that meets a session which
has ended drops what it had and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Final, NoReturn

import msgspec

from sojourn.core import policy as limits
from sojourn.core.codec import decode
from sojourn.core.drive import Turns
from sojourn.core.operations import Log, Merge
from sojourn.core.plan import CREATE, NOTHING, SAVE, TOUCH, plan
from sojourn.core.policy import Policy
from sojourn.core.record import Contents, Record, UnreadableRecord, pack_body
from sojourn.core.session import Client, CookieChange, Session
from sojourn.core.state import StateSpec
from sojourn.core.store import GONE, Conflict, Store
from sojourn.core.ticket import Ticket, hash_verifier, mint_id, mint_verifier
from sojourn.errors import SessionConflict, SessionGone, SessionTooLarge, StoreError
from sojourn.events import (
    Conflicted,
    Created,
    Dispatcher,
    Event,
    Expired,
    Read,
    Rejected,
    Revoked,
    StoreFailed,
    Written,
)

#: How often a save is tried before ``SessionConflict``. Each round at least one contender wins, and
#: within a process commits queue up, so with N processes a commit fails with ((N-1)/N)**ATTEMPTS.
ATTEMPTS: Final = 100

#: A 128-bit ID that is taken means a broken random source; three in a row mean a hostile one.
_CREATE_ATTEMPTS: Final = 3


@dataclass(slots=True)
class Counters:
    """How often each thing happened since the start of this process."""

    reads: int = 0
    writes: int = 0
    creates: int = 0
    touches: int = 0
    removes: int = 0
    conflicts: int = 0
    rejected: int = 0
    failures: int = 0


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
        self.counters = Counters()
        self.turns = Turns()
        self._dispatcher = dispatcher
        self._max_bytes = max_bytes
        self._check_labels = check_labels

    # Loading

    async def load(self, ticket: Ticket | None, client: Client | None = None) -> Session[Any]:
        """Return the session that a ticket opens, an empty one for any other visitor.

        Raises:
            StoreUnavailable: the store failed; that is never an empty session (law A15).
        """
        if ticket is None:
            return Session(self, client=client)
        try:
            record = await self.store.load(ticket.session_id)
        except UnreadableRecord as damage:
            self.report_unreadable(ticket.session_id, damage)
            return Session(self, client=client)
        except StoreError as error:
            self._failed("load", ticket.session_id, error)
        if record is None:
            return self._reject(ticket, "unknown", client)
        if not compare_digest(record.verifier, hash_verifier(ticket.verifier)):
            return self._reject(ticket, "replaced", client)
        if await self._expire(record):
            return Session(self, client=client)
        self.counters.reads += 1
        if self._dispatcher.wants(Read):
            self._dispatcher.emit(Read(record.session_id, record.version))
        session = Session(self, record, verifier=ticket.verifier, client=client)
        if self._check_labels and not self._labels_match(session, client):
            return self._reject(ticket, "labels", client)
        return session

    def _reject(self, ticket: Ticket, reason: str, client: Client | None) -> Session[Any]:
        self.report(Rejected(ticket.session_id.hex(), reason))
        return Session(self, client=client)

    def _labels_match(self, session: Session[Any], client: Client | None) -> bool:
        present = {} if client is None else client.labels()
        session._open()
        noted = session._contents.labels if session._contents else {}
        return all(noted.get(name) == present.get(name) for name in self._check_labels)

    async def _expire(self, record: Record) -> bool:
        """Remove a record that has passed a limit; tell whether it had."""
        limit = limits.expired(record, self.clock())
        if limit is None:
            return False
        try:
            await self.store.delete(record.id)
        except StoreError as error:
            self._failed("delete", record.id, error)
        self.report(Expired(record.session_id, limit))
        return True

    async def refresh(self, session: Session[Any], *, explicit: bool = False) -> bool:
        """Take in what others wrote; tell whether the session is still alive.

        Raises:
            SessionGone: it has ended, and the handler asked for this itself (``explicit``).
        """
        base = session._record
        if base is None:
            if session._gone and explicit:
                raise SessionGone(session._raw_id().hex())
            return not session._gone
        try:
            newer = await self.store.load(base.id)
            contents = None if newer is None or newer.version == base.version else newer.contents()
        except UnreadableRecord as damage:
            self.report_unreadable(base.id, damage)
            newer = contents = None
        except StoreError as error:
            self._failed("load", base.id, error)
        if newer is None or not compare_digest(newer.verifier, base.verifier):
            return self._gone(session, base, explicit=explicit)
        if await self._expire(newer):
            return self._gone(session, base, explicit=explicit)
        if contents is not None:
            session._adopt(newer, contents)
        else:
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
        view = session._view
        changed = view is not None and not failed and view.changed()
        record = session._record
        if session._gone:
            if explicit and changed:
                raise SessionGone(session._raw_id().hex())
            return
        step = plan(
            record,
            changed=changed,
            destroyed=session._destroyed is not None,
            failed=failed,
            now=self.clock(),
            policy=self.policy,
        )
        if step is NOTHING:
            return
        if step is SAVE:
            await self._save(session, failed=failed, explicit=explicit)
        elif step is TOUCH:
            await self._touch(session)
        elif step is CREATE:
            await self._create(session)
        else:
            await self._remove(session)
            if step.create:  # type: ignore[union-attr]
                await self._create(session)

    async def _create(self, session: Session[Any]) -> None:
        now = self.clock()
        verifier = mint_verifier()
        labels = {} if session._client is None else session._client.labels()
        log, data = session._look().take()
        try:
            record = Record(
                id=session._raw_id(),
                version=1,
                seen_at=now,
                created_at=now,
                absolute_at=self.policy.absolute_at(now),
                idle_timeout=self.policy.first_idle_timeout(),
                verifier=hash_verifier(verifier),
                body=self._pack(Contents(None, labels, data)),
                confirmed=self.policy.unconfirmed_timeout is None,
            )
            for _ in range(_CREATE_ATTEMPTS):
                if await self.store.create(record):
                    break
                record = msgspec.structs.replace(record, id=mint_id())
            else:
                raise SessionConflict(record.session_id, _CREATE_ATTEMPTS)
        except StoreError as error:
            session._look().give_back(log)
            self._failed("create", record.id, error)
        except Exception:
            session._look().give_back(log)
            raise
        session._verifier = verifier
        session._cookie = CookieChange.SEND
        session._adopt(record, Contents(None, labels, data))
        self.counters.creates += 1
        self.report(Created(record.session_id))

    async def _save(self, session: Session[Any], *, failed: bool, explicit: bool) -> None:
        if session._view is None:
            session._open()
        base, view = session._record, session._view
        if base is None or view is None:
            return  # the record turned out to be unreadable: it counts as absent
        if failed:
            log, data = Log(), base.contents().data
        else:
            log, data = view.take()

        def replayed(current: Record, contents: Contents) -> dict[str, bytes]:
            return data if current is base else log.replay(contents.data)

        try:
            saved = await self._write(session, replayed)
        except Exception:
            view.give_back(log)
            raise
        if not saved:
            self._gone(session, base, explicit=explicit)

    async def claim(self, session: Session[Any], key: str, default: Any) -> Any:
        """Remove a key and return its value, if nobody else did before."""
        await self.commit(session, explicit=True)
        taken: list[bytes] = []

        def without(_: Record, contents: Contents) -> dict[str, bytes] | None:
            taken[:] = [contents.data[key]] if key in contents.data else []
            return {k: v for k, v in contents.data.items() if k != key} if taken else None

        await self.amend(session, without)
        return decode(taken[0]) if taken else default

    async def amend(
        self,
        session: Session[Any],
        change: Callable[[Record, Contents], dict[str, bytes] | None],
    ) -> None:
        """Write what ``change`` makes of the newest data; None from it means to leave it.

        Raises:
            SessionGone: the session has ended.
        """
        base = session._record
        if base is None:
            if session._gone:
                raise SessionGone(session._raw_id().hex())
            return
        if not await self._write(session, change):
            self._gone(session, base, explicit=True)

    async def _write(
        self,
        session: Session[Any],
        change: Callable[[Record, Contents], dict[str, bytes] | None],
    ) -> bool:
        """Compare-and-set until it succeeds; False if the session has ended.

        Whoever waits behind another commit of the same session in this process starts from the
        record that one wrote, so contention costs no extra round trips.
        """
        base = session._record
        assert base is not None
        contents = session._contents
        note = await self.turns.begin(base.id)
        attempts = 0
        latest: Record | None = None
        try:
            if note is not None and note.version > base.version:
                base, contents = note, None
            while True:
                if contents is None:
                    contents = base.contents()
                now = self.clock()
                if limits.expired(base, now) is not None:
                    await self._expire(base)
                    return False
                data = change(base, contents)
                if data is None:
                    session._adopt(base, contents)
                    return True
                contents = Contents(contents.user, contents.labels, data)
                record = msgspec.structs.replace(
                    base,
                    version=base.version + 1,
                    seen_at=max(base.seen_at, now),
                    idle_timeout=self.policy.idle_timeout,
                    confirmed=True,
                    body=self._pack(contents),
                )
                result = await self.store.save(record, base.version)
                if not isinstance(result, Conflict):
                    break
                attempts += 1
                self.counters.conflicts += 1
                if attempts == ATTEMPTS:
                    raise SessionConflict(base.session_id, attempts)
                base, contents = result.newer, None
            if result is GONE:
                return False
            latest = record
        except UnreadableRecord as damage:
            self.report_unreadable(base.id, damage)
            return False
        except StoreError as error:
            self._failed("save", base.id, error)
        finally:
            self.turns.end(base.id, latest)
        session._adopt(record, contents)
        self.counters.writes += 1
        if attempts:
            self.report(Conflicted(record.session_id, attempts))
        if self._dispatcher.wants(Written):
            self._dispatcher.emit(Written(record.session_id, record.version))
        return True

    async def _touch(self, session: Session[Any]) -> None:
        record = session._record
        assert record is not None
        now = self.clock()
        if limits.expired(record, now) is not None:
            await self._expire(record)
            self._gone(session, record, explicit=False)
            return
        seen = record.seen(now)
        try:
            alive = await self.store.touch(seen)
        except StoreError as error:
            self._failed("touch", record.id, error)
        self.counters.touches += 1
        if alive:
            session._record = seen
        else:
            self._gone(session, record, explicit=False)

    # Ending

    async def _remove(self, session: Session[Any]) -> None:
        record = session._destroyed
        assert record is not None
        if await self.end(record.id, "destroyed"):
            # Only who ended it clears the cookie: a later answer may meet a new one (law A7).
            session._cookie = CookieChange.CLEAR
        session._destroyed = None

    async def end(self, session_id: bytes, reason: str) -> bool:
        """Remove a session and tell whoever has something of it open; False if it was gone."""
        try:
            existed = await self.store.delete(session_id)
        except StoreError as error:
            self._failed("delete", session_id, error)
        if existed:
            self.counters.removes += 1
            self.report(Revoked(session_id.hex(), reason))
        return existed

    def _gone(self, session: Session[Any], record: Record | None, *, explicit: bool) -> bool:
        """Drop what an ended session had; never a new one in its place (security.md B-38)."""
        session._forget()
        session._gone = True
        self.report(Rejected(session._raw_id().hex() if record is None else record.session_id, "ended"))
        if record is not None:
            session._id = record.id
        if explicit:
            raise SessionGone(session._raw_id().hex())
        return False

    # Telling

    def report(self, event: Event) -> None:
        """Count and announce an event."""
        if isinstance(event, Rejected):
            self.counters.rejected += 1
        self._dispatcher.emit(event)

    def report_unreadable(self, session_id: bytes, damage: UnreadableRecord) -> None:
        """Announce a record that cannot be read; it counts as absent (law S9)."""
        self.report(Rejected(session_id.hex(), f"unreadable: {damage}"))

    def _failed(self, operation: str, session_id: bytes, error: StoreError) -> NoReturn:
        self.counters.failures += 1
        self.report(StoreFailed(session_id.hex(), operation, str(error)))
        raise error

    def _pack(self, contents: Contents) -> bytes:
        body = pack_body(contents.user, contents.labels, contents.data)
        if len(body) > self._max_bytes:
            sizes = sorted(
                ((key, len(value)) for key, value in contents.data.items()),
                key=lambda item: item[1],
                reverse=True,
            )
            raise SessionTooLarge(len(body), self._max_bytes, sizes[:3])
        return body
