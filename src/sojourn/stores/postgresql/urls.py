"""Store URLs of PostgreSQL: the options of sojourn, and those of libpq, which are passed on."""

from __future__ import annotations

import difflib
from typing import Final
from urllib.parse import unquote

from psycopg import pq

from sojourn.errors import ConfigurationError
from sojourn.stores.postgresql.connection_sources import check_escaped, parse_server
from sojourn.stores.postgresql.store import DEFAULT_PREPARE_THRESHOLD, Durability, PostgresStore
from sojourn.stores.urls import StoreURL

#: Options of sojourn.
_OPTIONS: Final = ("schema", "durability", "listen_url", "prepare_threshold")


def open_postgresql(url: StoreURL) -> PostgresStore:
    """Open ``postgresql://user:password@host:port/database?schema=…`` or ``postgres://``."""
    parts = url.parts
    check_escaped(parts.geturl(), url.text)
    options: dict[str, str] = {}
    passed_on: list[str] = []
    for pair in filter(None, parts.query.split("&")):
        name, _, value = pair.partition("=")
        if name in _OPTIONS:
            options[name] = unquote(value)
        else:
            _check_name(unquote(name), value, url.text)
            passed_on.append(pair)
    query = f"?{'&'.join(passed_on)}" if passed_on else ""
    return PostgresStore(
        pool=parse_server(f"{parts.scheme}://{parts.netloc}{parts.path}{query}", url.text),
        realm=url.realm,
        timeout=url.timeout,
        schema=options.get("schema"),
        durability=_parse_durability(options.get("durability", Durability.DURABLE), url.text),
        prepare_threshold=_parse_threshold(options.get("prepare_threshold"), url.text),
        listen_url=options.get("listen_url"),
    )


def _check_name(name: str, value: str, text: str) -> None:
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    if name in known:
        return
    if "@" in name + value:  # maybe a part of a password, which the message must not show
        raise ConfigurationError(f"{text}: percent-encode the value of listen_url, such as '%26'")
    close = difflib.get_close_matches(name, [*_OPTIONS, *known], n=1)
    suggestion = f". Did you mean {close[0]!r}?" if close else ""
    raise ConfigurationError(
        f"{text}: unknown option {name!r}; expected {', '.join(_OPTIONS)} or an option of libpq"
        f"{suggestion}"
    )


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
