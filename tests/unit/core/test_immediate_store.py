"""immediate_store: whether a store is called without coroutines."""

import pytest

from sojourn import Sessions
from sojourn._core.immediate_store import immediate_store
from sojourn.stores.callback import CallbackStore
from sojourn.stores.memory import MemoryStore


class CountsLoads(MemoryStore):
    async def load(self, session_id):
        return await super().load(session_id)


class CountsSaves(MemoryStore):
    async def save(self, record, expected_version):
        return await super().save(record, expected_version)


class CountsBoth(CountsLoads, CountsSaves):
    def peek(self, session_id):
        return super().peek(session_id)

    def swap(self, record, expected_version):
        return super().swap(record, expected_version)


class Whole(MemoryStore):
    async def load(self, session_id):
        return await super().load(session_id)

    async def save(self, record, expected_version):
        return await super().save(record, expected_version)

    def peek(self, session_id):
        return super().peek(session_id)

    def swap(self, record, expected_version):
        return super().swap(record, expected_version)


@pytest.mark.parametrize("kind", [MemoryStore, Whole, CountsBoth])
def test_a_store_with_all_four_methods_is_immediate(kind):
    store = kind()
    assert immediate_store(store) is store


@pytest.mark.parametrize("kind", [CountsLoads, CountsSaves])
def test_a_store_class_that_overrides_a_coroutine_is_not_immediate(kind):
    assert immediate_store(kind()) is None


def test_a_store_object_that_overrides_a_coroutine_is_not_immediate():
    store = MemoryStore()
    store.save = store.save
    assert immediate_store(store) is None


def test_a_store_with_group_commit_is_immediate_for_loads_only():
    """One transaction for each save is slower than one for all saves of a tick."""

    class Grouping(MemoryStore):
        group_commit = True

        saves = 0

        async def save(self, record, expected_version):
            self.saves += 1
            return await super().save(record, expected_version)

        def swap(self, record, expected_version):
            return super().swap(record, expected_version)

    store = Grouping()
    sessions = Sessions(store=store, secret="Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa")
    with sessions.open() as visit:
        visit.session["n"] = 1
    cookie = dict(visit.response_headers())["set-cookie"].partition(";")[0]
    with sessions.open(cookies=cookie) as visit:
        visit.session["n"] = 2
    with sessions.open(cookies=cookie) as visit:
        assert visit.session["n"] == 2
    assert store.saves == 1


def test_a_store_without_the_capability_is_not_immediate():
    assert immediate_store(CallbackStore()) is None


class Proxy:
    """Delegates every call by ``__getattr__``."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)


class ProxyThatCountsLoads(Proxy):
    async def load(self, session_id):
        return await self._inner.load(session_id)


def test_a_proxy_that_overrides_a_coroutine_is_not_immediate():
    assert immediate_store(ProxyThatCountsLoads(MemoryStore())) is None


def test_a_proxy_without_base_classes_that_overrides_a_coroutine_is_not_immediate():
    class CountsLoads:
        def __getattr__(self, name):
            return getattr(inner, name)

        async def load(self, session_id):
            return await inner.load(session_id)

    inner = MemoryStore()
    assert immediate_store(CountsLoads()) is None


def test_a_proxy_that_overrides_no_method_is_accepted():
    proxy = Proxy(MemoryStore())
    assert immediate_store(proxy) in {None, proxy}  # a Protocol of Python 3.12 does not see it
