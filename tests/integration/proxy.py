"""A TCP proxy that delays data, drops data and breaks connections."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable


class Proxy:
    """Forwards bytes between its own port and another, with injected faults.

    With a context it serves TLS to clients, for a server without TLS.

    Attributes:
        port: where clients connect.
        delay: seconds by which each part of a reply is delayed.
        swallow: drop all data in both directions, like a network that loses packets.
        opened: number of accepted connections.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = port
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.delay = 0.0
        self.swallow = False
        self.opened = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            self.opened += 1
            try:
                if self._tls is not None:
                    client = self._tls.wrap_socket(client, server_side=True)
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            self._pairs.append((client, server))
            for one, other, slow in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._pass, args=(one, other, slow), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _pass(self, one: socket.socket, other: socket.socket, slow: bool) -> None:
        with contextlib.suppress(OSError):
            alter = self.altering() if slow else bytes
            while data := one.recv(65_536):
                if slow and self.delay:
                    time.sleep(self.delay)  # the configured delay
                if not self.swallow:
                    other.sendall(alter(data))
        for side in (one, other):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def altering(self) -> Callable[[bytes], bytes]:
        """Return a function that changes the data of one connection's replies."""
        return bytes

    def cut(self) -> None:
        """Break every open connection."""
        for pair in self._pairs:
            for side in pair:
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    def half_close(self) -> None:
        """Close the server's stream to each client; the other direction stays open."""
        for client, _ in self._pairs:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        for pair in self._pairs:
            for side in pair:
                side.close()
