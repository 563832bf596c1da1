"""Inspector: asks the servers of a store about their state and their settings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from redis.crc import key_slot

from sojourn.stores.redis.connection import Line, Transport, pack
from sojourn.stores.redis.errors import ConnectionLost, ServerError
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.server_checks import parse_info
from sojourn.stores.redis.store import RedisStore


class Inspector:
    """Calls commands that the store itself does not need, over a connection of its own.

    Args:
        store: whose servers are asked.
        timeout: seconds that a call may take.

    Attributes:
        keys: of the store.
        is_cluster: whether the store expects a cluster.
    """

    def __init__(self, store: RedisStore, timeout: float) -> None:
        self.keys: Keys = store.keys
        self.is_cluster: bool = store.topology.is_cluster
        self._nodes = store.topology.subscription_nodes
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

    async def slot_ranges(self) -> list[tuple[int, int]]:
        """Return the first and the last slot of each range that some primary of a cluster serves.

        Raises:
            ConnectionLost: no node answers.
            ServerError: the server is none of a cluster, or the user may not ask it.
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
            return [(start, end) for start, end, *_ in ranges]
        raise failure

    async def infos(self, ranges: Sequence[tuple[int, int]]) -> list[dict[str, str]]:
        """Return the fields of INFO of each primary; in a cluster, by its range of slots.

        Raises:
            ConnectionLost: a primary does not answer.
        """
        keys = list(self._representatives(ranges)) if self.is_cluster else [self.keys.events]
        replies = await self.call(*[("INFO",)] * len(keys), keys=keys)
        lost = next((each for each in replies if isinstance(each, ConnectionLost)), None)
        if lost is not None:
            raise lost
        found = [parse_info(each.decode()) for each in replies if isinstance(each, bytes)]
        # A primary may serve several ranges.
        return list({info.get("run_id", str(at)): info for at, info in enumerate(found)}.values())

    def _representatives(self, ranges: Sequence[tuple[int, int]]) -> Iterator[str]:
        slots = {key_slot(tag.encode()): tag for tag in self.keys.tags()}
        for start, end in ranges:
            tag = next((slots[slot] for slot in range(start, end + 1) if slot in slots), None)
            if tag is not None:
                yield self.keys.cutoff(tag)

    def subscribe(self, channel: str, command: str = "SUBSCRIBE") -> ServerError | None:
        """Subscribe to a channel on a new connection; return why the server refuses it.

        Args:
            channel: its name.
            command: or ``SSUBSCRIBE``, for a sharded channel of a cluster.

        Raises:
            ConnectionLost: the server is unreachable, or does not answer.
            ConfigurationError: the store's client cannot subscribe.
        """
        nodes = self._nodes(self._timeout)
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
