"""Fills a store with many sessions without its own calls: 1,000,000 take about ten seconds.

``fill(url, 1_000_000)`` in a test, or ``python -m tests.support.million_sessions URL [COUNT]``.
Records, users and labels depend only on the number of a session and on the seed, so that a test
can compute the expected result.
"""

import random
import socket
import sqlite3
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count as count_from
from itertools import islice
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from sojourn._core.concurrency import run
from sojourn.record import Record, pack_body, user_index_name
from sojourn.store import Closeable
from sojourn.stores.urls import open_store

T = TypeVar("T")

MILLION = 1_000_000

DAY = 24 * 60 * 60 * 1000

BROWSERS = ("Firefox", "Chrome", "Safari", "Edge", "Lynx")
TENANTS = 1000

#: Records per batch.
_BATCH = 10_000

#: Milliseconds for which a server keeps the key of an ended session; otherwise it would expire
#: during the test.
_KEPT = DAY


def user_of(number: int, users: int) -> str | None:
    """Return the user of a session: every second session has a login."""
    return None if number % 2 else f"user-{number // 2 % users}"


def labels_of(number: int) -> dict[str, str]:
    """Return the labels of a session. One in a thousand has the same ``tenant``."""
    return {
        "browser": BROWSERS[number % len(BROWSERS)],
        "address": f"203.0.113.{number % 256}",
        "tenant": f"tenant-{number % TENANTS}",
    }


def make_records(
    count: int, *, at: int | None = None, users: int = 100_000, ended: int = 0, seed: int = 0
) -> Iterator[Record]:
    """Return records in the order of their IDs.

    Args:
        count: the number of records; those of a seed have the same IDs for each time.
        at: milliseconds since 1970 UTC; each was seen within the hour before. None for the current
            time.
        users: the number of users, who have as many sessions each.
        ended: so many of the records have expired; they are the first ones.
        seed: of the IDs; different ones do not collide.
    """
    at = time.time_ns() // 1_000_000 if at is None else at
    generator = random.Random(seed)
    pool = generator.randbytes(16 * count)
    ids = sorted(pool[start : start + 16] for start in range(0, len(pool), 16))
    data = {"n": msgspec.msgpack.encode(0)}
    for number, session_id in enumerate(ids):
        user = user_of(number, users)
        created_at = at - 2 * DAY
        yield Record(
            id=session_id,
            version=1 + number % 7,
            seen_at=created_at if number < ended else at - number * 37 % 3_600_000,
            created_at=created_at,
            absolute_at=at + 30 * DAY,
            idle_timeout=DAY,
            verifier=generator.randbytes(32),
            body=pack_body(user, labels_of(number), data),
            authenticated_at=0 if user is None else created_at,
        )


def fill(
    url: str,
    count: int = MILLION,
    *,
    realm: str = "default",
    users: int = 100_000,
    ended: int = 0,
    seed: int = 0,
) -> None:
    """Add records to a store. The store must have none of the same seed.

    Args:
        url: ``sqlite:///``, ``postgresql://``, ``redis://``, ``valkey://``, ``redis+cluster://`` or
            ``valkey+cluster://``; servers without a password.
        count: see ``make_records``.
        realm: the installation's namespace.
        users: see ``make_records``.
        ended: see ``make_records``.
        seed: see ``make_records``.
    """
    store = open_store(url, realm=realm, timeout=30.0)
    run(store.load(bytes(16)), instead="fill() outside of an event loop")  # creates the tables
    if isinstance(store, Closeable):
        store.close()
    records = make_records(count, users=users, ended=ended, seed=seed)
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        _fill_sqlite(url, realm, records)
    elif scheme in {"postgres", "postgresql"}:
        _fill_postgresql(url, realm, records)
    elif scheme in {"redis", "valkey"}:
        _fill_valkey(url, realm, records)
    elif scheme in {"redis+cluster", "valkey+cluster"}:
        _fill_cluster(url, realm, records)
    else:
        raise ValueError(f"cannot fill {scheme}://")


def _batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Return the items in tuples, as ``itertools.batched`` of Python 3.12 does."""
    iterator = iter(items)
    while batch := tuple(islice(iterator, size)):
        yield batch


# SQLite


def _fill_sqlite(url: str, realm: str, records: Iterator[Record]) -> None:
    from sojourn.stores.sqlite.schema import Schema

    insert = Schema(realm).sql(
        "INSERT INTO @sessions (id, version, seen_at, expires_at, user, record) "
        "VALUES (?, ?, ?, ?, ?, ?)"
    )
    connection = sqlite3.connect(unquote(urlsplit(url).path)[1:], isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            insert,
            (
                (
                    *(record.id, record.version, record.seen_at, record.expires_at),
                    *(record.metadata().user, record.to_bytes()),
                )
                for record in records
            ),
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


# PostgreSQL

_COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_NULL = b"\xff\xff\xff\xff"


def _fill_postgresql(url: str, realm: str, records: Iterator[Record]) -> None:
    import psycopg

    from sojourn.stores.postgresql.encoding import digest

    # Number of columns, realm, then ID, version, seen_at and expires_at with their lengths.
    name = realm.encode()
    head = struct.Struct(f"!hi{len(name)}si16siqiqiq")
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        with cursor.copy(
            "COPY sojourn_sessions (realm, id, version, seen_at, expires_at, user_key, record) "
            "FROM STDIN (FORMAT binary)"
        ) as copy:
            copy.write(_COPY_HEADER)
            for batch in _batched(records, 1000):
                rows = []
                for record in batch:
                    user = record.metadata().user
                    value = record.to_bytes()
                    rows += (
                        head.pack(
                            *(7, len(name), name, 16, record.id, 8, record.version),
                            *(8, record.seen_at, 8, record.expires_at),
                        ),
                        _NULL if user is None else b"\0\0\0\x10" + digest(user_index_name(user)),
                        len(value).to_bytes(4),
                        value,
                    )
                copy.write(b"".join(rows))
            copy.write(b"\xff\xff")
        cursor.execute("VACUUM (ANALYZE) sojourn_sessions")


# Valkey and Redis


class _Node:
    """A connection that sends batches of commands before it has read the previous replies."""

    def __init__(self, host: str, port: int, database: str = "") -> None:
        self._socket = socket.create_connection((host, port), timeout=60)
        self._unanswered = 0
        if database.strip("0"):
            self.send([_command(b"SELECT", database.encode())])

    def send(self, commands: list[bytes]) -> None:
        """Send a batch after the replies to the previous batch."""
        self.wait()
        self._socket.sendall(b"".join(commands))
        self._unanswered = len(commands)

    def wait(self) -> None:
        """Read the outstanding replies, one line each."""
        while self._unanswered:
            received = self._socket.recv(1 << 16)
            assert received, "the server has closed the connection"
            assert b"-" not in received, received[:200]
            self._unanswered -= received.count(b"\n")

    def close(self) -> None:
        self.wait()
        self._socket.close()


def _command(*arguments: bytes) -> bytes:
    parts = [b"*%d\r\n" % len(arguments)]
    parts += [b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments]
    return b"".join(parts)


def _fill_valkey(url: str, realm: str, records: Iterator[Record]) -> None:
    parts = urlsplit(url)
    node = _Node(parts.hostname or "localhost", parts.port or 6379, parts.path.strip("/"))
    _send(records, realm, lambda _: node, is_cluster=False)
    node.close()


def _fill_cluster(url: str, realm: str, records: Iterator[Record]) -> None:
    import redis
    from redis.crc import key_slot

    first = url.partition("://")[2].partition(",")[0].partition("/")[0]
    with redis.Redis.from_url(f"redis://{first}") as admin:
        ranges = admin.execute_command("CLUSTER", "SLOTS")
    nodes: dict[tuple[str, int], _Node] = {}
    of_slot: list[_Node | None] = [None] * 16384
    for start, end, (host, port, *_), *_ in ranges:
        address = host.decode(), port
        nodes[address] = nodes.get(address) or _Node(*address)
        of_slot[start : end + 1] = [nodes[address]] * (end + 1 - start)
    _send(records, realm, lambda key: of_slot[key_slot(key)], is_cluster=True)
    for node in nodes.values():
        node.close()


def _send(
    records: Iterator[Record], realm: str, node_of: Callable[[bytes], _Node], *, is_cluster: bool
) -> None:
    from sojourn.stores.redis.encoding import encode_value
    from sojourn.stores.redis.keys import Keys

    keys = Keys("sojourn", realm, is_cluster=is_cluster)
    now = time.time_ns() // 1_000_000
    members: dict[bytes, list[bytes]] = {}
    for batch in _batched(records, _BATCH):
        commands: dict[_Node, list[bytes]] = {}
        for record in batch:
            user = record.metadata().user
            digests = [] if user is None else [keys.digest(user_index_name(user))]
            for each in digests:
                members.setdefault(each, []).append(record.id)
            key = keys.record(record.id).encode()
            lifetime = b"%d" % (max(record.expires_at - now, 0) + _KEPT)
            command = _command(b"SET", key, encode_value(record, digests), b"PX", lifetime)
            commands.setdefault(node_of(key), []).append(command)
        for node, part in commands.items():
            node.send(part)
    scores = map(b"%d".__mod__, count_from(now * 1000))  # microseconds; each login has its own
    for some in _batched(members.items(), _BATCH):
        commands = {}
        for digest, ids in some:
            key = keys.index(digest).entries.encode()
            part = commands.setdefault(node_of(key), [])
            for few in _batched(ids, 1000):
                part.append(
                    _command(b"ZADD", key, *(each for one in few for each in (next(scores), one)))
                )
            part.append(_command(b"PEXPIRE", key, b"%d" % (40 * DAY)))
        for node, part in commands.items():
            node.send(part)


def main() -> None:
    """Fill the store of the URL that is the first argument."""
    url, *count = sys.argv[1:]
    started = time.perf_counter()
    if url.startswith("sqlite:///"):
        Path(unquote(urlsplit(url).path)[1:]).parent.mkdir(parents=True, exist_ok=True)
    fill(url, int(count[0]) if count else MILLION)
    sys.stdout.write(f"filled in {time.perf_counter() - started:.1f} s\n")


if __name__ == "__main__":
    main()
