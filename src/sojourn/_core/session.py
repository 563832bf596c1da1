"""Session: the mapping that a handler reads and writes.

What lives here: the public face of one session during one request, socket or stream. What must
not: I/O (``engine.py`` does it), the session's private side (``visit.py``), decoding and change
detection (``view.py``), cookies and headers (``web/``).

Every way of looking at a session is noted, because an answer that depends on it must not be cached
for somebody else (law A13, security.md B-2). Nothing here shows a ticket or a verifier (A18).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic

from sojourn._core.changes import ChangeTracker
from sojourn._core.concurrency import run
from sojourn._core.identity import Identity
from sojourn._core.lease import SessionLease
from sojourn._core.login import Login
from sojourn._core.operations import ABSENT
from sojourn._core.policy import Duration
from sojourn._core.working_copy import RESERVED

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    S = TypeVar("S", default=Any)
else:
    from typing import TypeVar

    S = TypeVar("S")

_FLASHES: Final = RESERVED + "flash"

#: The last millisecond that a ``datetime`` can name, in the year 9999; what ends later never does.
_LAST: Final = 253_402_300_799_999


class Session(Identity, MutableMapping[str, Any], Generic[S]):
    """What a visitor does, kept on the server. Get one from the framework, not by calling this.

    A session without a record (``session.new``) costs nothing until it is written to.
    """

    __slots__ = ()

    # The mapping

    def __getitem__(self, key: str) -> Any:
        """Return the value of a key; changes inside it are noticed.

        Raises:
            KeyError: there is no such key.
        """
        self._looked = True  # and not `_look()`, as every request comes this way
        value = (self._view or self._open()).get(key)
        if value is ABSENT:
            raise KeyError(key)
        return value

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return the value of a key, ``default`` if there is none.

        A mutable default is not part of the session: assign it, or use ``setdefault``.
        """
        value = self._look().get(key)
        return default if value is ABSENT else value

    def __setitem__(self, key: str, value: Any) -> None:
        """Assign a key.

        Raises:
            NotSerializable: a session cannot keep this value (also a ``TypeError``).
            ResponseStarted: this would begin a new session after the first byte.
        """
        self._write(key).set(key, value)

    def __delitem__(self, key: str) -> None:
        """Remove a key.

        Raises:
            KeyError: there is no such key.
        """
        if key not in self._look():
            raise KeyError(key)
        self._write(key).delete(key)

    def __contains__(self, key: object) -> bool:
        """Tell whether a key is there."""
        return key in self._look()

    def __iter__(self) -> Iterator[str]:
        """Yield the keys, oldest first."""
        return (key for key in list(self._look()) if not key.startswith(RESERVED))

    def __len__(self) -> int:
        """Return the number of keys."""
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        """Show the ID and the number of keys; values may be personal and stay out of logs."""
        return f"<Session {self.id} with {len(self)} keys{', new' if self.new else ''}>"

    def __eq__(self, other: object) -> bool:
        """A session equals only itself."""
        return self is other

    def __hash__(self) -> int:
        """A session is itself, whatever it holds."""
        return object.__hash__(self)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, which becomes ``default`` if there is none.

        Two parallel requests that both find the key absent share the first one's value.
        """
        return self._write(key).set_default(key, default)

    def clear(self) -> None:
        """Remove every key, also those that parallel requests add until this is committed."""
        self._change().clear()

    # Explicit operations

    def increment(self, key: str, amount: float = 1) -> Any:
        """Add to a number; parallel increments all count.

        Returns:
            The new value as this request sees it.

        Raises:
            TypeError: the key holds something that is no number.
        """
        return self._write(key).increment(key, amount)

    def append(self, key: str, *items: Any) -> None:
        """Put items at the end of a list; parallel appends all survive."""
        self._write(key).append(key, list(items))

    def add(self, key: str, *members: Any) -> None:
        """Put members into a set; parallel adds all survive."""
        self._write(key).add(key, set(members))

    def discard(self, key: str, *members: Any) -> None:
        """Remove members from a set, also if they are not in it."""
        self._write(key).discard(key, set(members))

    def flash(self, message: str, category: str = "message") -> None:
        """Leave a message for the next page that asks for ``flashes()``."""
        messages = self._change().set_default(_FLASHES, {})
        messages[secrets.token_hex(4)] = [message, category]

    def flashes(self) -> list[tuple[str, str]]:
        """Return the messages left so far as (message, category), oldest first, and forget them.

        A message that a parallel request leaves meanwhile is kept for the next call.
        """
        messages = self._look().get(_FLASHES)
        if messages is ABSENT or not messages:
            return []
        found = [(message, category) for message, category in messages.values()]
        messages.clear()
        return found

    @property
    def state(self) -> S:
        """The session as attributes, typed and checked when ``state=`` was given at install.

        Raises:
            InvalidState: a field was assigned, or holds, something of another type.
        """
        self._look()
        if self._state is None:
            self._state = self._engine.state.bind(self)
        state: S = self._state
        return state

    # What it is

    @property
    def id(self) -> str:
        """The public ID, 32 hex digits: safe to log and to show; it opens nothing."""
        self._looked = True
        return self._raw_id().hex()

    @property
    def new(self) -> bool:
        """Whether nothing is stored yet."""
        self._looked = True
        return self._record is None

    @property
    def created_at(self) -> datetime | None:
        """When the session began, None while it is new."""
        self._looked = True
        return None if self._record is None else _instant(self._record.created_at)

    @property
    def seen_at(self) -> datetime | None:
        """The last noted activity (see ``touch_interval``), None while the session is new."""
        self._looked = True
        return None if self._record is None else _instant(self._record.seen_at)

    @property
    def expires_at(self) -> datetime | None:
        """When the session ends if nobody comes back; None while new, or if it never ends."""
        self._looked = True
        record = self._record
        return None if record is None or record.expires_at > _LAST else _instant(record.expires_at)

    @property
    def labels(self) -> MappingProxyType[str, str]:
        """Short texts noted when the session began or at the login: ``browser``, ``address``."""
        self._look()
        noted = self._renewal if isinstance(self._renewal, Login) else self._contents
        return MappingProxyType({} if noted is None else dict(noted.labels))

    # Its life

    def destroy(self) -> None:
        """End the session: record gone, cookie cleared, everything it has open closed.

        Carried out at the next commit, also when the request fails (law A10). What is written
        afterwards begins a new session with a new ID.
        """
        self._look()
        if self._record is not None:
            self._destroyed = self._record
        self._forget()

    def logout(self) -> None:
        """End the session: another name for ``destroy``."""
        self.destroy()

    def commit(self) -> None:
        """Write what has changed now; later changes are committed as usual.

        Raises:
            SessionGone: the session has ended meanwhile; nothing was written.
            SessionConflict: others kept changing it; nothing was written.
            SessionTooLarge: it exceeds ``max_bytes``; nothing was written.
            StoreUnavailable: the store cannot be reached; nothing was written.
        """
        run(self.acommit(), instead="session.acommit()")

    async def acommit(self) -> None:
        """Write what has changed now; see ``commit``."""
        self._look()
        await self._engine.commit(self, explicit=True)

    def refresh(self) -> None:
        """Take in what others wrote, keeping what is not committed here.

        Raises:
            SessionGone: the session has ended.
            StoreUnavailable: the store cannot be reached.
        """
        run(self.arefresh(), instead="session.arefresh()")

    async def arefresh(self) -> None:
        """Take in what others wrote; see ``refresh``."""
        self._look()
        await self._engine.refresh(self, explicit=True)

    def claim(self, key: str, default: Any = None) -> Any:
        """Remove a key and return its value to exactly one of all who claim it.

        The others get ``default``. For one-time values: OAuth states, nonces, vouchers.

        Raises:
            SessionGone: the session has ended.
        """
        return run(self.aclaim(key, default), instead="session.aclaim()")

    async def aclaim(self, key: str, default: Any = None) -> Any:
        """Remove a key and return its value to exactly one claimer; see ``claim``."""
        self._write(key)
        return await self._engine.claim(self, key, default)

    def exclusive(
        self, *, wait: Duration = "10 seconds", lease: Duration = "30 seconds"
    ) -> SessionLease:
        """Be the only one in this session for a ``with`` or ``async with`` block.

        Rarely needed, because parallel changes are merged. What others wrote before is taken in at
        the start, what was done inside is committed at the end.

        Args:
            wait: how long to wait for the turn.
            lease: how long to hold it at most; a holder that dies is waited for no longer.

        Raises:
            ExclusiveTimeout: somebody else held it all the time.
            SessionConflict: the block outlasted its lease (raised at its end).
        """
        self._look()
        return SessionLease(self, self._engine, wait=wait, lease=lease)

    def _write(self, key: str) -> ChangeTracker:
        """Return the view for a change of a handler's ``key``."""
        if type(key) is not str:
            raise TypeError(f"session keys are strings, found {key!r}")
        if RESERVED in key and key.startswith(RESERVED):
            raise ValueError(f"session keys that begin with NUL are reserved, found {key!r}")
        if not key.isascii() and any("\ud800" <= letter <= "\udfff" for letter in key):
            raise ValueError(f"session keys cannot hold a lone surrogate, found {key!r}")
        return self._change()


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
