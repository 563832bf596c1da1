"""Openers: from a URL to a store.

What lives here: the options that a URL may carry, and which ways a scheme stands for. What must
not: the ways themselves (``ways.py``).
"""

from __future__ import annotations

from typing import Final

from sojourn.errors import ConfigurationError
from sojourn.stores.redis.address import DEFAULT_PORT, Address, number, parse
from sojourn.stores.redis.store import RedisStore
from sojourn.stores.redis.ways import Ways, to_address, to_cluster, to_sentinels
from sojourn.stores.urls import StoreURL

_EXAMPLE: Final = {
    "sentinel": "'redis+sentinel://host1:26379,host2:26379/service/0'",
    "cluster": "'redis+cluster://host1:6379,host2:6379'",
}

_SENTINEL_PORT: Final = 26_379
_LAST_PORT: Final = 65_535


def open_redis(url: StoreURL) -> RedisStore:
    """Open ``redis://``, ``valkey://``, ``rediss://`` or ``unix://``."""
    _check_escaped(url)
    options = url.options(prefix=str, db=int, ca=str)
    database = options.get("db")
    address = parse(
        url.parts,
        url.text,
        database=None if database is None else number(str(database), url.text),
        ca=_text(options, "ca"),
    )
    return _open(url, to_address(address), options)


def open_sentinel(url: StoreURL) -> RedisStore:
    """Open ``redis+sentinel://[user:password@]host:port,host:port/service[/database]``."""
    _check_escaped(url)
    options = url.options(prefix=str, sentinel_password=str, ca=str)
    service, _, database = url.parts.path.strip("/").partition("/")
    if not service:
        raise ConfigurationError(
            f"{url.text}: expected the name of the watched service after the hosts, such as "
            f"{_EXAMPLE['sentinel']}"
        )
    ways = to_sentinels(
        _hosts(url, _SENTINEL_PORT, "sentinel"),
        service,
        _ourselves(url, number(database, url.text), _text(options, "ca")),
        sentinel_password=_text(options, "sentinel_password"),
    )
    return _open(url, ways, options)


def open_cluster(url: StoreURL) -> RedisStore:
    """Open ``redis+cluster://[user:password@]host:port,host:port``."""
    _check_escaped(url)
    options = url.options(prefix=str, ca=str)
    if url.parts.path.strip("/"):
        raise ConfigurationError(
            f"{url.text}: a cluster has one database and no path; write {_EXAMPLE['cluster']}"
        )
    ways = to_cluster(
        _hosts(url, DEFAULT_PORT, "cluster"), _ourselves(url, 0, _text(options, "ca"))
    )
    return _open(url, ways, options)


def _open(url: StoreURL, ways: Ways, options: dict[str, int | float | str]) -> RedisStore:
    prefix = str(options.get("prefix", "sojourn"))
    return RedisStore(client=ways, prefix=prefix, realm=url.realm, timeout=url.timeout)


def _check_escaped(url: StoreURL) -> None:
    """Refuse a URL that ends its host where a password was meant to go on."""
    path, query, fragment = url.parts[2:]
    late = query.partition("=")[0] if url.parts.scheme == "unix" else path + query.partition("=")[0]
    if fragment or "@" in late:
        raise ConfigurationError(
            f"{url.text}: write '/', '?' and '#' in a user or password as %2F, %3F and %23; "
            "elsewhere there is no '#'"
        )


def _text(options: dict[str, int | float | str], name: str) -> str | None:
    return str(options[name]) if name in options else None


def _ourselves(url: StoreURL, database: int, ca: str | None) -> Address:
    """Return who we are at each server; where these are is said elsewhere."""
    parts = url.parts._replace(netloc=url.parts.netloc.rpartition("@")[0] + "@localhost")
    if "@" not in url.parts.netloc:
        parts = url.parts._replace(netloc="localhost")
    tls = "rediss" if url.parts.scheme.startswith("rediss") else "redis"
    return parse(parts._replace(scheme=tls, path=""), url.text, database=database, ca=ca)


def _hosts(url: StoreURL, port: int, kind: str) -> list[tuple[str, int]]:
    """Return the hosts and ports of a URL that names several, separated by commas."""
    hosts = []
    for text in url.parts.netloc.rpartition("@")[2].split(","):
        host, colon, number_ = text.rpartition(":") if "]" not in text[-1:] else (text, "", "")
        if not colon:
            host, number_ = text, str(port)
        host = host.strip("[]")
        if not host or not number_.isdecimal() or not 0 < int(number_) <= _LAST_PORT:
            raise ConfigurationError(
                f"{url.text}: expected hosts with ports, such as {_EXAMPLE[kind]}, found {text!r}"
            )
        hosts.append((host, int(number_)))
    return hosts
