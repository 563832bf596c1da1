"""Ways: how a store reaches its server, under an event loop and without one.

What lives here: the choice of links for an address, several of them, or a client that the
application has. What must not: URLs (``openers.py``).

One server without TLS is reached over our own connection (``wires.py``), everything else through
redis-py. Ours never repeat what may have been done: that is the courier's decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from sojourn.errors import ConfigurationError
from sojourn.stores.redis.address import Address
from sojourn.stores.redis.cluster import AsyncCluster, BlockingCluster
from sojourn.stores.redis.links import Link
from sojourn.stores.redis.pools import AsyncPool, BlockingPool, Offloaded
from sojourn.stores.redis.wires import AsyncWire, BlockingWire

# redis-py leaves these without types.
_Sentinel: Any = redis.sentinel.Sentinel
_AsyncSentinel: Any = redis.asyncio.sentinel.Sentinel
_Node: Any = redis.cluster.ClusterNode
_AsyncNode: Any = redis.asyncio.cluster.ClusterNode

_USE_BLOCKING = "give RedisStore a URL, or a blocking client such as redis.Redis(...)"


@dataclass(frozen=True, slots=True)
class Ways:
    """The links of one store.

    Attributes:
        name: of the server, for messages, without a password.
        under_loop: makes a link for the running loop.
        without_loop: makes a link that never suspends; None if there is none.
        advice: what to use instead where there is none.
        clustered: whether keys must name their slot.
    """

    name: str
    under_loop: Callable[[], Link]
    without_loop: Callable[[], Link] | None
    advice: str | None = None
    clustered: bool = False


def to_address(address: Address) -> Ways:
    """Return the ways to one server."""
    if not address.tls:
        return Ways(str(address), lambda: AsyncWire(address), lambda: BlockingWire(address))
    options = _options(address) | {"host": address.host, "port": address.port}
    return Ways(
        str(address),
        lambda: AsyncPool(
            redis.asyncio.Redis(
                **options, ssl=True, retry=AsyncRetry(NoBackoff(), 0)
            ).connection_pool,
            owned=True,
        ),
        lambda: BlockingPool(
            redis.Redis(**options, ssl=True, retry=Retry(NoBackoff(), 0)).connection_pool,
            owned=True,
        ),
    )


def to_sentinels(
    sentinels: Sequence[tuple[str, int]],
    service: str,
    address: Address,
    *,
    sentinel_password: str | None,
    timeout: float,
) -> Ways:
    """Return the ways to whichever server the Sentinels call the primary of a service.

    Args:
        sentinels: host and port of each.
        service: the name under which they watch it.
        address: who we are at the server; its host and port are not used.
        sentinel_password: of the Sentinels.
        timeout: seconds within which a Sentinel must answer, or the next is asked.
    """
    asked = {
        "password": sentinel_password,
        "socket_timeout": timeout / 4,
        "socket_connect_timeout": timeout / 4,
    }
    options = _options(address) | ({"ssl": True} if address.tls else {})

    def under_loop() -> Link:
        manager: Any = _AsyncSentinel(sentinels, sentinel_kwargs=asked)
        client = manager.master_for(service, retry=AsyncRetry(NoBackoff(), 0), **options)
        others = [sentinel.connection_pool for sentinel in manager.sentinels]
        return AsyncPool(client.connection_pool, owned=True, others=others)

    def without_loop() -> Link:
        manager: Any = _Sentinel(sentinels, sentinel_kwargs=asked)
        client = manager.master_for(service, retry=Retry(NoBackoff(), 0), **options)
        others = [sentinel.connection_pool for sentinel in manager.sentinels]
        return BlockingPool(client.connection_pool, owned=True, others=others)

    return Ways(f"{service} by {_names(sentinels)}", under_loop, without_loop)


def to_cluster(nodes: Sequence[tuple[str, int]], address: Address) -> Ways:
    """Return the ways to a cluster.

    Args:
        nodes: host and port of some of its nodes; the others are found.
        address: who we are there; its host, port and database are not used.
    """
    options = _options(address) | ({"ssl": True} if address.tls else {})
    del options["db"]

    def under_loop() -> Link:
        known: list[Any] = [_AsyncNode(*node) for node in nodes]
        client = redis.asyncio.RedisCluster(startup_nodes=known, **options)
        return AsyncCluster(client, owned=True)

    def without_loop() -> Link:
        known: list[Any] = [_Node(*node) for node in nodes]
        return BlockingCluster(
            lambda: redis.RedisCluster(startup_nodes=known, **options), owned=True
        )

    return Ways(f"the cluster of {_names(nodes)}", under_loop, without_loop, clustered=True)


def from_client(client: Any) -> Ways:
    """Return the ways that a client of the application offers.

    Raises:
        ConfigurationError: it is none of redis-py's.
    """
    if isinstance(client, redis.asyncio.RedisCluster):
        return Ways(
            "a cluster",
            lambda: AsyncCluster(client, owned=False),
            None,
            advice=_USE_BLOCKING,
            clustered=True,
        )
    if isinstance(client, redis.RedisCluster):
        return Ways(
            "a cluster",
            lambda: Offloaded(BlockingCluster(client, owned=False)),
            lambda: BlockingCluster(client, owned=False),
            clustered=True,
        )
    if isinstance(client, redis.asyncio.Redis):
        pool = client.connection_pool
        return Ways(
            _pool_name(pool), lambda: AsyncPool(pool, owned=False), None, advice=_USE_BLOCKING
        )
    if isinstance(client, redis.Redis):
        shared = client.connection_pool
        return Ways(
            _pool_name(shared),
            lambda: Offloaded(BlockingPool(shared, owned=False)),
            lambda: BlockingPool(shared, owned=False),
        )
    raise ConfigurationError(
        "RedisStore(client=) expects redis.Redis, redis.asyncio.Redis or one of their clusters, "
        f"found {type(client).__module__}.{type(client).__qualname__}; for a URL use "
        "Sessions(store='redis://...')"
    )


def _options(address: Address) -> Any:
    return {"db": address.database, "username": address.user, "password": address.password}


def _names(nodes: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{host}:{port}" for host, port in nodes)


def _pool_name(pool: Any) -> str:
    known = pool.connection_kwargs
    return str(known.get("path") or f"{known.get('host', 'localhost')}:{known.get('port', 6379)}")
