"""StarsessionsCookie and StarsessionsRedis: sessions of starsessions 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sojourn.legacy.redis_records import RedisReader
from sojourn.legacy.starlette import StarletteCookie
from sojourn.web.legacy_reader import LegacySession

#: The key in which starsessions stores its own times.
_METADATA: Final = "__metadata__"

#: What CookieStore accepts at most for cookies without an age, in seconds.
_UNLIMITED: Final = 360 * 24 * 60 * 60


class StarsessionsCookie(StarletteCookie):
    """Reads the cookie of starsessions' ``CookieStore``, which has the format of Starlette's.

    Args:
        secret_key: as given to ``CookieStore``.
        cookie: the ``cookie_name`` of the middleware.
        lifetime: of the middleware, in seconds; 0 for cookies that end with the browser session.
        options: ``path``, ``domain``, ``partitioned``, ``user`` and ``accept`` of ``LegacyReader``.
    """

    def __init__(
        self,
        secret_key: str | bytes | Sequence[str | bytes],
        *,
        cookie: str = "session",
        lifetime: float = 0,
        **options: Any,
    ) -> None:
        super().__init__(secret_key, cookie=cookie, max_age=lifetime or _UNLIMITED, **options)

    async def read(self, session: LegacySession) -> Mapping[str, Any] | None:
        """Return the data without the times of starsessions."""
        return _without_metadata(session.data)


class StarsessionsRedis(RedisReader):
    """Reads the records of starsessions' ``RedisStore`` with its JSON serializer, or msgpack.

    Args:
        server: a URL or a redis-py client.
        prefix: of the store.
        cookie: the ``cookie_name`` of the middleware.
        options: ``path``, ``domain``, ``partitioned``, ``user`` and ``accept`` of ``LegacyReader``.
    """

    def __init__(
        self, server: Any, *, prefix: str = "starsessions.", cookie: str = "session", **options: Any
    ) -> None:
        super().__init__(server, prefix=prefix, cookie=cookie, **options)

    async def read(self, session: LegacySession) -> Mapping[str, Any] | None:
        """Return the data without the times of starsessions."""
        return _without_metadata(await super().read(session))


def _without_metadata(data: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if not data:
        return None
    return {key: value for key, value in data.items() if key != _METADATA}
