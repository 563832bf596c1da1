"""Cluster: links over redis-py's cluster clients, which know which node has which slot.

What lives here: one batch over several nodes, one conversation with each, and a second one for
commands whose slot has moved. What must not: redis-py's own retries (see ``pools.py``); it finds
the nodes, and out who has which slot.

A node that does not answer costs its own callers alone: their commands have ``Broken`` as a reply,
and until it answers again it gets a tenth of the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from redis import exceptions

from sojourn.stores.redis.links import Broken, probe_failed
from sojourn.stores.redis.pools import (
    FAILURES,
    as_broken,
    as_refusal,
    close_now,
    converse,
    converse_blocking,
    facts_of,
    is_refusal,
    is_stale,
    within,
)
from sojourn.stores.redis.replies import Refusal
from sojourn.stores.redis.requests import Command, Word

#: The slot is elsewhere, or on its way there. TRYAGAIN is no such answer: some keys of a command
#: are here and some there, and whoever sent it takes it apart.
_MOVED: Final = frozenset({"MOVED", "ASK"})

#: The part of the time that a node gets which did not answer last time.
_PATIENCE: Final = 0.1

#: How often a command is sent at most while its slot is on its way.
_HOPS: Final = 4

#: What redis-py raises when no node at all can be asked.
_NO_NODE: Final = (exceptions.RedisClusterException, *FAILURES)


class _Part:
    """The commands of a batch that go to one node, with what must be said before them."""

    __slots__ = ("lines", "node", "places")

    def __init__(self, node: Any) -> None:
        self.node = node
        self.lines: list[tuple[Word, ...]] = []
        self.places: list[int | None] = []

    def deal(self, answer: list[Any] | Broken, replies: list[Any]) -> None:
        """Put the answers where they belong; that to ASKING belongs nowhere."""
        for number, place in enumerate(self.places):
            if place is not None:
                replies[place] = answer if isinstance(answer, Broken) else answer[number]


def _parts(
    client: Any,
    commands: Sequence[Command],
    places: Sequence[int],
    replies: list[Any],
    *,
    whole: bool,
) -> list[_Part]:
    """Return who gets which commands; one that was told to go elsewhere goes there.

    What the nodes say of slots (``_look_again``) may be behind what one of them just said.
    """
    parts: dict[str, _Part] = {}
    for at in places:
        told = replies[at].code if isinstance(replies[at], Refusal) else ""
        if told in ("ASK", "MOVED"):
            host, _, port = str(replies[at]).rpartition(" ")[2].rpartition(":")
            node = client.get_node(host=host, port=int(port)) or client.get_node_from_key(
                commands[at].key
            )
        else:
            node = client.get_node_from_key(commands[at].key)
        part = parts.setdefault(node.name, _Part(node))
        if told == "ASK":
            part.lines.append(("ASKING",))
            part.places.append(None)
        part.lines.append(commands[at].line(whole=whole))
        part.places.append(at)
    return list(parts.values())


def _has_moved(reply: Any) -> bool:
    return isinstance(reply, Refusal) and reply.code in _MOVED


class _Suspects(set[str]):
    """Names of nodes that did not answer last time."""

    def deadline(self, name: str, deadline: float) -> float:
        if name not in self:
            return deadline
        now = time.monotonic()
        return now + (deadline - now) * _PATIENCE


class AsyncCluster:
    """A link over ``redis.asyncio.RedisCluster``.

    Args:
        client: the client.
        owned: ours alone, so it is closed with the link.
    """

    def __init__(self, client: Any, *, owned: bool) -> None:
        self._client = client
        self._owned = owned
        self._suspects = _Suspects()

    async def exchange(
        self, commands: Sequence[Command], deadline: float, *, whole: bool = False
    ) -> list[Any]:
        """Send commands and return their replies; see ``Link``."""
        replies: list[Any] = [None] * len(commands)
        places: Sequence[int] = range(len(commands))
        for _ in range(_HOPS):
            try:
                async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                    await self._client.initialize()
                parts = _parts(self._client, commands, places, replies, whole=whole)
            except _NO_NODE as error:
                raise probe_failed(error) from error
            answers = await asyncio.gather(
                *(self._ask(part.node, part.lines, deadline) for part in parts)
            )
            for part, answer in zip(parts, answers, strict=True):
                part.deal(answer, replies)
            places = [at for at in places if _has_moved(replies[at])]
            if places or any(isinstance(answer, Broken) for answer in answers):
                await self._look_again(deadline)
            if not places:
                break
        return replies

    async def _ask(
        self, node: Any, lines: Sequence[tuple[Word, ...]], deadline: float
    ) -> list[Any] | Broken:
        connection: Any = None
        deadline = self._suspects.deadline(node.name, deadline)
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                connection = node.acquire_connection()
                if is_stale(connection):
                    close_now(connection)
                replies = await converse(connection, lines)
        except BaseException as error:
            if connection is not None:
                close_now(connection)  # replies may be under way
            if isinstance(error, Exception) and is_refusal(error):
                return [as_refusal(error)] * len(lines)
            if not isinstance(error, FAILURES):
                raise
            self._suspects.add(node.name)
            return as_broken(error)
        finally:
            if connection is not None:
                node.release(connection)
        self._suspects.discard(node.name)
        return replies

    async def _look_again(self, deadline: float) -> None:
        """Ask the others who has the slots now, as far as there is time."""
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0) + _PATIENCE):
                await self._client.nodes_manager.initialize()
        except _NO_NODE:
            return  # the next batch tries again

    async def probe(self, deadline: float) -> dict[str, str]:
        """Ask one of the primaries; see ``Link``."""
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                await self._client.initialize()
        except _NO_NODE as error:
            raise probe_failed(error) from error
        answer: list[Any] | Broken = Broken("no node has a slot")
        for node in self._client.get_primaries():
            answer = await self._ask(node, [("INFO",)], deadline)
            if not isinstance(answer, Broken):
                return facts_of(answer[0])
        await self._look_again(deadline)
        assert isinstance(answer, Broken)  # noqa: S101 - or it was returned
        raise answer

    def drop(self) -> None:
        """Do nothing: a connection that broke is dropped at once, and a moved slot is followed."""

    def close(self) -> None:
        """Let go of the connections, if they are ours."""
        if self._owned:
            known = self._client.nodes_manager
            for node in (*known.nodes_cache.values(), *known.startup_nodes.values()):
                for connection in node._connections:  # noqa: SLF001 - see close_now
                    close_now(connection)
            self._client._initialize = True  # noqa: SLF001 - what its aclose does, after waiting


class BlockingCluster:
    """A link over ``redis.RedisCluster``.

    Args:
        client: makes the client, which connects at once.
        owned: ours alone, so it is closed with the link.
    """

    def __init__(self, client: Any, *, owned: bool) -> None:
        self._client_or_maker = client
        self._owned = owned
        self._made: Any = None if callable(client) else client
        self._suspects = _Suspects()

    def _client(self) -> Any:
        if self._made is None:
            try:
                self._made = self._client_or_maker()
            except _NO_NODE as error:
                raise probe_failed(error) from error
        return self._made

    async def exchange(
        self, commands: Sequence[Command], deadline: float, *, whole: bool = False
    ) -> list[Any]:
        """Send commands and return their replies; see ``Link``."""
        client = self._client()
        replies: list[Any] = [None] * len(commands)
        places: Sequence[int] = range(len(commands))
        for _ in range(_HOPS):
            try:
                parts = _parts(client, commands, places, replies, whole=whole)
            except _NO_NODE as error:
                raise probe_failed(error) from error
            answers = [self._ask(part.node, part.lines, deadline) for part in parts]
            for part, answer in zip(parts, answers, strict=True):
                part.deal(answer, replies)
            places = [at for at in places if _has_moved(replies[at])]
            if places or any(isinstance(answer, Broken) for answer in answers):
                self._look_again()
            if not places:
                break
        return replies

    def _ask(
        self, node: Any, lines: Sequence[tuple[Word, ...]], deadline: float
    ) -> list[Any] | Broken:
        pool: Any = self._client().get_redis_connection(node).connection_pool
        connection: Any = None
        deadline = self._suspects.deadline(node.name, deadline)
        try:
            connection = pool.get_connection()
            with within(connection, deadline):
                replies = converse_blocking(connection, lines)
        except BaseException as error:
            if connection is not None:
                connection.disconnect()
            if isinstance(error, Exception) and is_refusal(error):
                return [as_refusal(error)] * len(lines)
            if not isinstance(error, FAILURES):
                raise
            self._suspects.add(node.name)
            return as_broken(error)
        finally:
            if connection is not None:
                pool.release(connection)
        self._suspects.discard(node.name)
        return replies

    def _look_again(self) -> None:
        try:
            self._client().nodes_manager.initialize()
        except _NO_NODE:
            return  # the next batch tries again

    async def probe(self, deadline: float) -> dict[str, str]:
        """Ask one of the primaries; see ``Link``."""
        answer: list[Any] | Broken = Broken("no node has a slot")
        for node in self._client().get_primaries():
            answer = self._ask(node, [("INFO",)], deadline)
            if not isinstance(answer, Broken):
                return facts_of(answer[0])
        self._look_again()
        assert isinstance(answer, Broken)  # noqa: S101 - or it was returned
        raise answer

    def drop(self) -> None:
        """Do nothing: a connection that broke is dropped at once, and a moved slot is followed."""

    def close(self) -> None:
        """Let go of the connections, if they are ours."""
        if self._owned and self._made is not None:
            self._made.close()
