"""Subscriber: one thread that receives the broadcast messages for a process."""

from __future__ import annotations

import contextlib
import logging
import math
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.crc import key_slot

from sojourn.store import MessageHandler
from sojourn.stores.broadcast_messages import decode_message
from sojourn.stores.redis.client import ClientPushConnection
from sojourn.stores.redis.connection import BlockingStream, Line, pack
from sojourn.stores.redis.encoding import channel_of
from sojourn.stores.redis.errors import (
    ConnectionLost,
    ServerError,
    connection_lost,
    has_code,
    parse_redirection,
)
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.server_checks import has_sharded_channels

logger: logging.Logger = logging.getLogger("sojourn")

#: Host and port.
Node = tuple[str, int]

#: Seconds of silence before a PING, and then until the connection counts as lost.
_PING_INTERVAL: Final = 5.0

#: Seconds between two reads of connections that cannot be selected.
_POLL_INTERVAL: Final = 0.05

#: Seconds before a retry: the first, and the longest.
_FIRST_DELAY: Final = 0.05
_MAX_DELAY: Final = 1.0

#: Seconds between two reported gaps: a resharding moves thousands of channels, each with a gap.
_GAP_INTERVAL: Final = 1.0

_FAILURES: Final = (ConnectionLost, ServerError)


#: A connection that receives messages; used by one thread.
PushConnection = BlockingStream | ClientPushConnection


@dataclass(frozen=True, slots=True)
class SubscriptionNodes:
    """The nodes a subscriber connects to; blocking, used by one thread.

    Attributes:
        choose: returns any node that receives the broadcasts; raises ``ConnectionLost``.
        connect: opens a connection to a node; raises ``ConnectionLost`` or ``ServerError``.
        resolve: returns the node for the host and port in a redirection.
        close: releases what ``choose`` holds.
        is_cluster: whether channels may be sharded.
    """

    choose: Callable[[], Node]
    connect: Callable[[Node], PushConnection]
    resolve: Callable[[str, int], Node] = lambda host, port: (host, port)
    close: Callable[[], None] = lambda: None
    is_cluster: bool = False


class _NodeSubscriptions:
    """A connection to one node and the state of its subscriptions.

    Attributes:
        pending: channels that were subscribed and not confirmed yet.
        confirmed: channels whose messages arrive here.
        ping_at: when the connection will have been silent for too long, by ``time.monotonic``.
        is_pinged: a PING was sent and nothing has arrived since.
    """

    __slots__ = ("confirmed", "connection", "is_open", "is_pinged", "node", "pending", "ping_at")

    def __init__(self, connection: PushConnection, node: Node) -> None:
        self.connection: PushConnection = connection
        self.node: Node = node
        self.pending: set[str] = set()
        self.confirmed: set[str] = set()
        self.is_open: bool = True
        self.is_pinged: bool = False
        self.ping_at: float = time.monotonic() + _PING_INTERVAL

    def subscribe(self, command: str, channels: Sequence[str]) -> None:
        """Subscribe with one command for each channel: a sharded one may be rejected alone."""
        if channels:
            self.pending.update(channels)
            self._send([(command, channel) for channel in channels])

    def unsubscribe(self, command: str, channel: str) -> None:
        self.pending.discard(channel)
        self.confirmed.discard(channel)
        self._send([(command, channel)])

    def receive(self) -> Iterator[Any]:
        while self.is_open and (replies := self.connection.receive_available()):
            self.is_pinged = False
            self.ping_at = time.monotonic() + _PING_INTERVAL
            yield from replies

    def ping(self) -> None:
        """Send a PING.

        Raises:
            ConnectionLost: the previous PING was not answered.
        """
        if self.is_pinged:
            raise connection_lost(TimeoutError())
        self.is_pinged = True
        self.ping_at = time.monotonic() + _PING_INTERVAL
        self._send([("PING",)])

    def _send(self, lines: Sequence[Line]) -> None:
        self.connection.send(pack(lines), time.monotonic() + _PING_INTERVAL)


class Subscriber:
    """A ``Subscription`` in a thread of its own.

    Messages for all processes arrive on one channel, over the *broadcast connection*. The changes
    of a session have a channel of their own; in a cluster it is a sharded channel, which only the
    nodes of its slot deliver. The subscriber requests it on the broadcast connection, and a node
    that does not serve the slot answers MOVED with the node that does. So the subscriber needs no
    slot map that could be out of date, and connects only to nodes of watched sessions.

    A message is a hint to reload (law S17), so after a lost connection, a failover or a migrated
    slot the subscriber subscribes again and then calls ``on_gap``.

    redis-py's ``PubSub`` and ``ClusterPubSub`` do not suffice: they move a sharded subscription
    only when another command of the client refreshes its slot map, do not report that messages were
    missed meanwhile, and cannot be woken by another thread to subscribe.

    Args:
        nodes: where to connect.
        keys: the names of channels.
        on_message, on_gap: see ``SupportsBroadcast.subscribe``.
    """

    def __init__(
        self,
        nodes: SubscriptionNodes,
        keys: Keys,
        on_message: MessageHandler,
        on_gap: Callable[[], object],
    ) -> None:
        self._nodes = nodes
        self._keys = keys
        self._on_message = on_message
        self._on_gap = on_gap
        self._lock = threading.Lock()
        self._watch_counts: dict[str, int] = {}
        self._watch_changes: set[str] = set()
        self._is_closing = threading.Event()
        self._wakeup_receiver, self._wakeup_sender = socket.socketpair()
        self._wakeup_receiver.setblocking(False)
        self._wakeup_sender.setblocking(False)
        # The attributes below belong to the thread.
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wakeup_receiver, selectors.EVENT_READ)
        self._by_node: dict[Node, _NodeSubscriptions] = {}
        self._broadcast: _NodeSubscriptions | None = None
        self._is_sharded = False
        self._by_channel: dict[str, _NodeSubscriptions] = {}
        self._missing = {keys.events}  # channels whose messages are lost until confirmed again
        self._delay = _FIRST_DELAY
        self._failed_at = self._retry_at = self._gap_reported_at = -math.inf
        self._gap_at = math.inf
        self._last_warning = ""
        self._thread = threading.Thread(target=self._run, name="sojourn-subscriber", daemon=True)
        self._thread.start()

    # Called by other threads

    def watch(self, session_id: bytes) -> None:
        """Also receive changes of a session; see ``Subscription``."""
        channel = channel_of("changed", session_id, self._keys)
        with self._lock:
            self._watch_counts[channel] = self._watch_counts.get(channel, 0) + 1
            if self._watch_counts[channel] > 1:
                return
            self._watch_changes.add(channel)
        self._wake()

    def unwatch(self, session_id: bytes) -> None:
        """Stop receiving changes of a session; see ``Subscription``."""
        channel = channel_of("changed", session_id, self._keys)
        with self._lock:
            self._watch_counts[channel] -= 1
            if self._watch_counts[channel] > 0:
                return
            del self._watch_counts[channel]
            self._watch_changes.add(channel)
        self._wake()

    def close(self) -> None:
        """End the thread and its connections; see ``Subscription``."""
        self._is_closing.set()
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(_PING_INTERVAL)
            if not self._thread.is_alive():  # in a forked process the thread never ran
                self._close_all()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # it is awake, or has ended
            self._wakeup_sender.send(b"!")

    # The thread

    def _run(self) -> None:
        try:
            while not self._is_closing.is_set():
                try:
                    self._update_subscriptions()
                    self._receive()
                    self._check_time()
                except Exception:
                    logger.exception("the subscriber failed; it reconnects")
                    for node in list(self._by_node.values()):
                        self._disconnect(node)
                    self._back_off()
        finally:
            self._close_all()

    def _close_all(self) -> None:
        self._selector.close()  # first: after a fork, the parent still selects the same sockets
        while self._by_node:
            self._by_node.popitem()[1].connection.close()
        self._wakeup_receiver.close()
        self._wakeup_sender.close()
        self._nodes.close()

    def _update_subscriptions(self) -> None:
        """Subscribe to the channels that are wanted, unsubscribe from the others."""
        now = time.monotonic()
        if self._broadcast is None:
            if now >= self._retry_at:
                self._connect_broadcast()
            if self._broadcast is None:
                return
        with self._lock:
            changes, self._watch_changes = self._watch_changes, set()
            wanted = {channel for channel in changes if channel in self._watch_counts}
        for channel in changes - wanted:
            self._missing.discard(channel)
            node = self._by_channel.pop(channel, None)
            if node is not None:
                with self._disconnecting_on_error(node):
                    node.unsubscribe("SUNSUBSCRIBE" if self._is_sharded else "UNSUBSCRIBE", channel)
        if now >= self._retry_at:
            wanted |= self._missing
        self._subscribe(
            self._broadcast, [channel for channel in wanted if channel not in self._by_channel]
        )

    def _connect_broadcast(self) -> None:
        address: Node | None = None
        try:
            address = self._nodes.choose()
            node = self._by_node.get(address) or self._connect(address)
        except _FAILURES as error:
            if address in self._by_node:
                self._disconnect(self._by_node[address])
            self._report_failure(error)
        else:
            self._is_sharded = self._nodes.is_cluster and has_sharded_channels(node.connection.info)
            self._broadcast = node

    def _connect(self, address: Node) -> _NodeSubscriptions:
        node = _NodeSubscriptions(self._nodes.connect(address), address)
        self._by_node[address] = node
        file_descriptor = node.connection.fileno()
        if file_descriptor is not None:
            self._selector.register(file_descriptor, selectors.EVENT_READ, node)
        return node

    def _subscribe(self, node: _NodeSubscriptions, channels: Iterable[str]) -> None:
        shared: list[str] = []
        sharded: list[str] = []
        for channel in channels:
            self._by_channel[channel] = node
            is_sharded = self._is_sharded and channel != self._keys.events
            (sharded if is_sharded else shared).append(channel)
        with self._disconnecting_on_error(node):
            node.subscribe("SUBSCRIBE", shared)
            node.subscribe("SSUBSCRIBE", sharded)

    def _receive(self) -> None:
        """Wait until something arrives or is due, and handle what has arrived."""
        due = [self._gap_at, *(node.ping_at for node in self._by_node.values())]
        if self._broadcast is None or not self._missing <= self._by_channel.keys():
            due.append(self._retry_at)
        polled = [node for node in self._by_node.values() if node.connection.fileno() is None]
        if polled:
            due.append(time.monotonic() + _POLL_INTERVAL)
        readable = polled
        for key, _ in self._selector.select(max(min(due) - time.monotonic(), 0)):
            if key.data is None:
                with contextlib.suppress(OSError):  # several wake-ups are one
                    while self._wakeup_receiver.recv(4096):
                        pass
            else:
                readable.append(key.data)
        for node in readable:
            with self._disconnecting_on_error(node):
                for reply in node.receive():
                    if self._is_closing.is_set():
                        return
                    self._handle(node, reply)

    def _check_time(self) -> None:
        """Report a gap that is due, ping silent connections, close unused ones."""
        now = time.monotonic()
        if now >= self._gap_at:
            self._gap_at, self._gap_reported_at = math.inf, now
            self._on_gap()
        for node in list(self._by_node.values()):
            if now < node.ping_at:
                continue
            if node is not self._broadcast and not node.pending and not node.confirmed:
                self._disconnect(node)
                continue
            with self._disconnecting_on_error(node):
                node.ping()

    # Replies

    def _handle(self, node: _NodeSubscriptions, reply: Any) -> None:
        if has_code(reply, "MOVED"):
            self._follow_redirection(node, reply)
        elif isinstance(reply, ServerError):
            self._handle_error(node, reply)
        elif isinstance(reply, list):
            kind, channel = reply[0], reply[1].decode()
            if kind in (b"message", b"smessage"):
                message = decode_message(reply[2])
                if message is not None:
                    self._on_message(message)
            elif kind in (b"subscribe", b"ssubscribe"):
                self._confirm(node, channel)
            elif kind == b"sunsubscribe" and channel in node.confirmed:
                # Sent by the server: the slot was migrated, and the broadcast node will redirect.
                self._mark_missing(node, [channel])
                self._retry_at = time.monotonic()

    def _confirm(self, node: _NodeSubscriptions, channel: str) -> None:
        if channel not in node.pending:
            return  # unsubscribed meanwhile
        node.pending.discard(channel)
        node.confirmed.add(channel)
        if channel == self._keys.events:
            self._last_warning = ""
        if channel in self._missing:
            self._missing.discard(channel)
            earliest = max(time.monotonic(), self._gap_reported_at + _GAP_INTERVAL)
            self._gap_at = min(self._gap_at, earliest)

    def _follow_redirection(self, node: _NodeSubscriptions, moved: ServerError) -> None:
        """Subscribe to the channels of a slot at the node that serves it."""
        slot, host, port = parse_redirection(moved)
        channels = [channel for channel in node.pending if key_slot(channel.encode()) == slot]
        if not channels:
            return  # unsubscribed meanwhile
        address = self._nodes.resolve(host or node.node[0], port)
        if node is not self._broadcast or address == node.node:  # the nodes disagree for now
            self._mark_missing(node, channels)
            self._back_off()
            return
        node.pending.difference_update(channels)
        try:
            target = self._by_node.get(address) or self._connect(address)
        except _FAILURES as error:
            self._mark_missing(node, channels)
            self._report_failure(error)
            return
        self._subscribe(target, channels)

    def _handle_error(self, node: _NodeSubscriptions, error: ServerError) -> None:
        """Subscribe again later: the reply does not say which subscription was rejected."""
        is_broadcast = self._keys.events in node.pending
        self._mark_missing(node, list(node.pending))
        if is_broadcast:
            self._disconnect(node)
        self._report_failure(error)

    # Failures

    @contextlib.contextmanager
    def _disconnecting_on_error(self, node: _NodeSubscriptions) -> Iterator[None]:
        try:
            yield
        except ConnectionLost as error:
            if node.is_open:
                self._disconnect(node)
                self._report_failure(error)

    def _disconnect(self, node: _NodeSubscriptions) -> None:
        """Close the connection to a node; the messages of its channels are missed from now on."""
        node.is_open = False
        file_descriptor = node.connection.fileno()
        if file_descriptor is not None:
            self._selector.unregister(file_descriptor)
        del self._by_node[node.node]
        if node is self._broadcast:
            self._broadcast = None
        self._mark_missing(node, [*node.pending, *node.confirmed])
        node.connection.close()

    def _mark_missing(self, node: _NodeSubscriptions, channels: Iterable[str]) -> None:
        for channel in channels:
            node.pending.discard(channel)
            node.confirmed.discard(channel)
            if self._by_channel.get(channel) is node:
                del self._by_channel[channel]
                self._missing.add(channel)

    def _report_failure(self, error: BaseException) -> None:
        if isinstance(error, ServerError):
            text = f"the server rejects subscriptions: {error}"
        else:
            text = f"broadcast messages are not received ({error}); reconnecting"
        # Every attempt fails alike while a server is down: only the first is a warning.
        logger.log(logging.DEBUG if text == self._last_warning else logging.WARNING, "%s", text)
        self._last_warning = text
        self._back_off()

    def _back_off(self) -> None:
        """Delay the next attempt, for longer if the previous failure is recent."""
        now = time.monotonic()
        is_recent = now - self._failed_at <= _PING_INTERVAL
        self._delay = min(2 * self._delay, _MAX_DELAY) if is_recent else _FIRST_DELAY
        self._failed_at, self._retry_at = now, now + self._delay
