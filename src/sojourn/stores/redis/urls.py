"""Store URLs of Redis and Valkey: one server, Sentinel, a cluster."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote

from sojourn.errors import ConfigurationError
from sojourn.stores.redis.connection import DEFAULT_PORT, ServerAddress, tls_context
from sojourn.stores.redis.store import RedisStore
from sojourn.stores.redis.topology import (
    DEFAULT_SENTINEL_PORT,
    Topology,
    cluster,
    sentinel_service,
    single_server,
)
from sojourn.stores.urls import StoreURL

_EXAMPLES: Final = {
    "sentinel": "'redis+sentinel://host1:26379,host2:26379/service/0'",
    "cluster": "'redis+cluster://host1:6379,host2:6379'",
}

_MAX_PORT: Final = 65_535


def open_redis(url: StoreURL) -> RedisStore:
    """Open ``redis://``, ``valkey://``, ``rediss://`` or ``unix://``."""
    _check_escaped(url)
    options = url.options(prefix=str, db=int, ca=str)
    database = _text(options, "db")
    address = parse_address(
        url.parts,
        url.text,
        database=None if database is None else _parse_database(database, url.text),
        ca=_text(options, "ca"),
    )
    return _open(url, single_server(address), options)


def open_sentinel(url: StoreURL) -> RedisStore:
    """Open ``redis+sentinel://[user:password@]host:port,host:port/service[/database]``."""
    _check_escaped(url)
    options = url.options(prefix=str, sentinel_password=str, ca=str)
    service, _, database = url.parts.path.strip("/").partition("/")
    if not service:
        raise ConfigurationError(
            f"{url.text}: expected the name of the watched service after the hosts, such as "
            f"{_EXAMPLES['sentinel']}"
        )
    topology = sentinel_service(
        _parse_hosts(url, DEFAULT_SENTINEL_PORT, "sentinel"),
        service,
        _parse_credentials(url, _parse_database(database, url.text), _text(options, "ca")),
        sentinel_password=_text(options, "sentinel_password"),
    )
    return _open(url, topology, options)


def open_cluster(url: StoreURL) -> RedisStore:
    """Open ``redis+cluster://[user:password@]host:port,host:port``."""
    _check_escaped(url)
    options = url.options(prefix=str, ca=str)
    if url.parts.path.strip("/"):
        raise ConfigurationError(
            f"{url.text}: a cluster has one database and no path; write {_EXAMPLES['cluster']}"
        )
    credentials = _parse_credentials(url, 0, _text(options, "ca"))
    return _open(url, cluster(_parse_hosts(url, DEFAULT_PORT, "cluster"), credentials), options)


def _open(url: StoreURL, topology: Topology, options: dict[str, int | float | str]) -> RedisStore:
    prefix = str(options.get("prefix", "sojourn"))
    return RedisStore(client=topology, prefix=prefix, realm=url.realm, timeout=url.timeout)


def _text(options: dict[str, int | float | str], name: str) -> str | None:
    return str(options[name]) if name in options else None


def _check_escaped(url: StoreURL) -> None:
    """Reject a URL whose password contains a character that ended its host part."""
    path, query, fragment = url.parts[2:]
    late = query.partition("=")[0] if url.parts.scheme == "unix" else path + query.partition("=")[0]
    if fragment or "@" in late:
        raise ConfigurationError(
            f"{url.text}: write '/', '?' and '#' in a user or password as %2F, %3F and %23; "
            "elsewhere there is no '#'"
        )


def parse_address(
    parts: SplitResult, text: str, *, database: int | None = None, ca: str | None = None
) -> ServerAddress:
    """Return the address that a URL names.

    Args:
        parts: of the URL.
        text: the URL without its password, for messages.
        database: given as an option, or where the path has another meaning.
        ca: given as an option.
    """
    _check_ca(parts, text, ca)
    if database is not None and parts.scheme != "unix" and parts.path.strip("/"):
        raise ConfigurationError(
            f"{text}: names the database twice, in its path and as db=; give one"
        )
    user = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if parts.scheme == "unix":
        if parts.hostname or not parts.path.strip("/"):
            raise ConfigurationError(
                f"{text}: unix:// expects the path of a socket, such as 'unix:///run/valkey.sock'"
            )
        path = unquote(parts.path)
        return ServerAddress(path=path, database=database or 0, user=user, password=password)
    try:
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise ConfigurationError(f"{text}: {error}") from None
    return ServerAddress(
        host=parts.hostname or "localhost",
        port=port,
        database=_parse_database(parts.path.strip("/"), text) if database is None else database,
        user=user,
        password=password,
        tls=parts.scheme == "rediss",
        ca=ca,
    )


def _check_ca(parts: SplitResult, text: str, ca: str | None) -> None:
    if ca is None:
        return
    if not parts.scheme.startswith("rediss"):
        raise ConfigurationError(f"{text}: ca= is for TLS; write rediss:// for that")
    if not Path(ca).is_file():
        raise ConfigurationError(f"{text}: ca= expects a file with certificates; {ca!r} is none")
    try:
        tls_context(ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"{text}: ca= expects a file with certificates in PEM format; {ca!r}: {error}"
        ) from None


def _parse_database(text: str, url: str) -> int:
    if text and not (text.isascii() and text.isdigit()):
        raise ConfigurationError(
            f"{url}: expected the number of a database after the last '/' or as db=, found {text!r}"
        )
    return int(text or 0)


def _parse_credentials(url: StoreURL, database: int, ca: str | None) -> ServerAddress:
    """Return user, password, database and TLS of a URL with several hosts."""
    userinfo, at, _ = url.parts.netloc.rpartition("@")
    scheme = "rediss" if url.parts.scheme.startswith("rediss") else "redis"
    parts = url.parts._replace(scheme=scheme, netloc=f"{userinfo}{at}localhost", path="")
    return parse_address(parts, url.text, database=database, ca=ca)


def _parse_hosts(url: StoreURL, default_port: int, kind: str) -> list[tuple[str, int]]:
    """Return the hosts and ports of a URL, separated by commas."""
    hosts = []
    for text in url.parts.netloc.rpartition("@")[2].split(","):
        host, colon, port = text.rpartition(":") if "]" not in text[-1:] else (text, "", "")
        if not colon:
            host, port = text, str(default_port)
        host = host.strip("[]")
        if not host or not port.isdecimal() or not 0 < int(port) <= _MAX_PORT:
            raise ConfigurationError(
                f"{url.text}: expected hosts with ports, such as {_EXAMPLES[kind]}, found {text!r}"
            )
        hosts.append((host, int(port)))
    return hosts
