"""Ways: how a store reaches its server, under an event loop and without one.

What lives here: the choice of links for an address, several of them, or a client that the
application has. What must not: URLs (``openers.py``).

One server without TLS is reached over our own connection (``wires.py``), everything else through
redis-py. Ours never repeat what may have been done: that is the courier's decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
from sojourn.stores.redis.pools import AsyncPool, BlockingPool, Offloaded, like
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
        under_loop: makes a link for the running loop, with a deadline in seconds.
        without_loop: makes a link that never suspends; None if there is none.
        advice: what to use instead where there is none.
        clustered: whether keys must name their slot.
    """

    name: str
    under_loop: Callable[[float], Link]
    without_loop: Callable[[float], Link] | None
    advice: str | None = None
    clustered: bool = False


def to_address(address: Address) -> Ways:
    """Return the ways to one server."""
    if not address.tls:
        return Ways(str(address), lambda _: AsyncWire(address), lambda _: BlockingWire(address))
    options = _options(address) | {"host": address.host, "port": address.port, "ssl": True}
    return Ways(
        str(address),
        lambda timeout: _async_pool(redis.asyncio.Redis(**options), timeout),
        lambda timeout: _blocking_pool(redis.Redis(**options), timeout),
    )


def to_sentinels(
    sentinels: Sequence[tuple[str, int]],
    service: str,
    address: Address,
    *,
    sentinel_password: str | None,
) -> Ways:
    """Return the ways to whichever server the Sentinels call the primary of a service.

    Args:
        sentinels: host and port of each.
        service: the name under which they watch it.
        address: who we are at the server; its host and port are not used.
        sentinel_password: of the Sentinels.
    """
    options = _options(address) | ({"ssl": True} if address.tls else {})

    def asked(timeout: float) -> Any:
        part = timeout / 4  # within which a Sentinel must answer, or the next is asked
        limits = {"socket_timeout": part, "socket_connect_timeout": part}
        return {"password": sentinel_password, **limits}

    def under_loop(timeout: float) -> Link:
        no_retry = {"retry": AsyncRetry(NoBackoff(), 0)}
        manager: Any = _AsyncSentinel(sentinels, sentinel_kwargs=asked(timeout) | no_retry)
        others = [sentinel.connection_pool for sentinel in manager.sentinels]
        return _async_pool(manager.master_for(service, **options), timeout, others)

    def without_loop(timeout: float) -> Link:
        no_retry = {"retry": Retry(NoBackoff(), 0)}
        manager: Any = _Sentinel(sentinels, sentinel_kwargs=asked(timeout) | no_retry)
        others = [sentinel.connection_pool for sentinel in manager.sentinels]
        return _blocking_pool(manager.master_for(service, **options), timeout, others)

    return Ways(f"{service} by {_names(sentinels)}", under_loop, without_loop)


def to_cluster(nodes: Sequence[tuple[str, int]], address: Address) -> Ways:
    """Return the ways to a cluster.

    Args:
        nodes: host and port of some of its nodes; the others are found.
        address: who we are there; its host, port and database are not used.
    """
    options = _options(address) | ({"ssl": True} if address.tls else {})
    del options["db"]

    def limits(timeout: float) -> dict[str, Any]:
        return {"socket_timeout": timeout, "socket_connect_timeout": timeout / 4}

    def under_loop(timeout: float) -> Link:
        known = [_AsyncNode(*node) for node in nodes]
        retry = AsyncRetry(NoBackoff(), 0)
        client = redis.asyncio.RedisCluster(
            startup_nodes=known, retry=retry, **limits(timeout), **options
        )
        return AsyncCluster(client, owned=True)

    def without_loop(timeout: float) -> Link:
        known = [_Node(*node) for node in nodes]

        def connect() -> redis.RedisCluster:
            retry = Retry(NoBackoff(), 0)
            return redis.RedisCluster(
                startup_nodes=known, retry=retry, **limits(timeout), **options
            )

        return BlockingCluster(connect, owned=True)

    return Ways(f"the cluster of {_names(nodes)}", under_loop, without_loop, clustered=True)


def from_client(client: Any) -> Ways:
    """Return the ways that a client of the application stands for.

    Raises:
        ConfigurationError: it is none of redis-py's.
    """
    if isinstance(client, redis.asyncio.RedisCluster):
        return Ways(
            "a cluster",
            lambda _: AsyncCluster(client, owned=False),
            None,
            advice=_USE_BLOCKING,
            clustered=True,
        )
    if isinstance(client, redis.RedisCluster):
        return Ways(
            "a cluster",
            lambda _: Offloaded(BlockingCluster(client, owned=False)),
            lambda _: BlockingCluster(client, owned=False),
            clustered=True,
        )
    if isinstance(client, redis.asyncio.Redis):
        name = _pool_name(client.connection_pool)
        under_loop = partial(_async_pool, client)
        return Ways(name, under_loop, None, advice=_USE_BLOCKING)
    if isinstance(client, redis.Redis):
        return Ways(
            _pool_name(client.connection_pool),
            lambda timeout: Offloaded(_blocking_pool(client, timeout)),
            lambda timeout: _blocking_pool(client, timeout),
        )
    raise ConfigurationError(
        "RedisStore(client=) expects redis.Redis, redis.asyncio.Redis or one of their clusters, "
        f"found {type(client).__module__}.{type(client).__qualname__}; for a URL use "
        "Sessions(store='redis://...')"
    )


def _async_pool(client: Any, timeout: float, others: Sequence[Any] = ()) -> AsyncPool:
    return AsyncPool(like(client.connection_pool, timeout=timeout), others=others)


def _blocking_pool(client: Any, timeout: float, others: Sequence[Any] = ()) -> BlockingPool:
    return BlockingPool(like(client.connection_pool, timeout=timeout), others=others)


def _options(address: Address) -> Any:
    return {"db": address.database, "username": address.user, "password": address.password}


def _names(nodes: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{host}:{port}" for host, port in nodes)


def _pool_name(pool: Any) -> str:
    known = pool.connection_kwargs
    return str(known.get("path") or f"{known.get('host', 'localhost')}:{known.get('port', 6379)}")
