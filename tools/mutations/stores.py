"""Faults of the stores in memory and in a file: what each alone promises of a record.

What lives here: laws S1 to S14 and S18. What must not: lists and limits (``lists.py``), Valkey and
Redis (``redis.py``).
"""

from tools.mutations.places import (
    DRIVE,
    IN_MEMORY,
    IN_SQLITE,
    MEMORY,
    ON_ASGI,
    RACES,
    RECORD,
    REPLAYING,
    SQLITE,
    SQLITE_TABLE,
    SQLITE_WRITER,
    WRITER,
)
from tools.mutations.row import Mutation

FAULTS = [
    Mutation(
        "S1",
        MEMORY,
        "return None if record is None or record.created_at < self._all_before else record",
        "return self._records[session_id]",
        f"{IN_MEMORY} -k absent",
    ),
    Mutation(
        "S2, ASVS 15.4.2",
        MEMORY,
        "            if record.id in self._records:\n                return False\n",
        "",
        f"{IN_MEMORY} -k create_inserts",
    ),
    Mutation(
        "S3",
        MEMORY,
        "            records[record.id] = (\n",
        "            record = stored.seen(record.seen_at)\n            records[record.id] = (\n",
        f"{IN_MEMORY} -k current_version",
    ),
    Mutation(
        "S4, ASVS 15.4.2",
        MEMORY,
        "if stored.version != expected_version:",
        "if stored.version > expected_version:",
        f"{IN_MEMORY} -k another_version",
    ),
    Mutation(
        "S5",
        MEMORY,
        "            if stored is None or stored.created_at < self._all_before:\n"
        "                return GONE\n",
        "            if stored is None:\n                stored = records[record.id] = record\n",
        f"{IN_MEMORY} -k 'never_create or final'",
    ),
    Mutation(
        "S6",
        MEMORY,
        "self._replace(stored.seen(record.seen_at))",
        "self._replace(record)",
        f"{IN_MEMORY} -k touch",
    ),
    Mutation(
        "S6",
        MEMORY,
        "record if record.seen_at >= stored.seen_at else record.seen(stored.seen_at)",
        "record",
        f"{IN_MEMORY} -k larger_seen_at",
    ),
    Mutation(
        "S7",
        MEMORY,
        "return self._get(session_id) is not None and self._remove(session_id)",
        "return self._get(session_id) is None or self._remove(session_id)",
        f"{IN_MEMORY} -k repeated",
    ),
    Mutation(
        "S8",
        MEMORY,
        "(record.expires_at <= now or",
        "(record.expires_at < now or",
        f"{IN_MEMORY} -k purge",
    ),
    Mutation(
        "S8",
        MEMORY,
        "            if removed == limit:\n                break\n",
        "",
        f"{IN_MEMORY} -k purge",
    ),
    Mutation(
        "S8",
        MEMORY,
        "for _ in range(10 * limit):",
        "for _ in range(10_000 * limit):",
        f"{IN_MEMORY} -k purge",
    ),
    Mutation(
        "S9",
        RECORD,
        "data[0] != FORMAT",
        "data[0] > 99",
        f"{IN_SQLITE} -k damaged",
    ),
    Mutation(
        "S9",
        RECORD,
        "persistent=bool(flags & _PERSISTENT)",
        "persistent=False",
        f"{IN_SQLITE} -k every_field",
    ),
    Mutation(
        "S10, A6",
        REPLAYING,
        "return self.data if current is self.base else log.replay(contents.data)",
        "return self.data",
        f"{IN_MEMORY} {RACES} -k 'lose_nothing or survive'",
    ),
    Mutation(
        "S10, ASVS 15.4.1",
        REPLAYING,
        "return self.data if current is self.base else log.replay(contents.data)",
        "return self.data",
        f"{IN_SQLITE} -k 16_threads",
    ),
    Mutation(
        "S4, S10, ASVS 15.4.2",
        SQLITE_TABLE,
        '"WHERE id = ? AND version = ? AND @alive"',
        '"WHERE id = ? AND version >= 0 * ? AND @alive"',
        f"{IN_SQLITE} -k 'lose_nothing or another_version'",
    ),
    Mutation(
        "S11",
        SQLITE_WRITER,
        '            connection.execute("COMMIT")\n',
        "            if len(batch) > 1:\n                connection.execute('COMMIT')\n",
        f"{IN_SQLITE} -k killed",
    ),
    Mutation(
        "S12",
        SQLITE,
        "            write.withdrawn = True\n            raise StoreUnavailable(",
        "            write.withdrawn = True\n            raise TimeoutError(",
        "tests/stores/test_sqlite.py -k 'outage or deadline or given_up'",
    ),
    Mutation(
        "S13",
        SQLITE_WRITER,
        "                if not write.withdrawn:\n                    write.execute(connection)\n",
        "                if write.withdrawn:\n                    break\n"
        "                write.execute(connection)\n",
        "tests/stores/test_sqlite.py -k cancelled",
    ),
    Mutation(
        "S13",
        DRIVE,
        "                    line.remove(mine)\n",
        "                    pass\n",
        "tests/laws/test_failures.py -k cancelled",
    ),
    Mutation(
        "S14",
        SQLITE,
        "self._table = Table(realm)",
        'self._table = Table("default")',
        f"{IN_SQLITE} -k realms",
    ),
    Mutation(
        "S18, A4",
        WRITER,
        "result = await self._store.save(record, base.version)",
        "await self._store.load(base.id)\n"
        "                    result = await self._store.save(record, base.version)",
        f"{ON_ASGI} -k one_save",
    ),
    Mutation(
        "S2, B-26, ASVS 7.2.3",
        MEMORY,
        "            if record.id in self._records:\n                return False\n",
        "",
        "tests/core/test_engine.py -k taken_id",
    ),
]
