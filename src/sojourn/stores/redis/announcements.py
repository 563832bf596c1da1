"""Announcements: what processes tell each other about sessions, over the server's channels.

What lives here: the bytes of a message, its channel, and one listening thread for a process. What
must not: the capability (``core/announces.py``) and what a message means for a socket (``live/``).

A message is a hint to look, never the truth: it may be lost, doubled or late (law S17). So a
listener is told of every gap, that is whenever its connection was made, and looks again at
everything it has open. Revocations go to one channel that everybody hears; changes of a session go
to a channel of its own, to which a process listens only while something of that session is open.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from sojourn.core.announces import Announcement, Heard, Kind
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.pools import FAILURES, is_refusal

logger: logging.Logger = logging.getLogger("sojourn")

#: The only form of a message there is; a reader passes over every other.
FORMAT: Final = 1

#: Seconds between two questions whether the connection lives, and between two tries to connect.
_BREATH: Final = 5.0
_FIRST_PAUSE: Final = 0.05
_LAST_PAUSE: Final = 1.0


def channel_of(kind: Kind, session_id: bytes, keys: Keys) -> str:
    """Return where a message of a kind is told."""
    return keys.channel + session_id.hex() if kind == "changed" else keys.events


def encode(kind: Kind, session_id: bytes, *, version: int, reason: str) -> bytes:
    """Return the bytes of a message."""
    return _encode(Announcement(FORMAT, kind, session_id, version, reason))


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Announcement).decode


class Listener:
    """A thread with one connection that listens for a process.

    Args:
        pool: of blocking connections, its own.
        keys: what channels are called.
        heard, gap: see ``Announces.listen``.
    """

    def __init__(self, pool: Any, keys: Keys, heard: Heard, gap: Callable[[], object]) -> None:
        self._pool = pool
        self._keys = keys
        self._heard = heard
        self._gap = gap
        self._lock = threading.Lock()
        self._watched: dict[str, int] = {}
        self._connection: Any = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sojourn-listener", daemon=True)
        self._thread.start()

    # From other threads

    def watch(self, session_id: bytes) -> None:
        """Hear of changes of a session, too."""
        channel = channel_of("changed", session_id, self._keys)
        with self._lock:
            self._watched[channel] = self._watched.get(channel, 0) + 1
            if self._watched[channel] == 1:
                self._say("SUBSCRIBE", channel)

    def unwatch(self, session_id: bytes) -> None:
        """Hear of its changes no more."""
        channel = channel_of("changed", session_id, self._keys)
        with self._lock:
            self._watched[channel] -= 1
            if self._watched[channel] == 0:
                del self._watched[channel]
                self._say("UNSUBSCRIBE", channel)

    def close(self) -> None:
        """End the thread and its connection."""
        self._ending.set()
        with self._lock:
            if self._connection is not None:
                self._say("PING")  # its answer wakes the thread
        if threading.current_thread() is not self._thread:
            self._thread.join(_BREATH)
        self._pool.disconnect()

    def _say(self, *words: str) -> None:
        """Send a command; the lock must be held. What fails is seen by the thread that reads."""
        if self._connection is None:
            return
        try:
            packed = self._connection.pack_command(*words)
            self._connection.send_packed_command(packed, check_health=False)
        except FAILURES:
            self._connection = None

    # The thread

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._ending.is_set():
            began = time.monotonic()
            try:
                self._listen()
            except FAILURES as error:
                if not self._ending.is_set():
                    logger.warning("announcements are not heard (%s); connecting again", error)
            except Exception as error:
                if not is_refusal(error):
                    logger.exception("the listener for announcements failed; it begins again")
                else:
                    logger.warning("the server refuses announcements: %s", error)
            pause = (
                _FIRST_PAUSE if time.monotonic() - began > _BREATH else min(2 * pause, _LAST_PAUSE)
            )
            self._ending.wait(pause)

    def _listen(self) -> None:
        connection = self._pool.get_connection()
        try:
            with self._lock:
                self._connection = connection
                self._say("SUBSCRIBE", self._keys.events, *self._watched)
            self._read(connection)
        finally:
            with self._lock:
                self._connection = None
            connection.disconnect()
            self._pool.release(connection)

    def _read(self, connection: Any) -> None:
        """Hear messages until the connection ends."""
        quiet = False
        while not self._ending.is_set():
            if not connection.can_read(timeout=_BREATH):
                if quiet:
                    raise TimeoutError("the server is silent")
                quiet = True
                with self._lock:
                    self._say("PING")
                continue
            quiet = False
            reply = connection.read_response(disable_decoding=True)
            if reply[0] == b"message":
                self._hear(reply[2])
            elif reply[0] == b"subscribe" and reply[1] == self._keys.events.encode():
                self._gap()

    def _hear(self, data: bytes) -> None:
        try:
            message = _decode(data)
        except msgspec.MsgspecError:
            return  # not of ours, or of a later version: only a hint is lost
        if message.format == FORMAT:
            self._heard(message)
