"""Interrupted commits: operations are kept until a record shows their outcome (A21)."""

import asyncio

import msgspec
import pytest

from sojourn._core.operations import Increment, OperationLog
from sojourn._core.unsettled_commits import Attempt, Claim, Operations, UnsettledCommits
from sojourn.errors import CommitOutcomeUnknown, StoreUnavailable
from sojourn.events import Authenticated, Written
from sojourn.record import Record, pack_body
from tests.support.working_copies import copy_of
from tests.unit.core.engine_harness import World, end_of_request, ticket_of

pytestmark = pytest.mark.anyio

RECORD = Record(
    id=bytes(16),
    version=7,
    seen_at=0,
    created_at=0,
    absolute_at=1,
    idle_timeout=1,
    verifier=bytes(32),
    body=pack_body(None, {}, {}),
    commit_ids=b"v007v006v005v004",
)


class TestAttempt:
    @pytest.mark.parametrize(
        ("commit_id", "version", "outcome"),
        [
            (b"v007", 7, True),
            (b"v004", 4, True),
            (b"mine", 7, False),
            (b"mine", 4, False),
            (b"v005", 6, False),  # another position
            (b"mine", 8, False),  # not arrived
            (b"v003", 3, None),  # not kept any more
        ],
    )
    def test_applied_follows_from_the_commit_ids_of_the_record(self, commit_id, version, outcome):
        assert Attempt(commit_id, version).applied(RECORD) is outcome


CLAIM = Claim(Attempt(b"v006", 6), b"\x01")


def operations_of(*attempts):
    return Operations(OperationLog(keys={"n": [Increment(1)]}), list(attempts))


class TestUnsettledCommits:
    def test_operations_are_settled_if_any_attempt_was_applied(self):
        unsettled = UnsettledCommits(
            operations=[operations_of(Attempt(b"lost", 3), Attempt(b"v006", 6))]
        )
        applied, unknown = unsettled.settle(RECORD)
        assert (len(applied), unknown, unsettled.operations) == (1, [], [])

    def test_operations_that_were_not_applied_are_kept(self):
        unsettled = UnsettledCommits(operations=[operations_of(Attempt(b"mine", 6))])
        assert unsettled.settle(RECORD) == ([], [])
        assert len(unsettled.operations) == 1

    def test_operations_whose_outcome_is_unknown_are_reported(self):
        unsettled = UnsettledCommits(operations=[operations_of(Attempt(b"mine", 3))])
        assert unsettled.settle(RECORD) == ([], ["n"])
        assert unsettled.operations == []

    @pytest.mark.parametrize(
        ("attempt", "kept", "put_back", "unknown"),
        [
            (Attempt(b"v006", 6), False, True, []),
            (Attempt(b"mine", 6), False, False, []),
            (Attempt(b"mine", 8), True, False, []),
            (Attempt(b"mine", 3), False, False, ["once"]),
        ],
    )
    def test_a_claim_is_kept_or_put_back_by_its_outcome(self, attempt, kept, put_back, unknown):
        unsettled = UnsettledCommits(claims={"once": Claim(attempt, b"\x01")})
        assert unsettled.settle(RECORD) == ([], unknown)
        assert ("once" in unsettled.claims) is kept
        assert unsettled.apply({}, failed=True) == ({"once": b"\x01"} if put_back else {})
        assert unsettled.changes_failing_request() is (kept or put_back)

    def test_a_failing_request_puts_the_values_of_claims_back(self):
        unsettled = UnsettledCommits(operations=[operations_of()], claims={"once": CLAIM})
        unsettled.settle(RECORD)
        assert unsettled.apply({}) == {"n": b"\x01", "once": b"\x01"}
        assert unsettled.apply({}, failed=True) == {"once": b"\x01"}
        assert unsettled.apply({"once": b"\x02"}, failed=True) == {"once": b"\x02"}

    def test_an_interrupted_commit_of_a_failing_request_counts_for_claims_only(self):
        unsettled = UnsettledCommits(operations=[operations_of()], claims={"once": CLAIM})
        unsettled.settle(RECORD)
        unsettled.add_attempt(Attempt(b"next", 8), failed=True)
        assert [len(each.attempts) for each in unsettled.operations] == [0, 1]

    def test_only_an_inserted_record_has_a_verifier(self):
        created = msgspec.structs.replace(RECORD, version=1, commit_ids=b"made" + bytes(12))
        operations = Operations(OperationLog(), [Attempt(b"made", 1)], None, created, b"verifier")
        unsettled = UnsettledCommits(operations=[operations_of(Attempt(b"made", 1)), operations])
        assert unsettled.created() is None  # the first commit was a save
        assert unsettled.verifier_of(created) == b"verifier"
        assert unsettled.verifier_of(RECORD) == b""


async def interrupted(world, session, *, after):
    """Let the next save fail, before or after its effect."""
    world.store.fail("save", times=1, after=after)
    with pytest.raises(StoreUnavailable):
        await world.engine.commit(session)


class TestCommits:
    @pytest.mark.parametrize("after", [False, True])
    async def test_the_next_commit_settles_an_interrupted_one(self, after):
        world = World()
        ticket = await world.create(n=1)
        session = await world.load(ticket)
        session.increment("n")
        await interrupted(world, session, after=after)
        assert session["n"] == 2
        session["later"] = True
        await world.engine.commit(session)
        assert await world.data(ticket) == {"n": 2, "later": True}
        assert not copy_of(session).modified()

    async def test_an_applied_commit_is_not_written_again(self):
        world = World()
        ticket = await world.create(n=1)
        session = await world.load(ticket)
        session.increment("n")
        await interrupted(world, session, after=True)
        world.events.clear()
        await world.engine.commit(session)
        assert (await world.record(ticket)).version == 2
        assert world.emitted(Written) == []
        assert not copy_of(session).modified()

    async def test_several_interrupted_commits_are_settled_together(self):
        """The second attempt contains the operations of the first one."""
        world = World()
        ticket = await world.create(n=0)
        session = await world.load(ticket)
        for after in (False, True):
            session.increment("n")
            await interrupted(world, session, after=after)
        session.increment("n")
        await world.engine.commit(session)
        assert await world.data(ticket) == {"n": 3}

    @pytest.mark.parametrize("after", [False, True])
    async def test_a_refresh_settles_an_interrupted_commit(self, after):
        world = World()
        ticket = await world.create(n=1)
        session = await world.load(ticket)
        session.increment("n")
        await interrupted(world, session, after=after)
        await world.concurrent_write(ticket, other=1)
        await world.engine.refresh(session)
        assert (session["n"], session["other"]) == (2, 1)
        await world.engine.commit(session)
        assert await world.data(ticket) == {"n": 2, "other": 1}

    async def test_more_than_four_later_commits_make_the_outcome_unknown(self):
        world = World()
        ticket = await world.create(n=1, later=0)
        session = await world.load(ticket)
        session.increment("n")
        await interrupted(world, session, after=True)
        session.increment("later")
        for number in range(4):
            await world.concurrent_write(ticket, other=number)
        with pytest.raises(CommitOutcomeUnknown) as caught:
            await world.engine.commit(session)
        assert (caught.value.session_id, caught.value.keys) == (session.id, ("n",))
        await world.engine.commit(session)
        assert await world.data(ticket) == {"n": 2, "later": 1, "other": 3}

    async def test_a_failing_request_drops_the_operations(self):
        """A10."""
        world = World()
        ticket = await world.create(n=1)
        session = await world.load(ticket)
        session.increment("n")
        await interrupted(world, session, after=False)
        await end_of_request(session, failed=True)
        assert await world.data(ticket) == {"n": 1}

    async def test_a_failing_request_that_rotates_drops_the_operations(self):
        """A10: the rotation is written, the increment is not."""
        world = World()
        ticket = await world.create(n=1)
        session = await world.load(ticket)
        session.increment("n")
        await interrupted(world, session, after=False)
        session.rotate()
        await end_of_request(session, failed=True)
        assert ticket_of(session).verifier != ticket.verifier
        assert (await world.load(ticket_of(session)))["n"] == 1

    async def test_an_interrupted_rotation_of_a_failing_request_is_settled_without_its_changes(
        self,
    ):
        world = World()
        ticket = await world.create(n=1)
        session = await world.load(ticket)
        session.increment("n")
        session.rotate()
        world.store.fail("save", times=1, after=True)
        with pytest.raises(StoreUnavailable):
            await world.engine.commit(session, failed=True)
        await world.engine.commit(session, failed=True)
        assert (await world.load(ticket_of(session)))["n"] == 1

    async def test_a_destroyed_session_drops_unsettled_operations(self):
        world = World()
        ticket = await world.create(n=1)
        session = await world.load(ticket)
        session.increment("n")
        await interrupted(world, session, after=True)
        session.destroy()
        await world.engine.commit(session)
        assert await world.data(ticket) is None

    async def test_a_session_destroyed_during_a_failing_save_is_deleted(self):
        world = World()
        ticket = await world.create(n=1)
        session = await world.load(ticket)
        session.increment("n")

        async def destroy():
            session.destroy()
            raise StoreUnavailable("lost")

        world.store.meanwhile("save", destroy)
        with pytest.raises(StoreUnavailable):
            await world.engine.commit(session)
        await world.engine.commit(session)
        assert await world.data(ticket) is None

    async def test_a_cancelled_save_that_arrived_is_not_repeated(self):
        world = World()
        ticket = await world.create(n=1)
        session = await world.load(ticket)
        session.increment("n")
        world.store.hang("save", after=True, times=1)
        task = asyncio.create_task(world.engine.commit(session))
        await asyncio.sleep(0)
        assert world.store.calls[-1] == "save"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await world.engine.commit(session)
        assert await world.data(ticket) == {"n": 2}

    async def test_a_commit_cancelled_while_it_waits_for_the_lock_keeps_its_changes(self):
        world = World()
        ticket = await world.create(n=1)
        session = await world.load(ticket)
        session.increment("n")
        await world.engine.writer.locks.acquire(ticket.session_id)
        task = asyncio.create_task(world.engine.commit(session))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        world.engine.writer.locks.release(ticket.session_id)
        await world.engine.commit(session)
        assert await world.data(ticket) == {"n": 2}


class TestLogins:
    @pytest.mark.parametrize("after", [False, True])
    async def test_an_interrupted_login_is_completed_by_the_next_commit(self, after):
        world = World()
        ticket = await world.create(n=1)
        session = await world.load(ticket)
        session.login("ada")
        world.store.fail("save_login", times=1, after=after)
        with pytest.raises(StoreUnavailable):
            await world.engine.commit(session)
        await world.engine.commit(session)
        assert len(world.emitted(Authenticated)) == 1
        assert (await world.load(ticket_of(session))).user == "ada"
        assert (await world.load(ticket)).user is None

    async def test_a_refresh_adopts_an_interrupted_login(self):
        world = World()
        ticket = await world.create(n=1)
        session = await world.load(ticket)
        session.login("ada")
        world.store.fail("save_login", times=1, after=True)
        with pytest.raises(StoreUnavailable):
            await world.engine.commit(session)
        assert await world.engine.refresh(session)
        assert session.user == "ada"
        assert (await world.load(ticket_of(session))).user == "ada"

    async def test_an_interrupted_rotation_is_applied_once(self):
        world = World()
        ticket = await world.create(n=1)
        session = await world.load(ticket)
        session.rotate()
        await interrupted(world, session, after=True)
        await world.engine.commit(session)
        assert (await world.load(ticket_of(session)))["n"] == 1


class TestCreation:
    @pytest.mark.parametrize("after", [False, True])
    async def test_an_interrupted_creation_is_completed_by_the_next_commit(self, after):
        world = World()
        session = await world.engine.load(None)
        session["n"] = 1
        world.store.fail("create", times=1, after=after)
        with pytest.raises(StoreUnavailable):
            await world.engine.commit(session)
        session.increment("n")
        await world.engine.commit(session)
        assert len(world.memory._records) == 1
        assert await world.data(ticket_of(session)) == {"n": 2}
        assert (await world.load(ticket_of(session)))["n"] == 2

    @pytest.mark.parametrize("after", [False, True])
    async def test_a_session_whose_creation_was_interrupted_can_be_destroyed(self, after):
        world = World()
        session = await world.engine.load(None)
        session["n"] = 1
        world.store.fail("create", times=1, after=after)
        with pytest.raises(StoreUnavailable):
            await world.engine.commit(session)
        session.destroy()
        await world.engine.commit(session)
        assert world.memory._records == {}

    async def test_an_id_that_is_taken_by_another_record_is_replaced(self):
        """ASVS 7.2.3: also after an interrupted creation."""
        world = World()
        session = await world.engine.load(None)
        session["n"] = 1
        world.store.fail("create", times=1)
        with pytest.raises(StoreUnavailable):
            await world.engine.commit(session)
        first = copy_of(session).session_id()
        foreign = msgspec.structs.replace(RECORD, id=first, absolute_at=2**50, version=1)
        await world.memory.create(foreign)
        await world.engine.commit(session)
        assert copy_of(session).session_id() != first
        assert await world.memory.load(first) == foreign

    async def test_a_session_destroyed_during_a_failing_create_is_deleted(self):
        world = World()
        session = await world.engine.load(None)
        session["n"] = 1

        async def destroy():
            session.destroy()
            raise StoreUnavailable("lost")

        world.store.meanwhile("create", destroy)
        with pytest.raises(StoreUnavailable):
            await world.engine.commit(session)
        await world.engine.commit(session)
        assert world.memory._records == {}


class TestRemoval:
    async def test_a_deletion_whose_reply_was_lost_clears_the_cookie(self):
        """A7, A21: the retry finds no record, but this request destroyed the session."""
        world = World()
        ticket = await world.create(n=1)
        session = await world.load(ticket)
        session.destroy()
        world.store.fail("delete", times=1, after=True)
        with pytest.raises(StoreUnavailable):
            await world.engine.commit(session)
        await world.engine.commit(session)
        assert copy_of(session).destroyed_by_visitor

    async def test_a_revocation_by_another_process_does_not_clear_the_cookie(self):
        world = World()
        ticket = await world.create(n=1)
        session = await world.load(ticket)
        session.destroy()
        world.store.fail("delete", times=1)
        with pytest.raises(StoreUnavailable):
            await world.engine.commit(session)
        await world.engine.revoker.revoke(ticket.session_id, "stolen")
        await world.engine.commit(session)
        assert not copy_of(session).destroyed_by_visitor


class TestClaims:
    @pytest.mark.parametrize("after", [False, True])
    async def test_the_value_of_an_interrupted_claim_is_put_back(self, after):
        world = World()
        ticket = await world.create(once="value")
        session = await world.load(ticket)
        world.store.fail("save", times=1, after=after)
        with pytest.raises(StoreUnavailable):
            await world.engine.claim(session, "once", None)
        await end_of_request(session, failed=True)
        assert await world.data(ticket) == {"once": "value"}

    @pytest.mark.parametrize("failed", [False, True])
    async def test_the_value_of_a_claim_is_put_back_once(self, failed):
        """The reply of the commit that puts it back is lost; another request claims it."""
        world = World()
        ticket = await world.create(once="value")
        session = await world.load(ticket)
        world.store.fail("save", times=1, after=True)
        with pytest.raises(StoreUnavailable):
            await world.engine.claim(session, "once", None)
        world.store.slow("save", seconds=0, times=1)  # a conflict, which reveals the claim
        world.store.fail("save", times=1, after=True)
        with pytest.raises(StoreUnavailable):
            await world.engine.commit(session, failed=failed)
        other = await world.load(ticket)
        assert await world.engine.claim(other, "once", None) == "value"
        await world.engine.commit(session, failed=failed)
        assert await world.data(ticket) == {}

    async def test_a_claim_that_found_no_value_puts_nothing_back(self):
        world = World()
        ticket = await world.create(n=1)
        session = await world.load(ticket)
        world.store.fail("load", "save", times=1)
        assert await world.engine.claim(session, "once", None) is None
        assert copy_of(session).unsettled is None

    async def test_two_interrupted_claims_are_put_back(self):
        world = World()
        ticket = await world.create(one=1, two=2)
        session = await world.load(ticket)
        for key in ("one", "two"):
            world.store.fail("save", times=1, after=True)
            with pytest.raises(StoreUnavailable):
                await world.engine.claim(session, key, None)
        await world.engine.commit(session)
        assert await world.data(ticket) == {"one": 1, "two": 2}
