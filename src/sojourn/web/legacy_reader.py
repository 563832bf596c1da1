"""LegacyReader, the base of readers, and LegacySession, the session that an old cookie names."""

from __future__ import annotations

import hashlib
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from sojourn._core.concurrency import offload
from sojourn.errors import ConfigurationError

#: From the data of a session to its user; None if none is logged in.
FindUser: TypeAlias = Callable[[Mapping[str, Any]], str | int | None]

#: Whether a session may be continued, by its data.
Accept: TypeAlias = Callable[[Mapping[str, Any]], bool | Awaitable[bool]]

#: Bytes of a cookie's value; browsers drop larger ones (RFC 6265bis 5.6).
MAX_COOKIE_BYTES: Final = 4096

#: The session IDs of every library that is read: token_hex, token_urlsafe, uuid4, letters, digits.
_SESSION_ID: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")


@dataclass(frozen=True, slots=True)
class LegacySession:
    """The session that a cookie of another library names; its signature was verified.

    Attributes:
        identity: 32 bytes, the same for every spelling of the cookie.
        key: of the record in the old store; empty for a cookie that holds the data itself.
        data: of a cookie that holds it; None for a record.
        issued_at: when the cookie was signed, milliseconds since 1970 UTC; 0 if unknown.
        expires_at: when the cookie becomes invalid, milliseconds since 1970 UTC; 0 if unknown.
    """

    identity: bytes = field(repr=False)
    key: str = field(default="", repr=False)
    data: Mapping[str, Any] | None = field(default=None, repr=False)
    issued_at: int = 0
    expires_at: int = 0


class LegacyReader(ABC):
    """Reads the sessions of another library.

    Args:
        cookie: the name of its cookie.
        path: of its cookie; must be the cookie's own, or browsers keep it.
        domain: of its cookie; None for none.
        partitioned: its cookie has the attribute Partitioned.
        user: the key of the user in the session, or a function of the session's data that returns
            the user, or None. The session is bound to that user, as by ``session.login``. None for
            sessions that are continued without a user.
        accept: a function of the data, also an async one, that returns False for a session that
            must not be continued, such as that of a blocked user. None to accept all.

    Raises:
        ConfigurationError: ``user`` is neither a text nor a function.
    """

    def __init__(
        self,
        *,
        cookie: str,
        path: str = "/",
        domain: str | None = None,
        partitioned: bool = False,
        user: str | FindUser | None = None,
        accept: Accept | None = None,
    ) -> None:
        if not (user is None or isinstance(user, str) or callable(user)):
            raise ConfigurationError(
                f"user= expects a key of the session or a function of its data, found {user!r}"
            )
        self.cookie: str = cookie
        self.path: str = path
        self.domain: str | None = domain
        self.partitioned: bool = partitioned
        self._user = user
        self._accept = accept

    def __repr__(self) -> str:
        """Show the cookie; no secret (law A18)."""
        return f"<{type(self).__name__} of cookie {self.cookie!r}>"

    @abstractmethod
    def verify(self, value: str, now: int) -> LegacySession | None:
        """Return the session that a cookie names; None if the cookie is invalid. No I/O.

        Args:
            value: of the cookie, without quotes.
            now: milliseconds since 1970 UTC.
        """

    async def read(self, session: LegacySession) -> Mapping[str, Any] | None:
        """Return the data of a session; None if the old store has none."""
        return session.data

    async def remove(self, session: LegacySession) -> None:  # noqa: ARG002 - for readers of records
        """Remove a session from the old store; a cookie that holds the data has none."""
        return

    def user(self, data: Mapping[str, Any]) -> str | int | None:
        """Return the user of a session; None if none is logged in."""
        found = self._user
        if found is None:
            return None
        user: Any = data.get(found) if isinstance(found, str) else found(data)
        return None if user is None or user == "" else user

    async def accepts(self, data: Mapping[str, Any]) -> bool:
        """Return whether a session may be continued."""
        return True if self._accept is None else bool(await call(self._accept, data))

    def identify(self, *parts: bytes) -> bytes:
        """Return the identity of a session of this library from what distinguishes it."""
        digest = hashlib.sha256(type(self).__name__.encode())
        for part in parts:
            digest.update(len(part).to_bytes(4, "big") + part)
        return digest.digest()

    def by_id(self, session_id: str, prefix: str) -> LegacySession | None:
        """Return the session of an ID in a cookie; None if it cannot be an ID."""
        if _SESSION_ID.fullmatch(session_id) is None:
            return None
        key = prefix + session_id
        return LegacySession(self.identify(key.encode()), key)


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the application: an async one is awaited, another may block.

    Under an event loop it runs in a worker thread then.
    """
    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    result = await offload(function, *arguments)
    return await result if inspect.isawaitable(result) else result


def seconds(value: float, *, option: str) -> int:
    """Return a number of seconds as milliseconds.

    Raises:
        ConfigurationError: it is not a number above zero.
    """
    given: object = value  # callers without a type checker may pass anything
    if isinstance(given, bool) or not isinstance(given, int | float) or given <= 0:
        raise ConfigurationError(f"{option} expects seconds above zero, found {value!r}")
    return int(given * 1000)
