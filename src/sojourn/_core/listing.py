"""Lister: pages of live sessions, from all records or from the user index, with filters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sojourn._core.concurrency import Deadline
from sojourn._core.context import CoreContext
from sojourn._core.policy import expired
from sojourn._core.revocation import TOMBSTONE_VERSION, indexed_store
from sojourn.errors import ConfigurationError
from sojourn.record import (
    Metadata,
    Record,
    UnreadableRecord,
    user_index_name,
)
from sojourn.store import ListPage, Store, SupportsListing, invalid_cursor

#: The largest ``limit``.
MAX_LIMIT: Final = 1_000

#: The approximate number of records that a page with filters examines: a few milliseconds in every
#: store.
MAX_EXAMINED: Final = 2_000

#: Store pages that one page reads: they may be empty where a server has keys of others.
MAX_STORE_PAGES: Final = 100

#: Records that one store page has at most, with filters.
_STORE_PAGE: Final = 250

#: Records that one store page has at least, so that a few expired ones do not cost many calls.
_MIN_STORE_PAGE: Final = 10

#: Of a store page that has more sessions: the last one that was taken, the size of the page and, if
#: it has no order, the length of its cursor. Then the cursors of the store: of this page and, if it
#: has no order, of the next one.
_CURSOR: Final = re.compile(r"(?s:(?:([0-9a-f]{32})-([0-9]{1,4})(?:-([0-9]{1,4}))?)?\.(.*))")

#: The cursor of a user's page: the last login of its last session, and its ID.
_USER_CURSOR: Final = re.compile(r"([0-9]{1,16}):([0-9a-f]{32})")


class Listed(NamedTuple):
    """A live session and the readable part of its body."""

    record: Record
    metadata: Metadata


class ListedPage(NamedTuple):
    """A page of live sessions.

    Attributes:
        sessions: at most as many as requested.
        cursor: for the next page; empty after the last one.
        examined: the number of records that were read.
        unreadable: the number of them that are damaged or of a newer format (law S9).
    """

    sessions: list[Listed]
    cursor: str
    examined: int
    unreadable: int


class Filters(NamedTuple):
    """What a session must match.

    Attributes:
        labels: labels that it must have; maybe none.
        since: the earliest ``seen_at``, milliseconds since 1970 UTC; 0 for any.
    """

    labels: Mapping[str, str]
    since: int

    def match(self, listed: Listed) -> bool:
        """Return whether a session matches."""
        is_recent = listed.record.seen_at >= self.since
        return is_recent and self.labels.items() <= listed.metadata.labels.items()


class _Position(NamedTuple):
    """Where a page begins.

    Attributes:
        cursor: of the store.
        after: the ID of the last session that was taken from this store page; empty for none.
        size: of the store page; 0 if any will do.
        following: the store's cursor behind this store page; None if only the store page has it,
            because it has an order or was not read.
    """

    cursor: str
    after: bytes = b""
    size: int = 0
    following: str | None = None


class Lister:
    """Lists live sessions page by page.

    A store page may have more sessions than a page needs. Its records are taken in the order of
    their IDs. If some are left, the cursor contains the ID of the last one that was taken, the size
    of the store page and the cursor with which it is read again: with the same size, because
    another one would have other records where the store has no order.

    In such a store a creation or a deletion moves the end of the page that is read again. The list
    then continues where the page ended when it was read first, so that it misses no session; it may
    repeat some.

    Args:
        context: of the engine.
    """

    __slots__ = ("_context", "_store")

    def __init__(self, context: CoreContext) -> None:
        self._context = context
        self._store = context.store

    def use_store(self, store: Store) -> None:
        """List the sessions of another store; see ``Engine.use_store``."""
        self._store = store

    async def page(
        self, cursor: str, limit: int, *, user: str | None, labels: Mapping[str, str], since: int
    ) -> ListedPage:
        """Return a page of live sessions.

        Args:
            cursor: of the previous page; empty for the first one.
            limit: the most sessions to return.
            user: only sessions of this user, newest login first; None for all, ordered by the
                store.
            labels: only sessions with each of these labels.
            since: only sessions seen at this instant or later, milliseconds since 1970 UTC.

        Raises:
            ConfigurationError: the store cannot list its sessions.
            ValueError: the cursor or the limit is invalid.
        """
        if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
            raise ValueError(f"limit expects 1 to {MAX_LIMIT:,}, found {limit!r}")
        given: object = cursor  # callers without a type checker may pass anything
        if not isinstance(given, str):
            raise invalid_cursor(given)
        filters = Filters(labels, since)
        if user is not None:
            return await self._user_page(user, cursor, limit, filters)
        store = self._store
        if not isinstance(store, SupportsListing):
            raise ConfigurationError(
                f"{store!r} cannot list its sessions; use a store that can, such as sqlite:///, or "
                "give list_page a user"
            )
        return await self._page(store, cursor, limit, filters)

    async def user_sessions(self, user: str) -> list[Listed]:
        """Return all sessions of a user, newest login first.

        Raises:
            ConfigurationError: the store has no user index.
        """
        live, _, _ = await self._user_sessions(user)
        return live

    async def find(self, session_id: bytes) -> Listed | None:
        """Return a live session, None if there is none."""
        deadline = Deadline(self._context.config.store_timeout)
        try:
            record = await self._store.load(session_id)
            if record is None:
                return None
            await self._context.synchronize_clock(session_id, deadline)
            found, _ = self._live([record])
        except UnreadableRecord:
            return None
        return found[0] if found else None

    # All sessions

    async def _page(
        self, store: SupportsListing, cursor: str, limit: int, filters: Filters
    ) -> ListedPage:
        position = _parse_cursor(cursor)
        await self._context.begin()
        has_filters = bool(filters.labels or filters.since)
        found: dict[bytes, Listed] = {}
        examined = unreadable = 0
        for _ in range(MAX_STORE_PAGES):
            missing = limit - len(found)
            size = position.size or (_STORE_PAGE if has_filters else max(missing, _MIN_STORE_PAGE))
            page = await _read(store, position, size)
            after = position.after
            live, damaged = self._live([r for r in page.records if not after or r.id > after])
            examined += len(page.records) + page.unreadable
            unreadable += damaged + page.unreadable
            # SCAN may return a record twice.
            matching = [one for one in live if one.record.id not in found and filters.match(one)]
            matching.sort(key=lambda listed: listed.record.id)
            found.update((one.record.id, one) for one in matching[:missing])
            if len(matching) > missing:
                following = None if page.is_ordered else page.cursor
                last = matching[missing - 1].record.id
                next_cursor = _make_cursor(_Position(position.cursor, last, size, following))
                return ListedPage([*found.values()], next_cursor, examined, unreadable)
            position = _Position(page.cursor)
            if not page.cursor or len(found) == limit or examined >= MAX_EXAMINED:
                break
        next_cursor = _make_cursor(position) if position.cursor else ""
        return ListedPage([*found.values()], next_cursor, examined, unreadable)

    # The sessions of a user

    async def _user_page(self, user: str, cursor: str, limit: int, filters: Filters) -> ListedPage:
        before = _parse_user_cursor(cursor)
        live, examined, unreadable = await self._user_sessions(user)
        matching = [
            one
            for one in live
            if filters.match(one) and (before is None or _login_order(one) < before)
        ]
        shown = matching[:limit]
        next_cursor = ""
        if len(matching) > limit:
            last = shown[-1].record
            next_cursor = f"{last.authenticated_at}:{last.session_id}"
        return ListedPage(shown, next_cursor, examined, unreadable)

    async def _user_sessions(self, user: str) -> tuple[list[Listed], int, int]:
        """Return the live sessions of a user, and how many records were read and unreadable."""
        store = indexed_store(self._store)
        await self._context.begin()
        records = await store.list_by_index(user_index_name(user))
        live, unreadable = self._live(records)
        live.sort(key=_login_order, reverse=True)
        return live, len(records), unreadable

    def _live(self, records: Sequence[Record]) -> tuple[list[Listed], int]:
        """Return the live sessions, and the number of records whose body is damaged."""
        now = self._context.clock()
        live: list[Listed] = []
        unreadable = 0
        for record in records:
            if is_live(record, now):
                try:
                    live.append(Listed(record, record.metadata()))
                except UnreadableRecord:
                    unreadable += 1
        return live, unreadable


def is_live(record: Record, now: int) -> bool:
    """Return whether a record is a session: no tombstone, not in transit, not expired."""
    return (
        record.version != TOMBSTONE_VERSION
        and not record.in_transit
        and expired(record, now) is None
    )


def _login_order(listed: Listed) -> tuple[int, bytes]:
    return listed.record.authenticated_at, listed.record.id


async def _read(store: SupportsListing, position: _Position, size: int) -> ListPage:
    """Return the store page of a position; if it was read before, with the same next cursor."""
    page = await store.list_page(position.cursor, size)
    if position.following is None or page.cursor == position.following:
        return page
    # The page ends earlier now; a longer one has every record of the first reading.
    page = await store.list_page(position.cursor, 2 * size)
    return page._replace(cursor=position.following)


def _make_cursor(position: _Position) -> str:
    """Return the cursor that ``_parse_cursor`` reads."""
    cursor, after, size, following = position
    if not after:
        return f".{cursor}"
    if following is None:
        return f"{after.hex()}-{size}.{cursor}"
    return f"{after.hex()}-{size}-{len(cursor)}.{cursor}{following}"


def _parse_cursor(cursor: str) -> _Position:
    """Return where a page begins.

    Raises:
        ValueError: the cursor is not one of ``Lister``.
    """
    if not cursor:
        return _Position("")
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise invalid_cursor(cursor)
    last, size, length, rest = match.groups()
    if last is None and rest:
        return _Position(rest)
    if last is None or not 1 <= int(size) <= MAX_LIMIT:
        raise invalid_cursor(cursor)
    if length is None:
        return _Position(rest, bytes.fromhex(last), int(size))
    if int(length) > len(rest):
        raise invalid_cursor(cursor)
    end = int(length)
    return _Position(rest[:end], bytes.fromhex(last), int(size), rest[end:])


def _parse_user_cursor(cursor: str) -> tuple[int, bytes] | None:
    """Return the order of the session after which a user's page begins; None for the first page.

    Raises:
        ValueError: the cursor is not that of a user's page.
    """
    if not cursor:
        return None
    match = _USER_CURSOR.fullmatch(cursor)
    if match is None:
        raise invalid_cursor(cursor)
    return int(match[1]), bytes.fromhex(match[2])
