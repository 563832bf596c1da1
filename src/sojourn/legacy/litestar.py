"""LitestarRedis: the records of Litestar's server-side sessions in its RedisStore."""

from __future__ import annotations

from typing import Any

from sojourn.legacy.redis_records import RedisReader


class LitestarRedis(RedisReader):
    """Reads the sessions of ``ServerSideSessionConfig`` with Litestar's ``RedisStore``.

    Args:
        server: a URL or a redis-py client.
        namespace: of the store; its own default is ``LITESTAR``.
        cookie: the ``key`` of the configuration.
        options: ``path``, ``domain``, ``partitioned``, ``user`` and ``accept`` of ``LegacyReader``.
    """

    def __init__(
        self,
        server: Any,
        *,
        namespace: str = "LITESTAR",
        cookie: str = "session",
        **options: Any,
    ) -> None:
        prefix = f"{namespace}:" if namespace else ""
        super().__init__(server, prefix=prefix, cookie=cookie, **options)
