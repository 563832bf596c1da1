"""The servers of a killed test process are stopped."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.valkey import PATIENCE

#: Starts servers as fixtures do, prints their process IDs, and waits.
TEST_PROCESS = """
import json, sys, time
from pathlib import Path
from tests.integration.postgresql import Postgres
from tests.integration.valkey import Valkey
from tests.support import supervisor
from tests.support.servers import uvicorn

folder = Path(sys.argv[1])
stopped = Valkey(folder)
stopped.start()
stopped.stop()
postgresql, valkey, web = Postgres(), Valkey(folder), uvicorn("plain", folder, workers=2)
for server in (postgresql, valkey, web):
    server.start()
pids = [postgresql.pid, valkey.pid, web.process.pid]
print(json.dumps([str(postgresql.folder), *supervisor.with_descendants(pids)]), flush=True)
with postgresql.hanging():
    print("stopped", flush=True)
    time.sleep(300)  # until it is killed
"""


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="needs file descriptors of processes")
def test_servers_of_a_killed_test_process_are_stopped(repository, tmp_path):
    """Also PostgreSQL, which runs as another user, and the workers of uvicorn."""
    process = subprocess.Popen(
        [sys.executable, "-c", TEST_PROCESS, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{repository}{os.pathsep}{repository / 'src'}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        folder, *pids = json.loads(process.stdout.readline())
        assert process.stdout.readline() == "stopped\n"
        assert all(map(is_running, pids))
    finally:
        process.kill()
        process.communicate()
    assert len(pids) > 3 + 2, "with the workers of uvicorn and the processes of PostgreSQL"
    deadline = time.monotonic() + PATIENCE
    while left := list(filter(is_running, pids)):
        assert time.monotonic() < deadline, f"these processes still run: {left}"
        time.sleep(0.05)  # they are not children of this process
    shutil.rmtree(folder)
