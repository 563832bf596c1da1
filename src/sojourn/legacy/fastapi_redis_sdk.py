"""FastAPIRedisSDK: the records of fastapi-redis-sdk 0.9."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sojourn.legacy.decoding import decode_json
from sojourn.legacy.redis_records import RedisReader
from sojourn.web.legacy_reader import LegacySession

#: The field of the hash that holds the session, and the key of the data inside of it.
_FIELD: Final = "d"
_DATA: Final = "d"


class FastAPIRedisSDK(RedisReader):
    """Reads the sessions of fastapi-redis-sdk, as its JSON coder writes them.

    Args:
        server: a URL or a redis-py client.
        prefix: its setting ``prefix``.
        cookie: its setting ``session_cookie_name``.
        options: ``path``, ``domain``, ``partitioned``, ``user`` and ``accept`` of ``LegacyReader``.
    """

    def __init__(
        self,
        server: Any,
        *,
        prefix: str = "redis:fastapi",
        cookie: str = "session",
        **options: Any,
    ) -> None:
        super().__init__(server, prefix=f"{prefix}:session:", cookie=cookie, **options)

    async def read(self, session: LegacySession) -> Mapping[str, Any] | None:
        """Return the data of the record."""
        record = await self.records.get_field(session.key, _FIELD)
        envelope = None if not record else decode_json(record, repr(self))
        data = None if envelope is None else envelope.get(_DATA)
        return data if isinstance(data, dict) else None
