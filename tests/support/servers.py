"""Real servers as child processes on free ports, with their logs."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx

from tests.integration.valkey import free_port
from tests.support.supervisor import supervise

REPOSITORY = Path(__file__).parent.parent.parent

#: Seconds for a server to answer; a busy machine may need several for its imports alone.
START = 30.0
STOP = 10.0

#: Created once: reading the certificates takes longer than most tests.
TLS = ssl.create_default_context()

#: The line that each worker of uvicorn prints when it serves.
STARTED = "Application startup complete."

#: Attempts with another port: another process may take a free port before it is used.
MAX_ATTEMPTS = 3


class Server:
    """One server: a process, and its children where it has workers.

    Args:
        command: what follows ``python -m``, with ``{port}`` where the port belongs.
        folder: the working directory, for the default store and the log.
        workers: how many must have started before it counts as started.
        options: keywords for ``sojourn.install``; the apps read them from the environment.
        environment: further variables.
    """

    def __init__(self, command, folder, *, workers=1, options=None, environment=None):
        self.folder = Path(folder)
        self.port = 0
        self.process = None
        self._command = command
        self._workers = workers
        self._environment = {
            **os.environ,
            # src too: a copy of the work tree serves its own code, not the installed one.
            "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'src'}",
            "SOJOURN_TEST_OPTIONS": json.dumps(options or {}),
            **(environment or {}),
        }

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def url(self):
        return f"http://localhost:{self.port}"

    @property
    def socket_url(self):
        return f"ws://localhost:{self.port}"

    @property
    def log(self):
        """The output of the server, of all its starts."""
        return "".join(path.read_text() for path in self._logs())

    def _logs(self):
        return sorted(self.folder.glob("server-*.log"))

    def start(self, port=0):
        """Start the process and wait until it answers.

        Args:
            port: 0 for a free one.
        """
        for _ in range(MAX_ATTEMPTS):
            self.port = port or free_port()
            number = len(self._logs())
            with (self.folder / f"server-{number:03}.log").open("w") as log:
                self.process = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        *(part.format(port=self.port) for part in self._command),
                    ],
                    cwd=self.folder,
                    env=self._environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            supervise(self.process.pid)
            if self._answers():
                return
        raise AssertionError(f"the server did not start:\n{self.log}")

    def stop(self):
        """Terminate the process and wait for it; kill it if it does not end in time."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not stop:\n{self.log}") from None

    def kill(self):
        """Kill the process and its workers (SIGKILL), as a crash would."""
        for child in self.workers():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self.process.kill()
        self.process.wait(STOP)

    def workers(self):
        """Return the process IDs of the workers that serve requests."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                stat = entry.read_text()
                parent = int(stat.rpartition(")")[2].split()[1])
                command = (entry.parent / "cmdline").read_bytes()
                if parent == self.process.pid and b"resource_tracker" not in command:
                    found.append(int(entry.parent.name))
        return found

    def _answers(self):
        deadline = time.monotonic() + START
        while time.monotonic() < deadline and self.process.poll() is None:
            # The process sends no notification when it listens.
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), START):
                if (
                    self._workers == 1
                    or self._logs()[-1].read_text().count(STARTED) >= self._workers
                ):
                    return True
            time.sleep(0.02)  # polls another process
        if self.process.poll() is None:
            self.kill()
        return False


def uvicorn(app, folder, *, workers=1, ws="auto", more=(), **settings):
    """Return a ``Server`` that serves ``tests.integration.apps.<app>:app`` with uvicorn."""
    command = ["uvicorn", f"tests.integration.apps.{app}:app", "--port", "{port}", "--ws", ws]
    if workers > 1:
        command += ["--workers", str(workers)]
    return Server([*command, *more], folder, workers=workers, **settings)


def browser(server, **options):
    """Return a client that keeps cookies and connections as a browser does."""
    options.setdefault("base_url", server.url)
    return httpx.AsyncClient(timeout=30, verify=TLS, **options)


async def eventually(poll, wanted):
    """Poll a server until its answer is as wanted, and return that answer.

    Args:
        poll: an async function without arguments.
        wanted: a predicate of its result.
    """
    async with asyncio.timeout(20):
        for _ in itertools.count():
            answer = await poll()
            if wanted(answer):
                return answer
            await asyncio.sleep(0.01)  # polls another process
    return None
