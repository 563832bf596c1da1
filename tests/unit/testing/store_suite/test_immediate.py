"""ImmediateTests pass for a correct store, and one that declines, and fail for each faulty one."""

import inspect
import time

import pytest

from sojourn.store import SAVED
from sojourn.testing.decorators import with_loop
from sojourn.testing.store_suite.immediate import ImmediateTests
from tests.support.dict_store import DictStore, complete


class Suite(ImmediateTests):
    """The suite over a given store class."""

    def __init__(self, store=DictStore):
        self.store = store
        self.stores = {}

    def make_store(self, realm):
        return self.stores.setdefault(realm, self.store())

    async def overwrite(self, store, session_id, data):
        store.damaged = session_id


def call(suite, test):
    method = getattr(suite, test)
    with_runner = "runner" in inspect.signature(method).parameters
    method(*([with_loop] if with_runner else []))


class AlwaysDeclines(DictStore):
    def peek(self, session_id):
        return None

    def swap(self, record, expected_version):
        return False


class Checked(DictStore):
    """A correct store with records that can be damaged."""

    damaged = b""

    def peek(self, session_id):
        return None if session_id == self.damaged else super().peek(session_id)


TESTS = [name for name in dir(ImmediateTests) if name.startswith("test_")]


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("store", [Checked, AlwaysDeclines])
def test_a_correct_store_passes(test, store):
    """S1, S3 to S6, S9, S10, S15."""
    call(Suite(store), test)


# Faults


class PeeksAtDeleted(Checked):
    def peek(self, session_id):
        self.seen = getattr(self, "seen", {})
        found = super().peek(session_id)
        self.seen[session_id] = found or self.seen.get(session_id)
        return self.seen[session_id]


class PeeksAtOldVersions(Checked):
    def peek(self, session_id):
        self.seen = getattr(self, "seen", {})
        found = super().peek(session_id)
        return found and self.seen.setdefault(session_id, found)


class SwapsWithoutSaving(Checked):
    def swap(self, record, expected_version):
        stored = complete(self.load(record.id))
        return stored is not None and stored.version == expected_version


class SavesAndDeclines(Checked):
    def swap(self, record, expected_version):
        super().swap(record, expected_version)
        return False


class IgnoresVersions(Checked):
    def swap(self, record, expected_version):
        stored = complete(self.load(record.id))
        if stored is None:
            return False
        complete(self.delete(record.id))
        return complete(self.create(record))


class ChecksBeforeSwapping(Checked):
    def swap(self, record, expected_version):
        stored = complete(self.load(record.id))
        if stored.version != expected_version:
            return False
        time.sleep(0.001)  # other threads run
        self._records[record.id] = record
        return True


class Creates(Checked):
    def swap(self, record, expected_version):
        return super().swap(record, expected_version) or complete(self.create(record))


class MovesSeenAtBack(Checked):
    def swap(self, record, expected_version):
        if complete(self.save(record, expected_version)) is not SAVED:
            return False
        complete(self.delete(record.id))
        return complete(self.create(record))


class IgnoresCutoff(Checked):
    def peek(self, session_id):
        return self._records.get(session_id)


class SwapsBeforeCutoff(Checked):
    def swap(self, record, expected_version):
        stored = self._records.get(record.id)
        if stored is None or stored.version != expected_version:
            return False
        self._records[record.id] = record
        return True


class PeeksAtDamaged(Checked):
    def peek(self, session_id):
        return complete(self.load(session_id))


PEEK = "test_peek_returns_what_load_returns"
SWAP = "test_swap_saves_or_changes_nothing"
CONFLICT = "test_swap_with_another_version_changes_nothing"
CREATE = "test_swap_never_creates"
SEEN_AT = "test_swap_keeps_the_larger_seen_at"
CUTOFF = "test_records_before_a_cutoff_are_absent"


@pytest.mark.parametrize(
    ("test", "fault"),
    [
        (PEEK, PeeksAtDeleted),
        (PEEK, PeeksAtOldVersions),
        (SWAP, SwapsWithoutSaving),
        (SWAP, SavesAndDeclines),
        (CONFLICT, IgnoresVersions),
        (CREATE, Creates),
        (CREATE, PeeksAtDeleted),
        (SEEN_AT, MovesSeenAtBack),
        (CUTOFF, IgnoresCutoff),
        (CUTOFF, SwapsBeforeCutoff),
        ("test_peek_of_a_damaged_record_is_not_a_record", PeeksAtDamaged),
        ("test_parallel_swaps_lose_no_update", ChecksBeforeSwapping),
    ],
)
def test_a_faulty_store_fails(test, fault):
    """S1, S3 to S6, S9, S10, S15: each test fails for a store with a fault it must detect."""
    with pytest.raises(AssertionError):
        call(Suite(fault), test)
