"""The immediate path: load and commit without a coroutine.

In the ordinary case it writes the same record, reports the same events and makes the same store
calls as the coroutines. It declines every other case without an effect; the coroutine is used then.
"""

import asyncio

import msgspec
import pytest

from sojourn._core.codec import decode
from sojourn._core.working_copy import WorkingCopy
from sojourn._crypto.rotation import VerifierChain
from sojourn.errors import SessionTooLarge, StoreUnavailable
from sojourn.events import Conflicted, Read, Written
from sojourn.session import create_session
from sojourn.stores.memory import MemoryStore
from tests.support.small_stores import PlainStore
from tests.support.working_copies import copy_of
from tests.unit.core.engine_harness import Browser, World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio

BROWSER = Browser(browser="B")


async def stored_session(*, user=None, remember=False, **options):
    """Return a world and the ticket of a stored session that has two keys."""
    world = World(**options)
    ticket = await world.create(BROWSER, n=1, cart=["apple"])
    if user is not None:
        session = await world.load(ticket)
        session.login(user, remember=remember)
        await end_of_request(session)
        ticket = ticket_of(session)
    world.store.calls.clear()
    world.events.clear()
    return world, ticket


def load(world, ticket):
    """Return the session of a ticket, loaded without a coroutine."""
    copy = world.engine.load_immediately(ticket, BROWSER)
    assert copy is not None
    return create_session(copy, world.engine.engine)


def commit(world, session):
    """Commit a session without a coroutine; return whether that was possible."""
    return world.engine.commit_immediately(copy_of(session))


def counts(world):
    """Return how often each event occurred, without those that did not."""
    return {kind: n for kind, n in world.engine.context.dispatcher.counts.items() if n}


def fields(copy):
    return {name: getattr(copy, name) for name in WorkingCopy.__struct_fields__}


class TestLoad:
    @pytest.mark.parametrize("user", [None, "ada"])
    @pytest.mark.parametrize("encrypt", [False, True])
    async def test_an_immediate_load_returns_the_copy_that_load_returns(self, user, encrypt):
        world, ticket = await stored_session(user=user, encrypt=encrypt)
        immediate = load(world, ticket)
        other = await world.load(ticket, BROWSER)
        assert fields(copy_of(immediate)) == fields(copy_of(other))
        assert world.store.calls == ["load", "load"]
        assert dict(immediate) == {"n": 1, "cart": ["apple"]}
        assert immediate.user == user

    async def test_an_immediate_load_reports_the_events_that_load_reports(self):
        world, ticket = await stored_session()
        load(world, ticket)
        await world.load(ticket)
        assert world.events == [Read(ticket.session_id.hex(), 1)] * 2

    async def test_an_immediate_load_counts_the_same_with_and_without_listeners(self):
        found = []
        for listen in (True, False):
            world, ticket = await stored_session(listen=listen)
            load(world, ticket)
            await world.load(ticket)
            found.append(counts(world))
        assert found[0] == found[1]
        assert found[0][Read] == 2

    @pytest.mark.parametrize("age", ["29 minutes", "1 second"])
    async def test_a_session_is_loaded_until_the_millisecond_of_its_deadline(self, age):
        world, ticket = await stored_session(timeout="30 minutes")
        world.clock.advance(age)
        assert load(world, ticket)["n"] == 1
        world.clock.now = (await world.record(ticket)).expires_at - 1
        assert load(world, ticket)["n"] == 1
        world.clock.now += 1
        assert world.engine.load_immediately(ticket, BROWSER) is None

    async def check_load_declines(self, world, ticket):
        """Check that the immediate path declines without an effect; return what ``load`` does."""
        world.store.calls.clear()
        world.events.clear()
        before = counts(world)
        assert world.engine.load_immediately(ticket, BROWSER) is None
        assert (world.events, counts(world)) == ([], before)
        assert "delete" not in world.store.calls
        return await world.load(ticket, BROWSER)

    async def test_an_unknown_session_is_declined(self):
        world, ticket = await stored_session()
        unknown = msgspec.structs.replace(ticket, session_id=bytes(16))
        assert (await self.check_load_declines(world, unknown)).new

    async def test_a_revoked_session_is_declined_and_load_returns_the_reason(self):
        world, ticket = await stored_session()
        await world.engine.revoker.revoke(ticket.session_id, "stolen")
        assert (await self.check_load_declines(world, ticket)).ended_reason == "stolen"

    async def test_a_wrong_verifier_is_declined(self):
        """A9."""
        world, ticket = await stored_session()
        wrong = msgspec.structs.replace(ticket, verifier=bytes(16))
        assert (await self.check_load_declines(world, wrong)).new

    async def test_both_tickets_of_a_rotation_are_declined(self):
        """A9: the record must store that the new ticket was used."""
        world, before = await stored_session()
        session = await world.load(before)
        session.rotate()
        await end_of_request(session)
        assert (await self.check_load_declines(world, before))["n"] == 1
        assert (await self.check_load_declines(world, ticket_of(session)))["n"] == 1

    @pytest.mark.parametrize("limit", ["idle", "absolute"])
    async def test_an_expired_session_is_declined_and_load_deletes_it(self, limit):
        """A17."""
        limits = {"timeout": "30 minutes", "absolute_timeout": "40 minutes"}
        world, ticket = await stored_session(**limits)
        if limit == "absolute":
            world.clock.advance("25 minutes")
            await world.concurrent_write(ticket, n=2)
        world.clock.now = (await world.record(ticket)).expires_at
        ended = await self.check_load_declines(world, ticket)
        assert ended.ended_reason == f"expired ({limit})"
        assert await world.record(ticket) is None

    async def test_installations_that_rotate_or_check_labels_decline(self):
        for options in ({"rotate_interval": "10 minutes"}, {"check_labels": ("browser",)}):
            world, ticket = await stored_session(**options)
            assert (await self.check_load_declines(world, ticket))["n"] == 1

    async def test_a_store_without_immediate_calls_is_declined(self):
        world, ticket = await stored_session()
        plain = PlainStore()
        plain.records[ticket.session_id] = await world.record(ticket)
        world.store = plain
        engine = world.another_process()
        assert engine.load_immediately(ticket, BROWSER) is None
        assert (await engine.load(ticket))["n"] == 1

    async def test_a_failing_store_is_declined_and_load_raises(self):
        """A15."""
        world, ticket = await stored_session()
        world.store.fail("load")
        with pytest.raises(StoreUnavailable):
            await self.check_load_declines(world, ticket)


def change_nothing(session):
    assert session["n"] == 1


CHANGES = {
    "set": lambda session: session.update(n=2, new="x"),
    "delete": lambda session: session.pop("n"),
    "in place": lambda session: session["cart"].append("pear"),
    "increment": lambda session: session.increment("n", 5),
    "append": lambda session: session.append("cart", "pear", "plum"),
    "clear": lambda session: session.clear(keep_login=True),
    "clear and set": lambda session: (session.clear(keep_login=True), session.update(n=3)),
    "back to the same value": lambda session: session.update(n=1),
}


class TestCommit:
    @pytest.mark.parametrize("encrypt", [False, True])
    @pytest.mark.parametrize("user", [None, "ada"])
    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    async def test_an_immediate_commit_writes_the_record_that_commit_writes(
        self, change, user, encrypt
    ):
        """One session is changed twice from the same record, once by each path."""
        limits = {"timeout": "1 hour", "anonymous_timeout": "10 minutes"}
        world, ticket = await stored_session(user=user, encrypt=encrypt, **limits)
        original = await world.record(ticket)
        world.clock.advance("3 seconds")
        written, views = [], []
        for immediate in (True, False):
            world.memory._records[ticket.session_id] = original
            world.events.clear()
            session = load(world, ticket)
            change(session)
            world.store.calls.clear()
            if immediate:
                assert commit(world, session)
            else:
                await world.engine.commit(session)
            assert world.store.calls == ["save"]
            assert copy_of(session).record == await world.record(ticket)
            assert not copy_of(session).modified()
            views.append((dict(session), session.user, list(world.events)))
            written.append(await world.record(ticket))
        assert views[0] == views[1]
        opened = [
            world.engine.context.cipher.decrypt(record, ticket.verifier) for record in written
        ]
        assert opened[0] == opened[1]
        headers = [
            msgspec.structs.replace(record, body=b"", commit_ids=record.commit_ids[4:])
            for record in written
        ]
        assert headers[0] == headers[1]
        assert (headers[0].version, headers[0].seen_at) == (original.version + 1, world.clock.now)
        if not encrypt:
            assert written[0].body == written[1].body

    async def test_a_previous_ticket_decrypts_what_an_immediate_commit_writes(self):
        """A9: also when the present ticket cannot be derived from it."""
        world, before = await stored_session(encrypt="ticket")
        session = await world.load(before)
        session.rotate()
        await end_of_request(session)
        current = ticket_of(session)
        await end_of_request(await world.load(current))  # the grace period has an end now
        session = await world.load(current)
        session["n"] = 2
        assert commit(world, session)
        world.replace_rotation(VerifierChain([b"another secret of the world"], realm="default"))
        for ticket in (before, current):
            assert (await world.load(ticket))["n"] == 2

    async def test_an_immediate_commit_stores_no_commit_id(self):
        """A21: its outcome is known. The IDs of earlier commits keep their positions."""
        world, ticket = await stored_session()
        world.memory._records[ticket.session_id] = msgspec.structs.replace(
            await world.record(ticket), commit_ids=b"newer.one.oldest"
        )
        for number, expected in enumerate((b"newer.one.ol", b"newer.on", b"newe", b"", b"")):
            session = load(world, ticket)
            session["n"] = number
            assert commit(world, session)
            ids = (await world.record(ticket)).commit_ids
            assert ids == (bytes(4 * (number + 1)) + expected)[:16]

    async def test_changes_after_an_immediate_commit_are_committed(self):
        """A11: with and without tracked objects; committed values are not compared again."""
        world, ticket = await stored_session()
        session = load(world, ticket)
        session["n"] = 2
        assert commit(world, session)
        assert not copy_of(session).changes.states
        assert (session["n"], session["cart"]) == (2, ["apple"])
        session["cart"].append("pear")
        session["n"] = 3
        assert commit(world, session)
        assert copy_of(session).changes.states
        session["cart"].append("plum")
        assert commit(world, session)
        assert dict(load(world, ticket)) == {"n": 3, "cart": ["apple", "pear", "plum"]}

    async def test_a_session_that_was_only_read_is_declined_only_if_a_touch_is_due(self):
        """A4, A17: a list that was read is compared, and is unchanged."""
        world, ticket = await stored_session(timeout="30 minutes")
        session = load(world, ticket)
        assert session["cart"] == ["apple"]
        world.store.calls.clear()
        assert commit(world, session)
        assert world.store.calls == []
        world.clock.advance("16 minutes")
        assert not commit(world, session)

    async def test_seen_at_never_decreases(self):
        """S6: the clock may be set back."""
        world, ticket = await stored_session()
        before = (await world.record(ticket)).seen_at
        session = load(world, ticket)
        session["n"] = 2
        world.clock.now -= 5_000
        assert commit(world, session)
        assert (await world.record(ticket)).seen_at == before

    async def test_an_immediate_commit_reports_the_events_that_commit_reports(self):
        world, ticket = await stored_session()
        for number in (2, 3):
            session = load(world, ticket)
            session["n"] = number
            assert commit(world, session)
        session_id = ticket.session_id.hex()
        assert world.emitted(Written) == [Written(session_id, 2), Written(session_id, 3)]

    async def test_an_immediate_commit_counts_the_same_with_and_without_listeners(self):
        found = []
        for listen in (True, False):
            world, ticket = await stored_session(listen=listen)
            session = load(world, ticket)
            session["n"] = 2
            assert commit(world, session)
            session["n"] = 3
            await world.engine.commit(session)
            session["n"] = 4
            assert commit(world, session)
            found.append(counts(world))
        assert found[0] == found[1]
        assert found[0][Written] == 3

    async def test_a_later_commit_contains_only_changes_since_the_immediate_commit(self):
        """A11: of a stream, while another process writes."""
        world, ticket = await stored_session()
        session = load(world, ticket)
        cart = session["cart"]
        cart.append("pear")
        session.increment("n")
        assert commit(world, session)
        await world.concurrent_write(ticket, n=10, other=True)
        cart.append("plum")
        session.increment("n")
        assert not commit(world, session), "another process has written"
        await world.engine.commit(session)
        assert await world.data(ticket) == {
            "n": 11,
            "cart": ["apple", "pear", "plum"],
            "other": True,
        }
        assert session["cart"] is cart

    async def test_each_of_several_immediate_commits_writes_the_next_version(self):
        world, ticket = await stored_session()
        session = load(world, ticket)
        for number in range(5):
            session["n"] = number
            session["cart"].append(number)
            assert commit(world, session)
        assert await world.data(ticket) == {"n": 4, "cart": ["apple", 0, 1, 2, 3, 4]}
        assert world.store.calls == ["load", *["save"] * 5]

    @pytest.mark.parametrize("use", [lambda session: None, change_nothing], ids=["unused", "read"])
    async def test_a_request_that_only_reads_writes_nothing(self, use):
        world, ticket = await stored_session()
        session = load(world, ticket)
        use(session)
        assert commit(world, session)
        assert world.store.calls == ["load"]
        assert world.emitted(Written) == []

    @pytest.mark.parametrize("use", [lambda session: None, change_nothing], ids=["unused", "read"])
    @pytest.mark.parametrize("reason", ["touch interval", "half of the idle timeout"])
    async def test_a_request_that_only_reads_is_declined_if_a_touch_is_due(self, use, reason):
        """A17: the record may have been written with a shorter idle timeout."""
        world, ticket = await stored_session()
        record = await world.record(ticket)
        due = world.engine.policy.touch_interval
        if reason != "touch interval":
            due = 30_000
            shorter = msgspec.structs.replace(record, idle_timeout=2 * due)
            world.memory._records[record.id] = shorter
        assert due < world.engine.policy.touch_interval or reason == "touch interval"
        session = load(world, ticket)
        use(session)
        world.clock.now = record.seen_at + due - 1
        assert commit(world, session)
        world.clock.now += 1
        assert not commit(world, session)
        await world.engine.commit(session)
        assert (await world.record(ticket)).seen_at == world.clock.now
        assert world.store.calls == ["load", "touch"]


class TestDeclinedCommits:
    async def check_declines(self, world, session):
        """Check that the immediate path declines, changes nothing and loses nothing."""
        copy = copy_of(session)
        record = await self.stored(world, session)
        before = fields(copy)
        world.store.calls.clear()
        world.events.clear()
        counted = counts(world)
        assert not commit(world, session)
        assert world.store.calls == []
        assert await self.stored(world, session) == record
        after = fields(copy)
        assert {name for name in before if after[name] is not before[name]} <= {"changes"}
        assert (world.events, counts(world)) == ([], counted)

    @staticmethod
    async def stored(world, session):
        return await world.memory.load(copy_of(session).session_id())

    async def test_a_new_session_is_declined(self):
        world, _ = await stored_session()
        session = await world.load(None)
        session["n"] = 5
        await self.check_declines(world, session)
        await world.engine.commit(session)
        assert await world.data(ticket_of(session)) == {"n": 5}

    async def test_an_unconfirmed_session_is_declined(self):
        """A17: the first request with the cookie confirms it, even if it only reads."""
        world, ticket = await stored_session(unconfirmed_timeout="5 minutes")
        session = load(world, ticket)
        await self.check_declines(world, session)
        await world.engine.commit(session)
        assert (await world.record(ticket)).confirmed

    async def test_a_persistent_session_is_declined(self):
        """NIST SESS-05: the record stores that a re-authentication is required."""
        world, ticket = await stored_session(user="ada", remember=True)
        session = load(world, ticket)
        session["n"] = 2
        await self.check_declines(world, session)
        await world.engine.commit(session)
        assert (await world.record(ticket)).persistent
        assert (await world.data(ticket))["n"] == 2

    @pytest.mark.parametrize("renewal", ["login", "rotation"])
    async def test_a_login_or_rotation_is_declined(self, renewal):
        """A9: the verifier is replaced in the same write."""
        world, ticket = await stored_session()
        session = load(world, ticket)
        session["n"] = 2
        if renewal == "login":
            session.login("ada")
        else:
            session.rotate()
        await self.check_declines(world, session)
        await world.engine.commit(session)
        assert ticket_of(session).verifier != ticket.verifier
        assert (await world.load(ticket_of(session)))["n"] == 2

    async def test_a_header_that_must_be_written_is_declined(self):
        """A9: the new ticket of a rotation was used."""
        world, before = await stored_session()
        rotating = await world.load(before)
        rotating.rotate()
        await end_of_request(rotating)
        session = await world.load(ticket_of(rotating))
        assert copy_of(session).header_dirty
        await self.check_declines(world, session)
        await world.engine.commit(session)
        assert not copy_of(session).header_dirty

    async def test_a_destroyed_session_is_declined(self):
        world, ticket = await stored_session()
        session = load(world, ticket)
        session.destroy()
        await self.check_declines(world, session)
        await world.engine.commit(session)
        assert await world.record(ticket) is None

    async def test_a_revoked_session_is_declined(self):
        """A7."""
        world, ticket = await stored_session()
        session = load(world, ticket)
        await world.engine.revoker.revoke(ticket.session_id, "stolen")
        session["n"] = 2
        await self.check_declines(world, session)
        await world.engine.commit(session)
        assert copy_of(session).revoked
        await self.check_declines(world, session)
        assert await world.record(ticket) is None

    async def test_a_copy_marked_as_revoked_is_declined(self):
        world, ticket = await stored_session()
        session = load(world, ticket)
        copy_of(session).revoked = True
        await self.check_declines(world, session)

    async def test_a_websocket_is_declined(self):
        """W6: seen_at is the time of the client's last message, not of the commit."""
        world, ticket = await stored_session()
        session = load(world, ticket)
        copy_of(session).active_at = world.clock.now
        world.clock.advance("10 seconds")
        session["n"] = 2
        await self.check_declines(world, session)
        await world.engine.commit(session)
        assert (await world.record(ticket)).seen_at == world.clock.now - 10_000

    @pytest.mark.parametrize("limit", ["idle", "absolute"])
    async def test_a_session_that_expired_during_the_request_is_declined(self, limit):
        """A17."""
        world, ticket = await stored_session(timeout="30 minutes", absolute_timeout="40 minutes")
        if limit == "absolute":
            world.clock.advance("25 minutes")
            await world.concurrent_write(ticket, other=1)
        session = load(world, ticket)
        session["n"] = 2
        world.clock.now = (await world.record(ticket)).expires_at
        await self.check_declines(world, session)
        await world.engine.commit(session)
        assert copy_of(session).revoked
        assert await world.record(ticket) is None

    async def test_a_session_extended_by_another_request_is_declined(self):
        world, ticket = await stored_session(timeout="30 minutes")
        session = load(world, ticket)
        session["n"] = 2
        world.clock.advance("25 minutes")
        await world.concurrent_write(ticket, other=1)
        world.clock.advance("10 minutes")
        await self.check_declines(world, session)
        await world.engine.commit(session)
        assert await world.data(ticket) == {"n": 2, "cart": ["apple"], "other": 1}

    async def test_data_above_max_bytes_is_declined(self):
        """B-54: the coroutine raises; the handler may remove data and commit again."""
        world, ticket = await stored_session(max_bytes=300)
        session = load(world, ticket)
        session["n"] = 2
        session["large"] = "x" * 400
        await self.check_declines(world, session)
        with pytest.raises(SessionTooLarge) as caught:
            await world.engine.commit(session)
        assert caught.value.largest[0][0] == "large"
        del session["large"]
        assert commit(world, session)
        assert await world.data(ticket) == {"n": 2, "cart": ["apple"]}

    async def test_a_conflict_is_declined(self):
        """S10, A6: the coroutine replays the operations on the newer record."""
        world, ticket = await stored_session()
        session = load(world, ticket)
        session.increment("n")
        session["cart"].append("pear")
        await world.concurrent_write(ticket, n=10, other=1)
        await self.check_declines(world, session)
        await world.engine.commit(session)
        assert await world.data(ticket) == {"n": 11, "cart": ["apple", "pear"], "other": 1}
        assert world.emitted(Conflicted) == [Conflicted(ticket.session_id.hex(), 1)]

    async def test_a_store_whose_swap_returns_false_is_declined(self):
        world, ticket = await stored_session()
        session = load(world, ticket)
        session["n"] = 2
        world.store.slow("save", seconds=0)
        await self.check_declines(world, session)
        await world.engine.commit(session)
        assert (await world.data(ticket))["n"] == 2

    async def test_a_failing_store_is_declined(self):
        """A15: the coroutine raises; the changes are kept for the next commit."""
        world, ticket = await stored_session()
        session = load(world, ticket)
        session["n"] = 2
        world.store.fail("save", times=1)
        await self.check_declines(world, session)
        with pytest.raises(StoreUnavailable):
            await world.engine.commit(session)
        await self.check_declines(world, session)  # whether it was saved is unknown (A21)
        await world.engine.commit(session)
        assert (await world.data(ticket))["n"] == 2
        assert (await world.record(ticket)).version == 2

    async def test_a_store_without_immediate_calls_is_declined(self):
        world, ticket = await stored_session()
        engine = self.engine_with_loads_only(world)
        session = await engine.load(ticket)
        session["n"] = 2
        assert not engine.commit_immediately(copy_of(session))
        assert world.store.calls == ["load"]
        await engine.commit(session)
        assert (await world.data(ticket))["n"] == 2

    @staticmethod
    def engine_with_loads_only(world):
        del world.store.peek, world.store.swap
        return world.another_process()


class TestConcurrentCoroutines:
    async def start_slow_commit(self, world, session):
        """Start a commit that waits in the store; return a function that completes it."""
        reached, released = asyncio.Event(), asyncio.Event()

        async def wait():
            reached.set()
            await released.wait()

        world.store.meanwhile("save", wait)
        task = asyncio.create_task(world.engine.commit(session))
        await reached.wait()

        async def end():
            released.set()
            await task

        return end

    async def test_a_slow_commit_conflicts_with_an_immediate_commit_of_another_process(self):
        """S10, A6."""
        world, ticket = await stored_session()
        slow = load(world, ticket)
        slow.increment("n")
        end = await self.start_slow_commit(world, slow)
        other = world.another_process()
        fast = create_session(other.load_immediately(ticket, BROWSER), other.engine)
        fast.increment("n")
        fast["cart"].append("pear")
        assert other.commit_immediately(copy_of(fast))
        await end()
        assert await world.data(ticket) == {"n": 3, "cart": ["apple", "pear"]}
        assert len(world.emitted(Conflicted)) == 1

    async def test_a_session_whose_commit_is_in_progress_is_declined(self):
        """S18: the second commit waits, so that no conflict occurs."""
        world, ticket = await stored_session()
        slow, fast = load(world, ticket), load(world, ticket)
        slow.increment("n")
        fast.increment("n")
        end = await self.start_slow_commit(world, slow)
        assert not commit(world, fast)
        waiting = asyncio.create_task(world.engine.commit(fast))
        await end()
        await waiting
        assert (await world.data(ticket))["n"] == 3
        assert world.emitted(Conflicted) == []

    async def test_a_second_task_of_the_same_handler_applies_no_operation_twice(self):
        """S10: the copy contains operations of the commit in progress."""
        world, ticket = await stored_session()
        session = load(world, ticket)
        session.increment("n")
        end = await self.start_slow_commit(world, session)
        session.increment("n")
        assert not commit(world, session)
        waiting = asyncio.create_task(world.engine.commit(session))
        await end()
        await waiting
        assert session["n"] == 3
        assert await world.data(ticket) == {"n": 3, "cart": ["apple"]}

    async def test_concurrent_requests_of_two_processes_lose_no_update(self):
        """S10: immediate commits and coroutines, mixed."""
        world, ticket = await stored_session()
        other = world.another_process()

        async def request(number):
            if number % 3:
                session = load(world, ticket)
            else:
                session = await other.load(ticket)
            session.increment("n")
            session[f"key{number}"] = number
            await asyncio.sleep(0)
            if number % 2 or not commit(world, session):
                await session.acommit()

        await asyncio.gather(*map(request, range(60)))
        expected = {f"key{number}": number for number in range(60)}
        assert await world.data(ticket) == {"n": 61, "cart": ["apple"], **expected}
        assert (await world.record(ticket)).version == 61


async def test_a_memory_store_supports_peek_and_swap():
    world, ticket = await stored_session()
    assert isinstance(world.memory, MemoryStore)
    body = world.memory.peek(ticket.session_id).contents().data
    assert {key: decode(value) for key, value in body.items()} == {"n": 1, "cart": ["apple"]}
