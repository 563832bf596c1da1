"""PostgresStore over a network that breaks connections, delays and drops data: S12 and S13."""

import asyncio
import contextlib

import pytest

from sojourn._core.concurrency import sleep
from sojourn.errors import StoreUnavailable
from sojourn.store import SAVED
from sojourn.stores.batching import MAX_BATCH
from sojourn.testing.decorators import with_loop
from sojourn.testing.records import make_record, next_version
from tests.integration.proxy import Proxy
from tests.support.postgresql_faults import (
    RUNNERS,
    fails_within,
    leaving_nothing,
    store_at,
    tasks_end,
)


@pytest.fixture
def proxy(postgresql):
    with leaving_nothing(postgresql):
        proxy = Proxy(postgresql.port)
        proxy.url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"
        yield proxy
        proxy.close()


@RUNNERS
def test_unreachable_server_costs_the_first_caller_one_deadline_and_later_ones_less(runner, proxy):
    """S12: packets are dropped; later callers wait a quarter of the deadline."""

    async def check():
        store = store_at(proxy.url, timeout=2.0)
        record = make_record()
        await store.create(record)
        await store.load(record.id)
        proxy.swallow = True
        await fails_within(store.load(record.id), 3.5)
        with pytest.MonkeyPatch.context() as patch:
            # The first connection may have been slow on a busy machine.
            patch.setattr("sojourn.stores.reconnection.RECONNECTION_FACTOR", 0)
            for _ in range(3):
                await fails_within(store.load(record.id), 1.5)
        proxy.swallow = False
        assert await store.load(record.id) == record
        assert await store.save(next_version(record), 1) is SAVED
        store.close()
        await tasks_end(runner)

    runner(check())


@RUNNERS
def test_distant_server_is_used_again_after_an_outage(runner, proxy):
    """S12: to connect takes longer than a quarter of the deadline, and it did before."""

    async def check():
        proxy.delay = 0.3
        store = store_at(proxy.url, timeout=2.0)
        record = make_record()
        await store.create(record)
        assert await store.load(record.id) == record
        for _ in range(2):
            proxy.swallow = True
            await fails_within(store.load(record.id), 3.5)
            proxy.swallow = False
            assert await store.load(record.id) == record
        store.close()
        await tasks_end(runner)

    runner(check())


@RUNNERS
@pytest.mark.parametrize("how", ["cut", "half_close"])
def test_broken_idle_connection_is_replaced(runner, how, proxy):
    """S12: before its next use, for each kind of break."""

    async def check():
        store = store_at(proxy.url)
        record = make_record()
        await store.create(record)
        for version in range(1, 4):
            getattr(proxy, how)()
            await sleep(0.05)  # another thread receives the end of the stream
            assert await store.save(next_version(record), version) is SAVED
            record = next_version(record)
        assert await store.load(record.id) == record
        assert proxy.opened <= 5  # loads use a separate connection
        store.close()

    runner(check())


@pytest.mark.slow
@RUNNERS
def test_slow_server_is_awaited_up_to_the_deadline(runner, proxy):
    """S12: a reply after the deadline is a failure."""

    async def check():
        store = store_at(proxy.url, timeout=2.0)
        record = make_record()
        await store.create(record)
        proxy.delay = 0.3
        assert await store.load(record.id) == record
        proxy.delay = 5.0
        await fails_within(store.load(record.id), 3.5)
        proxy.delay = 0.0
        assert await store.load(record.id) == record
        store.close()

    runner(check())


def test_read_is_retried_if_its_connection_breaks_in_flight(proxy):
    """S12: idempotent statements are retried on a new connection; a save never is."""

    async def check():
        store = store_at(proxy.url)
        record = make_record()
        await store.create(record)
        await store.load(record.id)
        proxy.delay = 0.2
        load = asyncio.ensure_future(store.load(record.id))
        await asyncio.sleep(0.1)  # it was sent, and its reply is delayed
        proxy.cut()
        proxy.delay = 0.0
        assert await load == record
        proxy.delay = 0.2
        save = asyncio.ensure_future(store.save(next_version(record), 1))
        await asyncio.sleep(0.1)  # as above
        proxy.cut()
        proxy.delay = 0.0
        with pytest.raises(StoreUnavailable):
            await save
        assert await store.load(record.id) in (record, next_version(record))
        store.close()

    with_loop(check())


@pytest.mark.slow
def test_calls_of_many_batches_keep_their_deadline(proxy):
    """S12: calls in the last batch do not wait for the deadline of each batch before."""

    async def check():
        store = store_at(proxy.url)
        await store.load(bytes(16))
        proxy.swallow = True
        calls = (store.load(number.to_bytes(16)) for number in range(20 * MAX_BATCH))
        began = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert asyncio.get_running_loop().time() - began < 2
        assert {type(answer) for answer in answers} == {StoreUnavailable}
        proxy.swallow = False
        assert await store.load(bytes(16)) is None
        store.close()
        await tasks_end(with_loop)

    with_loop(check())


def test_cancelled_caller_does_not_affect_other_callers_of_its_batch(proxy):
    """S13: the connection is used again."""

    async def check():
        store = store_at(proxy.url)
        records = [make_record() for _ in range(20)]
        await asyncio.gather(*map(store.create, records))
        proxy.delay = 0.1
        saves = [asyncio.ensure_future(store.save(next_version(r), 1)) for r in records]
        await asyncio.sleep(0.05)  # they were sent, and the reply is delayed
        for save in saves[::2]:
            save.cancel()
        assert await asyncio.gather(*saves[1::2]) == [SAVED] * 10
        for save in saves[::2]:
            with pytest.raises(asyncio.CancelledError):
                await save
        proxy.delay = 0.0
        found = await asyncio.gather(*(store.load(record.id) for record in records))
        assert found == list(map(next_version, records))
        assert proxy.opened <= 2
        store.close()

    with_loop(check())


@pytest.mark.slow
def test_connections_cut_under_load_lose_no_acknowledged_save(proxy):
    """S10, S12: the version of each session is at least the last acknowledged one."""

    async def check():
        store = store_at(proxy.url)
        records = [make_record() for _ in range(8)]
        await asyncio.gather(*map(store.create, records))
        ending = asyncio.Event()

        async def write(record):
            acknowledged = record
            current = record
            while not ending.is_set():
                with contextlib.suppress(StoreUnavailable):
                    if await store.save(next_version(current), current.version) is SAVED:
                        current = acknowledged = next_version(current)
                    else:
                        # An earlier save was stored although its reply was lost.
                        current = acknowledged = await store.load(record.id)
                await asyncio.sleep(0.001)  # so that a fault interrupts some of them
            return acknowledged

        writers = [asyncio.ensure_future(write(record)) for record in records]
        for _ in range(20):
            await asyncio.sleep(0.03)  # the time between two faults
            proxy.cut()
        ending.set()
        for acknowledged in await asyncio.gather(*writers):
            found = await store.load(acknowledged.id)
            assert found.version - acknowledged.version in (0, 1)
            assert acknowledged.version > 1
        store.close()
        await tasks_end(with_loop)

    with_loop(check())
