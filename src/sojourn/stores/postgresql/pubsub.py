"""Broadcast over LISTEN and NOTIFY: the messages, and the thread that receives them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import math
import os
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.pq import ExecStatus

from sojourn.errors import StoreError
from sojourn.store import BroadcastMessage, MessageHandler, MessageKind
from sojourn.stores.broadcast_messages import decode_message, encode_message

logger: logging.Logger = logging.getLogger("sojourn")

#: Seconds of silence before a probe, and then until the connection counts as lost.
_PROBE_INTERVAL: Final = 5.0

#: Seconds before a retry: the first, and the longest.
_FIRST_DELAY: Final = 0.05
_MAX_DELAY: Final = 1.0

#: Seconds that ``close`` waits for the thread, which may be connecting.
_CLOSE_TIMEOUT: Final = 5.0

#: Outcomes of a command that was executed.
_SUCCESS: Final = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)

# Messages

#: Bytes of a payload: NOTIFY rejects 8,000 and more.
MAX_PAYLOAD_BYTES: Final = 7_999

#: Bytes of a reason, which is the only part of a message without a limit of its own.
_MAX_REASON_BYTES: Final = 5_000


def channel_of(table: str, realm: str) -> str:
    """Return the channel of a realm, at most 63 bytes.

    Channels belong to a database, so the name depends on the table and its schema, too (law S14).
    """
    digest = hashlib.sha256(f"{table}\0{realm}".encode()).hexdigest()
    return f"sojourn_{digest[:32]}"


def encode_payload(
    kind: MessageKind, session_id: bytes, *, version: int = 0, reason: str = ""
) -> str:
    """Return a message as base64url text of at most ``MAX_PAYLOAD_BYTES``; cuts a long reason."""
    if len(reason) * 4 > _MAX_REASON_BYTES:
        reason = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
    message = encode_message(kind, session_id, version=version, reason=reason)
    return base64.urlsafe_b64encode(message).decode()


def decode_payload(payload: str | bytes) -> BroadcastMessage | None:
    """Return a message; None if it is foreign, damaged or of another format."""
    try:
        return decode_message(base64.urlsafe_b64decode(payload))
    except ValueError:
        return None


# Subscription


class _Unusable(Exception):
    """The server answers, but messages would not arrive over this connection."""


class _Closed(Exception):
    """The subscription was closed."""


class _Listener:
    """A connection that listens; used by one thread, and woken by another to close it.

    psycopg's ``notifies()`` cannot be woken, and its ``execute()`` has no deadline: it would wait
    for a server that cannot be reached any more until the kernel gives up, which takes minutes.

    Args:
        connection: open, in autocommit mode.
        channel: to listen to.
        closing: becomes readable when the subscription is closed.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], channel: str, closing: socket.socket
    ) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._channel = channel
        self._payloads: list[bytes] = []
        self._closing = closing
        self._selector = selectors.DefaultSelector()
        self._selector.register(connection.fileno(), selectors.EVENT_READ)
        self._selector.register(closing, selectors.EVENT_READ)

    def close(self) -> None:
        self._selector.close()
        self._connection.close()

    def listen(self) -> None:
        """Start to listen.

        Raises:
            _Unusable: a pooler answered; it may give the server's connection to another client.
            psycopg.Error: the server does not answer, or rejects the command.
        """
        process_id = self._execute(b"SELECT pg_backend_pid()")
        if process_id != b"%d" % self._pgconn.backend_pid:
            raise _Unusable(
                "a pooler answered instead of the server, and it does not deliver notifications: "
                "add listen_url=postgresql://... with the address of the server itself"
            )
        identifier = sql.Identifier(self._channel)
        self._execute(sql.SQL("LISTEN {}").format(identifier).as_bytes(self._connection))

    def receive(self) -> list[bytes]:
        """Return the payloads that have arrived; wait for some, but not longer than for a probe.

        Raises:
            psycopg.Error: the connection is lost.
            _Closed: the subscription was closed.
        """
        if not self._payloads and not self._wait(time.monotonic() + _PROBE_INTERVAL):
            self._execute(b"SELECT 1")
        payloads, self._payloads = self._payloads, []
        return payloads

    def _execute(self, command: bytes) -> bytes | None:
        """Execute a command before a deadline; return the first field of its result."""
        deadline = time.monotonic() + _PROBE_INTERVAL
        self._pgconn.send_query(command)
        value: bytes | None = None
        while True:
            self._pgconn.flush()
            while not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if result is None:
                    return value
                if result.status not in _SUCCESS:
                    raise psycopg.OperationalError(result.get_error_message())
                value = result.get_value(0, 0) if result.ntuples else None
            if not self._wait(deadline):
                raise psycopg.OperationalError(f"no answer within {_PROBE_INTERVAL:g} seconds")

    def _wait(self, deadline: float) -> bool:
        """Read what arrives; return False if nothing did before the deadline."""
        events = self._selector.select(max(deadline - time.monotonic(), 0))
        if any(key.fileobj is self._closing for key, _ in events):
            raise _Closed
        if not events:
            return False
        self._pgconn.consume_input()
        while (notification := self._pgconn.notifies()) is not None:
            self._payloads.append(notification.extra)
        return True


class Subscriber:
    """A ``Subscription`` in a thread of its own, over a connection of its own.

    A message is a hint to reload (law S17), so after a lost connection or a failover the subscriber
    connects, listens and then calls ``on_gap``. A silent connection is probed, so that a server
    that cannot be reached any more is detected after ten seconds.

    Args:
        connect: returns an open connection to the server itself, in autocommit mode; called in the
            thread. It must have a connect timeout.
        channel: of the realm; see ``channel_of``.
        on_message, on_gap: see ``SupportsBroadcast.subscribe``.
    """

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[Any]],
        channel: str,
        on_message: MessageHandler,
        on_gap: Callable[[], object],
    ) -> None:
        self._connect = connect
        self._channel = channel
        self._on_message = on_message
        self._on_gap = on_gap
        self._watched: Counter[bytes] = Counter()
        self._watch_lock = threading.Lock()
        # Held while a handler runs, so that none runs after `close`; a handler may call `close`.
        self._handler_lock = threading.RLock()
        self._is_closed = threading.Event()
        self._closing, self._close_sender = socket.socketpair()
        self._process = os.getpid()
        # The attributes below belong to the thread.
        self._delay = _FIRST_DELAY
        self._failed_at = -math.inf
        self._last_warning = ""
        self._thread = threading.Thread(target=self._run, name="sojourn-subscriber", daemon=True)
        self._thread.start()

    # Called by other threads

    def watch(self, session_id: bytes) -> None:
        """Also receive changes of a session; see ``Subscription``."""
        with self._watch_lock:
            self._watched[session_id] += 1

    def unwatch(self, session_id: bytes) -> None:
        """Stop receiving changes of a session; see ``Subscription``."""
        with self._watch_lock:
            self._watched[session_id] -= 1
            if self._watched[session_id] <= 0:
                del self._watched[session_id]

    def close(self) -> None:
        """End the thread and its connection; see ``Subscription``."""
        if os.getpid() != self._process:  # the thread and its connection belong to the parent
            return
        with self._handler_lock:
            if not self._is_closed.is_set():
                # A byte, because a forked child may keep this end open. The event comes last: it
                # may end the thread, which closes the other end.
                with self._close_sender:
                    self._close_sender.send(b"!")
                self._is_closed.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSE_TIMEOUT)

    # The thread

    def _run(self) -> None:
        with self._closing:
            while not self._is_closed.is_set():
                try:
                    self._subscribe()
                except _Closed:
                    return
                except (psycopg.Error, StoreError, OSError, _Unusable) as error:
                    self._report_failure(f"broadcast messages are not received: {_text(error)}")
                except Exception:
                    logger.exception("the subscriber failed; it reconnects")
                self._back_off()

    def _subscribe(self) -> None:
        """Connect and deliver messages until the connection is lost."""
        listener = _Listener(self._connect(), self._channel, self._closing)
        with contextlib.closing(listener):
            listener.listen()
            self._last_warning = ""
            self._call(self._on_gap)
            while True:
                for payload in listener.receive():
                    self._deliver(decode_payload(payload))

    def _deliver(self, message: BroadcastMessage | None) -> None:
        if message is None:
            return
        if message.kind != "changed" or message.session_id in self._watched:
            self._call(self._on_message, message)

    def _call(self, handler: Callable[..., object], *args: object) -> None:
        with self._handler_lock:
            if self._is_closed.is_set():
                raise _Closed
            try:
                handler(*args)
            except Exception:  # the other messages must arrive nevertheless
                logger.exception("a handler of broadcast messages raised")

    # Failures

    def _report_failure(self, text: str) -> None:
        # Every attempt fails alike while a server is down: only the first is a warning.
        logger.log(
            logging.DEBUG if text == self._last_warning else logging.WARNING,
            "%s; reconnecting",
            text,
        )
        self._last_warning = text

    def _back_off(self) -> None:
        """Wait before the next attempt, for longer if the previous failure is recent."""
        now = time.monotonic()
        is_recent = now - self._failed_at <= _PROBE_INTERVAL
        self._delay = min(2 * self._delay, _MAX_DELAY) if is_recent else _FIRST_DELAY
        self._failed_at = now
        self._is_closed.wait(self._delay)


def _text(error: BaseException) -> str:
    """Return an error as one line: libpq writes several."""
    return " ".join(str(error).split())
