"""The faults that each law's tests must notice, as a table for ``mutate.py``.

A row says which laws it breaks, in which file, which text stands there exactly once, what the fault
makes of it, and which tests must fail. Where code changes, its rows change with it: a text that is
not found is an error, so that no row is silently out of use.
"""

from typing import NamedTuple


class Mutation(NamedTuple):
    """One deliberate fault."""

    laws: str
    file: str
    text: str
    fault: str
    tests: str


MEMORY = "src/sojourn/stores/memory.py"
SQLITE = "src/sojourn/stores/sqlite.py"
SQLITE_WRITER = "src/sojourn/stores/sqlite_writer.py"
SQLITE_TABLE = "src/sojourn/stores/sqlite_table.py"
SQLITE_SCHEMA = "src/sojourn/stores/sqlite_schema.py"
RECORD = "src/sojourn/core/record.py"
OPERATIONS = "src/sojourn/core/operations.py"
DRIVE = "src/sojourn/core/drive.py"
ENGINE = "src/sojourn/core/engine.py"
LOADER = "src/sojourn/core/loader.py"
WRITER = "src/sojourn/core/writer.py"
PLAN = "src/sojourn/core/plan.py"
POLICY = "src/sojourn/core/policy.py"
SESSION = "src/sojourn/core/session.py"
VISIT = "src/sojourn/core/visit.py"
TICKET = "src/sojourn/core/ticket.py"
GATE = "src/sojourn/web/gate.py"
ASGI = "src/sojourn/web/asgi.py"
WSGI = "src/sojourn/web/wsgi.py"
COOKIES = "src/sojourn/web/cookies.py"
HEADERS = "src/sojourn/web/headers.py"
INSTALL = "src/sojourn/frameworks/install.py"
SOCKET = "src/sojourn/live/socket.py"
ENDING = "src/sojourn/live/ending.py"

IN_MEMORY = "tests/stores/test_memory.py::TestMemoryStore"
IN_SQLITE = "tests/stores/test_sqlite.py::TestSQLiteStore"
ON_ASGI = "tests/laws/test_applications.py::TestBareASGI"
ON_WSGI = "tests/laws/test_applications.py::TestBareWSGI"
ON_STARLETTE = "tests/laws/test_applications.py::TestStarlette"
RACES = "tests/laws/test_interleavings.py"
MODEL = "tests/laws/test_model.py"
SOCKETS = "tests/live"

STORES = [
    Mutation(
        "S1",
        MEMORY,
        "return None if record is None or self._is_void(record) else record",
        "return self._records[session_id]",
        f"{IN_MEMORY} -k absent",
    ),
    Mutation(
        "S2",
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
        "S4",
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
        "S10 A6",
        ENGINE,
        "return data if current is base else log.replay(contents.data)",
        "return data",
        f"{IN_MEMORY} {RACES} -k 'lose_nothing or survive'",
    ),
    Mutation(
        "S4 S10",
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
        "S18 A4",
        WRITER,
        "result = await self._store.save(record, base.version)",
        "await self._store.load(base.id)\n"
        "                result = await self._store.save(record, base.version)",
        f"{ON_ASGI} -k one_save",
    ),
]

LISTS = [
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
        "S15 S13",
        SQLITE_TABLE,
        '                    connection.execute("ROLLBACK TO bind")\n',
        "                    pass\n",
        f"{IN_SQLITE} -k is_refused",
    ),
    Mutation(
        "S15 S13",
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
        "S15 S9",
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
]

REQUESTS = [
    Mutation(
        "A1 A10",
        PLAN,
        "return CREATE if keep else NOTHING",
        "return CREATE",
        f"{ON_ASGI} -k 'nothing_costs or anonymous or failing_request'",
    ),
    Mutation(
        "A2 A5",
        PLAN,
        "    if record is None:\n        return CREATE if keep else NOTHING\n",
        "    if record is None:\n        return NOTHING\n",
        f"{ON_WSGI} -k first_write",
    ),
    Mutation(
        "A3 A4",
        POLICY,
        "        return now - record.seen_at >= min(",
        "        return now - record.seen_at >= 0 * min(",
        f"{ON_ASGI} -k 'reading_is or due_touch'",
    ),
    Mutation(
        "A3 A4",
        GATE,
        "if change is NO_CHANGE:",
        "if change is NO_CHANGE and session._record is None:",
        f"{ON_ASGI} -k 'reading_is or one_save'",
    ),
    Mutation(
        "A5",
        ASGI,
        '            if kind == "http.response.start":\n',
        '            if kind == "http.response.start":\n'
        "                self._started = True\n"
        "                await self._send(message)\n"
        "                return\n",
        f"{ON_ASGI} -k 'first_byte or first_write'",
    ),
    Mutation(
        "A6",
        OPERATIONS,
        "return value + amount if is_number(value) else amount",
        "return amount",
        f"{MODEL} {ON_ASGI} -k 'model_says and not length or overlapping'",
    ),
    Mutation(
        "A6",
        OPERATIONS,
        "for key in before.keys() - after.keys():\n        newer.pop(key, None)",
        "for key in newer.keys() - after.keys():\n        newer.pop(key, None)",
        f"{MODEL} {ON_ASGI} -k 'model_says and not length or overlapping'",
    ),
    Mutation(
        "A6",
        OPERATIONS,
        "first is second and one == two",
        "first is second",
        f"{MODEL} -k 'model_says and not length'",
    ),
    Mutation(
        "A6",
        OPERATIONS,
        "result = emptied(data) if self.cleared else dict(data)",
        "result = dict(data)",
        f"{MODEL} -k 'model_says and not length'",
    ),
    Mutation(
        "A7 S5",
        WRITER,
        "            if result is GONE:\n                return False\n",
        "            if result is GONE:\n                await self._store.create(record)\n",
        f"{ON_ASGI} {RACES} -k 'late or leave_nothing'",
    ),
    Mutation(
        "A7",
        ENGINE,
        'if await self.ender.end(record.id, "destroyed"):',
        'if await self.ender.end(record.id, "destroyed") or record:',
        f"{ON_ASGI} -k late",
    ),
    Mutation(
        "A8",
        GATE,
        "if len(values) != 1:",
        "if not values:",
        f"{ON_ASGI} -k never_reaches",
    ),
    Mutation(
        "A8",
        LOADER,
        "if not compare_digest(record.verifier, ticket.digest):",
        "if not record.verifier:",
        f"{ON_ASGI} -k another_verifier",
    ),
    Mutation(
        "A8",
        LOADER,
        "        session._reason = reason\n        return session\n\n    async",
        "        session._id = ticket.session_id\n        return session\n\n    async",
        f"{ON_ASGI} -k adopted",
    ),
    Mutation(
        "A10",
        ASGI,
        'if message["status"] >= SERVER_ERROR:',
        "if False:",
        f"{ON_ASGI} -k failing_request",
    ),
    Mutation(
        "A10",
        ASGI,
        "if not self._left:\n                self._failed = not self.gate.rules.save_on_error\n",
        "if not self._left:\n                self._failed = False\n",
        f"{ON_ASGI} -k 'failing_request or stream_that_fails'",
    ),
    Mutation(
        "A10",
        PLAN,
        "    if destroyed:\n",
        "    if destroyed and not failed:\n",
        f"{ON_ASGI} -k failing_request",
    ),
    Mutation(
        "A11",
        VISIT,
        "            raise ResponseStarted\n",
        "            pass\n",
        f"{ON_ASGI} -k after_the_first_byte",
    ),
    Mutation(
        "A11",
        ASGI,
        "(ASGI 2.4)\n            self._left = True\n",
        "(ASGI 2.4)\n            self._left = False\n",
        f"{ON_STARLETTE} -k client_leaves",
    ),
    Mutation(
        "A11",
        WSGI,
        "            self._left = True\n",
        "            self._left = False\n            self._failed = True\n",
        "tests/web/test_wsgi.py -k left",
    ),
    Mutation(
        "A11",
        WSGI,
        "            self._commit(failed=self._failed or not self._started)\n",
        "            pass\n",
        f"{ON_WSGI} -k client_leaves",
    ),
    Mutation(
        "A12",
        ASGI,
        "self._failed = self._failed or not self.started",
        "pass",
        f"{ON_ASGI} -k cancelled",
    ),
    Mutation(
        "A13",
        SESSION,
        "return key in self._look()",
        "return key in self._open()",
        f"{ON_ASGI} -k every_look",
    ),
    Mutation(
        "A13",
        HEADERS,
        "if any(directive.startswith(_SHARED) for directive in directives):",
        "if not directives:",
        f"{ON_ASGI} -k never_stored",
    ),
    Mutation(
        "A14",
        COOKIES,
        'attributes.append("HttpOnly")',
        'attributes.append("HttpsOnly")',
        f"{ON_ASGI} -k as_configured",
    ),
    Mutation(
        "A14",
        COOKIES,
        'return b"%b=; %b%b" % (self.name.encode(), past, self.tail)',
        'return b"%b=; %b" % (self.name.encode(), past)',
        f"{ON_ASGI} -k as_configured",
    ),
    Mutation(
        "A15",
        LOADER,
        '            self._journal.failed("load", ticket.session_id, error)\n'
        "        if record is None:\n",
        "            return Session(engine)\n        if record is None:\n",
        f"{ON_ASGI} -k failing_store",
    ),
    Mutation(
        "A16",
        GATE,
        'session: Session[Any] = Session(self.engine, None, b"", client)',
        "session = getattr(self.engine, 'shared', None) or Session(self.engine, None, b'')\n"
        "        self.engine.shared = session",
        f"{ON_ASGI} -k 'interleaved or worker'",
    ),
    Mutation(
        "A17",
        POLICY,
        "    if now >= record.absolute_at:\n",
        "    if now < 0:\n",
        f"{ON_ASGI} -k longest_life",
    ),
    Mutation(
        "A17",
        POLICY,
        "    if now >= record.seen_at + record.idle_timeout:\n",
        "    if now < 0:\n",
        f"{ON_ASGI} -k silence",
    ),
    Mutation(
        "A18",
        SESSION,
        'return f"<Session {self.id} with',
        'return f"<Session {self._verifier.hex()} with',
        f"{ON_ASGI} -k shows_nowhere",
    ),
    Mutation(
        "A19",
        COOKIES,
        'rb";[ \\t]*+%b=([^;]*+)"',
        'rb"[; \\t]*%b=([^;]*+)"',
        f"{ON_ASGI} -k hostile",
    ),
    Mutation(
        "A20",
        INSTALL,
        "    adapter.uninstall(app, sessions)\n",
        "    sessions.gate.active = True\n",
        f"{ON_STARLETTE} -k uninstalling",
    ),
]

LIVE = [
    Mutation(
        "W1",
        SOCKET,
        "                raise _ForeignOrigin\n",
        "                pass\n",
        SOCKETS,
    ),
    Mutation(
        "W2",
        SOCKET,
        "            return await self._receive()\n        await self._commit(session)\n",
        "            return await self._receive()\n",
        SOCKETS,
    ),
    Mutation(
        "W3",
        SOCKET,
        "                await self._take_in(session)\n",
        "                pass\n",
        SOCKETS,
    ),
    Mutation(
        "W6",
        ENDING,
        "self._ring_in(max(0.0, min(seconds,",
        "self._ring_in(max(60.0, min(seconds,",
        SOCKETS,
    ),
    Mutation(
        "W7",
        SOCKET,
        "        if stored and not session._gone:\n",
        "        if not stored and session._gone:\n",
        SOCKETS,
    ),
    Mutation(
        "W8",
        SOCKET,
        "        session._started = True\n        self._ending.watch(session)\n",
        "        self._ending.watch(session)\n",
        SOCKETS,
    ),
]

MUTATIONS = [*STORES, *LISTS, *REQUESTS, *LIVE]
