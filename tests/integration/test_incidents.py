"""Statements of the page on incidents: the log of an outage, and a store restored from a backup."""

import shutil
import time

import httpx
import pytest

from sojourn import Sessions
from tests.integration.valkey import Valkey
from tests.support.processes import serving

SECRET = "Ht6-incidents-of-the-tests-Kd9"

APP = """
import os
import sojourn
from fastapi import FastAPI
from sojourn.frameworks.fastapi import SessionDep

app = FastAPI()
sessions = sojourn.install(app, store_timeout="0.5 seconds")
app.mount("/health", sojourn.health(sessions))


@app.get("/")
async def home(session: SessionDep):
    return {"visits": session.increment("visits")}
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_outage_of_a_server_is_logged_as_two_lines(tmp_path):
    """A15: without logging configuration, during requests and probes."""
    (tmp_path / "app.py").write_text(APP)
    valkey = Valkey(tmp_path)
    valkey.start()
    environ = {"SOJOURN_STORE": valkey.url, "SOJOURN_SECRET": SECRET}
    try:
        with (
            serving(
                "uvicorn", "app:app", "--port", "PORT", folder=tmp_path, environ=environ
            ) as url,
            httpx.Client(base_url=url, timeout=30) as visitor,
        ):
            assert visitor.get("/").json() == {"visits": 1}
            valkey.stop()
            for _ in range(20):
                assert visitor.get("/").status_code == 503
                assert visitor.get("/health/").status_code == 503
            valkey.start()
            until = time.monotonic() + 30
            while "answers again" not in (tmp_path / "server.log").read_text():
                assert time.monotonic() < until
                visitor.get("/health/")
                visitor.get("/")
                time.sleep(0.2)  # the end of an outage needs five seconds without a failure
            visitor.get("/")
    finally:
        valkey.stop()
    log = (tmp_path / "server.log").read_text()
    [failed] = [line for line in log.splitlines() if line.startswith("the session store failed")]
    [again] = [line for line in log.splitlines() if line.startswith("the session store answers")]
    assert f"127.0.0.1:{valkey.port}" in failed
    assert int(again.partition("failed calls: ")[2].split()[0]) >= 40
    assert "answered 503" not in log
    assert "Traceback" not in log
    assert SECRET not in log


def test_revoke_all_ends_sessions_of_a_restored_backup(tmp_path):
    """A7, S7: a backup from before a revocation does not contain it."""
    file = tmp_path / "sessions.db"

    def opened():
        return Sessions(store=f"sqlite:///{file}", secret=SECRET)

    sessions = opened()
    with sessions.open() as visit:
        visit.session.login("ada")
        session_id = visit.session.id
    [(_, header)] = [pair for pair in visit.response_headers() if pair[0].lower() == "set-cookie"]
    cookie = header.split(";")[0]
    sessions.close()
    shutil.copy(file, tmp_path / "backup.db")

    sessions = opened()
    assert sessions.revoke_user("ada", reason="account taken over") == 1
    with sessions.open(cookies=cookie) as visit:
        assert visit.session.user is None
    sessions.close()

    for companion in tmp_path.glob("sessions.db*"):
        companion.unlink()
    shutil.copy(tmp_path / "backup.db", file)
    sessions = opened()
    with sessions.open(cookies=cookie) as visit:
        assert (visit.session.user, visit.session.id) == ("ada", session_id)
    sessions.revoke_all(reason="restored from a backup")
    with sessions.open(cookies=cookie) as visit:
        assert visit.session.user is None
    assert sessions.list_user("ada") == []
    sessions.close()
