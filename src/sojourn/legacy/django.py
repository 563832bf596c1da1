"""DjangoCookie, DjangoDatabase and DjangoCache: sessions of Django's engines, with its checks."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from sojourn._core.concurrency import running_loop
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.legacy.decoding import decode_json, decode_json_or_msgpack
from sojourn.legacy.redis_records import RedisRecords
from sojourn.legacy.signatures import DjangoSignature, check_keys, decode_compressed, read_signed
from sojourn.web.legacy_reader import FindUser, LegacyReader, LegacySession, call, seconds

#: From the ID of a user to the ``password`` column; None if there is no such user.
FindPassword: TypeAlias = Callable[[str], str | Awaitable[str | None] | None]

_USER: Final = "_auth_user_id"
_BACKEND: Final = "_auth_user_backend"
_HASH: Final = "_auth_user_hash"
_AUTH_SALT: Final = "django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash"

#: Salts and keys of Django's engines.
_COOKIE_SALT: Final = "django.contrib.sessions.backends.signed_cookies"
_STORE_SALT: Final = "django.contrib.sessions.SessionStore"
_CACHE_PREFIX: Final = "django.contrib.sessions.cache"

_TWO_WEEKS: Final = 14 * 24 * 60 * 60


class DjangoReader(LegacyReader):
    """The base of the readers of Django's sessions.

    A session with a user is continued only if its ``_auth_user_hash`` fits the user's present
    password, so that a change of the password ends old sessions.

    Args:
        secret_key: ``SECRET_KEY``, with ``SECRET_KEY_FALLBACKS`` if there are any; None to take
            those of the Django project that runs.
        password: a function, also an async one, from a user's ID to the user's ``password`` column,
            None for a user that does not exist or is not active. None to call the authentication
            backend of the Django project that runs. False for no check.
        cookie: ``SESSION_COOKIE_NAME``.
        user: see ``LegacyReader``; the default is the key of Django.
        options: ``path``, ``domain``, ``partitioned`` and ``accept`` of ``LegacyReader``.

    Raises:
        ConfigurationError: ``password`` or ``secret_key`` is missing and Django does not run.
    """

    def __init__(
        self,
        secret_key: str | bytes | Sequence[str | bytes] | None = None,
        *,
        password: FindPassword | Literal[False] | None = None,
        cookie: str = "sessionid",
        user: str | FindUser | None = _USER,
        **options: Any,
    ) -> None:
        super().__init__(cookie=cookie, user=user, **options)
        if secret_key is not None:
            self._keys = check_keys(secret_key, option="secret_key")  # instead of the property
        missing = password is None and "django.conf" not in sys.modules
        if missing or not (password is None or password is False or callable(password)):
            raise ConfigurationError(
                "password= expects a function from the ID of a user to the password column, which "
                "shows whether the password was changed since the session began; or False for no "
                "check"
            )
        if secret_key is None and "django.conf" not in sys.modules:
            raise ConfigurationError("secret_key= expects the SECRET_KEY of the Django project")
        self._password = password

    @cached_property
    def _keys(self) -> list[bytes]:
        """The keys of the Django project that runs."""
        settings = import_module("django.conf").settings
        return check_keys(
            [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS], option="SECRET_KEY"
        )

    async def accepts(self, data: Mapping[str, Any]) -> bool:
        """Return whether a session may be continued, by the password of its user, too."""
        if _USER in data:
            if self._password is None:
                known = await call_django(_is_known_to_django, data)
            elif callable(self._password):
                known = self._hash_fits(data, await call(self._password, str(data[_USER])))
            else:
                known = True
            if not known:
                return False
        return await super().accepts(data)

    def _hash_fits(self, data: Mapping[str, Any], password: str | None) -> bool:
        """Return whether ``_auth_user_hash`` was made of a password column."""
        found = data.get(_HASH)
        if password is None or not isinstance(found, str) or not found.isascii():
            return False
        fits = False
        for secret in self._keys:
            key = hashlib.sha256(_AUTH_SALT.encode() + secret).digest()
            expected = hmac.digest(key, password.encode(), "sha256").hex()
            fits |= hmac.compare_digest(expected, found)
        return fits


class DjangoCookie(DjangoReader):
    """Reads the cookie of ``django.contrib.sessions.backends.signed_cookies``.

    Args:
        secret_key: see ``DjangoReader``.
        max_age: ``SESSION_COOKIE_AGE`` in seconds.
        options: of ``DjangoReader``.
    """

    def __init__(
        self,
        secret_key: str | bytes | Sequence[str | bytes] | None = None,
        *,
        max_age: float = _TWO_WEEKS,
        **options: Any,
    ) -> None:
        super().__init__(secret_key, **options)
        self._max_age = seconds(max_age, option="max_age")

    @cached_property
    def _signature(self) -> DjangoSignature:
        return DjangoSignature(self._keys, _COOKIE_SALT)

    def verify(self, value: str, now: int) -> LegacySession | None:
        """Return the session in the cookie; None if it is invalid or too old."""
        found = read_signed(
            self._signature, value, now=now, max_age=self._max_age, source=repr(self)
        )
        if found is None:
            return None
        payload, signed_at, data = found
        identity = self.identify(payload, str(signed_at).encode())
        return LegacySession(identity, "", data, signed_at, signed_at + self._max_age)


class DjangoDatabase(DjangoReader):
    """Reads the table of ``django.contrib.sessions.backends.db`` and ``cached_db``.

    Args:
        source: the path of an SQLite file, or a function that opens a DB-API connection, which is
            closed after each use; None for the database of the Django project that runs.
        secret_key: see ``DjangoReader``.
        table: the name of the table.
        placeholder: of parameters in SQL, for a function: ``%s`` or ``?``.
        timezone: of ``expire_date`` in the database: UTC unless ``USE_TZ`` is False.
        options: of ``DjangoReader``.
    """

    def __init__(
        self,
        source: str | Path | Callable[[], Any] | None = None,
        secret_key: str | bytes | Sequence[str | bytes] | None = None,
        *,
        table: str = "django_session",
        placeholder: Literal["%s", "?"] = "%s",
        timezone: tzinfo = UTC,
        **options: Any,
    ) -> None:
        super().__init__(secret_key, **options)
        if not table.replace("_", "").replace(".", "").isalnum():
            raise ConfigurationError(f"table= expects the name of a table, found {table!r}")
        self._timezone = timezone
        self._connect: Callable[[], Any] | None = None
        if isinstance(source, str | Path):
            path, placeholder = Path(source), "?"
            self._connect = lambda: sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)
        elif source is not None:
            self._connect = source
        elif "django.conf" not in sys.modules:
            raise ConfigurationError(
                "source= expects the path of an SQLite file, or a function that opens a DB-API "
                "connection, found None; it may be left out in a Django project only"
            )
        where = f"FROM {table} WHERE session_key = {placeholder}"
        self._select = f"SELECT session_data, expire_date {where}"
        self._delete = f"DELETE {where}"

    @cached_property
    def _signature(self) -> DjangoSignature:
        return DjangoSignature(self._keys, _STORE_SALT)

    def verify(self, value: str, now: int) -> LegacySession | None:  # noqa: ARG002 - no time in it
        """Return the session of the key in the cookie."""
        return self.by_id(value, "")

    async def read(self, session: LegacySession) -> Mapping[str, Any] | None:
        """Return the data of the row; None if it has expired or its signature is invalid."""
        row = await self._run(self._select_row, session.key)
        if row is None or self._expired(row[1]):
            return None
        found = self._signature.unsign_timed(row[0])
        raw = None if found is None else decode_compressed(found[0])
        return None if raw is None else decode_json(raw, repr(self))

    async def remove(self, session: LegacySession) -> None:
        """Delete the row."""
        await self._run(self._delete_row, session.key)

    async def _run(self, function: Callable[[str], Any], key: str) -> Any:
        try:
            if self._connect is None:
                return await call_django(function, key)
            return await call(function, key)
        except Exception as error:  # of any DB-API module
            raise StoreUnavailable(
                f"the database with the old sessions failed: {type(error).__name__}"
            ) from error

    def _select_row(self, key: str) -> tuple[str, Any] | None:
        if self._connect is None:
            rows = _session_model().objects.filter(session_key=key)
            found: tuple[str, Any] | None = rows.values_list("session_data", "expire_date").first()
            return found
        with closing(self._connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(self._select, (key,))
            row: tuple[str, Any] | None = cursor.fetchone()
            return row

    def _delete_row(self, key: str) -> None:
        if self._connect is None:
            _session_model().objects.filter(session_key=key).delete()
            return
        with closing(self._connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(self._delete, (key,))
            connection.commit()

    def _expired(self, expire_date: Any) -> bool:
        at = datetime.fromisoformat(expire_date) if isinstance(expire_date, str) else expire_date
        at = at if at.tzinfo is not None else at.replace(tzinfo=self._timezone)
        return bool(at <= datetime.now(UTC))


class DjangoCache(DjangoReader):
    """Reads the cache of ``django.contrib.sessions.backends.cache``.

    Django's own ``RedisCache`` writes pickles, which are refused: without ``server`` the cache of
    the Django project that runs is used, which decodes its values itself. With ``server`` it is
    django-redis with its JSON or msgpack serializer.

    Args:
        server: a URL or a redis-py client; None for the cache of the Django project that runs.
        secret_key: see ``DjangoReader``.
        key_prefix: ``KEY_PREFIX`` of the cache.
        version: ``VERSION`` of the cache.
        alias: ``SESSION_CACHE_ALIAS``, without ``server``.
        options: of ``DjangoReader``.
    """

    def __init__(
        self,
        server: Any = None,
        secret_key: str | bytes | Sequence[str | bytes] | None = None,
        *,
        key_prefix: str = "",
        version: int = 1,
        alias: str = "default",
        **options: Any,
    ) -> None:
        super().__init__(secret_key, **options)
        self._records: RedisRecords | None = None
        self._prefix = _CACHE_PREFIX
        if server is not None:
            self._records = RedisRecords(server)
            self._prefix = f"{key_prefix}:{version}:{_CACHE_PREFIX}"
        elif "django.conf" not in sys.modules:
            raise ConfigurationError(
                "server= expects a URL such as 'redis://host:6379/0', or a client of redis-py, "
                "found None; it may be left out in a Django project only"
            )
        self._alias = alias

    def verify(self, value: str, now: int) -> LegacySession | None:  # noqa: ARG002 - no time in it
        """Return the session of the key in the cookie."""
        return self.by_id(value, self._prefix)

    async def read(self, session: LegacySession) -> Mapping[str, Any] | None:
        """Return the data of the record."""
        if self._records is None:
            found = await self._call_cache("get", session.key)
            return found if isinstance(found, dict) and found else None
        record = await self._records.get(session.key)
        return None if not record else decode_json_or_msgpack(record, repr(self))

    async def remove(self, session: LegacySession) -> None:
        """Delete the record."""
        if self._records is None:
            await self._call_cache("delete", session.key)
        else:
            await self._records.delete(session.key)

    async def _call_cache(self, verb: str, key: str) -> Any:
        caches = import_module("django.core.cache").caches
        try:
            return await call_django(lambda: getattr(caches[self._alias], verb)(key))
        except Exception as error:  # of any cache backend
            raise StoreUnavailable(
                f"the cache with the old sessions failed: {type(error).__name__}"
            ) from error


def _session_model() -> Any:
    return import_module("django.contrib.sessions.models").Session


async def call_django(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a blocking function of Django: under an event loop in the thread of its connections."""
    if running_loop() is None:
        return function(*arguments)
    from asgiref.sync import sync_to_async

    return await sync_to_async(function)(*arguments)


def _is_known_to_django(data: Mapping[str, Any]) -> bool:
    """Return whether the Django project that runs would accept a session, as ``get_user`` does."""
    settings = import_module("django.conf").settings
    auth = import_module("django.contrib.auth")
    path, found = data.get(_BACKEND), data.get(_HASH)
    if path not in settings.AUTHENTICATION_BACKENDS or not isinstance(found, str):
        return False
    try:
        key = auth.get_user_model()._meta.pk.to_python(data[_USER])
    except Exception:  # noqa: BLE001 - a ValidationError for what is no key
        return False
    user: Any = auth.load_backend(path).get_user(key)
    if user is None:
        return False
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    return any(hmac.compare_digest(found.encode(), each.encode()) for each in hashes)
