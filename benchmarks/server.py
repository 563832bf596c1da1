"""Serves one candidate on one core: `python -m benchmarks.server NAME DIRECTORY`.

uvicorn for ASGI, gunicorn with one worker of many threads for WSGI, and the servers of aiohttp,
Tornado and Sanic, which have their own. The parent process reads the
port from the first line of standard output and stops the server by closing its standard input, so
that no server outlives a benchmark that was killed.
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

from benchmarks.asgi_client import freeze_heap, run
from benchmarks.candidates import Candidate, find

_KEEP_ALIVE_TIMEOUT = 3600
"""Seconds; connections are idle here while other servers have their turn."""


def pin(core: int | None) -> None:
    """Pin this process and the threads it starts to a core, where the system allows it."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def serve_asgi(candidate: Candidate, directory: Path, listener: socket.socket) -> None:
    """Serve under uvicorn until standard input is closed."""
    import uvicorn

    config = uvicorn.Config(
        candidate.build(directory),
        access_log=False,
        log_level="error",
        lifespan="on",
        timeout_keep_alive=_KEEP_ALIVE_TIMEOUT,
    )
    run(_serve(uvicorn.Server(config), listener, candidate))


async def _serve(server: Any, listener: socket.socket, candidate: Candidate) -> None:
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)  # uvicorn offers no event for it
        if serving.done():
            await serving
    _announce_port(port_of(listener), candidate)
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), lambda: setattr(server, "should_exit", True))
    await serving


def serve_wsgi(candidate: Candidate, directory: Path, listener: socket.socket) -> None:
    """Serve under gunicorn, one worker with many threads, until standard input is closed."""
    from gunicorn.app.base import BaseApplication

    from benchmarks.candidates.flask import THREADS

    port = port_of(listener)
    descriptor = listener.detach()  # gunicorn closes it

    class Application(BaseApplication):  # type: ignore[misc] # gunicorn has no types
        def load_config(self) -> None:
            settings = {
                "bind": f"fd://{descriptor}",
                "worker_class": "gthread",
                "workers": 1,
                "threads": THREADS,
                "keepalive": _KEEP_ALIVE_TIMEOUT,
                "loglevel": "error",
                "post_worker_init": lambda _: _announce_port(port, candidate),
            }
            for name, value in settings.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return candidate.build(directory)

    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    Application().run()


def _stop_at_end_of_input() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through sys.stdin: a worker would inherit its lock
    os.kill(os.getpid(), signal.SIGQUIT)


def _announce_port(port: int, candidate: Candidate) -> None:
    if candidate.tuned:
        freeze_heap(raise_threshold=True)
    print(port, flush=True)


def port_of(listener: socket.socket) -> int:
    """Return the port that a socket listens on."""
    port: int = listener.getsockname()[1]
    return port


def serve_aiohttp(candidate: Candidate, directory: Path, listener: socket.socket) -> None:
    """Serve under aiohttp's own server until standard input is closed."""
    from aiohttp import web

    async def serve() -> None:
        runner = web.AppRunner(
            candidate.build(directory), access_log=None, keepalive_timeout=_KEEP_ALIVE_TIMEOUT
        )
        await runner.setup()
        await web.SockSite(runner, listener).start()
        _announce_port(port_of(listener), candidate)
        await _end_of_input()
        await runner.cleanup()

    run(serve())


def serve_tornado(candidate: Candidate, directory: Path, listener: socket.socket) -> None:
    """Serve under Tornado's own server until standard input is closed."""
    from tornado.httpserver import HTTPServer

    async def serve() -> None:
        listener.setblocking(False)
        server = HTTPServer(candidate.build(directory), idle_connection_timeout=_KEEP_ALIVE_TIMEOUT)
        server.add_socket(listener)
        _announce_port(port_of(listener), candidate)
        await _end_of_input()
        server.stop()

    run(serve())


def serve_sanic(candidate: Candidate, directory: Path, listener: socket.socket) -> None:
    """Serve under Sanic's own server, one process, until standard input is closed."""

    async def serve() -> None:
        app = candidate.build(directory)
        server = await app.create_server(
            sock=listener, return_asyncio_server=True, access_log=False
        )
        await server.startup()
        await server.before_start()
        await server.after_start()
        _announce_port(port_of(listener), candidate)
        await _end_of_input()
        await server.close()

    run(serve())


async def _end_of_input() -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    loop.remove_reader(sys.stdin.fileno())


_SERVE = {
    "uvicorn": serve_asgi,
    "gunicorn": serve_wsgi,
    "aiohttp": serve_aiohttp,
    "tornado": serve_tornado,
    "sanic": serve_sanic,
}


def main() -> None:
    """Build the named application and serve it on a free port of this machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--core", type=int)
    arguments = parser.parse_args()
    pin(arguments.core)
    candidate = find(arguments.name)
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    _SERVE[candidate.server](candidate, arguments.directory, listener)


if __name__ == "__main__":
    main()
