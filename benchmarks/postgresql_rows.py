"""Rows in PostgreSQL: HOT updates, write-ahead log, size, and purging while requests run.

Two sessions are created by sojourn, one of which has expired; SQL multiplies their rows. This
process is the client, on one core; the server is on another.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from benchmarks.asgi_client import freeze_heap
from benchmarks.candidates.candidate import SECRET, SMALL, STORE_TIMEOUT
from benchmarks.candidates.postgresql import RELAXED
from benchmarks.candidates.starlette import session_handlers, starlette_app
from benchmarks.load_generator import CONNECTIONS
from benchmarks.sqlite_scaling import DAY, MINUTE, Traffic, now, percentiles

TABLE = "sojourn_sessions"
_CALM_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Storage:
    """Sizes of rows and costs of updates on the server.

    Attributes:
        rows: rows in the table.
        record_bytes: of the column `record`.
        row_bytes: of the table without its indexes, for each row.
        index_bytes: of the indexes, for each row.
        updates: saves by sojourn.
        hot: the share of HOT updates.
        wal_bytes: write-ahead log of one update.
        wal_bytes_after_checkpoint: the same with the page images that follow a checkpoint.
        grown: size of the table after the updates over that before them.
    """

    rows: int
    record_bytes: float
    row_bytes: float
    index_bytes: float
    updates: int
    hot: float
    wal_bytes: float
    wal_bytes_after_checkpoint: float
    grown: float


@dataclass(frozen=True, slots=True)
class Purge:
    """Requests while expired sessions are purged.

    Attributes:
        rows: rows before.
        removed: rows that were purged.
        seconds: duration of the purge.
        calm: p50 and p99 of a request in microseconds, without a purge.
        purging: the same during it.
        requests: requests during it.
    """

    rows: int
    removed: int
    seconds: float
    calm: Sequence[float]
    purging: Sequence[float]
    requests: int


def new_body(counter: int) -> bytes:
    """Return the body of a session of about 150 bytes."""
    from sojourn.record import pack_body

    values = SMALL | {"counter": counter}
    return pack_body(
        None, {}, {key: msgspec.msgpack.encode(value) for key, value in values.items()}
    )


def new_record(*, idle_for: int, idle_timeout: int) -> Any:
    """Return the record of such a session; both durations are in milliseconds."""
    from sojourn.record import Record

    seen = now() - idle_for
    return Record(
        id=random.randbytes(16),
        version=1,
        seen_at=seen,
        created_at=seen,
        absolute_at=seen + 7 * DAY,
        idle_timeout=idle_timeout,
        verifier=random.randbytes(32),
        body=new_body(0),
    )


async def fill(store: Any, database: Any, *, live: int, expired: int) -> None:
    """Fill the table with sessions in random order of their IDs, live and expired ones mixed.

    Args:
        store: sojourn's.
        database: a connection to the server.
        live: sessions that live for a day.
        expired: sessions that ended half an hour ago.
    """
    kinds = [
        (live, new_record(idle_for=0, idle_timeout=DAY)),
        (expired, new_record(idle_for=60 * MINUTE, idle_timeout=30 * MINUTE)),
    ]
    kinds = [(count, record) for count, record in kinds if count]
    for _, record in kinds:
        assert await store.create(record)
    database.execute(f"CREATE TEMPORARY TABLE kinds AS SELECT * FROM {TABLE} WHERE false")
    for _, record in kinds:
        database.execute(
            f"WITH taken AS (DELETE FROM {TABLE} WHERE id = %b RETURNING *) "
            "INSERT INTO kinds SELECT * FROM taken",
            (record.id,),
        )
    columns = [
        name
        for (name,) in database.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 "
            "AND NOT attisdropped ORDER BY attnum",
            (TABLE,),
        )
    ]
    # md5 of the number: random IDs, but the same ones in each run.
    values = ", ".join("decode(md5(n::text), 'hex')" if c == "id" else c for c in columns)
    selects = [
        f"SELECT {values}, n FROM kinds, generate_series({at + 1}, {count * len(kinds)}, "
        f"{len(kinds)}) AS n WHERE id = %b"
        for at, (count, _) in enumerate(kinds)
    ]
    query = " UNION ALL ".join(selects)
    database.execute(
        f"INSERT INTO {TABLE} SELECT {', '.join(columns)} FROM "
        f"({query}) AS sessions ({', '.join(columns)}, n) ORDER BY n",
        [record.id for _, record in kinds],
    )
    database.execute("DROP TABLE kinds")
    database.execute(f"VACUUM ANALYZE {TABLE}")


async def update(store: Any, ids: Sequence[bytes], updates: int) -> None:
    """Load and save random sessions from as many clients as the load generator has."""
    from sojourn.store import SAVED

    async def client(own: Sequence[bytes]) -> None:
        for session_id in random.choices(own, k=updates // CONNECTIONS):
            record = await store.load(session_id)
            changed = msgspec.structs.replace(
                record,
                version=record.version + 1,
                body=new_body(random.getrandbits(30)),
                commit_ids=random.randbytes(4) + record.commit_ids[:12],
            )
            assert await store.save(changed, record.version) is SAVED

    await asyncio.gather(*(client(ids[n::CONNECTIONS]) for n in range(CONNECTIONS)))


async def measure_storage(url: str, *, rows: int, updates: int) -> Storage:
    """Measure updates of random sessions."""
    import psycopg

    import sojourn

    with psycopg.connect(url, autocommit=True) as database:
        sessions = sojourn.Sessions(store=url + RELAXED, secret=SECRET, store_timeout=STORE_TIMEOUT)
        await fill(sessions.store, database, live=rows, expired=0)
        ids = [row[0] for row in database.execute(f"SELECT id FROM {TABLE}")]
        size, index_size, record_bytes = database.execute(
            f"SELECT pg_table_size('{TABLE}'), pg_indexes_size('{TABLE}'), "
            f"(SELECT avg(length(record)) FROM {TABLE})"
        ).fetchone()
        before = _wal_position(database)
        await update(sessions.store, ids, updates)
        wal = _wal_position(database) - before
        grown = database.execute(f"SELECT pg_table_size('{TABLE}')").fetchone()[0] / size
        database.execute("CHECKPOINT")
        before = _wal_position(database)
        await update(sessions.store, ids, updates // 4)
        wal_after_checkpoint = _wal_position(database) - before
        sessions.close()
        total, hot = _update_counts(database, at_least=updates)
    return Storage(
        rows=rows,
        record_bytes=float(record_bytes),
        row_bytes=size / rows,
        index_bytes=index_size / rows,
        updates=total,
        hot=hot / total,
        wal_bytes=wal / updates,
        wal_bytes_after_checkpoint=wal_after_checkpoint / (updates // 4),
        grown=grown,
    )


def _wal_position(database: Any) -> int:
    # The position of insertion: a relaxed commit is not yet part of pg_current_wal_lsn().
    query = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
    position: int = database.execute(query).fetchone()[0]
    return position


def _update_counts(database: Any, *, at_least: int) -> tuple[int, int]:
    """Return updates and HOT updates, when the server has counted those of closed connections."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        database.execute("SELECT pg_stat_clear_snapshot()")
        total, hot = database.execute(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = %s", (TABLE,)
        ).fetchone()
        if total >= at_least:
            return total, hot
        time.sleep(0.1)  # a connection reports its counts when it ends; there is no event for it
    raise AssertionError(f"expected at least {at_least} updates, the server counted {total}")


async def measure_purge(url: str, *, rows: int) -> Purge:
    """Purge half of the rows while requests run in the same process, as in production."""
    import psycopg

    import sojourn

    app = starlette_app(session_handlers())
    installed: Any = sojourn.install(
        app, store=url + RELAXED, secret=SECRET, store_timeout=STORE_TIMEOUT
    )
    with psycopg.connect(url, autocommit=True) as database:
        await fill(installed.store, database, live=rows // 2, expired=rows // 2)
        database.execute("CHECKPOINT")
        traffic = Traffic(app)
        await traffic.create_sessions()
        freeze_heap()
        _, calm = await traffic.run_during(asyncio.sleep(_CALM_SECONDS))
        started = time.perf_counter()
        removed, purging = await traffic.run_during(installed.apurge())
        seconds = time.perf_counter() - started
        (left,) = database.execute(
            f"SELECT count(*) FROM {TABLE} WHERE expires_at <= %s", (now(),)
        ).fetchone()
        assert left == 0, f"{left} expired sessions are left"
    installed.close()
    return Purge(
        rows=rows,
        removed=removed,
        seconds=seconds,
        calm=percentiles(calm),
        purging=percentiles(purging),
        requests=len(purging),
    )
