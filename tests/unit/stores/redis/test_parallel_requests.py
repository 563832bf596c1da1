"""Many clients, one session, four uvicorn workers and a Valkey server: no update is lost.

Also with the server killed under load, and under uvloop.
"""

import asyncio

import pytest
import uvloop

from sojourn.stores.urls import open_store
from sojourn.testing.records import make_record
from tests.integration.test_race import WHOLE, Load, begin, check, show
from tests.support.servers import uvicorn


@pytest.mark.anyio
@pytest.mark.timeout(180)
@pytest.mark.parametrize("path", ["/count", "/increment"])
@pytest.mark.parametrize(("clients", "requests"), [(16, 200), WHOLE])
async def test_parallel_requests_of_one_session_lose_no_update(
    tmp_path, valkey, path, clients, requests
):
    """A6, S10: the sum is exact."""
    options = {
        "store": valkey.url,
        "store_timeout": "30 seconds",  # suffices on a busy machine
        "secret": "4mT1zB8nW5yL3uC6pJdFq7H2vX0sR9eK",
        "merge": {"counter": "sum"},
        "max_bytes": 1_000_000,
    }
    with uvicorn("shop", tmp_path, workers=4, options=options) as server:
        cookie = await begin(server)
        answered = await Load(server, cookie, path, clients=clients, requests=requests).run()
        page = await show(server, cookie)
    assert len(answered) == requests
    assert page["counter"] == requests
    check(page, answered)


@pytest.mark.parametrize("over", ["TCP", "Unix socket"])
def test_connections_work_under_uvloop(valkey, over):
    """Its transports are of other classes."""
    url = valkey.url if over == "TCP" else f"unix://{valkey.socket}"

    async def check_it():
        store = open_store(url, realm="default", timeout=2.0)
        records = [make_record() for _ in range(50)]
        await asyncio.gather(*(store.create(record) for record in records))
        assert await asyncio.gather(*(store.load(record.id) for record in records)) == records
        store.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(check_it())
