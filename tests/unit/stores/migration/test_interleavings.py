"""Races of processes during a migration, in every order of their store calls.

Each participant is a process with its own migrating store over the same two stores.
"""

import asyncio
import contextlib
import inspect

import pytest

from sojourn.errors import StoreUnavailable
from sojourn.record import Record
from sojourn.store import GONE, LIMIT_REACHED, SAVED, Conflict, LimitPolicy, SessionLimit
from sojourn.stores import amigrate, migrating
from sojourn.stores.memory import MemoryStore
from sojourn.stores.migration.mover import InTransit, Mover
from sojourn.stores.migration.transit import interpret, moved_record, new_token, pending
from sojourn.testing.records import (
    MINUTE,
    login,
    make_body,
    make_record,
    next_version,
    now,
    save_login,
)
from tests.support.interleave import interleave


class Stores:
    """Two memory stores, and the view that processes have of them in a schedule."""

    def __init__(self, interleaving):
        self.old, self.new = MemoryStore(), MemoryStore()
        self.held = interleaving.wrap(self.old), interleaving.wrap(self.new)

    def process(self, *, prepare=False):
        """Return the store of one process whose calls are scheduled."""
        return migrating(*self.held, prepare=prepare)

    def mover(self):
        return Mover(*self.held)

    async def add(self, record=None):
        """Add a session to the old store."""
        record = record or make_record()
        if record.index_names():
            await save_login(self.old, record, 0)
        else:
            await self.old.create(record)
        return record

    async def find(self, session_id):
        """Return the record that every kind of process loads; assert that all agree."""
        seen = [
            await migrating(self.old, self.new, prepare=prepare).load(session_id)
            for prepare in (False, True)
        ]
        assert seen[0] == seen[1]
        return seen[0]

    async def complete(self):
        """Run the bulk copy; return the sessions of the new store by ID."""
        progress = await amigrate(self.old, self.new)
        assert progress.finished
        sessions = [r for r in self.new.records() if not r.in_transit]
        assert len({r.id for r in sessions}) == len(sessions)
        assert [r for r in self.old.records() if not r.in_transit] == []
        return {r.id: r for r in sessions}


async def increment(store, record):
    """Commit a change as the core does, with replay on conflicts."""
    while True:
        result = await store.save(
            next_version(record, body=make_body(n=record.version)), record.version
        )
        if not isinstance(result, Conflict):
            return result
        record = result.newer


def check_every_order(scenario, **options):
    count = interleave(scenario, **options)
    assert count > 1


SLOW = pytest.mark.slow  # thousands of check_every_order

both_steps = pytest.mark.parametrize("prepare", [False, True])


@both_steps
def test_a_session_deleted_during_a_move_stays_deleted(prepare):
    """A7, S5: a record that the move read before is not created again, in any order."""

    async def scenario(interleaving):
        stores = Stores(interleaving)
        record = await stores.add()
        _, existed = await interleaving.together(
            stores.mover().move_record(record), stores.process(prepare=prepare).delete(record.id)
        )
        assert existed is True
        assert await stores.find(record.id) is None
        assert await stores.complete() == {}

    check_every_order(scenario)


def test_a_mover_does_not_complete_the_copy_of_another_mover():
    """A7: one mover stopped before its copy, then another one moved the session and it ended."""

    async def scenario():
        old, new = MemoryStore(), MemoryStore()
        record = make_record()
        await old.create(record)
        tokens = new_token(), new_token()
        await new.create(pending(record, tokens[0]))
        await old.save(moved_record(record, tokens[0]), record.version)
        location = await Mover(old, new).find(record.id)
        assert isinstance(location, InTransit)
        assert await migrating(old, new).delete(record.id) is True
        await new.create(pending(record, tokens[1]))
        assert await Mover(old, new).complete(location) is False
        assert await migrating(old, new).load(record.id) is None

    asyncio.run(scenario())


def test_a_late_mover_keeps_the_marker_of_a_later_move():
    """S11: the session moved, moved back and moves again, with the same version."""

    async def scenario():
        old, new = MemoryStore(), MemoryStore()
        record = make_record()
        await old.create(record)
        with contextlib.suppress(Stopped):  # before the moved record is retired
            await Mover(StoppingStore(old, [3]), new).move(record.id)
        late = interpret(await old.load(record.id))
        assert late.token
        assert await Mover(new, old).move(record.id) is True
        with contextlib.suppress(Stopped):  # before the copy becomes the session
            await Mover(old, StoppingStore(new, [2])).move(record.id)
        assert interpret(await old.load(record.id)).token not in ("", late.token)
        await Mover(old, new).retire(late)
        assert await migrating(old, new).load(record.id) == record

    asyncio.run(scenario())


@both_steps
def test_a_late_move_does_not_revive_a_deleted_session(prepare):
    """A7: meanwhile a second process moves the session and a third one deletes it."""

    async def scenario(interleaving):
        stores = Stores(interleaving)
        record = await stores.add()

        async def move_and_delete():
            await stores.mover().move_record(record)
            return await stores.process(prepare=prepare).delete(record.id)

        _, existed = await interleaving.together(
            stores.mover().move_record(record), move_and_delete()
        )
        assert existed is True
        assert await stores.find(record.id) is None
        assert await stores.complete() == {}

    check_every_order(scenario)


def test_a_late_move_does_not_revive_a_session_deleted_from_the_new_store():
    """A7: by an eviction, by expiry or by a process that uses the new store alone."""

    async def scenario(interleaving):
        stores = Stores(interleaving)
        record = await stores.add()

        async def move_and_delete():
            await stores.mover().move_record(record)
            # False if the other participant has not moved it yet.
            stores.ended = await stores.held[1].delete(record.id)

        await interleaving.together(stores.mover().move_record(record), move_and_delete())
        if stores.ended:
            assert await stores.find(record.id) is None
            assert await stores.complete() == {}

    check_every_order(scenario)


@SLOW
@both_steps
def test_a_save_during_a_move_is_kept(prepare):
    """S3, S4: the move copies the saved record, or the save is applied to the moved one."""

    async def scenario(interleaving):
        stores = Stores(interleaving)
        record = await stores.add()
        _, saved = await interleaving.together(
            stores.mover().move_record(record), increment(stores.process(prepare=prepare), record)
        )
        assert saved is SAVED
        found = await stores.find(record.id)
        assert found == next_version(record, body=make_body(n=1))
        assert await stores.complete() == {record.id: found}

    check_every_order(scenario)


def test_saves_of_a_preparing_and_of_a_moving_process_are_kept():
    """S4, S10."""

    async def scenario(interleaving):
        stores = Stores(interleaving)
        record = await stores.add()
        results = await interleaving.together(
            increment(stores.process(prepare=True), record), increment(stores.process(), record)
        )
        assert results == [SAVED, SAVED]
        found = await stores.find(record.id)
        assert found is not None
        assert found.version == 3
        assert await stores.complete() == {record.id: found}

    check_every_order(scenario)


@SLOW
@both_steps
def test_a_touch_during_a_move_is_kept(prepare):
    """S6: the move compares the version, which a touch does not change."""

    async def scenario(interleaving):
        stores = Stores(interleaving)
        record = await stores.add()
        later = record.with_seen_at(record.seen_at + MINUTE)
        _, touched = await interleaving.together(
            stores.mover().move_record(record), stores.process(prepare=prepare).touch(later)
        )
        assert touched is True
        assert await stores.find(record.id) == later
        assert await stores.complete() == {record.id: later}

    check_every_order(scenario)


@both_steps
def test_a_load_during_a_move_finds_the_session(prepare):
    """S1: at no instant is it in neither store."""

    async def scenario(interleaving):
        stores = Stores(interleaving)
        record = await stores.add()
        _, found = await interleaving.together(
            stores.mover().move_record(record), stores.process(prepare=prepare).load(record.id)
        )
        assert found == record

    check_every_order(scenario)


@both_steps
def test_a_list_during_a_move_contains_the_session_once(prepare):
    """S15."""

    async def scenario(interleaving):
        stores = Stores(interleaving)
        record = await stores.add(login(None, "ada"))
        _, listed = await interleaving.together(
            stores.mover().move_record(record),
            stores.process(prepare=prepare).list_by_index("user:ada"),
        )
        assert listed == [record]
        assert await stores.process().list_by_index("user:ada") == [record]
        await stores.complete()
        assert await stores.new.list_by_index("user:ada") == [record]

    check_every_order(scenario)


@SLOW
@both_steps
def test_revoking_a_user_during_a_move_deletes_the_session(prepare):
    """S16: cutoff, list and deletion, as the core does."""

    async def scenario(interleaving):
        stores = Stores(interleaving)
        record = await stores.add(login(None, "ada", at=5))

        async def revoke():
            store = stores.process(prepare=prepare)
            await store.invalidate_logins("user:ada", 9)
            listed = await store.list_by_index("user:ada")
            return [await store.delete(each.id) for each in listed]

        _, deleted = await interleaving.together(stores.mover().move_record(record), revoke())
        assert deleted == [True]
        assert await stores.find(record.id) is None
        assert await stores.complete() == {}

    check_every_order(scenario)


def test_a_session_that_a_revocation_keeps_is_moved():
    """S16: a cutoff rejects logins, but not the session given as ``keep``."""

    async def scenario(interleaving):
        stores = Stores(interleaving)
        record = await stores.add(login(None, "ada", at=5))
        await interleaving.together(
            stores.mover().move_record(record),
            stores.process().invalidate_logins("user:ada", 9),
        )
        assert await stores.find(record.id) == record
        await stores.complete()
        assert await stores.new.list_by_index("user:ada") == [record]

    check_every_order(scenario)


@both_steps
def test_revoking_all_during_a_move_deletes_the_session(prepare):
    """S5: no session that began before the instant is left in either store."""

    async def scenario(interleaving):
        stores = Stores(interleaving)
        record = await stores.add()
        await interleaving.together(
            stores.mover().move_record(record),
            stores.process(prepare=prepare).invalidate_all(record.created_at + 1),
        )
        assert await stores.find(record.id) is None
        assert await stores.complete() == {}

    check_every_order(scenario)


@SLOW
@pytest.mark.timeout(900)
@pytest.mark.parametrize("policy", list(LimitPolicy))
def test_a_login_during_a_move_counts_the_sessions_of_both_stores(policy):
    """ASVS 7.1.2."""

    async def scenario(interleaving):
        stores = Stores(interleaving)
        first = await stores.add(login(None, "ada", at=1))
        second = login(None, "ada", at=2)
        _, result = await interleaving.together(
            stores.mover().move_record(first),
            stores.process().save_login(second, 0, limit=SessionLimit(1, policy), now=now()),
        )
        if policy is LimitPolicy.REFUSE:
            assert result is LIMIT_REACHED
            assert await stores.find(first.id) == first
            assert await stores.find(second.id) is None
        else:
            assert result.evicted == (first.id,)
            assert await stores.find(first.id) is None
            assert await stores.find(second.id) == second
        assert len(await stores.complete()) == 1

    check_every_order(scenario)


def test_an_id_is_created_once_by_a_preparing_and_a_moving_process():
    """S2, A7: such as the ID of a converted session, which both derive."""

    async def scenario(interleaving):
        stores = Stores(interleaving)
        one, other = make_record(), None
        other = make_record(id=one.id)
        created = await interleaving.together(
            stores.process(prepare=True).create(one), stores.process().create(other)
        )
        assert sum(created) <= 1
        found = await stores.find(one.id)
        assert found == (one if created[0] else other if created[1] else None)

    check_every_order(scenario)


# Rollback: sessions move to the old store while processes prepare for the new one


async def delete(store, record):
    assert await store.delete(record.id) is True


async def touch(store, record):
    assert await store.touch(record.with_seen_at(record.seen_at + MINUTE)) is True


async def load(store, record):
    assert await store.load(record.id) == record


async def list_user(store, record):
    assert await store.list_by_index("user:ada") == [record]


async def save(store, record):
    assert await increment(store, record) is SAVED


async def revoke_user(store, _):
    await store.invalidate_logins("user:ada", 9)
    listed = await store.list_by_index("user:ada")
    assert await store.delete_many([each.id for each in listed]) == [True]


@pytest.mark.parametrize(
    ("action", "remains"),
    [
        (delete, None),
        (load, lambda record: record),
        (list_user, lambda record: record),
        (save, lambda record: next_version(record, body=make_body(n=1))),
        pytest.param(
            touch, lambda record: record.with_seen_at(record.seen_at + MINUTE), marks=SLOW
        ),
        pytest.param(revoke_user, None, marks=SLOW),
    ],
)
def test_a_preparing_process_and_a_rollback_keep_the_result_of_each_call(action, remains):
    """A7, S3, S6, S15, S16: the session moves to the store that the process will leave."""

    async def scenario(interleaving):
        stores = Stores(interleaving)
        record = login(None, "ada", at=5)
        await save_login(stores.new, record, 0)
        await interleaving.together(
            Mover(*reversed(stores.held)).move_record(record),
            action(stores.process(prepare=True), record),
        )
        found = await stores.find(record.id)
        assert found == (None if remains is None else remains(record))
        assert (await amigrate(stores.new, stores.old)).finished
        left = {each.id: each for each in stores.old.records() if not each.in_transit}
        assert left.get(record.id) == found

    check_every_order(scenario)


@pytest.mark.slow
def test_a_session_deleted_during_two_moves_stays_deleted():
    """A7: three processes."""

    async def scenario(interleaving):
        stores = Stores(interleaving)
        record = await stores.add()
        await interleaving.together(
            stores.mover().move_record(record),
            stores.mover().move_record(record),
            stores.process().delete(record.id),
        )
        assert await stores.find(record.id) is None

    check_every_order(scenario)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_save_during_two_moves_is_kept():
    """S3: three processes."""

    async def scenario(interleaving):
        stores = Stores(interleaving)
        record = await stores.add()
        *_, saved = await interleaving.together(
            stores.mover().move_record(record),
            stores.mover().move_record(record),
            increment(stores.process(prepare=True), record),
        )
        assert saved is SAVED
        found = await stores.find(record.id)
        assert found == next_version(record, body=make_body(n=1))
        assert await stores.complete() == {record.id: found}

    check_every_order(scenario)


# Processes that stop during a move


class Stopped(Exception):
    """The simulated process has stopped."""


class StoppingStore:
    """A store that raises ``Stopped`` at the n-th call; stores may share the counter.

    Its methods are attributes of the object: since Python 3.12 ``isinstance`` with a protocol finds
    only those.
    """

    def __init__(self, store, calls):
        for name in dir(store):
            method = getattr(store, name)
            if not name.startswith("_") and inspect.iscoroutinefunction(method):
                setattr(self, name, self._stopping(method, calls))

    def _stopping(self, method, calls):
        async def call(*args, **kw):
            calls[0] -= 1
            if calls[0] < 0:
                raise Stopped
            return await method(*args, **kw)

        return call


@pytest.mark.parametrize("calls", range(9))
@pytest.mark.parametrize(
    "then", ["load", "save", "touch", "login", "delete", "list", "complete", "reverse"]
)
@both_steps
def test_a_process_that_stops_during_a_move_neither_loses_nor_revives_a_session(
    calls, then, prepare
):
    """S11: it stops before each of its store calls; another process continues with any call."""

    async def scenario():
        old, new = MemoryStore(), MemoryStore()
        record = login(None, "ada")
        await save_login(old, record, 0)
        left = [calls]
        mover = Mover(StoppingStore(old, left), StoppingStore(new, left))
        with contextlib.suppress(Stopped):
            await mover.move(record.id)
        store = migrating(old, new, prepare=prepare)
        if then == "load":
            assert await store.load(record.id) == record
        elif then == "save":
            record = next_version(record, body=make_body("ada", n=1))
            assert await store.save(record, 1) is SAVED
        elif then == "touch":
            record = record.with_seen_at(record.seen_at + MINUTE)
            assert await store.touch(record) is True
        elif then == "login":
            other = login(None, "ada")
            limit = SessionLimit(1, LimitPolicy.REFUSE)
            assert await save_login(store, other, 0, limit=limit) is LIMIT_REACHED
            assert await store.load(other.id) is None
        elif then == "list":
            assert await store.list_by_index("user:ada") == [record]
        elif then == "delete":
            assert await store.delete(record.id) is True
            assert await store.delete(record.id) is False
            assert await store.load(record.id) is None
            assert await store.list_by_index("user:ada") == []
            assert await store.save(next_version(record), 1) is GONE
            assert await move_again(old, new, record) is False
            return
        elif then == "reverse":  # rollback: all sessions move to the old store
            assert (await amigrate(new, old)).finished
            back = migrating(new, old)
            assert await back.load(record.id) == record
            assert await back.list_by_index("user:ada") == [record]
            old, new = new, old
        assert (await amigrate(old, new)).finished
        assert await new.load(record.id) == record
        assert await new.list_by_index("user:ada") == [record]
        assert [r for r in old.records() if not r.in_transit] == []

    asyncio.run(scenario())


async def move_again(old, new, record: Record):
    """Continue as a process that stopped after it had read the record."""
    mover = Mover(old, new)
    await mover.move_record(record)
    return await mover.move(record.id)


def test_moving_a_session_that_changes_constantly_raises():
    """S12: the move gives up after a bounded number of attempts; the session stays."""

    async def scenario():
        old, new = MemoryStore(), MemoryStore()
        record = make_record()
        await old.create(record)

        async def save(other, expected):
            found = await old.load(record.id)
            await old.save(next_version(found), found.version)
            return await old.save(other, expected)

        busy = StoppingStore(old, [10**9])
        busy.save = save
        with pytest.raises(StoreUnavailable, match="could not be moved"):
            await Mover(busy, new).move(record.id)
        assert (await migrating(old, new).load(record.id)).version > 1

    asyncio.run(scenario())
