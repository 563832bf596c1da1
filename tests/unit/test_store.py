"""The store protocols and result types. ``sojourn.testing.StoreSuite`` checks the behaviour."""

import copy
import json

import pytest

from sojourn import store as contract
from sojourn.errors import NotSerializable
from sojourn.store import (
    GONE,
    LIMIT_REACHED,
    REVOKED,
    SAVED,
    Conflict,
    Count,
    Purged,
    RequiresEventLoop,
    Status,
    Store,
    value_check,
)
from sojourn.stores.callback import CallbackStore
from sojourn.stores.memory import MemoryStore
from sojourn.stores.sqlite import SQLiteStore

CAPABILITIES = {
    "SupportsUserIndex": {MemoryStore, SQLiteStore},
    "SupportsBulk": {MemoryStore, SQLiteStore},
    "SupportsImmediate": {MemoryStore, SQLiteStore},
    "SupportsGroupCommit": {SQLiteStore},
    "SupportsBroadcast": {SQLiteStore},
    "SupportsCount": {MemoryStore, SQLiteStore},
    "SupportsListing": {MemoryStore, SQLiteStore},
    "SupportsCutoffListing": {MemoryStore, SQLiteStore},
    "SupportsKeyFingerprints": {MemoryStore, SQLiteStore},
    "SupportsServerTime": set(),
    "SupportsTimeout": {CallbackStore},
    "LocalStore": {MemoryStore, SQLiteStore},
    "NeedsPurge": {MemoryStore, SQLiteStore},
    "RequiresEventLoop": {CallbackStore},
    "RestrictsValues": {CallbackStore},
    "Closeable": {SQLiteStore},
}


def test_a_store_is_recognised_by_its_six_methods():
    assert isinstance(MemoryStore(), Store)
    assert not isinstance(object(), Store)

    class Incomplete:
        load = create = save = touch = delete = None

    assert not isinstance(Incomplete(), Store)


def test_requires_event_loop_is_a_capability():
    assert not isinstance(MemoryStore(), RequiresEventLoop)


def test_results_are_distinct_and_immutable():
    assert {SAVED, GONE, REVOKED, LIMIT_REACHED} == set(Status)
    assert Conflict(None) not in (SAVED, GONE)
    with pytest.raises(AttributeError):
        Conflict(None).newer = 1
    assert Purged(1, finished=True) == (1, True)


def test_only_the_json_format_checks_values():
    """Values of every other store are assigned without a check."""
    assert value_check(MemoryStore()) is None
    assert value_check(CallbackStore()) is None
    with pytest.raises(NotSerializable):
        value_check(CallbackStore(format="json"))("key", b"bytes")


@pytest.mark.parametrize(("name", "expected"), CAPABILITIES.items())
def test_capabilities_of_the_stores_without_a_server(tmp_path, name, expected):
    sqlite = SQLiteStore(tmp_path / "sessions.db")
    stores = (MemoryStore(), sqlite, CallbackStore())
    assert {
        type(store) for store in stores if isinstance(store, getattr(contract, name))
    } == expected
    sqlite.close()


def test_a_count_is_an_integer_and_shows_that_it_is_an_estimate():
    exact, estimate = Count(1200), Count(1200, is_exact=False)
    assert exact == estimate == 1200
    assert (exact.is_exact, estimate.is_exact) == (True, False)
    assert (str(exact), str(estimate)) == ("1200", "~1200")
    assert (f"{exact:,}", f"{estimate:,}", f"{estimate}") == ("1,200", "~1,200", "~1200")
    assert repr(estimate) == "Count(1200, is_exact=False)"
    assert estimate + 1 == 1201
    assert json.dumps({"count": estimate}) == '{"count": 1200}'
    again = copy.copy(estimate)
    assert (again, again.is_exact) == (1200, False)
