"""StarletteCookie: the signed cookie of Starlette's SessionMiddleware."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from typing import Any

from sojourn.legacy.decoding import decode_json
from sojourn.legacy.signatures import ItsDangerous, check_keys, decode_base64
from sojourn.web.legacy_reader import LegacyReader, LegacySession, seconds


class StarletteCookie(LegacyReader):
    """Reads the cookie of ``starlette.middleware.sessions.SessionMiddleware``.

    Args:
        secret_key: as given to the middleware; several if it was changed.
        cookie: its ``session_cookie``.
        max_age: its ``max_age``, in seconds; None if the cookie had none.
        options: ``path``, ``domain``, ``partitioned``, ``user`` and ``accept`` of ``LegacyReader``.
    """

    def __init__(
        self,
        secret_key: str | bytes | Sequence[str | bytes],
        *,
        cookie: str = "session",
        max_age: float | None = 14 * 24 * 60 * 60,
        **options: Any,
    ) -> None:
        super().__init__(cookie=cookie, **options)
        keys = check_keys(secret_key, option="secret_key")
        self._signature = ItsDangerous(keys, b"itsdangerous.Signer", "django-concat")
        self._max_age = None if max_age is None else seconds(max_age, option="max_age")

    def verify(self, value: str, now: int) -> LegacySession | None:
        """Return the session in the cookie; None if it is invalid or too old."""
        found = self._signature.unsign_timed(value)
        if found is None:
            return None
        payload, signed_at = found
        expires_at = 0 if self._max_age is None else signed_at + self._max_age
        if self._max_age is not None and now > expires_at:
            return None
        raw = decode_base64(payload, b64decode)
        data = None if raw is None else decode_json(raw, repr(self))
        if data is None:
            return None
        identity = self.identify(payload, str(signed_at).encode())
        return LegacySession(identity, "", data, signed_at, expires_at)
