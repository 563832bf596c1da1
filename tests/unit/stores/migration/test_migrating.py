"""``migrating``: arguments, capabilities, failures of one store, processes with one store."""

import asyncio
import logging
from contextlib import suppress

import msgspec
import pytest

import sojourn
from sojourn import Sessions
from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError, RevocationIncomplete, StoreUnavailable
from sojourn.record import pack_body
from sojourn.store import (
    REVOKED,
    SAVED,
    Count,
    LimitPolicy,
    LocalStore,
    LoginSaved,
    NeedsPurge,
    SessionLimit,
    SupportsBroadcast,
    SupportsBulk,
    SupportsGroupCommit,
    SupportsImmediate,
    SupportsServerTime,
    SupportsUserIndex,
)
from sojourn.stores import migrate, migrating
from sojourn.stores.memory import MemoryStore
from sojourn.stores.migration.mover import Mover
from sojourn.stores.migration.transit import interpret, moved_record, new_token, pending, retired
from sojourn.stores.sqlite import SQLiteStore
from sojourn.stores.urls import open_store
from sojourn.testing import FaultyStore
from sojourn.testing.records import login, make_record, next_version, now, purge_all, save_login
from sojourn.testing.visitor import Visitor
from tests.support.broadcast_store import wait_until

SECRET = "migrating-in-tests-3Xk8Vq1Rz6Wm"


def sessions_over(store, **options):
    return Sessions(store=store, secret=SECRET, **options)


async def create_session(sessions, user=None, **data):
    """Create a session; return its visitor and its ID."""
    visitor = Visitor(sessions)
    async with visitor.visit() as session:
        session.update(data)
        if user is not None:
            session.login(user)
    return visitor, session.id


# Arguments


def test_urls_are_opened_in_the_realm_of_the_installation(tmp_path):
    """S14: with another realm, no session would be found."""
    old, new = (f"sqlite:///{tmp_path}/{name}.db" for name in ("old", "new"))
    before = sessions_over(old, realm="shop")
    visitor, _ = run(create_session(before, cart=3))
    during = sessions_over(migrating(old, new), realm="shop", store_timeout="7 seconds")
    assert dict(run(visitor.at(during).load())) == {"cart": 3}
    for sessions in (before, during):
        sessions.close()


def test_install_accepts_a_migrating_store():
    from starlette.applications import Starlette

    store = migrating("memory://", "memory://?limit=7")
    sessions = sojourn.install(Starlette(), store=store, secret=SECRET)
    assert repr(sessions.store) == (
        "migrating(MemoryStore(0 of 100000 records), MemoryStore(0 of 7 records))"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [("memory://", 5), (None, "memory://"), (MemoryStore, MemoryStore()), ("memory://",) * 2],
)
def test_invalid_arguments_are_refused(old, new):
    """A24: also the same store twice, which would move sessions onto themselves."""
    with pytest.raises(ConfigurationError, match="migrating"):
        migrating(old, new)
    store = MemoryStore()
    with pytest.raises(ConfigurationError, match="two different stores"):
        migrating(store, store)


def test_repr_and_errors_contain_no_password():
    """A18."""
    source = migrating("redis://user:hush@localhost/0", "sqlite:///a.db")
    assert "hush" not in repr(source)
    with pytest.raises(ConfigurationError) as raised:
        Sessions(store=source)
    assert "hush" not in str(raised.value)


def test_a_secret_must_be_given(tmp_path):
    """A generated secret is stored beside one store; the other store would have another secret."""
    store = migrating(SQLiteStore(tmp_path / "a.db"), SQLiteStore(tmp_path / "b.db"))
    assert not isinstance(store, LocalStore)
    with pytest.raises(ConfigurationError, match="secret"):
        Sessions(store=store)
    store.close()


def test_a_near_cache_is_refused(valkey, tmp_path):
    """N1: it needs the subscription of one store."""
    new = open_store(valkey.url, realm="default", timeout=2.0)
    store = migrating(SQLiteStore(tmp_path / "a.db"), new)
    with pytest.raises(ConfigurationError, match="near_cache needs the messages of one store"):
        sessions_over(store, near_cache="1 second")
    store.close()


# Capabilities


class StoreWithoutCapabilities:
    """A store with the six required methods, over a memory store."""

    def __init__(self):
        self.store = MemoryStore()
        for name in ("load", "create", "save", "touch", "delete", "purge"):
            setattr(self, name, getattr(self.store, name))


def test_capabilities_are_those_that_both_stores_have(tmp_path):
    both = migrating(MemoryStore(), SQLiteStore(tmp_path / "a.db"))
    for capability in (SupportsUserIndex, SupportsBulk, SupportsImmediate, SupportsGroupCommit):
        assert isinstance(both, capability)
    assert both.purge_interval == 10.0
    assert not isinstance(both, SupportsBroadcast | SupportsServerTime)
    both.close()
    assert not isinstance(migrating(MemoryStore(), StoreWithoutCapabilities()), SupportsUserIndex)
    assert not isinstance(
        migrating(StoreWithoutCapabilities(), StoreWithoutCapabilities()), NeedsPurge
    )


def test_logins_are_indexed_although_the_old_store_has_no_index():
    """S15, S16: afterwards the new store alone lists and revokes them."""
    old, new = StoreWithoutCapabilities(), MemoryStore()
    sessions = sessions_over(migrating(old, new))

    async def work():
        moved, moved_id = await create_session(sessions_over(old), user="ada")
        _, new_id = await create_session(sessions, user="ada")
        async with moved.at(sessions).visit() as session:
            session["n"] = 1
        return {moved_id, new_id}

    ids = run(work())
    listed = sessions_over(new).list_user("ada")
    assert {each.id for each in listed} == ids


# Failures


@pytest.mark.parametrize("prepare", [False, True])
def test_a_failing_store_raises_instead_of_reporting_an_absent_session(prepare):
    """A15: the session may be in the store that fails."""
    old, new = FaultyStore(MemoryStore()), FaultyStore(MemoryStore())
    record = make_record()
    run(old.store.create(record))
    store = migrating(old, new, prepare=prepare)
    old.fail()
    with pytest.raises(StoreUnavailable):
        run(store.load(record.id))
    old.heal()
    assert run(store.load(record.id)) == record
    run(Mover(old, new).move(record.id))
    new.fail()
    with pytest.raises(StoreUnavailable):
        run(store.load(record.id))


def test_sessions_in_the_new_store_are_served_while_the_old_store_fails():
    """A15, S12: they are loaded, saved and touched."""
    old, new = FaultyStore(MemoryStore()), MemoryStore()
    store = migrating(old, new)
    record = make_record()
    assert run(store.create(record))
    old.fail()
    saved = next_version(record)
    assert run(store.save(saved, 1)) is SAVED
    assert run(store.touch(saved.with_seen_at(now() + 9))) is True
    assert run(store.load(record.id)).version == 2


@pytest.mark.parametrize("failing", ["old", "new"])
def test_a_revocation_is_executed_in_the_store_that_works(failing):
    """S16: and raises RevocationIncomplete."""
    stores = {name: FaultyStore(MemoryStore()) for name in ("old", "new")}
    store = migrating(stores["old"], stores["new"])
    records = {name: login(None, "ada", at=5) for name in stores}
    for name, each in stores.items():
        run(save_login(each, records[name], 0))
    stores[failing].fail()
    sessions = sessions_over(store)
    with pytest.raises(RevocationIncomplete):
        sessions.revoke_user("ada")
    for each in records.values():
        with suppress(StoreUnavailable):
            run(store.delete(each.id))
    stores[failing].heal()
    works = next(name for name in stores if name != failing)
    assert run(stores[works].load(records[works].id)) is None
    assert run(save_login(stores[works], login(None, "ada", at=6), 0)) is REVOKED


@pytest.mark.parametrize("prepare", [False, True])
@pytest.mark.parametrize("failing", ["old", "new"])
def test_revoke_user_ends_the_sessions_of_the_store_that_works(failing, prepare):
    """S16: the list of the other store's sessions is missing."""
    stores = {name: FaultyStore(MemoryStore()) for name in ("old", "new")}
    records = {name: login(None, "ada", at=5) for name in stores}
    for name, each in stores.items():
        run(save_login(each, records[name], 0))
    sessions = sessions_over(migrating(stores["old"], stores["new"], prepare=prepare))
    stores[failing].fail()
    with pytest.raises(RevocationIncomplete) as caught:
        sessions.revoke_user("ada")
    assert (caught.value.revoked, caught.value.remaining) == ((), None)
    assert not caught.value.cutoff_set
    stores[failing].heal()
    left = {name for name, each in stores.items() if run(each.load(records[name].id))}
    assert left == {failing}
    assert sessions.revoke_user("ada") == 1


def test_the_list_of_a_user_raises_if_one_store_fails():
    """A15: a part of the list would look like the whole."""
    old, new = FaultyStore(MemoryStore()), MemoryStore()
    run(save_login(new, login(None, "ada", at=5), 0))
    sessions = sessions_over(migrating(old, new))
    old.fail("list_by_index")
    with pytest.raises(StoreUnavailable):
        sessions.list_user("ada")


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("hanging", ["old", "new"])
def test_a_deletion_reaches_one_store_although_the_other_hangs(hanging, many):
    """S12, S16."""

    async def work():
        stores = {name: FaultyStore(MemoryStore()) for name in ("old", "new")}
        store = migrating(stores["old"], stores["new"])
        store.set_timeout(0.6)
        records = {name: make_record() for name in stores}
        for name, each in stores.items():
            await each.create(records[name])
        stores[hanging].hang()
        ids = [record.id for record in records.values()]
        for calls in [store.delete_many(ids)] if many else map(store.delete, ids):
            with pytest.raises(StoreUnavailable):
                await asyncio.wait_for(calls, 2)
        stores[hanging].heal()
        left = {name for name, each in stores.items() if await each.load(records[name].id)}
        assert left == {hanging}

    asyncio.run(work())


def test_calls_of_both_stores_share_one_deadline():
    """S12: a store that hangs does not double the time."""

    async def work():
        old, new = FaultyStore(MemoryStore()), FaultyStore(MemoryStore())
        store = migrating(old, new)
        store.set_timeout(0.6)
        old.slow("load", seconds=0.4)
        new.slow("load", seconds=0.4)
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(store.load(make_record().id), 2)

    asyncio.run(work())


# Cutoffs from before the migration


def test_cutoffs_of_the_old_store_apply():
    """S16: of a user, and of all sessions, for a login that began before."""
    old, new = MemoryStore(), MemoryStore()
    at = now()
    run(old.invalidate_logins("user:ada", at))
    run(old.invalidate_all(at))
    store = migrating(old, new)
    assert run(save_login(store, login(None, "ada", at=at - 1), 0)) is REVOKED
    assert run(store.create(make_record(created_at=at - 1))) is False
    assert run(store.create(make_record(created_at=at))) is True
    accepts = sessions_over(store).engine.revoker.accepts_login
    assert [run(accepts(user, at + n)) for user, n in (("ada", -1), ("bob", -1), ("bob", 1))] == [
        False,
        False,
        True,
    ]


def test_cutoffs_of_the_new_store_apply():
    """S16: recorded by a process that uses the new store alone, for a "remember me" login."""
    old, new = MemoryStore(), MemoryStore()
    at = now()
    run(new.invalidate_logins("user:ada", at))
    accepts = sessions_over(migrating(old, new)).engine.revoker.accepts_login
    assert [run(accepts("ada", at + n)) for n in (-1, 0)] == [False, True]


# Void copies and damaged records


@pytest.mark.parametrize("policy", list(LimitPolicy))
@pytest.mark.parametrize("stops", [False, True])
def test_a_void_copy_does_not_count_for_a_limit(policy, stops):
    """ASVS 7.1.2: the session ended before its late move; with `stops` the mover was killed."""
    old, new = MemoryStore(), MemoryStore()
    store = migrating(old, new)
    ended, first, second = (login(None, "ada", at=at) for at in (1, 2, 3))
    run(save_login(old, ended, 0))
    assert run(store.delete(ended.id)) is True
    if stops:
        run(save_login(new, pending(ended, new_token()), 0))
    else:
        assert run(Mover(old, new).move_record(ended)) is False
        assert [record.expires_at for record in new.records()] == [0]
    for record in (first, second):
        result = run(save_login(store, record, 0, limit=SessionLimit(2, policy)))
        assert result.evicted == ()
    assert run(store.list_by_index("user:ada")) == [second, first]
    assert run(purge_all(store, now())) == 1


def test_a_damaged_session_does_not_prevent_a_login_of_its_user():
    """S9, S15: neither a record that cannot be copied nor a damaged moved record."""
    old, new = MemoryStore(), MemoryStore()
    store = migrating(old, new)
    damaged, moving, fine = (login(None, "ada", at=at) for at in (1, 2, 3))
    for record in (damaged, moving, fine):
        run(save_login(old, record, 0))
    run(old.save(msgspec.structs.replace(damaged, version=2, body=b"\x93\xc1"), 1))
    wrong = moved_record(moving, new_token())
    run(old.save(msgspec.structs.replace(wrong, body=pack_body(None, {}, {})), 1))
    last = login(None, "ada", at=4)
    limit = SessionLimit(9, LimitPolicy.REFUSE)
    assert isinstance(run(save_login(store, last, 0, limit=limit)), LoginSaved)
    listed = run(store.list_by_index("user:ada"))
    assert [each.id for each in listed] == [last.id, fine.id, damaged.id]


# Processes that use one of the two stores


def test_a_process_with_the_old_store_alone_raises_for_a_moved_session(caplog):
    """A15: it must be replaced before sessions are moved."""
    old, new = MemoryStore(), MemoryStore()
    alone = sessions_over(old)
    visitor, session_id = run(create_session(alone, user="ada"))
    run(Mover(old, new).move(bytes.fromhex(session_id)))
    with caplog.at_level(logging.ERROR), pytest.raises(StoreUnavailable, match="migrating"):
        run(visitor.at(alone).load())
    assert alone.get(session_id) is None
    assert alone.list_user("ada") == []
    assert run(visitor.at(sessions_over(new)).load()).user == "ada"


@pytest.mark.parametrize("clear", [False, True])
def test_a_process_with_the_old_store_alone_does_not_overwrite_a_moved_record(clear):
    """A5: the session moves while a handler changes it; the commit raises."""
    old, new = MemoryStore(), MemoryStore()
    alone = sessions_over(old)
    visitor, session_id = run(create_session(alone, cart=3))
    record = run(old.load(bytes.fromhex(session_id)))
    token = new_token()

    async def write():
        async with visitor.visit() as session:
            if clear:
                session.clear()
            session["n"] = session.get("n", 0) + 1
            # The state that a suspended mover leaves.
            await new.create(pending(record, token))
            await old.save(moved_record(record, token), record.version)

    with pytest.raises(StoreUnavailable, match="migrating"):
        run(write())
    both = sessions_over(migrating(old, new))
    assert dict(run(visitor.at(both).load())) == {"cart": 3}


def test_a_websocket_of_a_process_with_the_old_store_alone_keeps_its_copy():
    """W5, A15: a refresh does not load the moved record; its next commit raises."""
    old, new = MemoryStore(), MemoryStore()
    alone = sessions_over(old)
    visitor, session_id = run(create_session(alone, cart=3))

    async def refresh():
        session = await visitor.load()
        assert session["cart"] == 3
        await Mover(old, new).move(bytes.fromhex(session_id))
        with pytest.raises(StoreUnavailable, match="migrating"):
            await session.refresh()
        assert dict(session) == {"cart": 3}

    run(refresh())


def test_a_process_with_the_new_store_alone_ignores_a_pending_copy():
    """A8: the copy is not the session yet."""
    old, new = MemoryStore(), MemoryStore()
    visitor, session_id = run(create_session(sessions_over(old), user="ada"))
    record = run(old.load(bytes.fromhex(session_id)))
    run(save_login(new, pending(record, new_token()), 0))
    alone = sessions_over(new)
    with pytest.raises(StoreUnavailable, match="migrating"):
        run(visitor.at(alone).load())
    assert alone.list_user("ada") == []


# Broadcast, purge and moved records


def test_messages_reach_processes_with_the_old_the_new_and_both_stores(tmp_path, valkey):
    """S17."""
    path = tmp_path / "sessions.db"
    receivers = {
        "old": SQLiteStore(path),
        "new": open_store(valkey.url, realm="default", timeout=2.0),
        "both": migrating(SQLiteStore(path), open_store(valkey.url, realm="default", timeout=2.0)),
    }
    found = {name: set() for name in receivers}
    ready = {name: [] for name in receivers}
    subscriptions = [
        store.subscribe(
            lambda message, name=name: found[name].add(message.session_id),
            lambda name=name: ready[name].append(1),
        )
        for name, store in receivers.items()
    ]

    wait_until(lambda: [len(each) for each in ready.values()] == [1, 1, 2])
    sender = migrating(SQLiteStore(path), open_store(valkey.url, realm="default", timeout=2.0))
    run(sender.publish("revoked", b"1" * 16))
    wait_until(lambda: all(b"1" * 16 in each for each in found.values()))
    run(receivers["old"].publish("revoked", b"2" * 16))
    run(receivers["new"].publish("revoked", b"3" * 16))
    wait_until(lambda: {b"2" * 16, b"3" * 16} <= found["both"])
    for subscription in subscriptions:
        subscription.close()
    for store in (*receivers.values(), sender):
        store.close()


def test_a_move_closes_no_connection(tmp_path):
    """W5: deleting the old record is not announced as a revocation."""
    old = SQLiteStore(tmp_path / "old.db")
    record = make_record()
    run(old.create(record))
    messages, gaps = [], []
    subscription = old.subscribe(messages.append, lambda: gaps.append(1))
    wait_until(lambda: gaps)  # messages before the first poll are not delivered
    new = MemoryStore()
    run(Mover(old, new).move(record.id))
    assert run(purge_all(old, now())) == 1  # the moved record
    run(old.publish("rotated", b"4" * 16))
    wait_until(lambda: messages)
    assert {message.kind for message in messages} == {"rotated"}
    subscription.close()
    old.close()


def test_purge_deletes_moved_records(tmp_path):
    """S8, S15: and keeps the sessions that have moved."""
    old, new = MemoryStore(), MemoryStore()
    records = [login(None, f"user-{n}") for n in range(20)]
    for record in records:
        run(save_login(old, record, 0))
    assert migrate(old, new).moved == 20
    store = migrating(old, new)
    assert run(purge_all(store, now())) == 20
    assert old.records() == []
    assert (old._index, old._index_names) == ({}, {})
    assert len(new.records()) == 20


def test_a_damaged_moved_record_is_unreadable():
    """S9: as any other damaged record."""
    from sojourn.record import UnreadableRecord

    record = make_record()
    token = new_token()
    for made in (pending(record, token), moved_record(record, token)):
        assert interpret(made).token == token
        damaged = type(made)(
            **{
                **{name: getattr(made, name) for name in made.__struct_fields__},
                "body": pack_body(None, {}, {}),
            }
        )
        with pytest.raises(UnreadableRecord):
            interpret(damaged)
    assert interpret(retired(interpret(moved_record(record, token)))).is_retired


# Lists and counts


async def every_page(store, limit=3):
    """Return the records of all pages, in order."""
    found, cursor, is_last = [], "", False
    while not is_last:
        page = await store.list_page(cursor, limit)
        found += page.records
        cursor, is_last = page.cursor, not page.cursor
    return found


@pytest.mark.parametrize("prepare", [False, True])
def test_sessions_of_both_stores_are_listed_without_duplicates(prepare):
    """Also a session whose mover stopped at any step."""

    async def steps():
        old, new = MemoryStore(), MemoryStore()
        store = migrating(old, new, prepare=prepare)
        in_old = [make_record() for _ in range(20)]
        in_new = [make_record() for _ in range(20)]
        await old.create_many(in_old)
        await new.create_many(in_new)
        copied, halfway, moved, *_ = in_old
        await new.create(pending(copied, new_token()))  # void: no moved record in the old store
        token = new_token()
        await new.create(pending(halfway, token))
        stored = moved_record(halfway, token)
        await old.delete(halfway.id)
        await old.create(stored)
        assert await Mover(old, new).move(moved.id)
        expected = sorted(record.id for record in in_old + in_new)
        for limit in (1, 7, 100):
            found = await every_page(store, limit)
            assert sorted(record.id for record in found) == expected
            assert not any(record.in_transit for record in found)
        assert (
            await store.count(now()) == len(expected) - 1
        )  # all except the session that is being moved
        sessions = sessions_over(store)
        page = await sessions.alist_page(limit=1000)
        assert sorted(info.id for info in page.sessions) == sorted(each.hex() for each in expected)

    asyncio.run(steps())


def test_a_session_that_moves_between_two_pages_is_listed():
    """Possibly twice, because the old store was listed before."""

    async def work():
        old, new = MemoryStore(), MemoryStore()
        store = migrating(old, new)
        records = [make_record() for _ in range(20)]
        await old.create_many(records)
        first = await store.list_page("", 5)
        for record in records:
            assert await Mover(old, new).move(record.id)
        found, cursor = list(first.records), first.cursor
        while cursor:
            page = await store.list_page(cursor, 5)
            found += page.records
            cursor = page.cursor
        assert {record.id for record in found} == {record.id for record in records}

    asyncio.run(work())


def test_a_damaged_moved_record_is_not_listed():
    """S9."""

    async def work():
        old, new = MemoryStore(), MemoryStore()
        record = make_record()
        await old.create(
            msgspec.structs.replace(moved_record(record, new_token()), body=record.body)
        )
        page = await migrating(old, new).list_page("", 10)
        assert (page.records, page.unreadable) == ([], 1)

    asyncio.run(work())


@pytest.mark.parametrize("cursor", ["x", "old", "other:", "old:x", ":"])
def test_an_invalid_cursor_of_a_list_is_refused(cursor):
    store = migrating(MemoryStore(), MemoryStore())
    with pytest.raises(ValueError, match="cursor"):
        run(store.list_page(cursor, 10))


def test_a_count_is_exact_only_if_both_counts_are():
    class Estimating(MemoryStore):
        async def count(self, now):
            return Count(10, is_exact=False)

    found = run(migrating(MemoryStore(), Estimating()).count(now()))
    assert (found, found.is_exact) == (10, False)
    assert run(migrating(MemoryStore(), MemoryStore()).count(now())).is_exact
