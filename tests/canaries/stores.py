"""Canaries of the stores: the S laws over MemoryStore and SQLiteStore, and known flaws."""

import asyncio

from sojourn.record import FORMAT, pack_body
from sojourn.store import GONE, SAVED
from tests.canaries.registry import canary

MEMORY = "sojourn.stores.memory:MemoryStore"
CALLBACK = "sojourn.stores.callback:CallbackStore"

#: Size of the header of a record of format 1.
_HEADER_BYTES = 122
STATEMENTS = "sojourn.stores.sqlite.statements:Statements"
EVENTS = "sojourn.stores.sqlite.events_table:EventsTable"
WATCHER = "sojourn.stores.sqlite.watcher:Watcher"
DATABASE = "sojourn.stores.sqlite.database:DatabaseFile"


@canary("S1", f"{MEMORY}.load", tests="TestMemoryStore", raises="KeyError")
def memory_load_raises_for_an_absent_record(load):
    async def faulty(self, session_id):
        return self._records[session_id]

    return faulty


@canary("S2, B-26", f"{MEMORY}.create", tests="TestMemoryStore test_engine")
def memory_create_overwrites(create):
    async def faulty(self, record):
        self._records[record.id] = record
        return True

    return faulty


@canary("S3", f"{MEMORY}.swap", tests="TestMemoryStore")
def memory_save_keeps_the_old_data(swap):
    def faulty(self, record, expected_version):
        stored = self._records.get(record.id)
        saved = swap(self, record, expected_version)
        if saved:
            self._records[record.id] = stored
        return saved

    return faulty


@canary("S4", f"{MEMORY}.swap", tests="TestMemoryStore")
def memory_save_ignores_the_version(swap):
    def faulty(self, record, expected_version):
        stored = self._records.get(record.id)
        return swap(self, record, stored.version if stored else expected_version)

    return faulty


@canary("S5, A7, B-32, B-33, B-38", f"{MEMORY}.save", tests="TestMemoryStore TestBareASGI")
def memory_save_creates(save):
    async def faulty(self, record, expected_version):
        result = await save(self, record, expected_version)
        if result is GONE:
            self._records[record.id] = record
            return SAVED
        return result

    return faulty


@canary("S6", f"{MEMORY}.touch", tests="TestMemoryStore")
def memory_touch_replaces_the_record(touch):
    async def faulty(self, record):
        if record.id not in self._records:
            return False
        self._records[record.id] = record
        return True

    return faulty


@canary("S7", f"{MEMORY}.delete", tests="TestMemoryStore")
def memory_delete_always_reports_success(delete):
    async def faulty(self, session_id):
        await delete(self, session_id)
        return True

    return faulty


@canary("A7, B-35, B-36", f"{MEMORY}.delete", tests="TestBareASGI test_engine")
def memory_delete_keeps_the_record(delete):
    async def faulty(self, session_id):
        return session_id in self._records

    return faulty


@canary("S7", f"{MEMORY}.delete_many", tests="TestMemoryStore")
def memory_bulk_delete_keeps_a_record(delete_many):
    async def faulty(self, session_ids):
        return [*await delete_many(self, session_ids[:-1]), *[True] * bool(session_ids)]

    return faulty


@canary("S2, B-41", f"{MEMORY}.create_many", tests="TestMemoryStore test_sessions")
def memory_bulk_create_stores_nothing(create_many):
    async def faulty(self, records):
        return [True] * len(records)

    return faulty


@canary("S4", "sojourn.stores.sqlite.store:SQLiteStore.swap", tests="TestSQLiteStore")
def sqlite_swap_ignores_the_version(swap):
    def faulty(self, record, expected_version):
        stored = self.peek(record.id)
        return swap(self, record, stored.version if stored else expected_version)

    return faulty


@canary("A5", f"{MEMORY}.peek", tests="TestBareASGI test_promises")
def memory_load_returns_the_record_it_returned_first(peek):
    known = {}

    def faulty(self, session_id):
        record = peek(self, session_id)
        return None if record is None else known.setdefault((id(self), session_id), record)

    return faulty


@canary("S8", f"{MEMORY}.purge", tests="TestMemoryStore")
def memory_purge_exceeds_its_limit(purge):
    async def faulty(self, now, limit):
        return await purge(self, now, 1_000 * limit)

    return faulty


@canary("S8, B-54", f"{MEMORY}.purge", tests="TestMemoryStore test_purger")
def memory_purge_removes_live_records(purge):
    async def faulty(self, now, limit):
        return await purge(self, now + 10**12, limit)

    return faulty


@canary("S9", "sojourn.record:Record.from_bytes", tests="TestSQLiteStore test_record")
def any_format_is_read(from_bytes):
    def faulty(cls, session_id, data):
        return from_bytes(cls, session_id, bytes([FORMAT]) + data[1:])

    return faulty


@canary("B-21", "sojourn.record:Record.from_bytes", tests="test_record")
def truncated_records_are_padded(from_bytes):
    def faulty(cls, session_id, data):
        if len(data) < _HEADER_BYTES:
            data = data.ljust(_HEADER_BYTES, b"\0") + pack_body(None, {}, {})
        return from_bytes(cls, session_id, data)

    return faulty


@canary("S10, A6", "sojourn._core.operations:replay", tests="core/test_writer TestBareASGI")
def a_replay_overwrites_the_newer_value(replay):
    def faulty(log, data):
        return replay(log, None)

    return faulty


@canary(
    "S11",
    "sojourn.stores.sqlite.group_commit:GroupCommitter._commit",
    tests="TestSQLiteStore test_sqlite_processes",
)
def sqlite_acknowledges_before_the_commit(commit):
    def faulty(self, batch, *, timeout):
        connection = self._begin(timeout)
        if connection is None:
            return False
        for write in batch:
            write.execute(connection)
        # The transaction stays open: later writes of this process see it, a crash loses it.
        self._begin = lambda timeout: connection
        return True

    return faulty


@canary(
    "S12",
    "sojourn.stores.sqlite.database:to_store_error",
    tests="unit/stores/test_sqlite.py",
    raises="OperationalError",
)
def sqlite_raises_errors_of_its_driver(to_store_error):
    def faulty(error):
        return error

    return faulty


@canary(
    "S13",
    "sojourn._core.concurrency:KeyedLock.acquire",
    tests="test_failures",
    raises="TimeoutError",
)
def a_cancelled_waiter_stays_in_the_queue(acquire):
    async def faulty(self, name, *, timeout=None):
        return await asyncio.shield(acquire(self, name, timeout=timeout))

    return faulty


@canary("S13", f"{STATEMENTS}.save_login", tests="TestSQLiteStore")
def a_refused_login_is_not_rolled_back(save_login):
    def faulty(self, connection, record, expected, limit, now):  # noqa: PLR0917 - as the original
        return self._save_login(connection, record, expected, limit, now)

    return faulty


@canary("S14", "sojourn.stores.sqlite.schema:Schema.__init__", tests="TestSQLiteStore")
def sqlite_realms_share_their_tables(init):
    def faulty(self, realm):
        init(self, "default")

    return faulty


@canary("S15", f"{MEMORY}._remove_from_index", tests="TestMemoryStore")
def memory_keeps_ended_sessions_listed(remove_from_index):
    def faulty(self, session_id):
        pass

    return faulty


@canary("S15", f"{STATEMENTS}.invalidate_all", tests="TestSQLiteStore")
def sqlite_keeps_sessions_before_the_cutoff(invalidate_all):
    def faulty(self, connection, before):
        pass

    return faulty


@canary("S16", f"{MEMORY}.invalidate_logins", tests="TestMemoryStore")
def memory_accepts_logins_before_the_cutoff(invalidate_logins):
    async def faulty(self, name, before):
        pass

    return faulty


@canary("S16", f"{STATEMENTS}.invalidate_logins", tests="TestSQLiteStore")
def sqlite_accepts_logins_before_the_cutoff(invalidate_logins):
    def faulty(self, connection, name, before):
        pass

    return faulty


@canary("S5", f"{CALLBACK}._save", tests="unit/stores/test_callback")
def callback_save_creates(save):
    async def faulty(self, record, expected_version):
        result = await save(self, record, expected_version)
        if result is GONE:
            await self._write_record(record)
            return SAVED
        return result

    return faulty


@canary("S9", "sojourn._core.json_records:_record", tests="unit/core/test_json_records")
def json_of_another_format_is_read(record):
    def faulty(session_id, value):
        return record(session_id, {**value, "format": 1})

    return faulty


@canary("B-54", f"{MEMORY}._insert", tests="test_memory")
def memory_store_is_unbounded(insert):
    def faulty(self, record):
        self._records[record.id] = record

    return faulty


@canary("B-20, B-30", "sojourn.stores.sqlite.store:SQLiteStore.create", tests="test_promises")
def a_file_is_named_after_the_session_id(create):
    async def faulty(self, record):
        self._file.path.with_name(record.id.hex()).touch()
        return await create(self, record)

    return faulty


@canary(
    "B-50", "sojourn.stores.sqlite.database:DatabaseFile._restrict_permissions", tests="test_sqlite"
)
def the_database_is_readable_by_others(restrict_permissions):
    def faulty(self):
        pass

    return faulty


@canary("S17", f"{EVENTS}.add_provisional", tests="test_sqlite_events")
def a_revocation_writes_no_event(add_provisional):
    def faulty(self, connection, kind, session_ids):
        pass

    return faulty


@canary("S17", f"{WATCHER}._read_events", tests="test_sqlite_events")
def lost_events_are_not_noticed(read_events):
    def faulty(self, connection, messages):
        read_events(self, connection, messages)
        return False

    return faulty


@canary("S17", f"{WATCHER}.remove", tests="test_sqlite_events")
def the_watcher_never_ends(remove):
    def faulty(self, subscription):
        pass

    return faulty


@canary("S12", f"{DATABASE}._compare_identity", tests="test_sqlite_failures")
def a_replaced_file_is_opened(compare_identity):
    def faulty(self):
        pass

    return faulty


@canary(
    "A23",
    "sojourn.stores.sqlite.database:_DAMAGED_CODES",
    tests="test_sqlite_failures",
    raises="StoreError",
)
def a_damaged_file_raises_another_error(damaged):
    return frozenset()


@canary("S13", "sojourn.stores.sqlite.group_commit:is_full", tests="test_sqlite_failures")
def a_write_without_space_fails_its_whole_batch(is_full):
    return lambda error: False


@canary("B-16", "sojourn._folder:DEFAULT_FOLDER", tests="test_folder", raises="FileNotFoundError")
def the_default_folder_can_be_committed(folder):
    return ".another"
