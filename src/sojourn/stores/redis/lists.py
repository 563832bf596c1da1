"""Lists: which sessions a user has, and who may join them.

What lives here: ``bind``, ``find``, ``void`` and cleaning. What must not: the bytes and scripts
(``values.py``, ``scripts.py``). One server does a login in one step, the script ``BIND``. In a
cluster a list may be on another server than its records, so it takes four, under the list's lock:

1. lock, see that the name is not void, and put the ID into the list; 2. choose who must go;
3. store the record, with the lists it is in; 4. let go those who must, and the lock.
"""

# An entry without a record that names the list is no session (its login failed, or the session
# ended) and is cleaned away by whoever meets it. ``void`` sets its mark and then waits for the
# login that holds the lock: whoever locks later sees the mark, so none is under way when it returns
# (law S16). The lock of a process that died ends by itself, after more time than a call may take;
# one that only stalled so long finds its lock gone, and looks for the mark once more.

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from sojourn._core.concurrency import KeyedLock, pause
from sojourn._core.policy import expired
from sojourn.errors import StoreUnavailable
from sojourn.record import Record, UnreadableRecord
from sojourn.store import (
    GONE,
    LIMIT_REACHED,
    MAX_LOGIN_DURATION,
    REVOKED,
    Conflict,
    LimitPolicy,
    LoginSaved,
    SaveLoginResult,
    SessionLimit,
)
from sojourn.stores.redis import requests, scripts
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.replies import is_split
from sojourn.stores.redis.requests import Call, Load, Peek, Request, run_script
from sojourn.stores.redis.values import lists_of, unpack

Ask = Callable[[Request], Awaitable[Any]]
AskAll = Callable[[Sequence[Request]], Awaitable[list[Any]]]

#: What the numbers mean that ``BIND`` answers.
_REFUSALS: Final[dict[int, SaveLoginResult]] = {0: GONE, -1: REVOKED, -2: LIMIT_REACHED}

#: Microseconds after which an entry without a record is no login under way any more.
_SETTLED: Final = 60_000_000

#: Seconds between two looks at a lock, at first and at most.
_FIRST_LOOK, _LAST_LOOK = 0.001, 0.02


class Lists:
    """The lists of one installation.

    Args:
        ask: sends one request of the store and returns its answer.
        ask_all: sends several as one batch.
        keys: what things are called.
        timeout: seconds that a call may take.
    """

    __slots__ = ("_ask", "_ask_all", "_keys", "_turns", "timeout")

    def __init__(self, ask: Ask, ask_all: AskAll, keys: Keys, *, timeout: float) -> None:
        self._ask = ask
        self._ask_all = ask_all
        self._keys = keys
        self._turns = KeyedLock()
        self.timeout: float = timeout

    # Logins

    async def save_login(
        self, record: Record, expected_version: int, limit: SessionLimit | None, now: int
    ) -> SaveLoginResult:
        """Store a record and list it; see ``SupportsUserIndex.bind``."""
        digests = [self._keys.digest(name) for name in record.index_names()]
        if not self._keys.clustered:
            return await self._bind_at_once(record, expected_version, digests, limit, now)
        deadline = time.monotonic() + self.timeout
        held: list[_Held] = []
        refused = False
        try:
            for digest in sorted(set(digests)):  # one order for all, so that no two wait in a ring
                whole = limit is not None and digest == digests[0]
                lock = await self._lock(digest, record, deadline, whole=whole)
                if lock is None:
                    refused = True
                    return REVOKED
                held.append(lock)
            answer = await self._bind(record, expected_version, digests, held, limit, now)
            refused = not isinstance(answer, LoginSaved)
        finally:  # after an error the record may have been stored, so its entry stays
            kept = await self._let_go(held, record.id, refused=refused)
        return answer if kept or refused else await self._stalled(record, digests, answer)

    async def _bind_at_once(
        self,
        record: Record,
        expected_version: int,
        digests: list[bytes],
        limit: SessionLimit | None,
        now: int,
    ) -> SaveLoginResult:
        answer = await self._ask(
            requests.bind_at_once(
                record, expected_version, digests, keys=self._keys, limit=limit, now=now
            )
        )
        if isinstance(answer, list):
            return LoginSaved(tuple(answer))
        if isinstance(answer, bytes):
            return Conflict(unpack(record.id, answer))
        return _REFUSALS[answer]

    async def _bind(  # noqa: PLR0917 - one step of bind, which has them by these names
        self,
        record: Record,
        expected_version: int,
        digests: list[bytes],
        held: list[_Held],
        limit: SessionLimit | None,
        now: int,
    ) -> SaveLoginResult:
        going: list[Record] = []
        over: list[Record] = []
        for lock in held:
            living = await self._look_after(lock)
            if limit is not None and lock.digest == digests[0]:
                over = [other for other in living if expired(other, now) is not None]
                living = [other for other in living if expired(other, now) is None]
                many = len(living) + 1 - limit.max_sessions
                if many > 0 and limit.policy is LimitPolicy.REFUSE:
                    return LIMIT_REACHED
                going = sorted(living, key=_order(limit.policy))[: max(many, 0)]
        began = time.monotonic()
        if expected_version:
            answer = await self._ask(requests.save_login(record, expected_version, digests))
            if answer == 0:
                return GONE
            if isinstance(answer, bytes):
                return Conflict(unpack(record.id, answer))
            left = [digest for digest in lists_of(answer[0]) if digest not in digests]
            await self.unlist(record.id, left, began)
        elif await self._ask(requests.create(record, digests)) != 1:
            newer = await self._ask(Load(record.id))
            return GONE if newer is None else Conflict(newer)
        gone = []
        for other in (*going, *over):
            head = await self._ask(requests.delete(other.id))
            if head != 0 and other in going:
                gone.append(other.id)
            await self.unlist_head(other.id, head)
        return LoginSaved(tuple(gone))

    async def _lock(
        self, digest: bytes, record: Record, deadline: float, *, whole: bool
    ) -> _Held | None:
        """Return the lock of a list once it is held; None if the name is void for this login."""
        lock = _Held(digest, secrets.token_bytes(8))
        try:
            await self._turns.begin(digest, timeout=max(deadline - time.monotonic(), 0))
        except TimeoutError as error:
            raise self._late() from error
        try:
            look = _FIRST_LOOK
            while (answer := await self._take(lock, record, whole=whole))[0] == b"busy":
                if time.monotonic() + look > deadline:
                    raise self._late()  # noqa: TRY301 - the turn must end in either case
                await pause(look)
                look = min(2 * look, _LAST_LOOK)
        except BaseException:
            self._turns.end(digest)
            raise
        if answer[0] == b"void":
            self._turns.end(digest)
            return None
        lock.is_new, lock.members = bool(answer[0]), answer[1:]
        return lock

    async def _take(self, lock: _Held, record: Record, *, whole: bool) -> list[Any]:
        """Return what the script LOCK answers, in three steps where the slot is on its way.

        The order keeps law S16: the lock before the mark here, the mark before the lock in void.
        """
        needed = max(record.absolute_at - record.seen_at, 0) + scripts.MARGIN
        lease = int(max(5 * self.timeout, 10) * 1000)
        began = record.authenticated_at.to_bytes(8)
        entry = (record.id, needed, 0 if whole else scripts.SHORT)
        keys = index, mark, key = self._keys.lists(lock.digest)
        try:
            asked = run_script(scripts.LOCK, keys, (lock.token, lease, began, *entry))
            answer: list[Any] = await self._ask(asked)
        except StoreUnavailable as error:
            if not is_split(error.__cause__):
                raise
        else:
            return answer
        if await self._ask(Call(("SET", key, lock.token, "NX", "PX", lease), key)) is None:
            return [b"busy"]
        if await self._is_void(mark, record):
            await self._ask(run_script(scripts.UNLOCK, (key,), (lock.token,)))
            return [b"void"]
        entered: list[Any] = await self._ask(run_script(scripts.ENTER, (index,), entry))
        return entered

    async def _is_void(self, mark: str, record: Record) -> bool:
        before = await self._ask(Call(("GET", mark), mark))
        return before is not None and int.from_bytes(before) > record.authenticated_at

    async def _look_after(self, lock: _Held) -> list[Record]:
        """Return those of a locked list that are alive; note the others to leave it."""
        living: list[Record] = []
        values = await self._ask_all([Peek(member) for member in lock.members])
        for member, value in zip(lock.members, values, strict=True):
            record = _listed(member, value, lock.digest)
            if record is not None:
                living.append(record)
            elif value is None or lock.digest not in lists_of(value):
                lock.leaving.append(member)
        return living

    async def _let_go(self, held: list[_Held], session_id: bytes, *, refused: bool) -> bool:
        """Unlock lists; tell whether all of them were locked until now."""
        kept = True
        for lock in held:
            try:
                index, _, key = self._keys.lists(lock.digest)
                if lock.is_new and refused:
                    lock.leaving.append(session_id)
                if lock.leaving:
                    await self._ask(Call(("ZREM", index, *lock.leaving), index))
                kept &= await self._ask(run_script(scripts.UNLOCK, (key,), (lock.token,))) == 1
            finally:
                self._turns.end(lock.digest)
        return kept

    async def _stalled(
        self, record: Record, digests: list[bytes], answer: SaveLoginResult
    ) -> SaveLoginResult:
        """Take back a login that lost its lock, if it was voided while nobody waited for it."""
        for digest in digests:
            if await self._is_void(self._keys.lists(digest)[1], record):
                await self.unlist_head(record.id, await self._ask(requests.delete(record.id)))
                return REVOKED
        return answer

    def _late(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"another login of the same user was not stored within {self.timeout:g} seconds. Try "
            "again later"
        )

    # Finding and ending

    async def list_by_index(self, name: str) -> list[Record]:
        """Return the records in a list; see ``SupportsUserIndex.find``."""
        digest = self._keys.digest(name)
        index = self._keys.lists(digest)[0]
        members = await self._ask(Call(("ZRANGE", index, 0, -1), index))
        values = await self._ask_all([Peek(member) for member in members])
        found: list[Record] = []
        dead: list[bytes] = []
        for member, value in zip(members, values, strict=True):
            record = _listed(member, value, digest)
            if record is not None:
                found.append(record)
            elif value is None or digest not in lists_of(value):
                dead.append(member)
        if dead:
            await self._ask(run_script(scripts.FORGET, (index,), (_SETTLED, *dead)))
        found.sort(key=lambda record: record.authenticated_at, reverse=True)
        return found

    async def invalidate_logins(self, name: str, before: int) -> None:
        """Refuse logins that began before an instant; see ``SupportsUserIndex.invalidate_logins``."""
        _, mark, lock = self._keys.lists(self._keys.digest(name))
        deadline = time.monotonic() + self.timeout
        await self._ask(
            run_script(scripts.REVOKED, (mark,), (before.to_bytes(8), MAX_LOGIN_DURATION))
        )
        if not self._keys.clustered:
            return  # a login is one step there, and locks nothing
        holder = waiting = await self._ask(Call(("GET", lock), lock))
        look = _FIRST_LOOK
        while holder is not None and holder == waiting:
            if time.monotonic() + look > deadline:
                raise self._late()
            await pause(look)
            look = min(2 * look, _LAST_LOOK)
            waiting = await self._ask(Call(("GET", lock), lock))

    async def unlist_head(self, session_id: bytes, head: bytes | int) -> None:
        """Remove a deleted session from the lists that its head names."""
        if isinstance(head, bytes):
            await self.unlist(session_id, lists_of(head), time.monotonic())

    async def unlist(self, session_id: bytes, digests: Sequence[bytes], since: float) -> None:
        """Remove a session from lists, unless it was put there again after an instant."""
        for digest in digests:
            index = self._keys.lists(digest)[0]
            age = int((time.monotonic() - since) * 1_000_000)
            await self._ask(run_script(scripts.FORGET, (index,), (age, session_id)))


class _Held:
    """A list whose lock is held.

    Attributes:
        is_new: the session was not in it before.
        members: others that were shown, to be looked after.
        leaving: those of them that are dead.
    """

    __slots__ = ("digest", "is_new", "leaving", "members", "token")

    def __init__(self, digest: bytes, token: bytes) -> None:
        self.digest: bytes = digest
        self.token: bytes = token
        self.is_new: bool = False
        self.members: list[bytes] = []
        self.leaving: list[bytes] = []


def _listed(session_id: bytes, value: Any, digest: bytes) -> Record | None:
    if value is None or digest not in lists_of(value):
        return None
    try:
        return unpack(session_id, value)
    except UnreadableRecord:
        return None


def _order(evict: LimitPolicy) -> Callable[[Record], tuple[int, bytes]]:
    if evict is LimitPolicy.EVICT_IDLEST:
        return lambda record: (record.seen_at, record.id)
    return lambda record: (record.authenticated_at, record.id)
