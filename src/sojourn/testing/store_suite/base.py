"""What the author of a store overrides, and how the tests of ``StoreSuite`` call a store."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, ClassVar, Final, Literal, Protocol

import pytest

from sojourn._core.concurrency import run
from sojourn.sessions import Sessions
from sojourn.store import Closeable, Store, SupportsUserIndex
from sojourn.testing.decorators import Runner, copy_metadata, with_loop, without_loop
from sojourn.testing.store_suite.worker import SECRET


class StoreTests:
    """Base of all test classes of ``StoreSuite``.

    Tests of an optional capability are skipped if the store does not have it, and tests that need
    one of the methods below if it is not overridden.

    Attributes:
        requires_event_loop: the store awaits an asyncio client, so it needs an event loop.
        deadline: seconds within which every call returns or raises ``StoreUnavailable``.
        max_bytes: the largest body that the store must accept.
        publishes_changes: ``save`` publishes ``changed`` messages, if the store has
            ``SupportsBroadcast``.
        lists_by_id: ``list_page`` lists records in the order of their IDs, each once.
    """

    requires_event_loop: ClassVar[bool] = False
    deadline: ClassVar[float] = 2.0
    max_bytes: ClassVar[int] = 65_536
    publishes_changes: ClassVar[bool] = True
    lists_by_id: ClassVar[bool] = True

    def make_store(self, realm: str) -> Store:
        """Return a new store object over the same server or file.

        Called in the event loop that uses the store, if there is one. Two stores that are made
        within one test share their records if their realm is the same. For pytest fixtures such as
        ``tmp_path``, define a fixture with ``autouse=True`` that stores them on ``self``.
        """
        raise NotImplementedError("define make_store(realm) in the test class of the store")

    def store_url(self) -> str:
        """Return the URL with which other processes open ``make_store("default")``."""
        pytest.skip("define store_url() to test several processes")

    async def overwrite(self, store: Store, session_id: bytes, data: bytes) -> None:  # noqa: ARG002
        """Replace the stored bytes of a record, as a damaged disk would."""
        pytest.skip("define overwrite() to test damaged records")

    def outage(self, kind: Literal["refuse", "hang"]) -> AbstractContextManager[object]:  # noqa: ARG002
        """Return a context in which the server fails.

        Args:
            kind: "refuse": existing connections are closed and new ones refused; "hang":
                connections are accepted but not answered. Call ``pytest.skip`` for a kind that
                does not apply.
        """
        pytest.skip("define outage() to test a failing server")

    def round_trips(self, store: Store) -> int:  # noqa: ARG002
        """Return the number of requests that this store object has sent to its server."""
        pytest.skip("define round_trips() to test the number of requests")

    async def index_size(self, store: Store) -> int:  # noqa: ARG002
        """Return the number of index entries and cutoffs; any count that is 0 if there are none."""
        pytest.skip("define index_size() to test that the index does not grow")

    async def add_raw_history(self, store: Store, data: bytes) -> None:  # noqa: ARG002
        """Add bytes to the history as an entry of this instant, as a newer version would."""
        pytest.skip("define add_raw_history() to test damaged entries")

    # Used by the tests

    @pytest.fixture(params=["loop", "no loop"])
    def runner(self, request: pytest.FixtureRequest) -> Runner:
        """Run the test under an event loop and without one."""
        if request.param == "loop":
            return with_loop
        if self.requires_event_loop:
            pytest.skip("this store requires an event loop")
        return without_loop

    async def cancel_one(self, calls: Sequence[Awaitable[Any]], victim: int) -> list[Any]:
        """Start calls in one tick of the loop and cancel one of them.

        Returns:
            The results and exceptions in the order of the calls.
        """
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0)
        tasks[victim].cancel()
        gathered = asyncio.gather(*tasks, return_exceptions=True)
        return await asyncio.wait_for(gathered, self.deadline)

    def sessions(self, store: Store, **options: Any) -> Sessions[Any]:
        """Return an installation over a store.

        Args:
            store: with the records.
            options: of ``Sessions``.
        """
        return Sessions(store=store, secret=SECRET, max_bytes=10**7, **options)

    @contextmanager
    def blocking_stores(
        self, number: int = 1, *, realm: str = "default", requires: type | None = None
    ) -> Iterator[list[Any]]:
        """Yield store objects over the same records that work without an event loop."""
        if self.requires_event_loop:
            pytest.skip("this store requires an event loop")
        with ExitStack() as stack:
            stores = []
            for _ in range(number):
                stores.append(self.make_store(realm))
                stack.callback(close, stores[-1])
                _check_capability(stores[-1], requires)
            yield stores

    @contextmanager
    def default_runner(self) -> Iterator[Callable[[Coroutine[Any, Any, None]], object]]:
        """Yield a function that runs coroutines in one event loop; without one if possible."""
        if not self.requires_event_loop:
            yield run
            return
        with asyncio.Runner() as runner:
            yield runner.run


class IndexedStore(Store, SupportsUserIndex, Protocol):
    """A store with a user index."""


def close(store: object) -> None:
    """Close a store that can be closed."""
    if isinstance(store, Closeable):
        store.close()


def _check_capability(store: Store, requires: type | None) -> None:
    if requires is not None and not isinstance(store, requires):
        pytest.skip(f"this store does not implement {requires.__name__}")


Body = Callable[..., Coroutine[Any, Any, None]]


class store_test:  # noqa: N801 - a decorator
    """Turn a coroutine function into a test that gets a new store as its first argument.

    Args:
        requires: the protocol of the capability that the test is about.
        loop_only: run under an event loop only; otherwise also without one.
    """

    def __init__(self, *, requires: type | None = None, loop_only: bool = False) -> None:
        self._requires = requires
        self._loop_only = loop_only

    def __call__(self, body: Body) -> Callable[..., None]:
        """Return the test."""

        def test(self: StoreTests, runner: Runner = with_loop, **parameters: Any) -> None:
            runner(call(self, parameters))

        async def call(suite: StoreTests, parameters: dict[str, Any]) -> None:
            store = suite.make_store("default")
            try:
                _check_capability(store, self._requires)
                await body(suite, store, **parameters)
            finally:
                close(store)

        copy_metadata(test, body)
        instance, _, *others = inspect.signature(body).parameters.values()
        fixtures = [] if self._loop_only else [_RUNNER]
        test.__signature__ = inspect.Signature([instance, *fixtures, *others])  # type: ignore[attr-defined]
        return test


_RUNNER: Final = inspect.Parameter("runner", inspect.Parameter.POSITIONAL_OR_KEYWORD)

#: A test of the user index, under an event loop and without one.
index_test: Final = store_test(requires=SupportsUserIndex)
