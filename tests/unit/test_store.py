"""The contract of a store, as far as it can be told from its shape.

What a store does is checked by ``sojourn.testing.StoreSuite``; the stores' own tests inherit it.
"""

import pytest

from sojourn.store import (
    GONE,
    LIMIT_REACHED,
    REVOKED,
    SAVED,
    Conflict,
    Purged,
    RequiresEventLoop,
    Status,
    Store,
)
from sojourn.stores.memory import MemoryStore


def test_a_store_is_known_by_its_six_calls():
    assert isinstance(MemoryStore(), Store)
    assert not isinstance(object(), Store)

    class Most:
        load = create = save = touch = delete = None

    assert not isinstance(Most(), Store)


def test_needing_a_loop_is_a_capability():
    assert not isinstance(MemoryStore(), RequiresEventLoop)


def test_answers_differ():
    assert {SAVED, GONE, REVOKED, LIMIT_REACHED} == set(Status)
    assert Conflict(None) not in (SAVED, GONE)
    with pytest.raises(AttributeError):
        Conflict(None).newer = 1
    assert Purged(1, finished=True) == (1, True)
