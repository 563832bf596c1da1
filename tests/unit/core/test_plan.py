"""plan: what a commit writes, as a complete table."""

from itertools import product

import pytest

from sojourn._core.plan import CREATE, SAVE, TOUCH, Remove, plan
from sojourn._core.policy import Limits, Policy
from sojourn.record import Record

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
FRESH, STALE = 999, 1_000


@pytest.mark.parametrize("record", [None, RECORD])
@pytest.mark.parametrize(
    ("keep", "destroyed", "header_dirty"), list(product([False, True], repeat=3))
)
@pytest.mark.parametrize("now", [FRESH, STALE])
def test_every_combination_of_conditions_has_the_planned_write(
    record, keep, destroyed, header_dirty, now
):
    """A1 to A4, A10; the table is a second, independent definition."""
    if destroyed:
        expected = Remove(create=keep)
    elif record is None:
        expected = CREATE if keep else None
    elif keep or header_dirty:
        expected = SAVE
    else:
        expected = TOUCH if now == STALE else None
    assert plan(record, keep, destroyed, header_dirty, now, POLICY) == expected
