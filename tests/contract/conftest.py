"""In which settings every race is run: tasks and threads, each store, together and apart."""

from pathlib import Path

import pytest

from sojourn.stores.memory import MemoryStore
from sojourn.stores.urls import open_store
from tests.contract.multi_process_model import Setting


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
def setting(request, store, apart) -> Setting:
    return Setting(store, request.param == "threads", apart)
