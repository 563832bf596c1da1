"""Inspector: queries the servers of a store for their state and their settings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from redis.crc import key_slot

from sojourn.stores.redis.connection import Line, Transport, pack
from sojourn.stores.redis.errors import ConnectionLost, ServerError
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.sentinel_inspection import SentinelAnswer, query_sentinels
from sojourn.stores.redis.server_checks import parse_info
from sojourn.stores.redis.store import RedisStore


@dataclass(frozen=True, slots=True)
class SlotRange:
    """Slots of a cluster that one primary serves.

    Attributes:
        start, end: the first and the last slot.
        primary: its host and port.
    """

    start: int
    end: int
    primary: str


@dataclass(frozen=True, slots=True)
class Primary:
    """A server that stores records.

    Attributes:
        address: its host and port; empty without a cluster.
        key: a key that it stores.
        info: the fields of INFO.
    """

    address: str
    key: str
    info: dict[str, str]


class Inspector:
    """Calls commands that the store itself does not need, over a connection of its own.

    Args:
        store: whose servers are examined.
        timeout: seconds that a call may take.

    Attributes:
        keys: of the store.
        is_cluster: whether the store expects a cluster.
        has_sentinels: whether Sentinels report the primary.
    """

    def __init__(self, store: RedisStore, timeout: float) -> None:
        self.keys: Keys = store.keys
        self.is_cluster: bool = store.topology.is_cluster
        self.has_sentinels: bool = bool(store.topology.sentinels)
        self._topology = store.topology
        self._timeout = timeout
        open_transport = store.topology.open_blocking or store.topology.open_async
        self._transport: Transport = open_transport(timeout)

    async def connect(self) -> dict[str, str]:
        """Connect and return the fields of INFO.

        Raises:
            ConnectionLost: the server is unreachable.
            ServerError: the server rejected the connection.
        """
        return await self._transport.connect(time.monotonic() + self._timeout)

    async def call(self, *lines: Line, keys: Sequence[str] = ()) -> list[Any]:
        """Return the reply to each command, or its ``ServerError`` or ``ConnectionLost``.

        Args:
            lines: the commands.
            keys: that determine their nodes in a cluster; any node without them.

        Raises:
            ConnectionLost: the server is unreachable.
        """
        deadline = time.monotonic() + self._timeout
        nodes = keys or [self.keys.events] * len(lines)
        return await self._transport.exchange(lines, nodes, deadline)

    @cached_property
    def sentinels(self) -> list[SentinelAnswer]:
        """What each Sentinel answers about the service; they are queried once."""
        topology = self._topology
        if not topology.sentinels:
            return []
        return query_sentinels(topology.sentinels, topology.service, self._timeout)

    async def slot_ranges(self) -> list[SlotRange]:
        """Return the slots that the primaries of a cluster serve.

        Raises:
            ConnectionLost: no node answers.
            ServerError: the server is none of a cluster, or the user may not query it.
        """
        # A key of a slot that no primary serves cannot be sent anywhere.
        failure: Exception = ConnectionLost("no node has a slot")
        for tag in self.keys.tags():
            try:
                (ranges,) = await self.call(("CLUSTER", "SLOTS"), keys=[self.keys.cutoff(tag)])
            except ConnectionLost as error:
                failure = error
                continue
            if isinstance(ranges, Exception):
                raise ranges
            return [
                SlotRange(start, end, _address(host, port))
                for start, end, (host, port, *_), *_ in ranges
            ]
        raise failure

    async def failed_nodes(self) -> list[str]:
        """Return host and port of the nodes that the cluster has found to have failed.

        Returns:
            An empty list also if the user may not call CLUSTER NODES.

        Raises:
            ConnectionLost: no node answers.
        """
        (reply,) = await self.call(("CLUSTER", "NODES"))
        if isinstance(reply, ConnectionLost):
            raise reply
        if not isinstance(reply, bytes):
            return []
        nodes = [line.split() for line in reply.decode("utf-8", "replace").splitlines()]
        # <id> <host:port@bus,name> <flags> …; "fail?" is the suspicion of one node.
        return [node[1].partition("@")[0] for node in nodes if "fail" in node[2].split(",")]

    async def primaries(self, ranges: Sequence[SlotRange] = ()) -> list[Primary]:
        """Return the primaries whose INFO the user may read.

        Args:
            ranges: of a cluster.

        Raises:
            ConnectionLost: a primary does not answer.
        """
        places = (
            list(self._keys_by_primary(ranges)) if self.is_cluster else [("", self.keys.events)]
        )
        keys = [key for _, key in places]
        replies = await self.call(*[("INFO",)] * len(keys), keys=keys)
        _raise_lost(replies)
        return [
            Primary(address, key, parse_info(reply.decode("utf-8", "replace")))
            for (address, key), reply in zip(places, replies, strict=True)
            if isinstance(reply, bytes)
        ]

    async def times(self, primaries: Sequence[Primary]) -> list[tuple[int, str]]:
        """Read the clocks of primaries at about the same time.

        Returns:
            Milliseconds since 1970 UTC, and the address of the primary.

        Raises:
            ConnectionLost: a primary does not answer.
        """
        keys = [primary.key for primary in primaries]
        replies = await self.call(*[("TIME",)] * len(keys), keys=keys)
        _raise_lost(replies)
        return [
            (int(reply[0]) * 1000 + int(reply[1]) // 1000, primary.address)
            for reply, primary in zip(replies, primaries, strict=True)
            if isinstance(reply, list)
        ]

    def _keys_by_primary(self, ranges: Sequence[SlotRange]) -> Iterator[tuple[str, str]]:
        """Yield each primary of a cluster with a key that it stores."""
        slots = {key_slot(tag.encode()): tag for tag in self.keys.tags()}
        found = set()
        for each in ranges:
            served = (slots[slot] for slot in range(each.start, each.end + 1) if slot in slots)
            tag = next(served, None)
            if tag is not None and each.primary not in found:
                found.add(each.primary)
                yield each.primary, self.keys.cutoff(tag)

    def subscribe(self, channel: str, command: str = "SUBSCRIBE") -> ServerError | None:
        """Subscribe to a channel on a new connection; return why the server refuses it.

        Args:
            channel: its name.
            command: or ``SSUBSCRIBE``, for a sharded channel of a cluster.

        Raises:
            ConnectionLost: the server is unreachable, or does not answer.
            ConfigurationError: the store's client cannot subscribe.
        """
        nodes = self._topology.subscription_nodes(self._timeout)
        deadline = time.monotonic() + self._timeout
        try:
            connection = nodes.connect(nodes.choose())
            try:
                connection.send(pack([(command, channel)]), deadline)
                while time.monotonic() < deadline:
                    for reply in connection.receive_available():
                        return reply if isinstance(reply, ServerError) else None
                    time.sleep(0.005)  # a client of redis-py cannot be selected
            finally:
                connection.close()
        finally:
            nodes.close()
        raise ConnectionLost("no answer in time", timed_out=True)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


def _address(host: Any, port: int) -> str:
    """Return host and port of a node; the port alone if the node does not know its host."""
    return f"{host.decode()}:{port}" if host else f"port {port}"


def _raise_lost(replies: Sequence[Any]) -> None:
    lost = next((each for each in replies if isinstance(each, ConnectionLost)), None)
    if lost is not None:
        raise lost
