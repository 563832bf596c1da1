"""Topologies: one server, Sentinel, a cluster or an application's client; how each is reached."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import redis
import redis.asyncio
import redis.cluster
import redis.sentinel
from redis import exceptions
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from sojourn._core.concurrency import offload, running_loop
from sojourn.errors import ConfigurationError
from sojourn.stores.reconnection import ReconnectionLimit
from sojourn.stores.redis.client import (
    CONNECTION_ERRORS,
    AsyncClientConnection,
    ClientConnection,
    ClientPushConnection,
    copy_pool,
    sentinel_clients,
)
from sojourn.stores.redis.connection import (
    AsyncStream,
    BlockingStream,
    Connection,
    Line,
    ServerAddress,
    Transport,
    open_push_stream,
)
from sojourn.stores.redis.errors import (
    ConnectionLost,
    ServerError,
    connect_failed,
    has_code,
    parse_redirection,
)
from sojourn.stores.redis.pubsub import Node, PushConnection, SubscriptionNodes

# redis-py leaves these untyped.
_Sentinel: Any = redis.sentinel.Sentinel
_ClusterNode: Any = redis.cluster.ClusterNode

_USE_BLOCKING: Final = "give RedisStore a URL, or a blocking client such as redis.Redis(...)"

#: The part of the deadline for a node that did not answer the last time.
_SUSPECT_DEADLINE: Final = 0.1

#: The part of the deadline for one of several nodes or Sentinels to accept a connection, and to
#: answer where the servers are: the others must still have time to answer.
_NODE_TIMEOUT: Final = 0.25

#: Seconds that a refresh of the slot map gets beyond the deadline of the batch that needs it.
_REFRESH_GRACE: Final = 0.1

#: The port of a Sentinel whose address has none.
DEFAULT_SENTINEL_PORT: Final = 26_379

#: How often a command is sent while its slot is being migrated.
_MAX_ATTEMPTS: Final = 4

#: What redis-py raises when no node or Sentinel answers.
_DISCOVERY_ERRORS: Final = (exceptions.RedisClusterException, *CONNECTION_ERRORS)


@dataclass(frozen=True, slots=True)
class Topology:
    """Opens the transports and push connections of one store.

    Attributes:
        name: of the servers, for messages; without a password.
        open_async: opens a transport for the running loop; its argument is the timeout in seconds.
        open_blocking: opens a transport that never suspends; None if there is none.
        subscription_nodes: the nodes a subscriber connects to; its argument is the timeout.
        advice: what to use instead if there is no blocking transport.
        is_cluster: whether keys need hash tags.
        sentinels: the Sentinels that report the primary; none without them.
        service: the name under which they monitor it.
    """

    name: str
    open_async: Callable[[float], Transport]
    open_blocking: Callable[[float], Transport] | None
    subscription_nodes: Callable[[float], SubscriptionNodes]
    advice: str | None = None
    is_cluster: bool = False
    sentinels: tuple[ServerAddress, ...] = ()
    service: str = ""


# One server


def single_server(address: ServerAddress) -> Topology:
    """Return the topology of one server."""

    async def locate(_: float) -> ServerAddress:
        return address

    return Topology(
        str(address),
        lambda _: Connection(locate, AsyncStream.open),
        lambda _: Connection(locate, BlockingStream.open),
        lambda timeout: SubscriptionNodes(
            lambda: (address.host, address.port),
            lambda _: open_push_stream(address, timeout),
        ),
    )


def sentinel_service(
    sentinels: Sequence[Node],
    service: str,
    address: ServerAddress,
    *,
    sentinel_password: str | None,
) -> Topology:
    """Return the topology of the primary that Sentinels report for a service.

    Args:
        sentinels: host and port of each.
        service: the name under which they monitor it.
        address: credentials and database at the primary; its host and port are replaced.
        sentinel_password: of the Sentinels.
    """

    def discover(timeout: float) -> ServerAddress:
        limit = timeout * _NODE_TIMEOUT
        limits = {"socket_timeout": limit, "socket_connect_timeout": limit}
        # A new client for each lookup: lookups are rare, and forked processes share no connection.
        manager = _Sentinel(
            sentinels,
            sentinel_kwargs={
                "password": sentinel_password,
                "retry": Retry(NoBackoff(), 0),
                **limits,
            },
        )
        try:
            host, port = manager.discover_master(service)
        except redis.sentinel.MasterNotFoundError as error:  # whose text has settings of clients
            raise ConnectionLost(
                f"no Sentinel that answers reports a primary of {service!r}"
            ) from error
        except (exceptions.RedisError, *CONNECTION_ERRORS) as error:
            raise connect_failed(error) from error
        finally:
            for client in manager.sentinels:
                client.close()
        return replace(address, host=host, port=port)

    async def locate(timeout: float, deadline: float) -> ServerAddress:
        found: ServerAddress = await _await_until(deadline, offload(discover, timeout))
        return found

    def nodes(timeout: float) -> SubscriptionNodes:
        def choose() -> Node:
            found = discover(timeout)
            return found.host, found.port

        return SubscriptionNodes(choose, partial(_open_push_stream, address, timeout))

    return Topology(
        f"{service} by {_join(sentinels)}",
        lambda timeout: Connection(partial(locate, timeout), AsyncStream.open),
        lambda timeout: Connection(partial(locate, timeout), BlockingStream.open),
        nodes,
        sentinels=tuple(
            ServerAddress(host, port, password=sentinel_password) for host, port in sentinels
        ),
        service=service,
    )


def _open_push_stream(address: ServerAddress, timeout: float, node: Node) -> BlockingStream:
    return open_push_stream(replace(address, host=node[0], port=node[1]), timeout)


async def _await_until(deadline: float, work: Coroutine[Any, Any, Any]) -> Any:
    """Await a coroutine until a deadline; without an event loop it must keep the deadline itself.

    Raises:
        TimeoutError: the deadline passed.
    """
    if running_loop() is None:
        return await work
    async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
        return await work


# A cluster


class _DiscoveryClient(redis.RedisCluster):
    """A cluster client that only discovers nodes."""

    def command(self, **_: Any) -> Any:
        """Return no commands.

        The constructor of redis-py requests the table of all commands, 200 KB that take longer than
        everything else of the first contact. It is for routing commands, which this client does
        not send.
        """
        return {}


class SlotMap:
    """The node of each slot, from a cluster client of redis-py.

    Args:
        open_client: returns a blocking client; a new one connects at once.
        is_owned: the client is closed with the slot map.
    """

    def __init__(self, open_client: Callable[[], Any], *, is_owned: bool = True) -> None:
        self._open_client = open_client
        self._is_owned = is_owned
        self._client: Any = None
        self._nodes: dict[int, Node] = {}

    @property
    def is_loaded(self) -> bool:
        """Whether the nodes are known."""
        return self._client is not None

    async def refresh(self, deadline: float) -> None:
        """Query the nodes for the slot map.

        Raises:
            ConnectionLost: no node answers.
        """
        try:
            await _await_until(deadline, self._load())
        except _DISCOVERY_ERRORS as error:
            raise connect_failed(error) from error
        self._nodes.clear()

    async def _load(self) -> None:
        await offload(self.load)

    def load(self) -> None:
        """Query the nodes for the slot map, blocking; raise what redis-py raises."""
        if self._client is None:
            self._client = self._open_client()
        else:
            self._client.nodes_manager.initialize()

    def node_of(self, key: str) -> Node:
        """Return the primary of a key's slot.

        Raises:
            ConnectionLost: no node serves the slot.
        """
        slot = key_slot(key.encode())
        node = self._nodes.get(slot)
        if node is None:
            try:
                found = self._client.get_node_from_key(key)
            except _DISCOVERY_ERRORS as error:
                raise connect_failed(error) from error
            if found is None:
                raise ConnectionLost("no node serves the slot of a key")
            node = self._nodes[slot] = found.host, int(found.port)
        return node

    def follow(self, moved: ServerError, sender: Node) -> Node:
        """Return the node that a redirection names, and store it if the slot has moved."""
        slot, host, port = parse_redirection(moved)
        node = self.resolve(host or sender[0], port)
        if moved.code == "MOVED":
            self._nodes[slot] = node
        return node

    def resolve(self, host: str, port: int) -> Node:
        """Return the node for a host and port reported by a server."""
        host, port = self._client.nodes_manager.remap_host_port(host, port)
        return host, int(port)

    def nodes(self) -> list[Node]:
        """Return all nodes, replicas included."""
        return [(node.host, int(node.port)) for node in self._client.get_nodes()]

    def primaries(self) -> list[Node]:
        """Return the primaries."""
        return [(node.host, int(node.port)) for node in self._client.get_primaries()]

    def close(self) -> None:
        """Close the client unless it is the application's."""
        if self._is_owned and self._client is not None:
            self._client.close()


class _AsyncSlotMap(SlotMap):
    """A slot map over an application's ``redis.asyncio.RedisCluster``."""

    async def _load(self) -> None:
        if self._client is None:
            client = self._open_client()
            await client.initialize()
            self._client = client
        else:
            await self._client.nodes_manager.initialize()


class ClusterTransport:
    """A ``Transport`` to the nodes of a cluster: one exchange with each node that a batch concerns.

    It follows redirections, and is the same for asyncio and threads and for every kind of
    connection.

    A node that does not answer affects its own commands only: their reply is ``ConnectionLost``,
    and until it answers again it gets a tenth of the deadline; see ``ReconnectionLimit``.

    Args:
        slots: closed with the transport.
        open_node: opens the transport to one node.
    """

    def __init__(self, slots: SlotMap, open_node: Callable[[Node], Transport]) -> None:
        self._slots = slots
        self._open_node = open_node
        self._transports: dict[Node, Transport] = {}
        self._suspects: set[Node] = set()
        self._limits: dict[Node, ReconnectionLimit] = {}
        self._is_closed = False

    async def exchange(
        self, lines: Sequence[Line], keys: Sequence[str], deadline: float
    ) -> list[Any]:
        """Send commands and return their replies; see ``Transport``."""
        if not self._slots.is_loaded:
            await self._slots.refresh(deadline)
        replies: list[Any] = [None] * len(lines)
        parts: dict[Node, _NodeBatch] = {}
        for index, line in enumerate(lines):
            parts.setdefault(self._slots.node_of(keys[index]), _NodeBatch()).add(index, line)
        for _ in range(_MAX_ATTEMPTS):
            answers = await _gather(
                [self._exchange_node(node, part, deadline) for node, part in parts.items()]
            )
            redirected: list[tuple[int, Node]] = []
            has_lost_node = False
            for (node, part), answer in zip(parts.items(), answers, strict=True):
                has_lost_node |= isinstance(answer, ConnectionLost)
                for index, reply in part.replies(answer):
                    replies[index] = reply
                    if has_code(reply, "MOVED", "ASK"):
                        redirected.append((index, node))
            if redirected or has_lost_node:
                await self._refresh(deadline)
            if not redirected:
                break
            parts = {}
            # After the refresh: other nodes may not have the change of this redirection yet.
            for index, sender in redirected:
                node = self._slots.follow(replies[index], sender)
                is_asking = replies[index].code == "ASK"
                parts.setdefault(node, _NodeBatch()).add(index, lines[index], is_asking=is_asking)
        return replies

    async def _exchange_node(
        self, node: Node, part: _NodeBatch, deadline: float
    ) -> list[Any] | ConnectionLost:
        started = time.monotonic()
        connects = node in self._suspects or node not in self._transports
        try:
            replies = await self._transport(node).exchange(
                part.lines, (), self._deadline(node, deadline)
            )
        except ServerError as error:  # of the handshake
            return [error] * len(part.lines)
        except ConnectionLost as error:
            self._suspects.add(node)
            return error
        if connects:
            self._suspects.discard(node)
            self._limit(node).connected(time.monotonic() - started)
        return replies

    def _transport(self, node: Node) -> Transport:
        transport = self._transports.get(node)
        if transport is None:
            transport = self._transports[node] = self._open_node(node)
            if self._is_closed:  # by another thread during this batch
                transport.close()
        return transport

    def _deadline(self, node: Node, deadline: float) -> float:
        if node not in self._suspects:
            return deadline
        limit = self._limit(node)
        if not limit.was_connected:  # its first call had the whole deadline
            limit.connected(0.0)
        return limit.deadline(deadline, deadline - time.monotonic())

    def _limit(self, node: Node) -> ReconnectionLimit:
        limit = self._limits.get(node)
        if limit is None:
            limit = self._limits[node] = ReconnectionLimit(_SUSPECT_DEADLINE, 0.0)
        return limit

    async def _refresh(self, deadline: float) -> None:
        """Refresh the slot map as far as time allows; the next batch tries again."""
        if running_loop() is None and time.monotonic() >= deadline:
            return  # without an event loop a refresh cannot be interrupted
        try:
            await self._slots.refresh(deadline + _REFRESH_GRACE)
        except ConnectionLost:
            return
        for node in self._transports.keys() - set(self._slots.nodes()):
            self._transports.pop(node).close()
            self._limits.pop(node, None)

    async def connect(self, deadline: float) -> dict[str, str]:
        """Connect to the first primary that answers; see ``Transport``."""
        if not self._slots.is_loaded:
            await self._slots.refresh(deadline)
        failure = ConnectionLost("no node has a slot")
        for node in self._slots.primaries():
            try:
                return await self._transport(node).connect(self._deadline(node, deadline))
            except ConnectionLost as error:
                self._suspects.add(node)
                failure = error
        await self._refresh(deadline)
        raise failure

    async def reset(self) -> None:
        """Do nothing: a lost connection is closed at once, and redirections are followed."""

    def close(self) -> None:
        """Close all connections."""
        self._is_closed = True
        self._slots.close()
        for transport in list(self._transports.values()):
            transport.close()


class _NodeBatch:
    """The commands of a batch for one node.

    Attributes:
        lines: the commands, each with a preceding ASKING where needed.
    """

    __slots__ = ("_indexes", "lines")

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._indexes: list[int | None] = []  # in the batch; None for ASKING

    def add(self, index: int, line: Line, *, is_asking: bool = False) -> None:
        if is_asking:
            self.lines.append(("ASKING",))
            self._indexes.append(None)
        self.lines.append(line)
        self._indexes.append(index)

    def replies(self, answer: list[Any] | ConnectionLost) -> Iterable[tuple[int, Any]]:
        """Return the replies of a node with their indexes in the batch."""
        if isinstance(answer, ConnectionLost):
            return [(index, answer) for index in self._indexes if index is not None]
        pairs = zip(self._indexes, answer, strict=True)
        return [(index, reply) for index, reply in pairs if index is not None]


async def _gather(work: Sequence[Awaitable[Any]]) -> list[Any]:
    """Await several coroutines: concurrently under an event loop, otherwise one after the other."""
    if len(work) == 1 or running_loop() is None:
        return [await each for each in work]
    return await asyncio.gather(*work)


def cluster(nodes: Sequence[Node], address: ServerAddress) -> Topology:
    """Return the topology of a cluster.

    Args:
        nodes: host and port of some nodes; the others are discovered.
        address: credentials at each node; its host, port and database are not used.
    """

    def open_client(timeout: float) -> Any:
        tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": address.ca} if address.tls else {}
        return _DiscoveryClient(
            startup_nodes=[_ClusterNode(*node) for node in nodes],
            username=address.user,
            password=address.password,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout * _NODE_TIMEOUT,
            socket_connect_timeout=timeout * _NODE_TIMEOUT,
            **tls,
        )

    def open_transport(open_stream: Any, timeout: float) -> Transport:
        def open_node(node: Node) -> Transport:
            async def locate(_: float) -> ServerAddress:
                return replace(address, host=node[0], port=node[1])

            return Connection(locate, open_stream)

        return ClusterTransport(SlotMap(partial(open_client, timeout)), open_node)

    return Topology(
        f"the cluster of {_join(nodes)}",
        partial(open_transport, AsyncStream.open),
        partial(open_transport, BlockingStream.open),
        lambda timeout: _cluster_nodes(
            SlotMap(partial(open_client, timeout)),
            partial(_open_push_stream, address, timeout * _NODE_TIMEOUT),
        ),
        is_cluster=True,
    )


def _cluster_nodes(slots: SlotMap, connect: Callable[[Node], PushConnection]) -> SubscriptionNodes:
    def choose() -> Node:
        try:
            slots.load()
        except _DISCOVERY_ERRORS as error:
            raise connect_failed(error) from error
        # Any node receives the broadcasts; a random one spreads the subscribers.
        return secrets.choice(slots.nodes())

    return SubscriptionNodes(choose, connect, slots.resolve, slots.close, is_cluster=True)


# An application's client


def from_client(client: Any) -> Topology:
    """Return the topology that a client of the application connects to.

    Raises:
        ConfigurationError: it is not a client of redis-py.
    """
    if isinstance(client, redis.asyncio.RedisCluster):
        return Topology(
            "a cluster",
            _for_one_loop(client),
            None,
            _cannot_subscribe,
            advice=_USE_BLOCKING,
            is_cluster=True,
        )
    if isinstance(client, redis.RedisCluster):

        def open_cluster(timeout: float) -> Transport:
            def open_node(node: Node) -> Transport:
                return ClientConnection(_node_pool(client, node, timeout))

            return ClusterTransport(SlotMap(lambda: client, is_owned=False), open_node)

        def nodes(timeout: float) -> SubscriptionNodes:
            limit = timeout * _NODE_TIMEOUT
            return _cluster_nodes(
                SlotMap(lambda: client, is_owned=False),
                lambda node: ClientPushConnection(_node_pool(client, node, limit)),
            )

        return Topology("a cluster", open_cluster, open_cluster, nodes, is_cluster=True)
    if isinstance(client, redis.asyncio.Redis):
        async_pool = client.connection_pool
        return Topology(
            _pool_name(async_pool),
            lambda timeout: AsyncClientConnection(copy_pool(async_pool, timeout=timeout)),
            None,
            _cannot_subscribe,
            advice=_USE_BLOCKING,
            sentinels=_sentinels_of(async_pool),
            service=getattr(async_pool, "service_name", ""),
        )
    if isinstance(client, redis.Redis):
        pool = client.connection_pool

        def open_single(timeout: float) -> Transport:
            return ClientConnection(copy_pool(pool, timeout=timeout))

        return Topology(
            _pool_name(pool),
            open_single,
            open_single,
            lambda timeout: SubscriptionNodes(
                lambda: ("", 0),  # the pool has the address
                lambda _: ClientPushConnection(copy_pool(pool, timeout=timeout)),
            ),
            sentinels=_sentinels_of(pool),
            service=getattr(pool, "service_name", ""),
        )
    raise ConfigurationError(
        "RedisStore(client=) expects redis.Redis, redis.asyncio.Redis or one of their clusters, "
        f"found {type(client).__module__}.{type(client).__qualname__}; for a URL use "
        "Sessions(store='redis://...')"
    )


def _node_pool(client: Any, node: Node, timeout: float) -> Any:
    """Return a pool for one node with the settings of a blocking cluster client."""
    pool = client.get_redis_connection(client.get_default_node()).connection_pool
    return copy_pool(pool, timeout=timeout, host=node[0], port=node[1])


def _for_one_loop(client: Any) -> Callable[[float], Transport]:
    """Return what opens the transport of an asyncio cluster client, which is bound to one loop."""
    first: asyncio.AbstractEventLoop | None = None

    def open_transport(timeout: float) -> Transport:
        nonlocal first
        loop = asyncio.get_running_loop()
        first = first or loop
        if loop is not first:
            raise ConfigurationError(
                "redis.asyncio.RedisCluster cannot leave the event loop that used it first; for "
                f"several loops, one after the other too, {_USE_BLOCKING}"
            )

        def open_node(node: Node) -> Transport:
            settings = client.get_default_node()
            pool = copy_pool(settings, timeout=timeout, host=node[0], port=node[1])
            return AsyncClientConnection(pool)

        return ClusterTransport(_AsyncSlotMap(lambda: client, is_owned=False), open_node)

    return open_transport


def _cannot_subscribe(_: float) -> SubscriptionNodes:
    raise ConfigurationError(
        "broadcast messages are received in a thread, which an asyncio client cannot serve; "
        f"{_USE_BLOCKING}"
    )


def _sentinels_of(pool: Any) -> tuple[ServerAddress, ...]:
    """Return the addresses of the Sentinels that a pool of redis-py queries."""
    found = []
    for client in sentinel_clients(pool):
        settings = client.connection_pool.connection_kwargs
        found.append(
            ServerAddress(
                settings.get("host", "localhost"),
                int(settings.get("port", DEFAULT_SENTINEL_PORT)),
                user=settings.get("username"),
                password=settings.get("password"),
                tls="SSL" in client.connection_pool.connection_class.__name__,
                ca=settings.get("ssl_ca_certs"),
            )
        )
    return tuple(found)


def _join(nodes: Sequence[Node]) -> str:
    return ", ".join(f"{host}:{port}" for host, port in nodes)


def _pool_name(pool: Any) -> str:
    known = pool.connection_kwargs
    return str(known.get("path") or f"{known.get('host', 'localhost')}:{known.get('port', 6379)}")
