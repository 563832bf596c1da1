"""AiohttpEncryptedCookie and AiohttpRedis: sessions of aiohttp-session 2."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography.fernet import Fernet, InvalidToken

from sojourn.errors import ConfigurationError
from sojourn.legacy.decoding import decode_json
from sojourn.legacy.redis_records import RedisReader
from sojourn.legacy.signatures import decode_base64
from sojourn.web.legacy_reader import LegacyReader, LegacySession, seconds

_COOKIE: Final = "AIOHTTP_SESSION"


class AiohttpEncryptedCookie(LegacyReader):
    """Reads the cookie of ``EncryptedCookieStorage``.

    Args:
        secret_key: as given to the storage: 32 bytes, or the text of a Fernet key; several if it
            was changed.
        cookie: its ``cookie_name``.
        max_age: its ``max_age`` in seconds; None if the cookie had none.
        options: ``path``, ``domain``, ``partitioned``, ``user`` and ``accept`` of ``LegacyReader``.

    Raises:
        ConfigurationError: a key is not one of Fernet.
    """

    def __init__(
        self,
        secret_key: str | bytes | Sequence[str | bytes],
        *,
        cookie: str = _COOKIE,
        max_age: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(cookie=cookie, **options)
        given = [secret_key] if isinstance(secret_key, str | bytes) else list(secret_key)
        try:
            self._keys = [
                Fernet(urlsafe_b64encode(key) if isinstance(key, bytes) else key) for key in given
            ]
        except ValueError as error:
            raise ConfigurationError(
                "secret_key expects 32 bytes, or the text of a Fernet key, found another value; "
                "give the one that EncryptedCookieStorage has"
            ) from error
        self._max_age = None if max_age is None else seconds(max_age, option="max_age")

    def verify(self, value: str, now: int) -> LegacySession | None:
        """Return the session in the cookie; None if it is invalid or too old."""
        token = value.encode("latin-1")
        for key in self._keys:
            try:
                signed_at = key.extract_timestamp(token) * 1000
                plain = key.decrypt(token)
            except InvalidToken:
                continue
            expires_at = 0 if self._max_age is None else signed_at + self._max_age
            data = _content(plain, now, self._max_age, repr(self))
            if data is None or (self._max_age is not None and now > expires_at):
                return None
            # The token may be spelled in several ways; its bytes may not.
            identity = self.identify(decode_base64(token, urlsafe_b64decode) or b"")
            return LegacySession(identity, "", data, signed_at, expires_at)
        return None


class AiohttpRedis(RedisReader):
    """Reads the records of ``RedisStorage``, which the server removes when they are too old.

    Args:
        server: a URL or a redis-py client.
        cookie: its ``cookie_name``, which is also the prefix of its keys.
        options: ``path``, ``domain``, ``partitioned``, ``user`` and ``accept`` of ``LegacyReader``.
    """

    def __init__(self, server: Any, *, cookie: str = _COOKIE, **options: Any) -> None:
        super().__init__(server, prefix=f"{cookie}_", cookie=cookie, **options)

    async def read(self, session: LegacySession) -> Mapping[str, Any] | None:
        """Return the data of the record."""
        record = await self.records.get(session.key)
        return None if not record else _content(record, 0, None, repr(self))


def _content(plain: bytes, now: int, max_age: int | None, source: str) -> Mapping[str, Any] | None:
    """Return the data inside of the envelope; None if it is damaged or was created too long ago."""
    envelope = decode_json(plain, source)
    if envelope is None:
        return None
    data, created = envelope.get("session"), envelope.get("created")
    if not isinstance(data, dict) or not data:
        return None
    if max_age is not None and isinstance(created, int) and now > created * 1000 + max_age:
        return None
    return data
