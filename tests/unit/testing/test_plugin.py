"""The fixtures of the pytest plugin, and open_session."""

import subprocess
import sys

import pytest
from fastapi import FastAPI

import sojourn
from sojourn.errors import ConfigurationError
from sojourn.frameworks.fastapi import SessionDep
from sojourn.testing import aopen_session, open_session


def shop(**options) -> FastAPI:
    app = FastAPI()
    sojourn.install(app, store="memory://", **options)

    @app.post("/cart/{item}")
    def add(item: str, session: SessionDep):
        session["cart"][item] = session["cart"].get(item, 0) + 1
        return session["cart"]

    @app.post("/end")
    def end(session: SessionDep):
        session.destroy()

    return app


def test_a_test_client_has_a_session(session_client):
    client, session = session_client(shop(), cart={"apple": 2})
    assert client.post("/cart/apple").json() == {"apple": 3}
    assert session.data() == {"cart": {"apple": 3}}
    session.update(cart={})
    assert client.post("/cart/pear").json() == {"pear": 1}


def test_an_ended_session_has_no_data(session_client):
    client, session = session_client(shop(), cart={})
    assert session.info() is not None
    assert client.post("/end").status_code == 200
    assert session.data() == {}
    assert session.info() is None


def test_a_session_expires_when_the_clock_is_advanced(session_client, fake_clock):
    client, session = session_client(shop(clock=fake_clock), cart={})
    fake_clock.advance("29 minutes")
    assert client.post("/cart/apple").status_code == 200
    fake_clock.advance("31 minutes")
    assert session.data() == {}


def test_memory_sessions_use_the_fake_clock(memory_sessions, fake_clock):
    session = open_session(memory_sessions, name="Ada")
    assert session.data() == {"name": "Ada"}
    fake_clock.advance("1 hour")
    assert session.data() == {}


def test_a_session_for_https_has_the_host_prefix(memory_sessions):
    assert list(open_session(memory_sessions, https=True).cookies) == ["__Host-sid"]
    assert list(open_session(memory_sessions).cookies) == ["sid"]


def test_a_session_can_be_created_without_data(memory_sessions):
    session = open_session(memory_sessions)
    assert session.data() == {}
    assert session.info() is not None


@pytest.mark.anyio
async def test_async_variants(memory_sessions):
    session = await aopen_session(memory_sessions, n=1)
    await session.aupdate(n=2)
    assert await session.adata() == {"n": 2}
    assert await session.ainfo() is not None


def test_an_application_without_sessions_is_an_error():
    with pytest.raises(ConfigurationError, match=r"sojourn\.install\(app\)"):
        open_session(FastAPI())


def test_its_repr_does_not_contain_the_ticket(memory_sessions):
    session = open_session(memory_sessions, n=1)
    assert session.cookies["sid"] not in repr(session)
    assert session.id in repr(session)


def test_the_plugin_loads_no_framework():
    program = "import sojourn.testing.plugin, sys; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert not {"starlette", "fastapi", "hypothesis", "httpx"} & set(answer.stdout.split())


SUITES = """
from sojourn.stores.memory import MemoryStore
from sojourn.testing import AppSuite, StoreSuite


class TestStore(StoreSuite):
    def make_store(self, realm):
        return MemoryStore()


class TestApplication(AppSuite):
    pass
"""


def test_the_suites_are_collected_in_a_project_with_strict_markers(tmp_path):
    """A project of another author, whose warnings are errors."""
    tmp_path.joinpath("test_suites.py").write_text(SUITES, "utf-8")
    tmp_path.joinpath("pytest.ini").write_text(
        "[pytest]\naddopts = --strict-markers\nfilterwarnings = error\n", "utf-8"
    )
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    collected = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert collected.returncode == 0, collected.stdout
    assert "::TestStore::" in collected.stdout
    assert "::TestApplication::" in collected.stdout
