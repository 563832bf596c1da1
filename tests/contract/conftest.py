"""Setups of races: each store, tasks and threads, one installation and several."""

from pathlib import Path

import pytest

from sojourn.stores.memory import MemoryStore
from sojourn.stores.urls import open_store
from tests.contract.multi_process_model import Race


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path: Path):
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/sessions.db"
    opened = open_store(url, realm="default", timeout=20)
    yield opened
    if not isinstance(opened, MemoryStore):
        opened.close()


@pytest.fixture(params=["apart", "one installation"])
def apart(request) -> bool:
    return request.param == "apart"


@pytest.fixture(params=["tasks", "threads"])
def race(request, store, apart) -> Race:
    return Race(store, request.param == "threads", apart)
