"""The fingerprints of the keys of the applications that use a store."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from sojourn.store import Store, SupportsKeyFingerprints, SupportsUserIndex
from sojourn.testing.records import HOUR, now, purge_all
from sojourn.testing.store_suite.base import StoreTests, close, store_test


class _Store(Store, SupportsKeyFingerprints, Protocol):
    """A store of key fingerprints."""


def _keys(*numbers: int) -> list[bytes]:
    return [number.to_bytes(8) for number in numbers]


class KeyFingerprintTests(StoreTests):
    """Tests of ``SupportsKeyFingerprints``."""

    @store_test(requires=SupportsKeyFingerprints)
    async def test_an_application_keeps_its_realm_while_its_keys_are_replaced(
        self, store: _Store
    ) -> None:
        """A24: a ring with a known key adds its others, also in processes with an older ring."""
        other: Any = self.make_store("default")
        assert await store.register_keys(_keys(1))
        for each in (store, other):
            assert await each.register_keys(_keys(1))
            assert await each.register_keys(_keys(2, 1))
            assert await each.register_keys(_keys(1))
            assert await each.register_keys(_keys(2))
            assert await each.register_keys(_keys(3, 2, 1))
        assert await other.register_keys(_keys(3))
        close(other)

    @store_test(requires=SupportsKeyFingerprints)
    async def test_an_application_with_other_keys_is_refused(self, store: _Store) -> None:
        """A24: and adds nothing, so that it is refused again."""
        other: Any = self.make_store("default")
        assert await store.register_keys(_keys(1, 2))
        for each in (store, other):
            for _ in range(2):
                assert not await each.register_keys(_keys(3))
                assert not await each.register_keys(_keys(4, 3))
        assert await other.register_keys(_keys(2))
        close(other)

    @store_test(requires=SupportsKeyFingerprints)
    async def test_realms_have_keys_of_their_own(self, store: _Store) -> None:
        """S14."""
        other: Any = self.make_store("another")
        assert await store.register_keys(_keys(1))
        assert await other.register_keys(_keys(2))
        assert not await store.register_keys(_keys(2))
        close(other)

    @store_test(requires=SupportsKeyFingerprints)
    async def test_keys_outlive_the_sessions(self, store: _Store) -> None:
        """A24: neither purge nor invalidate_all removes them."""
        assert await store.register_keys(_keys(1))
        if isinstance(store, SupportsUserIndex):
            await store.invalidate_all(now())
        await purge_all(store, now() + 1_000 * HOUR)
        assert not await store.register_keys(_keys(2))
        assert await store.register_keys(_keys(1))

    @store_test(requires=SupportsKeyFingerprints, loop_only=True)
    async def test_of_two_applications_that_start_together_one_gets_the_realm(
        self, store: _Store
    ) -> None:
        """A24: the check and the addition are one step."""
        others: list[Any] = [store, *(self.make_store("default") for _ in range(3))]
        results = await asyncio.gather(
            *(each.register_keys(_keys(number)) for number, each in enumerate(others))
        )
        assert sorted(results) == [False, False, False, True]
        for each in others[1:]:
            close(each)
