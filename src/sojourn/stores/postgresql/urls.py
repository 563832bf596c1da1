"""Store URLs of PostgreSQL: ours are taken out of the query, the others are those of libpq."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from sojourn.errors import ConfigurationError
from sojourn.stores.postgresql.connection import Server
from sojourn.stores.postgresql.store import DEFAULT_PREPARE_THRESHOLD, Durability, PostgresStore
from sojourn.stores.urls import StoreURL

#: Options of the store; the other ones of a URL belong to libpq.
_OPTIONS: Final = ("schema", "durability", "listen_url", "prepare_threshold")

_EXAMPLE: Final = "'postgresql://user:password@host/database?durability=relaxed'"


def open_postgresql(url: StoreURL) -> PostgresStore:
    """Open ``postgresql://user:password@host:port/database`` or ``postgres://``."""
    pairs = parse_qsl(url.parts.query, keep_blank_values=True)
    options = {name: value for name, value in pairs if name in _OPTIONS}
    if url.parts.fragment:
        raise ConfigurationError(f"{url.text}: write '#' in a password as %23; elsewhere is no '#'")
    rest = [(name, value) for name, value in pairs if name not in _OPTIONS]
    return PostgresStore(
        pool=_parse_server(url.parts._replace(query=urlencode(rest)).geturl(), url.text),
        realm=url.realm,
        timeout=url.timeout,
        schema=options.get("schema"),
        durability=_parse_durability(options.get("durability", Durability.DURABLE), url.text),
        prepare_threshold=_parse_threshold(options.get("prepare_threshold"), url.text),
        listen_url=options.get("listen_url"),
    )


def _parse_server(url: str, text: str) -> Server:
    """Return the server of a URL of libpq.

    Args:
        url: with the password.
        text: without it, for messages.
    """
    try:
        parameters = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        # The error may quote the password.
        reason = "" if "@" in url or "password" in url else f" ({error})"
        raise ConfigurationError(
            f"{text}: expected a URL of libpq{reason}, such as {_EXAMPLE}; write '/', '@', ':' and "
            f"'?' in a password as %2F, %40, %3A and %3F. Options of sojourn: {', '.join(_OPTIONS)}"
        ) from None
    return Server({name: str(value) for name, value in parameters.items() if value is not None})


def _parse_durability(value: str, text: str) -> str:
    if value not in set(Durability):
        raise ConfigurationError(
            f"{text}: durability expects {' or '.join(map(repr, map(str, Durability)))}, found "
            f"{value!r}"
        )
    return value


def _parse_threshold(value: str | None, text: str) -> int | None:
    if value is None:
        return DEFAULT_PREPARE_THRESHOLD
    if value == "none":
        return None
    if not (value.isascii() and value.isdigit()):
        raise ConfigurationError(
            f"{text}: prepare_threshold expects a number, or 'none' for a pooler without prepared "
            f"statements, found {value!r}"
        )
    return int(value)
