"""A server that is killed under load and restarts with the data on its disk.

The promises are in docs/valkey.md.
"""

import asyncio
import logging

import pytest

from sojourn.stores.urls import open_store
from tests.integration.valkey import Valkey
from tests.support.write_load import under_load

KILLS = 3


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["always", "everysec", "no"])
def test_no_acknowledged_write_is_lost_when_the_server_is_killed(policy, tmp_path, caplog):
    """S10, S12: with appendfsync always; other losses are logged. Calls fail meanwhile."""
    server = Valkey(tmp_path, "--appendonly", "yes", "--appendfsync", policy)
    server.start()
    store = open_store(server.url, realm="default", timeout=1.0)

    def disturb(_):
        for _ in range(KILLS):
            with server.refusing():
                pass

    async def check():
        load = await under_load(store, disturb)
        lost = await load.lost()
        saves = sum(load.acknowledged.values())
        caplog.set_level(logging.INFO)
        logging.getLogger("tests").info("%s: %d of %d saves lost", policy, lost, saves)
        assert saves > 100
        assert load.failures
        assert lost == 0 or policy != "always"
        assert len(asyncio.all_tasks()) == 1
        store.close()

    try:
        asyncio.run(check())
    finally:
        server.stop()
