"""A server on a free port that sends the same bytes after each request."""

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def answering(answer: bytes, *, pause: float = 0.0, greeting: bytes = b"") -> Iterator[int]:
    """Answer inside the block; yield the port.

    Args:
        answer: sent after each block of received bytes.
        pause: seconds between two bytes of the answer; 0 sends it at once.
        greeting: sent instead after the first block of a connection, if it is not empty.
    """
    ended = threading.Event()

    def serve(connected: socket.socket) -> None:
        first = greeting
        with connected, contextlib.suppress(OSError):
            while connected.recv(65_536):
                data, first = first or answer, b""
                parts = [data[at : at + 1] for at in range(len(data))] if pause else [data]
                for part in parts:
                    connected.sendall(part)
                    if pause and ended.wait(pause):
                        return

    def accept(listening: socket.socket) -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                connected, _ = listening.accept()
                connected.settimeout(30)
                threading.Thread(target=serve, args=(connected,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        thread = threading.Thread(target=accept, args=(listening,))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            ended.set()
            thread.join()
