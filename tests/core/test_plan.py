"""The whole table of what a commit must write.

Read next: ``test_operations.py``.
"""

from itertools import product

import pytest

from sojourn.core.plan import CREATE, NOTHING, SAVE, TOUCH, Remove, plan
from sojourn.core.policy import Limits, Policy
from sojourn.core.record import Record

LIMITS = Limits(10_000, None)
POLICY = Policy(LIMITS, LIMITS, LIMITS, 1_000)
RECORD = Record(
    id=bytes(16),
    version=1,
    seen_at=0,
    created_at=0,
    absolute_at=10**9,
    idle_timeout=10_000,
    verifier=bytes(32),
    body=b"x",
)
UNCONFIRMED = Record.from_bytes(RECORD.id, RECORD.to_bytes()[:1] + b"\0" + RECORD.to_bytes()[2:])
FRESH, STALE = 999, 1_000


@pytest.mark.parametrize("record", [None, RECORD, UNCONFIRMED])
@pytest.mark.parametrize(("changed", "destroyed", "failed"), list(product([False, True], repeat=3)))
@pytest.mark.parametrize("returned", [False, True])
@pytest.mark.parametrize(("renewing", "upkeep"), list(product([False, True], repeat=2)))
@pytest.mark.parametrize("now", [FRESH, STALE])
def test_table(record, changed, destroyed, failed, *, renewing, upkeep, returned, now):
    """A1 to A4, A10; every combination has one answer, written here a second time."""
    step = plan(
        record,
        changed=changed,
        destroyed=destroyed,
        failed=failed,
        renewing=renewing,
        upkeep=upkeep,
        returned=returned,
        now=now,
        policy=POLICY,
    )
    kept = renewing or (changed and not failed)
    if destroyed:
        expected = Remove(create=kept)
    elif record is None:
        expected = CREATE if kept else NOTHING
    elif kept or upkeep or (record is UNCONFIRMED and returned):
        expected = SAVE
    else:
        expected = TOUCH if now == STALE else NOTHING
    assert step == expected
