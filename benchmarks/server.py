"""One application under uvicorn on one core: `python -m benchmarks.server NAME FOLDER`.

Started by throughput.py, which reads the port from the first line of standard output and ends the
server by closing its standard input, so that no server outlives a benchmark that was killed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from pathlib import Path

import uvicorn

from benchmarks.candidates import choose
from benchmarks.driving import run, settle


def pin(core: int | None) -> None:
    """Keep this process, and the threads it starts, on one core, where the system allows it."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


async def serve(server: uvicorn.Server, *, freeze: bool) -> None:
    """Serve on a free port of this machine until standard input is closed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)  # uvicorn offers no event for it
        if serving.done():
            await serving
    if freeze:
        settle()
    print(listener.getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), lambda: setattr(server, "should_exit", True))
    await serving


def main() -> None:
    """Build the application named and serve it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--core", type=int)
    arguments = parser.parse_args()
    pin(arguments.core)
    (candidate,) = (c for c in choose(None, frozen=True) if c.name == arguments.name)
    config = uvicorn.Config(
        candidate.build(arguments.folder),
        access_log=False,
        log_level="error",
        lifespan="on",
        timeout_keep_alive=3600,  # connections wait here while the other servers have their turn
    )
    run(serve(uvicorn.Server(config), freeze=candidate.freeze))


if __name__ == "__main__":
    main()
