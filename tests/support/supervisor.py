"""Kills the servers of a test process that ends without stopping them, for example by SIGKILL.

``supervise`` starts this file as a program, once for each test process. The program waits for the
end of the test process, then kills the servers that are still running, with their children.
"""

import functools
import os
import selectors
import signal
import sys
from contextlib import suppress
from pathlib import Path


def supervise(pid: int) -> None:
    """Kill a process and its children when this process ends."""
    if sys.platform == "linux":  # for the file descriptors of processes
        os.write(_start(), f"{pid}\n".encode())


@functools.cache
def _start() -> int:
    """Start the program; return the pipe for process IDs."""
    reader, writer = os.pipe()
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-E", "-S", __file__, str(os.getpid())],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, reader, 0)],
        setsid=True,  # Ctrl-C in the terminal does not reach it
    )
    os.close(reader)
    return writer


def main(parent: int) -> None:
    """Read process IDs from standard input until a process ends; kill the remaining ones."""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        # A process ID may be reused, a file descriptor of a process is not.
        ended = os.pidfd_open(parent)
        selector.register(ended, selectors.EVENT_READ)
        running = True
        while running:
            ready = [key for key, _ in selector.select()]
            running = ended not in {key.fd for key in ready}
            for key in ready:
                if key.data is not None:  # a server was stopped
                    selector.unregister(key.fd)
                    os.close(key.fd)
            if 0 in {key.fd for key in ready}:
                data = os.read(0, 65536)
                if not data:
                    selector.unregister(0)
                for pid in map(int, data.split()):
                    with suppress(ProcessLookupError):
                        selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
        servers = [key.data for key in selector.get_map().values() if key.data is not None]
    for pid in with_descendants(servers):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def with_descendants(pids: list[int]) -> list[int]:
    """Return the process IDs, and those of all their children."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parent = int(stat.read_text("utf-8", "replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = list(pids)
    for pid in found:  # the list grows
        found += children.get(pid, ())
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]))
