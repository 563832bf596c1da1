"""Serves the demo on this machine: ``python -m examples.demo`` in the root of the repository.

Environment: PORT (default: 8000, or the next free port), STORE (a store URL), SOJOURN_SECRET
(default with a shared store: a secret for this run).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import sys
from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import uvicorn

from examples.demo.headers import PageHeaders
from sojourn.errors import ConfigurationError, StoreUnavailable

if TYPE_CHECKING:
    from fastapi import FastAPI

    from sojourn import Sessions

#: Printed with a shared store, which has no secret file.
SHARED_STORE_NOTE = (
    "SOJOURN_SECRET is not set: this run uses a generated secret, so its sessions end with this "
    "run and other processes on this store cannot read them"
)


class Server(uvicorn.Server):
    """A server that prints its address when it accepts connections."""

    def __init__(self, config: uvicorn.Config, notes: Sequence[str]) -> None:
        super().__init__(config)
        self._notes = notes

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then print the address."""
        await super().startup(sockets)
        if self.started and sockets:
            port = sockets[0].getsockname()[1]
            print(f"sojourn demo: http://localhost:{port}", *self._notes, sep="\n", flush=True)


def provide_secret(environment: MutableMapping[str, str]) -> bool:
    """Generate a secret if the store is shared and none is set; return whether it did.

    An embedded store generates a secret and stores it beside its file.
    """
    scheme = environment.get("STORE", "").partition(":")[0]
    if scheme in ("", "memory", "sqlite") or environment.get("SOJOURN_SECRET"):
        return False
    environment["SOJOURN_SECRET"] = secrets.token_urlsafe(32)
    return True


def listen(ports: Sequence[int]) -> list[socket.socket]:
    """Bind the first free port, on both addresses that "localhost" may resolve to.

    Args:
        ports: in the order of preference; 0 for any free port.

    Raises:
        OSError: none of them is free.
    """
    taken: OSError | None = None
    for port in ports:
        sockets: list[socket.socket] = []
        try:
            sockets.append(_bind(socket.AF_INET, "127.0.0.1", port))
            chosen = sockets[0].getsockname()[1]
            try:
                sockets.append(_bind(socket.AF_INET6, "::1", chosen))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise
        except OSError as error:
            taken = error
            for each in sockets:
                each.close()
        else:
            return sockets
    raise taken or OSError("no port given")


def _bind(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
    except OSError:
        listener.close()
        raise
    return listener


def open_application() -> tuple[FastAPI, Sessions[Any]]:
    """Return the application and its sessions, when the store has answered.

    Raises:
        SystemExit: STORE is wrong, its client library is missing, or its server does not answer.
    """
    try:
        # Imported here because the application opens its store at import.
        from examples.demo.app import app, sessions
    except ConfigurationError as error:
        sys.exit(f"STORE cannot be used: {error}")
    try:
        sessions.get("0" * 32)
    except StoreUnavailable as error:
        sys.exit(f"STORE cannot be used: {error}. Start its server, or correct the URL")
    return app, sessions


def main() -> None:
    """Serve until Ctrl-C."""
    wanted = os.environ.get("PORT")
    try:
        sockets = listen([int(wanted)] if wanted else [*range(8000, 8020), 0])
    except (OSError, OverflowError, ValueError) as error:
        sys.exit(f"PORT={wanted} cannot be used: {error}")
    notes = [SHARED_STORE_NOTE] if provide_secret(os.environ) else []
    app, sessions = open_application()
    notes.insert(0, f"sessions are stored in {sessions.store!r}; stop with Ctrl-C")
    config = uvicorn.Config(
        PageHeaders(app), log_level="warning", lifespan="on", timeout_graceful_shutdown=2
    )
    with contextlib.suppress(KeyboardInterrupt):
        Server(config, notes).run(sockets)


if __name__ == "__main__":
    main()
