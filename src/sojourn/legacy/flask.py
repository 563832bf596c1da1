"""FlaskCookie and FlaskSessionRedis: Flask's signed cookie, and the records of Flask-Session."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final
from uuid import UUID

from sojourn.legacy.redis_records import RedisReader
from sojourn.legacy.signatures import ItsDangerous, check_keys, read_signed
from sojourn.web.legacy_reader import FindUser, LegacyReader, LegacySession, seconds

#: The key in which Flask-Login stores the user.
_USER: Final = "_user_id"


class FlaskCookie(LegacyReader):
    """Reads the signed cookie of Flask's own sessions, and of Quart's.

    Args:
        secret_key: ``SECRET_KEY``, with ``SECRET_KEY_FALLBACKS`` if there are any.
        cookie: ``SESSION_COOKIE_NAME``.
        max_age: ``PERMANENT_SESSION_LIFETIME`` in seconds, which Flask checks for each cookie.
        user: see ``LegacyReader``; the default is the key of Flask-Login.
        options: ``path``, ``domain``, ``partitioned`` and ``accept`` of ``LegacyReader``.
    """

    def __init__(
        self,
        secret_key: str | bytes | Sequence[str | bytes],
        *,
        cookie: str = "session",
        max_age: float = 31 * 24 * 60 * 60,
        user: str | FindUser | None = _USER,
        **options: Any,
    ) -> None:
        super().__init__(cookie=cookie, user=user, **options)
        keys = check_keys(secret_key, option="secret_key")
        self._signature = ItsDangerous(keys, b"cookie-session", "hmac")
        self._max_age = seconds(max_age, option="max_age")

    def verify(self, value: str, now: int) -> LegacySession | None:
        """Return the session in the cookie; None if it is invalid or too old."""
        found = read_signed(
            self._signature, value, now=now, max_age=self._max_age, source=repr(self)
        )
        if found is None:
            return None
        payload, signed_at, data = found
        identity = self.identify(payload, str(signed_at).encode())
        untagged = {key: untag(item) for key, item in data.items()}
        return LegacySession(identity, "", untagged, signed_at, signed_at + self._max_age)


class FlaskSessionRedis(RedisReader):
    """Reads the records of Flask-Session in Redis: msgpack (since 0.7) or JSON.

    Args:
        server: a URL or a redis-py client.
        prefix: ``SESSION_KEY_PREFIX``.
        cookie: ``SESSION_COOKIE_NAME``.
        secret_key: ``SECRET_KEY``, with ``SESSION_USE_SIGNER``; None without.
        user: see ``LegacyReader``; the default is the key of Flask-Login.
        options: ``path``, ``domain``, ``partitioned`` and ``accept`` of ``LegacyReader``.
    """

    def __init__(
        self,
        server: Any,
        *,
        prefix: str = "session:",
        cookie: str = "session",
        secret_key: str | bytes | Sequence[str | bytes] | None = None,
        user: str | FindUser | None = _USER,
        **options: Any,
    ) -> None:
        super().__init__(server, prefix=prefix, cookie=cookie, user=user, **options)
        self._signature: ItsDangerous | None = None
        if secret_key is not None:
            keys = check_keys(secret_key, option="secret_key")
            self._signature = ItsDangerous(keys, b"flask-session", "hmac")

    def verify(self, value: str, now: int) -> LegacySession | None:
        """Return the session of the ID in the cookie; None if its signature is invalid."""
        if self._signature is None:
            return super().verify(value, now)
        session_id = self._signature.unsign(value)
        return None if session_id is None else super().verify(session_id.decode("latin-1"), now)


def untag(value: Any) -> Any:
    """Return a value of Flask's ``TaggedJSONSerializer`` as a session stores it.

    A damaged value stays as it is.
    """
    if isinstance(value, list):
        return [untag(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {key: untag(item) for key, item in value.items()}
    tag, item = next(iter(plain.items()), ("", None))
    convert = _TAGS.get(tag)
    if len(plain) != 1 or convert is None:
        return plain
    try:
        return convert(item)
    except (TypeError, ValueError, AttributeError):
        return plain


def _parse_date(text: str) -> Any:
    date = parsedate_to_datetime(text)
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


#: From the tags of Flask's JSON to the function that restores the value.
_TAGS: Final[Mapping[str, Callable[[Any], Any]]] = {
    " t": tuple,
    " b": b64decode,
    " m": str,
    " u": UUID,
    " d": _parse_date,
    " od": dict,  # an OrderedDict, as the documentation of Flask adds it
    # A dict with one key that looks like a tag.
    " di": lambda item: {key.removesuffix("__"): inner for key, inner in item.items()},
}
