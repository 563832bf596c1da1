"""Ways: how a store reaches its server, under an event loop and without one.

What lives here: the choice of links for an address, several of them, or a client that the
application has. What must not: URLs (``openers.py``).

One server without TLS is reached over our own connection (``wires.py``), everything else through
redis-py. Ours never repeat what may have been done: that is the courier's decision.
"""

from __future__ import annotations

import asyncio
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
from sojourn.stores.redis.places import ClusterNodes, OneServer, Places
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
        listening: says where announcements are heard, with a deadline in seconds.
        advice: what to use instead where there is none.
        clustered: whether keys must name their slot.
    """

    name: str
    under_loop: Callable[[float], Link]
    without_loop: Callable[[float], Link] | None
    listening: Callable[[float], Places]
    advice: str | None = None
    clustered: bool = False


def to_address(address: Address) -> Ways:
    """Return the ways to one server."""
    if not address.tls:
        return Ways(
            str(address),
            lambda _: AsyncWire(address),
            lambda _: BlockingWire(address),
            partial(_listening, redis.Redis(**_options(address, with_place=True))),
        )
    options = _options(address, with_place=True)
    blocking = redis.Redis(**options)
    return Ways(
        str(address),
        partial(_async_pool, redis.asyncio.Redis(**options)),
        partial(_blocking_pool, blocking),
        partial(_listening, blocking),
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
    options = _options(address)
    asked = {"password": sentinel_password}
    asynchronous = _AsyncSentinel(sentinels, sentinel_kwargs=asked).master_for(service, **options)
    blocking = _Sentinel(sentinels, sentinel_kwargs=asked).master_for(service, **options)
    return Ways(
        f"{service} by {_names(sentinels)}",
        partial(_async_pool, asynchronous),
        partial(_blocking_pool, blocking),
        partial(_listening, blocking),
    )


def to_cluster(nodes: Sequence[tuple[str, int]], address: Address) -> Ways:
    """Return the ways to a cluster.

    Args:
        nodes: host and port of some of its nodes; the others are found.
        address: who we are there; its host, port and database are not used.
    """
    options = _options(address)
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

    def connect(timeout: float) -> redis.RedisCluster:
        known = [_Node(*node) for node in nodes]
        retry = Retry(NoBackoff(), 0)
        return redis.RedisCluster(startup_nodes=known, retry=retry, **limits(timeout), **options)

    return Ways(
        f"the cluster of {_names(nodes)}",
        under_loop,
        lambda timeout: BlockingCluster(partial(connect, timeout), owned=True),
        lambda timeout: ClusterNodes(partial(connect, timeout), owned=True, timeout=timeout),
        clustered=True,
    )


def from_client(client: Any) -> Ways:
    """Return the ways that a client of the application stands for.

    Raises:
        ConfigurationError: it is none of redis-py's.
    """
    if isinstance(client, redis.asyncio.RedisCluster):
        return Ways(
            "a cluster",
            _for_one_loop(client),
            None,
            _cannot_listen,
            advice=_USE_BLOCKING,
            clustered=True,
        )
    if isinstance(client, redis.RedisCluster):
        return Ways(
            "a cluster",
            lambda _: Offloaded(BlockingCluster(client, owned=False)),
            lambda _: BlockingCluster(client, owned=False),
            lambda timeout: ClusterNodes(client, owned=False, timeout=timeout),
            clustered=True,
        )
    if isinstance(client, redis.asyncio.Redis):
        name = _pool_name(client.connection_pool)
        return Ways(name, partial(_async_pool, client), None, _cannot_listen, advice=_USE_BLOCKING)
    if isinstance(client, redis.Redis):
        return Ways(
            _pool_name(client.connection_pool),
            lambda timeout: Offloaded(_blocking_pool(client, timeout)),
            partial(_blocking_pool, client),
            partial(_listening, client),
        )
    raise ConfigurationError(
        "RedisStore(client=) expects redis.Redis, redis.asyncio.Redis or one of their clusters, "
        f"found {type(client).__module__}.{type(client).__qualname__}; for a URL use "
        "Sessions(store='redis://...')"
    )


def _for_one_loop(client: Any) -> Callable[[float], Link]:
    """Return what makes the link of an asyncio cluster's client, which has one loop for life."""
    first: asyncio.AbstractEventLoop | None = None

    def under_loop(_: float) -> Link:
        nonlocal first
        loop = asyncio.get_running_loop()
        first = first or loop
        if loop is not first:
            raise ConfigurationError(
                "redis.asyncio.RedisCluster cannot leave the event loop that used it first; for "
                f"several loops, one after the other too, {_USE_BLOCKING}"
            )
        return AsyncCluster(client, owned=False)

    return under_loop


def _async_pool(client: Any, timeout: float) -> AsyncPool:
    return AsyncPool(like(client.connection_pool, timeout=timeout))


def _blocking_pool(client: Any, timeout: float) -> BlockingPool:
    return BlockingPool(like(client.connection_pool, timeout=timeout))


def _listening(client: Any, timeout: float) -> Places:
    return OneServer(like(client.connection_pool, timeout=timeout))


def _cannot_listen(_: float) -> Places:
    raise ConfigurationError(
        f"announcements are heard in a thread, which no asyncio client can serve; {_USE_BLOCKING}"
    )


def _options(address: Address, *, with_place: bool = False) -> Any:
    """Return an address as redis-py's keywords, which leaves them without one type."""
    options: Any = {
        "db": address.database,
        "username": address.user,
        "password": address.password,
        **({"ssl": True, "ssl_ca_certs": address.ca} if address.tls else {}),
    }
    if with_place and address.path is not None:
        options["unix_socket_path"] = address.path
    elif with_place:
        options |= {"host": address.host, "port": address.port}
    return options


def _names(nodes: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{host}:{port}" for host, port in nodes)


def _pool_name(pool: Any) -> str:
    known = pool.connection_kwargs
    return str(known.get("path") or f"{known.get('host', 'localhost')}:{known.get('port', 6379)}")
