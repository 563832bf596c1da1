"""The user index: which sessions a name has, and logins under a limit of sessions."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from sojourn._core.concurrency import KeyedLock, sleep
from sojourn.errors import StoreError, StoreUnavailable
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
from sojourn.stores.batching import Batchers
from sojourn.stores.redis import commands, scripts
from sojourn.stores.redis.commands import (
    GetRaw,
    GetRecord,
    InvalidatedHead,
    RawCommand,
    Request,
    call_script,
    index_ttl,
)
from sojourn.stores.redis.encoding import decode_value, digests_of
from sojourn.stores.redis.errors import has_code
from sojourn.stores.redis.keys import Keys

#: Results of the script ``LOGIN`` other than a list or a value.
_LOGIN_RESULTS: Final[dict[int, SaveLoginResult]] = {0: GONE, -1: REVOKED, -2: LIMIT_REACHED}

#: Microseconds after which an entry without a record does not belong to a login in progress.
_STALE_AGE: Final = 60_000_000

#: Members of an index that one step of a list reads: less than a millisecond of the server's time.
_STEP: Final = 1_000

#: Seconds between two checks of a lock: the first, and the longest.
_FIRST_POLL: Final = 0.001
_MAX_POLL: Final = 0.02


class UserIndex:
    """The indexes of one installation.

    A single server executes a login in one script, ``LOGIN``. In a cluster an index may be on
    another node than its records, so a login has four steps, under the index's lock: add the ID to
    the index unless the name's cutoff rejects the login; choose the sessions to evict; store the
    record with its names; delete the evicted sessions and unlock.

    An entry whose record is missing or does not contain the name is stale (its login failed, or the
    session ended); the next call that reads it removes it. ``invalidate_logins`` sets the cutoff
    and then waits for the login that holds the lock: a later login reads the cutoff, so none is in
    progress when it returns (law S16). The lock of a process that died expires after more time than
    a call may take. A process that stalled for so long finds its lock lost and checks the cutoff
    again.

    Args:
        batchers: carry the requests.
        keys: the names of keys.
        timeout: seconds that a call may take.
    """

    __slots__ = ("_keys", "_local_locks", "_submit", "_submit_all", "timeout")

    def __init__(self, batchers: Batchers[Request, Any], keys: Keys, *, timeout: float) -> None:
        self._submit = batchers.submit
        self._submit_all = batchers.submit_all
        self._keys = keys
        self._local_locks = KeyedLock()  # so that one process polls the server's lock once
        self.timeout: float = timeout

    # Logins

    async def save_login(
        self, record: Record, expected_version: int, limit: SessionLimit | None, now: int
    ) -> SaveLoginResult:
        """Save a record and index it; see ``SupportsUserIndex``."""
        digests = [self._keys.digest(name) for name in record.index_names()]
        if not self._keys.is_cluster:
            return await self._login_in_one_step(record, expected_version, digests, limit, now)
        deadline = time.monotonic() + self.timeout
        locks: list[_IndexLock] = []
        is_rejected = False
        try:
            for digest in sorted(set(digests)):  # the same order everywhere prevents deadlocks
                most = limit.max_sessions if limit is not None and digest == digests[0] else 0
                lock = await self._lock(digest, record, deadline, max_sessions=most)
                if lock is None:
                    is_rejected = True
                    return REVOKED
                locks.append(lock)
            result = await self._login_under_locks(
                record, expected_version, digests, locks, limit, now
            )
            is_rejected = not isinstance(result, LoginSaved)
        finally:  # after an error the record may have been stored, so its entry stays
            were_held = await self._unlock(locks, record.id, is_rejected=is_rejected)
        if were_held or is_rejected:
            return result
        return await self._check_cutoffs_again(record, digests, result)

    async def _login_in_one_step(
        self,
        record: Record,
        expected_version: int,
        digests: list[bytes],
        limit: SessionLimit | None,
        now: int,
    ) -> SaveLoginResult:
        deadline = time.monotonic() + self.timeout
        reply = await self._submit(
            commands.login(record, expected_version, digests, keys=self._keys, limit=limit, now=now)
        )
        if isinstance(reply, list):
            left, *evicted = reply
            if left and limit is not None:
                evict = commands.evict(record.id, digests[0], keys=self._keys, limit=limit, now=now)
                evicted += await self._evict_rest(evict, left, deadline)
            return LoginSaved(tuple(evicted))
        if isinstance(reply, bytes):
            return Conflict(decode_value(record.id, reply))
        return _LOGIN_RESULTS[reply]

    async def _evict_rest(self, evict: RawCommand, left: int, deadline: float) -> list[bytes]:
        """Evict what a login left above the limit, in steps; the next login continues.

        The login is stored, so an error here must not make it fail.
        """
        evicted: list[bytes] = []
        with suppress(StoreError):
            while left and time.monotonic() < deadline:
                before = left
                left, *more = await self._submit(evict)
                evicted += more
                if left >= before:
                    break  # what was examined cannot be evicted: it is damaged
        return evicted

    async def _login_under_locks(  # noqa: PLR0917 - a part of save_login, with its names
        self,
        record: Record,
        expected_version: int,
        digests: list[bytes],
        locks: list[_IndexLock],
        limit: SessionLimit | None,
        now: int,
    ) -> SaveLoginResult:
        found = _Examined()
        for lock in locks:
            live = await self._check_members(lock)
            if limit is not None and lock.digest == digests[0]:
                found = _examine(lock, live, limit, now)
                if found.excess and limit.policy is LimitPolicy.REFUSE:
                    return LIMIT_REACHED
        started_at = time.monotonic()
        if expected_version:
            reply = await self._submit(commands.save_login(record, expected_version, digests))
            if reply == 0:
                return GONE
            if isinstance(reply, bytes):
                return Conflict(decode_value(record.id, reply))
            left = [digest for digest in digests_of(reply[0]) if digest not in digests]
            await self._remove({digest: [record.id] for digest in left}, started_at)
        elif await self._submit(commands.create(record, digests)) != 1:
            newer = await self._submit(GetRecord(record.id))
            return GONE if newer is None else Conflict(newer)
        evicted = await self._remove_examined(found)
        if limit is not None and found.excess > len(found.evicted):
            lock = next(lock for lock in locks if lock.digest == digests[0])
            evicted += await self._evict_rest_under_lock(record, lock, limit, now)
        return LoginSaved(tuple(evicted))

    async def _remove_examined(self, found: _Examined) -> list[bytes]:
        """Delete ended and evicted sessions; return the IDs of the evicted ones that existed."""
        removed = [*found.evicted, *found.ended]
        replies = await self._submit_all([commands.delete(other.id) for other in removed])
        heads = {other.id: head for other, head in zip(removed, replies, strict=True) if head != 0}
        await self.remove_deleted(heads)
        return [other.id for other in found.evicted if other.id in heads]

    async def _evict_rest_under_lock(
        self, record: Record, lock: _IndexLock, limit: SessionLimit, now: int
    ) -> list[bytes]:
        """Evict what a login left above the limit, as ``_evict_rest``, while the lock is held."""
        evicted: list[bytes] = []
        deadline = time.monotonic() + self.timeout
        entries = self._keys.index(lock.digest).entries
        arguments = (record.id, index_ttl(record), limit.max_sessions)
        with suppress(StoreError):
            while time.monotonic() < deadline:
                _, lock.size, *lock.members = await self._submit(
                    call_script(scripts.ADD_TO_INDEX, (entries,), arguments)
                )
                known = len(lock.stale)
                live = await self._check_members(lock)
                if len(lock.stale) > known:
                    await self._submit(RawCommand(("ZREM", entries, *lock.stale[known:]), entries))
                found = _examine(lock, live, limit, now)
                if not found.evicted and not found.ended:
                    break
                evicted += await self._remove_examined(found)
        return evicted

    async def _lock(
        self, digest: bytes, record: Record, deadline: float, *, max_sessions: int
    ) -> _IndexLock | None:
        """Return the lock of an index once it is held; None if the cutoff rejects the login."""
        lock = _IndexLock(digest, secrets.token_bytes(8))
        try:
            await self._local_locks.acquire(digest, timeout=max(deadline - time.monotonic(), 0))
        except TimeoutError as error:
            raise self._lock_timeout() from error
        try:
            poll = _FIRST_POLL
            while (reply := await self._try_lock(lock, record, max_sessions=max_sessions))[
                0
            ] == b"busy":
                if time.monotonic() + poll > deadline:
                    raise self._lock_timeout()  # noqa: TRY301 - the local lock must be released
                await sleep(poll)
                poll = min(2 * poll, _MAX_POLL)
        except BaseException:
            self._local_locks.release(digest)
            raise
        if reply[0] == b"revoked":
            self._local_locks.release(digest)
            return None
        is_new, lock.size, *lock.members = reply
        lock.is_new = bool(is_new)
        return lock

    async def _try_lock(self, lock: _IndexLock, record: Record, *, max_sessions: int) -> list[Any]:
        """Return what LOCK_INDEX returns; in three steps while the slot is being migrated.

        Their order ensures law S16: the lock before the cutoff here, the cutoff before the lock in
        ``invalidate_logins``.
        """
        lease = int(max(5 * self.timeout, 10) * 1000)
        login_at = record.authenticated_at.to_bytes(8)
        entry = (record.id, index_ttl(record), max_sessions)
        keys = self._keys.index(lock.digest)
        try:
            arguments = (lock.token, lease, login_at, *entry)
            reply: list[Any] = await self._submit(call_script(scripts.LOCK_INDEX, keys, arguments))
        except StoreUnavailable as error:
            if not has_code(error.__cause__, "TRYAGAIN"):
                raise
        else:
            return reply
        set_lock = RawCommand(("SET", keys.lock, lock.token, "NX", "PX", lease), keys.lock)
        if await self._submit(set_lock) is None:
            return [b"busy"]
        if await self._is_rejected(keys.cutoff, record):
            await self._submit(call_script(scripts.UNLOCK, (keys.lock,), (lock.token,)))
            return [b"revoked"]
        added: list[Any] = await self._submit(
            call_script(scripts.ADD_TO_INDEX, (keys.entries,), entry)
        )
        return added

    async def _is_rejected(self, cutoff_key: str, record: Record) -> bool:
        cutoff = await self._submit(RawCommand(("GET", cutoff_key), cutoff_key))
        return cutoff is not None and int.from_bytes(cutoff) > record.authenticated_at

    async def _check_members(self, lock: _IndexLock) -> list[Record]:
        """Return the live sessions of a locked index; collect stale entries for removal."""
        found, stale = await self._load_members(lock.digest, lock.members)
        lock.stale += stale
        return found

    async def _unlock(
        self, locks: list[_IndexLock], session_id: bytes, *, is_rejected: bool
    ) -> bool:
        """Remove stale entries and unlock; return whether all locks were held until now."""
        were_held = True
        for lock in locks:
            try:
                index, _, key = self._keys.index(lock.digest)
                if lock.is_new and is_rejected:
                    lock.stale.append(session_id)
                if lock.stale:
                    await self._submit(RawCommand(("ZREM", index, *lock.stale), index))
                unlock = call_script(scripts.UNLOCK, (key,), (lock.token,))
                were_held &= await self._submit(unlock) == 1
            finally:
                self._local_locks.release(lock.digest)
        return were_held

    async def _check_cutoffs_again(
        self, record: Record, digests: list[bytes], result: SaveLoginResult
    ) -> SaveLoginResult:
        """Undo a login that lost its lock if a cutoff was set meanwhile."""
        for digest in digests:
            if await self._is_rejected(self._keys.index(digest).cutoff, record):
                head = await self._submit(commands.delete(record.id))
                await self.remove_deleted({record.id: head} if head != 0 else {})
                return REVOKED
        return result

    def _lock_timeout(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"another login of the same user was not stored within {self.timeout:g} seconds. Try "
            "again later"
        )

    # Listing and removal

    async def list_by_index(self, name: str) -> list[Record]:
        """Return the records of a name; see ``SupportsUserIndex``."""
        digest = self._keys.digest(name)
        index = self._keys.index(digest).entries
        found: list[Record] = []
        members = await self._list_members(index)
        for start in range(0, len(members), _STEP):
            records, stale = await self._load_members(digest, members[start : start + _STEP])
            found += records
            if stale:
                remove = call_script(scripts.REMOVE_FROM_INDEX, (index,), (_STALE_AGE, *stale))
                await self._submit(remove)
        found.sort(key=lambda record: record.authenticated_at, reverse=True)
        return found

    async def _list_members(self, index: str) -> list[bytes]:
        """Return the members of an index.

        In steps: one command for 100,000 would hold the server for 20 ms. A step begins at the last
        score, because removals change ranks; a member that is added again gets a larger score.
        """
        members: dict[bytes, None] = {}
        score, offset, is_last = b"-inf", 0, False
        while not is_last:
            limit = ("LIMIT", offset, _STEP, "WITHSCORES")
            step = RawCommand(("ZRANGE", index, score, "+inf", "BYSCORE", *limit), index)
            listed = await self._submit(step)
            members.update(dict.fromkeys(listed[::2]))
            scores = listed[1::2]
            is_last = len(scores) < _STEP
            if not is_last:
                offset = scores.count(scores[-1]) + (offset if scores[-1] == score else 0)
                score = scores[-1]
        return list(members)

    async def _load_members(
        self, digest: bytes, members: Sequence[bytes]
    ) -> tuple[list[Record], list[bytes]]:
        """Return the readable records of an index's members, and the stale members."""
        found: list[Record] = []
        stale: list[bytes] = []
        values = await self._submit_all([GetRaw(member) for member in members])
        for member, value in zip(members, values, strict=True):
            if value is None or digest not in digests_of(value):
                stale.append(member)
                continue
            try:
                found.append(decode_value(member, value))
            except UnreadableRecord:
                continue
        return found, stale

    async def invalidate_logins(self, name: str, before: int) -> None:
        """Reject logins older than an instant; see ``SupportsUserIndex``."""
        _, cutoff, lock = self._keys.index(self._keys.digest(name))
        deadline = time.monotonic() + self.timeout
        arguments = (before.to_bytes(8), MAX_LOGIN_DURATION)
        await self._submit(call_script(scripts.ADVANCE_CUTOFF, (cutoff,), arguments))
        if not self._keys.is_cluster:
            return  # a login is atomic there and has no lock
        holder = current = await self._submit(RawCommand(("GET", lock), lock))
        poll = _FIRST_POLL
        while holder is not None and holder == current:
            if time.monotonic() + poll > deadline:
                raise self._lock_timeout()
            await sleep(poll)
            poll = min(2 * poll, _MAX_POLL)
            current = await self._submit(RawCommand(("GET", lock), lock))

    async def remove_deleted(self, heads: Mapping[bytes, bytes | InvalidatedHead]) -> None:
        """Remove deleted sessions from the indexes that their heads name, in one batch."""
        by_digest: dict[bytes, list[bytes]] = {}
        for session_id, head in heads.items():
            value = head.head if isinstance(head, InvalidatedHead) else head
            for digest in digests_of(value):
                by_digest.setdefault(digest, []).append(session_id)
        await self._remove(by_digest, time.monotonic())

    async def _remove(self, by_digest: Mapping[bytes, Sequence[bytes]], since: float) -> None:
        """Remove sessions from indexes unless they were added again after an instant."""
        if not by_digest:
            return
        age = int((time.monotonic() - since) * 1_000_000)
        await self._submit_all(
            [
                call_script(
                    scripts.REMOVE_FROM_INDEX, (self._keys.index(digest).entries,), (age, *ids)
                )
                for digest, ids in by_digest.items()
            ]
        )


class _IndexLock:
    """A held lock of an index.

    Attributes:
        is_new: the session was not in the index before.
        size: the number of members, this one included.
        members: other members that were returned for checking.
        stale: those that must be removed.
    """

    __slots__ = ("digest", "is_new", "members", "size", "stale", "token")

    def __init__(self, digest: bytes, token: bytes) -> None:
        self.digest: bytes = digest
        self.token: bytes = token
        self.is_new: bool = False
        self.size: int = 0
        self.members: list[bytes] = []
        self.stale: list[bytes] = []


class _Examined(msgspec.Struct, frozen=True):
    """What a limit does to the sessions of an index that were examined.

    Attributes:
        excess: the number of sessions above the limit.
        evicted: those that must be evicted, as far as they were examined.
        ended: expired sessions.
    """

    excess: int = 0
    evicted: Sequence[Record] = ()
    ended: Sequence[Record] = ()


def _examine(lock: _IndexLock, found: Sequence[Record], limit: SessionLimit, now: int) -> _Examined:
    """Decide as ``session_limits.lua`` does for a single server.

    Args:
        lock: of the index, with the members that were returned.
        found: their readable records.
        limit: of the sessions.
        now: milliseconds since 1970 UTC.
    """
    if lock.size <= limit.max_sessions:
        return _Examined()
    ended = [other for other in found if other.expires_at <= now]
    live = [other for other in found if other.expires_at > now]
    absent = len(lock.members) - len(live)  # stale, ended or unreadable
    excess = max(lock.size - absent - limit.max_sessions, 0)
    most = len(live)
    if lock.size > scripts.EXAMINED_MEMBERS:
        if limit.policy is LimitPolicy.EVICT_IDLEST:
            most = -(-most // 2)
        else:
            oldest = set(lock.members[: scripts.EXAMINED_OLDEST])
            live = [other for other in live if other.id in oldest]
    live.sort(key=_eviction_order(limit.policy))
    return _Examined(excess, live[: min(excess, most)], ended)


def _eviction_order(policy: LimitPolicy) -> Callable[[Record], tuple[int, bytes]]:
    if policy is LimitPolicy.EVICT_IDLEST:
        return lambda record: (record.seen_at, record.id)
    return lambda record: (record.authenticated_at, record.id)
