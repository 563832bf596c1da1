"""A server that is killed under load and restarts with what its disk has.

What it promises is in docs/valkey.md.
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
def test_nothing_that_was_acknowledged_is_lost_with_the_process(policy, tmp_path, caplog):
    """S10, S12: with appendfsync always; the loss otherwise is logged. Calls fail meanwhile."""
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
