"""InstrumentedStore has the capabilities of the wrapped store, and reports each call once."""

import asyncio
import inspect

import pytest

from sojourn import store as store_module
from sojourn._core.concurrency import run
from sojourn._core.immediate_store import immediate_store
from sojourn.errors import StoreUnavailable
from sojourn.record import Record, pack_body
from sojourn.store import GONE, LimitPolicy, SessionLimit, SupportsBroadcast, SupportsImmediate
from sojourn.stores import migrating
from sojourn.stores.memory import MemoryStore
from sojourn.stores.urls import open_store
from sojourn.telemetry.instrumented_store import InstrumentedStore
from sojourn.testing import FaultyStore
from tests.support.broadcast_store import BroadcastingStore
from tests.support.small_stores import CapableStore, PlainStore

CAPABILITIES = [
    each
    for each in vars(store_module).values()
    if inspect.isclass(each) and getattr(each, "_is_runtime_protocol", False)
]


class SlowMemoryStore(MemoryStore):
    """Overrides ``load`` alone, so that ``peek`` must not be used."""

    async def load(self, session_id):
        return await super().load(session_id)


STORES = {
    "memory": MemoryStore,
    "overridden": SlowMemoryStore,
    "plain": PlainStore,
    "capable": CapableStore,
    "faulty": lambda: FaultyStore(MemoryStore()),
    "broadcast": BroadcastingStore,
    "migrating": lambda: migrating(MemoryStore(), MemoryStore()),
}


class Owner:
    """Notes each call of the store with its result."""

    def __init__(self):
        self.calls = []

    def call_observer(self, operation, result, error):
        assert (error is not None) == (result in {"error", "cancelled", "unreadable"})

        def observe(seconds):
            assert 0 <= seconds < 60
            self.calls.append((operation, result))

        return observe

    def observation_failed(self, error):
        raise error


def wrapped(store):
    owner = Owner()
    return InstrumentedStore(store, owner), owner.calls


def record(number=1, version=1, **fields):
    return Record(
        **{
            "id": number.to_bytes(16),
            "version": version,
            "seen_at": 1,
            "created_at": 1,
            "absolute_at": 10_000,
            "idle_timeout": 5_000,
            "verifier": bytes(32),
            "body": b"x",
            **fields,
        }
    )


def test_the_capabilities_are_known():
    """A capability that is added later must be added to the wrapper."""
    assert len(CAPABILITIES) >= 18
    assert SupportsBroadcast in CAPABILITIES


def check_capabilities(store):
    wrapper, _ = wrapped(store)
    for capability in CAPABILITIES:
        has = isinstance(store, capability)
        if capability is SupportsImmediate:
            has = has and immediate_store(store) is not None
            assert (immediate_store(wrapper) is not None) == has
            continue
        assert isinstance(wrapper, capability) == has, capability.__name__
        for name in (n for n in dir(capability) if not n.startswith("_")) if has else ():
            # Python 3.12 and later look a member up without `__getattr__`.
            assert inspect.getattr_static(wrapper, name, None) is not None, name


@pytest.mark.parametrize("name", STORES)
def test_wrapper_has_exactly_the_capabilities_of_the_store(name):
    check_capabilities(STORES[name]())


@pytest.mark.parametrize(
    "url", ["redis://localhost:1/0", "postgresql://app@localhost:1/x", "sqlite:///sessions.db"]
)
def test_wrapper_has_exactly_the_capabilities_of_a_store_with_a_server(url):
    store = open_store(url, realm="default", timeout=1.0)
    check_capabilities(store)
    store.close()


def test_results_of_calls():
    store, calls = wrapped(MemoryStore())
    assert run(store.load(bytes(16))) is None
    assert run(store.create(record()))
    assert not run(store.create(record()))
    assert run(store.load(record().id)) is not None
    run(store.save(record(version=2), 1))
    run(store.save(record(version=2), 1))
    run(store.save(record(number=9, version=2), 1))
    assert run(store.touch(record(version=2)))
    assert not run(store.touch(record(number=9)))
    assert run(store.delete(record().id))
    assert not run(store.delete(record().id))
    run(store.purge(1, 10))
    assert calls == [
        ("load", "absent"),
        ("create", "ok"),
        ("create", "taken"),
        ("load", "ok"),
        ("save", "ok"),
        ("save", "conflict"),
        ("save", "absent"),
        ("touch", "ok"),
        ("touch", "absent"),
        ("delete", "ok"),
        ("delete", "absent"),
        ("purge", "ok"),
    ]


def test_results_of_logins():
    store, calls = wrapped(MemoryStore())
    limit = SessionLimit(1, LimitPolicy.REFUSE)

    def login(number, at):
        made = record(number, authenticated_at=at, body=pack_body("alice", {}, {}))
        return run(store.save_login(made, 0, limit=limit, now=2))

    login(1, 2)
    login(1, 2)
    login(2, 2)
    run(store.invalidate_logins("user:alice", 5))
    login(3, 2)
    assert [result for operation, result in calls if operation == "save_login"] == [
        "ok",
        "conflict",
        "limit_reached",
        "revoked",
    ]


def test_failures_are_reported_and_raised():
    faulty = FaultyStore(MemoryStore())
    store, calls = wrapped(faulty)
    faulty.fail("load", "save", "delete")
    for call in (
        store.load(bytes(16)),
        store.save(record(version=2), 1),
        store.delete(bytes(16)),
    ):
        with pytest.raises(StoreUnavailable):
            run(call)
    assert calls == [("load", "error"), ("save", "error"), ("delete", "error")]


def test_a_cancelled_call_is_no_error():
    faulty = FaultyStore(MemoryStore())
    store, calls = wrapped(faulty)
    faulty.hang("load")

    async def cancelled():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(store.load(bytes(16)), 0.01)
        faulty.heal()

    asyncio.run(cancelled())
    assert calls == [("load", "cancelled")]


def test_immediate_calls_are_reported_unless_a_coroutine_follows():
    store, calls = wrapped(MemoryStore())
    assert store.peek(bytes(16)) is None
    run(store.create(record()))
    calls.clear()
    assert store.peek(record().id) is not None
    assert store.swap(record(version=2), 1)
    assert not store.swap(record(version=2), 1)
    assert calls == [("load", "ok"), ("save", "ok")]
    assert run(store.save(record(number=3, version=2), 1)) is GONE


def test_other_members_are_those_of_the_store():
    store, _ = wrapped(FaultyStore(MemoryStore()))
    store.fail("load")
    with pytest.raises(StoreUnavailable):
        run(store.load(bytes(16)))
    with pytest.raises(AttributeError):
        store.unknown  # noqa: B018 - reading it raises
    assert repr(store) == repr(store.store)
