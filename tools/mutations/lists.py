"""Faults of lists, marks and limits of users in the embedded stores: laws S15 and S16.

What lives here: what a store keeps by user, and how many sessions it leaves one. What must not: who
asks for it (``ends.py``).
"""

from tools.mutations.places import (
    IN_MEMORY,
    IN_SQLITE,
    MEMORY,
    SQLITE,
    SQLITE_SCHEMA,
    SQLITE_TABLE,
)
from tools.mutations.row import Mutation

FAULTS = [
    Mutation(
        "S15",
        MEMORY,
        "            self._list(record.id, names)\n",
        "",
        f"{IN_MEMORY} -k once_its_login",
    ),
    Mutation(
        "S15",
        MEMORY,
        "        del self._records[session_id]\n        self._unlist(session_id)\n",
        "        del self._records[session_id]\n",
        f"{IN_MEMORY} -k 'has_ended or random_lives'",
    ),
    Mutation(
        "S15",
        MEMORY,
        "            if not listed:\n                del self._listed[name]\n",
        "",
        f"{IN_MEMORY} -k 'random_lives or somebody_else'",
    ),
    Mutation(
        "S15",
        MEMORY,
        "                self._unlist(record.id)\n                self._replace",
        "                self._replace",
        f"{IN_MEMORY} -k somebody_else",
    ),
    Mutation(
        "S15",
        MEMORY,
        "self._remove(next(iter(self._records)))",
        "self._records.popitem(last=False)",
        "tests/stores/test_memory.py -k makes_room",
    ),
    Mutation(
        "S15",
        MEMORY,
        "                self._forget_marks(now)\n",
        "",
        f"{IN_MEMORY} -k marks",
    ),
    Mutation(
        "S15",
        MEMORY,
        "self._all_before = max(self._all_before, before)",
        "self._all_before = before",
        f"{IN_MEMORY} -k absent_at_once",
    ),
    Mutation(
        "S15",
        MEMORY,
        "        return record.created_at < self._all_before\n",
        "        return record.created_at <= self._all_before\n",
        f"{IN_MEMORY} -k absent_at_once",
    ),
    Mutation(
        "S15",
        SQLITE_TABLE,
        "        connection.execute(self._name, (*",
        "        expected or connection.execute(self._name, (*",
        f"{IN_SQLITE} -k 'once_its_login or somebody_else'",
    ),
    Mutation(
        "S13",
        SQLITE_TABLE,
        '                    connection.execute("ROLLBACK TO bind")\n',
        "                    pass\n",
        f"{IN_SQLITE} -k is_refused",
    ),
    Mutation(
        "S13",
        SQLITE_TABLE,
        "            done = isinstance(result, Bound)\n        finally:",
        "            done = isinstance(result, Bound)\n        except sqlite3.Error:\n"
        "            done = True\n            raise\n        finally:",
        "tests/stores/test_sqlite_users.py -k breaks",
    ),
    Mutation(
        "S15",
        SQLITE_TABLE,
        '"(@void_before IS NULL OR @created_at >= @void_before)"',
        '"(@void_before IS NULL OR @created_at > @void_before)"',
        f"{IN_SQLITE} -k absent_at_once",
    ),
    Mutation(
        "S15",
        SQLITE_TABLE,
        '"SELECT seen_at, record FROM @sessions WHERE id = ? AND @alive"',
        '"SELECT seen_at, record FROM @sessions WHERE id = ?"',
        f"{IN_SQLITE} -k absent_at_once",
    ),
    Mutation(
        "S15",
        SQLITE_TABLE,
        "AND (expires_at <= ? OR NOT @alive) ",
        "AND expires_at <= ? ",
        f"{IN_SQLITE} -k absent_at_once",
    ),
    Mutation(
        "S15",
        SQLITE_TABLE,
        "name <> '' AND before <= ?",
        "before <= ?",
        "tests/stores/test_sqlite_users.py -k absent_writes",
    ),
    Mutation(
        "S15, S9",
        SQLITE_SCHEMA,
        "for table in tables:",
        "for table in [self.sessions]:",
        "tests/stores/test_sqlite_users.py -k first_release",
    ),
    Mutation(
        "S16",
        MEMORY,
        "                return VOID\n",
        "                pass\n",
        f"{IN_MEMORY} -k 'began_before or all_were_ended'",
    ),
    Mutation(
        "S16",
        MEMORY,
        "record.authenticated_at < self._marks",
        "record.authenticated_at <= self._marks",
        f"{IN_MEMORY} -k began_before",
    ),
    Mutation(
        "S16",
        MEMORY,
        "self._marks[name] = max(self._marks.get(name, 0), before)",
        "self._marks[name] = before",
        f"{IN_MEMORY} -k began_before",
    ),
    Mutation(
        "S16",
        MEMORY,
        "if at <= now - LONGEST_LOGIN]",
        "if at <= now]",
        f"{IN_MEMORY} -k marks",
    ),
    Mutation(
        "S16",
        SQLITE_TABLE,
        "fetchone() for name in names)",
        "fetchone() for name in names[:1])",
        f"{IN_SQLITE} -k began_before",
    ),
    Mutation(
        "S16",
        SQLITE_TABLE,
        '"ON CONFLICT DO UPDATE SET before = max(before, excluded.before)"',
        '"ON CONFLICT DO UPDATE SET before = excluded.before"',
        f"{IN_SQLITE} -k began_before",
    ),
    Mutation(
        "S16",
        SQLITE,
        "await self._write(self._table.void, name, before)",
        "self._writer.submit_later(Write(self._table.void, name, before))",
        f"{IN_SQLITE} -k 'all_were_ended or began_before'",
    ),
    Mutation(
        "ASVS 7.1.2",
        MEMORY,
        "r.id != session_id and r.expires_at > now",
        "r.expires_at > now",
        f"{IN_MEMORY} -k 'takes_no_place'",
    ),
    Mutation(
        "ASVS 7.1.2",
        MEMORY,
        " and r.expires_at > now]",
        "]",
        f"{IN_MEMORY} -k 'takes_no_place'",
    ),
    Mutation(
        "ASVS 7.1.2",
        MEMORY,
        "key=_activity if limit.evict is Evict.IDLEST else _login",
        "key=_login",
        f"{IN_MEMORY} -k 'one_too_many or 50_tasks'",
    ),
    Mutation(
        "ASVS 7.1.2",
        MEMORY,
        "        names = record.names()\n        with self._lock:\n",
        "        names = record.names()\n"
        "        early = self._surplus(record.id, names, limit, now)\n"
        "        __import__('time').sleep(0.001)\n"
        "        self._surplus = lambda *_: early\n"
        "        with self._lock:\n",
        f"{IN_MEMORY} -k 50_threads",
    ),
    Mutation(
        "ASVS 7.1.2",
        SQLITE_TABLE,
        "user = ? AND id <> ? AND expires_at > ? AND",
        "user = ? AND id <> ? AND 0 < ? AND",
        f"{IN_SQLITE} -k takes_no_place",
    ),
    Mutation(
        "ASVS 7.1.2",
        SQLITE_TABLE,
        "ORDER BY @order DESC, id DESC LIMIT",
        "ORDER BY id DESC LIMIT",
        f"{IN_SQLITE} -k one_too_many",
    ),
    Mutation(
        "ASVS 7.1.2",
        SQLITE_TABLE,
        "record.id, now, limit.most - 1)",
        "record.id, now, limit.most)",
        f"{IN_SQLITE} -k 'one_too_many or 4_processes_leave'",
    ),
    Mutation(
        "ASVS 7.1.2",
        SQLITE_TABLE,
        "            connection.executemany(self._delete, surplus)\n",
        "",
        f"{IN_SQLITE} -k '50_tasks or 50_threads'",
    ),
    Mutation(
        "ASVS 7.1.2",
        MEMORY,
        "others[: max(0, len(others) + 1 - limit.most)]",
        "others[: int(len(others) >= limit.most)]",
        f"{IN_MEMORY} -k lower_limit",
    ),
]
