"""UserDirectory: names of users for administrators, who do not know the identifiers in sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from sojourn.admin.awaitables import resolve

_NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})


class UserDirectory(Protocol):
    """Names users, as the application does. Methods may be coroutine functions under ASGI."""

    def find(self, text: str, /) -> str | Awaitable[str | None] | None:
        """Return the user, as given to ``session.login``, that a search text names; None for none.

        Args:
            text: as typed, such as a user name or a mail address.
        """
        ...

    def names(self, users: Sequence[str], /) -> Mapping[str, str] | Awaitable[Mapping[str, str]]:
        """Return the names of users, by user; those that are unknown are left out.

        Args:
            users: on one page, each once.
        """
        ...


async def find_user(directory: UserDirectory | None, text: str) -> str:
    """Return the user that a search text names; the text itself if the directory has none."""
    if directory is None or not text:
        return text
    return await resolve(directory.find(text), "users.find") or text


async def name_users(
    directory: UserDirectory | None, users: Iterable[str | None]
) -> Mapping[str, str]:
    """Return the names of the users in the directory, by user."""
    wanted = list(dict.fromkeys(user for user in users if user is not None))
    if directory is None or not wanted:
        return _NO_NAMES
    return await resolve(directory.names(wanted), "users.names")
