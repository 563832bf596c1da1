"""Sessions in Valkey and Redis; the clients are optional packages."""

from sojourn.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
