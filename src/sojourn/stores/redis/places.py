"""Places: where announcements are heard: at the one server, or at any node of a cluster.

What lives here: which servers there are to listen to, and connections to them. What must not: what
is said over these (``listener.py``).

They are made in the listener's only thread, which meanwhile hears nobody else; so the nodes of a
cluster have little time to answer.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final, Protocol

from redis import exceptions

from sojourn.stores.redis.inspection import has_sharded_channels
from sojourn.stores.redis.pools import converse_blocking, facts_of, like

#: Host and port.
Address = tuple[str, int]

#: The part of a store's deadline in which a node must answer.
_PART: Final = 0.25


class Places(Protocol):
    """The servers that can be listened to; used by one thread."""

    def any(self) -> Address:
        """Return one that hears what everybody is told. Whatever fails is in ``FAILURES``."""
        ...

    def named(self, moved: exceptions.MovedError, asked: Address) -> Address:
        """Return the one that another, which was asked, named."""
        ...

    def connect(self, address: Address) -> Any:
        """Return a new connection, or raise one of ``FAILURES`` or what the server refuses."""
        ...

    def is_sharded(self, connection: Any) -> bool:
        """Ask a new connection whether changes come by sharded channels."""
        ...

    def part(self, connection: Any) -> None:
        """Close a connection."""
        ...

    def close(self) -> None:
        """Let go of what is not needed any more."""
        ...


class OneServer:
    """The server behind a pool, which may be a Sentinel's.

    Args:
        pool: of blocking connections, its own.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def any(self) -> Address:
        """Return the server, whose address is the pool's business."""
        return "", 0

    def named(self, moved: exceptions.MovedError, asked: Address) -> Address:  # noqa: ARG002 - of a protocol
        """Return the server: it names no other."""
        return asked

    def connect(self, address: Address) -> Any:  # noqa: ARG002 - there is one
        """Return a new connection."""
        return self._pool.get_connection()

    def is_sharded(self, connection: Any) -> bool:  # noqa: ARG002 - there is nothing to ask
        """Return False: there are no slots."""
        return False

    def part(self, connection: Any) -> None:
        """Close a connection."""
        connection.disconnect()
        self._pool.release(connection)

    def close(self) -> None:
        """Let go of the pool."""
        self._pool.disconnect()


class ClusterNodes:
    """The nodes of a cluster, as redis-py's client knows them.

    Args:
        client: the client, or what makes it, which connects at once.
        owned: ours alone, so it is closed.
        timeout: seconds that a call of the store may take.
    """

    def __init__(self, client: Any, *, owned: bool, timeout: float) -> None:
        self._make: Callable[[], Any] | None = client if callable(client) else None
        self._client: Any = None if callable(client) else client
        self._owned = owned
        self._timeout = timeout
        self._asked = False

    def any(self) -> Address:
        """Return any node, a replica too; from the second time on of those there are now."""
        try:
            if self._client is None:
                assert self._make is not None  # noqa: S101 - one of both was given
                self._client = self._make()
            elif self._asked:
                self._client.nodes_manager.initialize()
            self._asked = True
            # Any will do, so that those who listen are spread over all of them.
            node = secrets.choice(self._client.get_nodes())
        except exceptions.RedisClusterException as error:
            raise ConnectionError(str(error)) from error
        return node.host, node.port

    def named(self, moved: exceptions.MovedError, asked: Address) -> Address:
        """Return where a slot is; a node that does not know its own name means the same host."""
        host: str = moved.host or asked[0]
        host, port = self._client.nodes_manager.remap_host_port(host, moved.port)
        return host, int(port)

    def connect(self, address: Address) -> Any:
        """Return a new connection, with the settings of the client."""
        some = self._client.get_redis_connection(self._client.get_default_node())
        pool = like(some.connection_pool, timeout=self._timeout * _PART)
        pool.connection_kwargs.update(host=address[0], port=address[1])
        return pool.get_connection()

    def is_sharded(self, connection: Any) -> bool:
        """Ask a node for its version."""
        (reply,) = converse_blocking(connection, [("INFO", "server")])
        return has_sharded_channels(facts_of(reply))

    def part(self, connection: Any) -> None:
        """Close a connection."""
        connection.disconnect()

    def close(self) -> None:
        """Let go of the client, if it is ours."""
        if self._owned and self._client is not None:
            self._client.close()
