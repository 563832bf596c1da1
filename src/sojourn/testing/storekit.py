"""What an author of a store says about it: the base of ``StoreSuite``.

What lives here: making stores, the switches for what a store can do, and helpers of the laws. What
must not: laws; those are in ``storelaws.py`` (one call at a time) and ``parallel.py`` (many).

A switch is a method that the author overrides. Where it is not overridden, the tests that need it
are skipped with the reason; no test ever looks at the name of a class.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal, Protocol, TypeVar, cast

import pytest

from sojourn.sessions import Sessions
from sojourn.store import Closeable, Store, SupportsUserIndex
from sojourn.testing.running import Way, with_loop, without_loop
from sojourn.testing.worker import SECRET

S = TypeVar("S", bound="StoreKit")


class StoreKit:
    """Makes stores for the laws.

    Attributes:
        requires_event_loop: the store awaits an asyncio client, so it works under an event loop only.
        deadline: seconds within which a call must answer or raise ``StoreUnavailable``.
        max_bytes: the largest body that the store must keep.
        tells_changes: a save tells who watches the session, if the store announces at all.
    """

    requires_event_loop: ClassVar[bool] = False
    deadline: ClassVar[float] = 2.0
    max_bytes: ClassVar[int] = 65_536
    tells_changes: ClassVar[bool] = True

    def make_store(self, realm: str) -> Store:
        """Return a new store object over the same server or file, for a realm.

        Called where the store will be used: under the event loop if there is one. Two stores made
        within one test see the same records if their realm is the same. For what a pytest fixture
        gives, such as ``tmp_path``, define one with ``autouse=True`` that puts it on ``self``.
        """
        raise NotImplementedError("a store's test class says how to make the store")

    def store_url(self) -> str:
        """Return the URL by which other processes reach what ``make_store("default")`` gives."""
        pytest.skip("no other process can open this store")

    async def plant(self, store: Store, session_id: bytes, data: bytes) -> None:  # noqa: ARG002 - for who overrides it
        """Put bytes where the record of a session is kept, as a damaged disk would."""
        pytest.skip("this store keeps objects, no bytes that could be damaged")

    def outage(self, kind: Literal["refuse", "hang"]) -> AbstractContextManager[object]:  # noqa: ARG002
        """Let the server refuse, or accept and say nothing, inside the block.

        One that refuses also ends the connections that there are, as one that dies does. Raise
        ``pytest.skip`` for a kind that the store cannot meet.
        """
        pytest.skip("there is no server that could fail")

    def round_trips(self, store: Store) -> int:  # noqa: ARG002
        """Return how many requests this store object has sent to its server so far."""
        pytest.skip("this store makes no round trips")

    async def index_size(self, store: Store) -> int:  # noqa: ARG002
        """Return how many entries the store keeps to find sessions by name, voided ones included.

        Any count will do that is 0 when there are none.
        """
        pytest.skip("nobody said how to count this store's entries")

    # For the laws

    @pytest.fixture(params=["loop", "no loop"])
    def way(self, request: pytest.FixtureRequest) -> Way:
        """How this test calls the store."""
        if request.param == "loop":
            return with_loop
        if self.requires_event_loop:
            pytest.skip("this store works under an event loop only")
        return without_loop

    def sessions(self, store: Store, **options: Any) -> Sessions[Any]:
        """Return an installation over a store."""
        return Sessions(store=store, secret=SECRET, max_bytes=10**7, **options)


def close(store: object) -> None:
    """Close a store, if it is one that closes."""
    if isinstance(store, Closeable):
        store.close()


Law = Callable[[S, Store], Coroutine[Any, Any, None]]


def both_ways(law: Law[S]) -> Callable[[S, Way], None]:
    """Make of a law's coroutine a test that runs with and without a loop."""

    def test(self: S, way: Way) -> None:
        way(_with_store(law, self))

    return _like(test, law)


def with_loop_only(law: Law[S]) -> Callable[[S], None]:
    """Make of a law's coroutine a test that runs under a loop: it needs tasks."""

    def test(self: S) -> None:
        with_loop(_with_store(law, self))

    return _like(test, law)


class ListingStore(Store, SupportsUserIndex, Protocol):
    """A store that also lists users."""


def listing(law: Callable[[S, ListingStore], Coroutine[Any, Any, None]]) -> Law[S]:
    """Skip a law about lists where the store keeps none."""

    async def checked(suite: S, store: Store) -> None:
        if not isinstance(store, SupportsUserIndex):
            pytest.skip("this store lists no users")
        await law(suite, cast("ListingStore", store))

    return _like(checked, law)


async def _with_store(law: Law[S], suite: S) -> None:
    store = suite.make_store("default")
    try:
        await law(suite, store)
    finally:
        close(store)


F = TypeVar("F", bound=Callable[..., Any])


def _like(test: F, law: Callable[..., Any]) -> F:
    test.__name__, test.__qualname__ = law.__name__, law.__qualname__
    test.__doc__, test.__module__ = law.__doc__, law.__module__
    return test
