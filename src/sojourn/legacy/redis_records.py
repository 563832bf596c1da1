"""RedisReader: the base of the readers of records in a Redis or Valkey server, and its client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.legacy.decoding import decode_json_or_msgpack
from sojourn.web.legacy_reader import LegacyReader, LegacySession, call

#: Seconds that a command may take, for a client made from a URL.
_TIMEOUT: Final = 2.0


class RedisRecords:
    """The old records, through redis-py.

    Args:
        server: a URL such as ``redis://host:6379/0``, or a redis-py client, sync or asyncio.

    Raises:
        ConfigurationError: it is neither, or redis-py is not installed.
    """

    def __init__(self, server: Any) -> None:
        if isinstance(server, str):
            try:
                from redis import Redis
            except ImportError as error:
                raise ConfigurationError(
                    "sessions in Redis are read through redis-py: pip install 'sojourn[redis]'"
                ) from error
            try:
                server = Redis.from_url(
                    server, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT
                )
            except ValueError as error:
                raise ConfigurationError(
                    "expected a URL such as 'redis://host:6379/0', or a client of redis-py"
                ) from error
        if not (hasattr(server, "get") and hasattr(server, "delete")):
            raise ConfigurationError(
                "expected a URL such as 'redis://host:6379/0', or a client of redis-py, found an "
                f"object of type {type(server).__qualname__}"
            )
        self._client = server

    async def get(self, key: str) -> bytes | None:
        """Return the value of a key; None if there is none.

        Raises:
            StoreUnavailable: the server failed.
        """
        value: bytes | None = await self._run(self._client.get, key)
        return value

    async def get_field(self, key: str, name: str) -> bytes | None:
        """Return a field of a hash; None if there is none.

        Raises:
            StoreUnavailable: the server failed.
        """
        value: bytes | None = await self._run(self._client.hget, key, name)
        return value

    async def delete(self, key: str) -> None:
        """Delete a key.

        Raises:
            StoreUnavailable: the server failed.
        """
        await self._run(self._client.delete, key)

    async def _run(self, command: Any, *arguments: str) -> Any:
        try:
            value = await call(command, *arguments)
        except Exception as error:  # of redis-py, whose classes are not imported for an own client
            raise StoreUnavailable(
                f"the Redis server with the old sessions failed: {type(error).__name__}"
            ) from error
        # A client with decode_responses=True has decoded JSON; msgpack would have failed.
        return value.encode() if isinstance(value, str) else value


class RedisReader(LegacyReader):
    """Reads records of JSON or msgpack, whose keys are a prefix and the ID in the cookie.

    Args:
        server: a URL such as ``redis://host:6379/0``, or a redis-py client, sync or asyncio.
        prefix: of the keys.
        cookie: the name of the cookie.
        options: of ``LegacyReader``.
    """

    def __init__(self, server: Any, *, prefix: str, cookie: str, **options: Any) -> None:
        super().__init__(cookie=cookie, **options)
        self.records: RedisRecords = RedisRecords(server)
        self.prefix: str = prefix

    def verify(self, value: str, now: int) -> LegacySession | None:  # noqa: ARG002 - no time in it
        """Return the session of the ID in the cookie."""
        return self.by_id(value, self.prefix)

    async def read(self, session: LegacySession) -> Mapping[str, Any] | None:
        """Return the data of the record; None if there is none."""
        record = await self.records.get(session.key)
        return None if not record else decode_json_or_msgpack(record, repr(self))

    async def remove(self, session: LegacySession) -> None:
        """Delete the record."""
        await self.records.delete(session.key)
