"""Start uvicorn, gunicorn or a program on a free port, and stop its process group."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.integration.valkey import PATIENCE, free_port, wait_for_port
from tests.support.supervisor import supervise

REPOSITORY = Path(__file__).parent.parent.parent


@contextmanager
def serving(*command: str, folder: Path, environ: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run `python -m <command>`, in which PORT stands for a free port; yield its address.

    Args:
        command: a module and its arguments.
        folder: the working directory, which contains the default store.
        environ: variables to add.
    """
    port = free_port()
    words = [word.replace("PORT", str(port)) for word in command]
    log = (folder / "server.log").open("wb+")
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=folder,
        # src too: a copy of the work tree serves its own code, not the installed one.
        env={
            **os.environ,
            "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'src'}",
            **(environ or {}),
        },
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that its workers end with it
    )
    supervise(process.pid)
    try:
        wait_for_port(port)
        yield f"http://127.0.0.1:{port}"
    except BaseException as error:
        log.seek(0)
        error.add_note(log.read()[-5000:].decode())
        raise
    finally:
        end(process)
        log.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """Terminate a server; kill it and its remaining workers if it does not end in time."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
