"""One application behind its server, on one core: `python -m benchmarks.server NAME FOLDER`.

uvicorn for ASGI, gunicorn with one worker of many threads for WSGI. Started by throughput.py, which
reads the port from the first line of standard output and ends the server by closing its standard
input, so that no server outlives a benchmark that was killed. No measuring here.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from benchmarks.asgi_client import run, settle
from benchmarks.candidates.starlette import Candidate, choose

PATIENCE = 3600
"""Seconds that an idle connection stays: all wait here while other servers have their turn."""


def pin(core: int | None) -> None:
    """Keep this process, and the threads it starts, on one core, where the system allows it."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def serve_asgi(candidate: Candidate, folder: Path, listener: socket.socket) -> None:
    """Serve under uvicorn until standard input is closed."""
    import uvicorn

    config = uvicorn.Config(
        candidate.build(folder),
        access_log=False,
        log_level="error",
        lifespan="on",
        timeout_keep_alive=PATIENCE,
    )
    run(_serve(uvicorn.Server(config), listener, candidate))


async def _serve(server: Any, listener: socket.socket, candidate: Candidate) -> None:
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)  # uvicorn offers no event for it
        if serving.done():
            await serving
    _announce(port_of(listener), candidate)
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), lambda: setattr(server, "should_exit", True))
    await serving


def serve_wsgi(candidate: Candidate, folder: Path, listener: socket.socket) -> None:
    """Serve under gunicorn, one worker with many threads, until standard input is closed."""
    from gunicorn.app.base import BaseApplication

    from benchmarks.candidates.flask import THREADS

    port = port_of(listener)
    descriptor = listener.detach()  # gunicorn's from now on

    class Application(BaseApplication):  # type: ignore[misc] # gunicorn has no types
        def load_config(self) -> None:
            settings = {
                "bind": f"fd://{descriptor}",
                "worker_class": "gthread",
                "workers": 1,
                "threads": THREADS,
                "keepalive": PATIENCE,
                "loglevel": "error",
                "post_worker_init": lambda _: _announce(port, candidate),
            }
            for name, value in settings.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return candidate.build(folder)

    threading.Thread(target=_end_with_input, daemon=True).start()
    Application().run()


def _end_with_input() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through sys.stdin, whose lock a worker would inherit
    os.kill(os.getpid(), signal.SIGQUIT)


def _announce(port: int, candidate: Candidate) -> None:
    if candidate.freeze:
        settle(later=candidate.later)
    print(port, flush=True)


def port_of(listener: socket.socket) -> int:
    """Return the port that a socket listens on."""
    port: int = listener.getsockname()[1]
    return port


SERVE = {"uvicorn": serve_asgi, "gunicorn": serve_wsgi}


def main() -> None:
    """Build the application named and serve it on a free port of this machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--core", type=int)
    arguments = parser.parse_args()
    pin(arguments.core)
    (candidate,) = (c for c in choose(None, frozen=True) if c.name == arguments.name)
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    SERVE[candidate.server](candidate, arguments.folder, listener)


if __name__ == "__main__":
    main()
