"""Valkey and Redis: many machines, one session.

What lives here: the store and what it consists of, one matter a file. ``store.py`` is the store;
read on from there. ``batching.py``, one folder up, joins calls. What must not: anything that the
rest of sojourn imports; the clients are optional packages.
"""

from sojourn.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
