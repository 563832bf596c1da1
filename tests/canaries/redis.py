"""Canaries of the store for Redis and Valkey."""

from sojourn.store import GONE, SAVED
from tests.canaries.registry import canary

REDIS = "sojourn.stores.redis.store:RedisStore"
TESTS = "redis/test_store"


@canary("S5", f"{REDIS}.save", tests=TESTS)
def redis_save_creates(save):
    async def faulty(self, record, expected_version):
        result = await save(self, record, expected_version)
        if result is GONE:
            await self.create(record)
            return SAVED
        return result

    return faulty


@canary("S15", f"{REDIS}.list_by_index", tests=TESTS)
def redis_lists_one_session_at_most(list_by_index):
    async def faulty(self, name):
        return (await list_by_index(self, name))[:1]

    return faulty


@canary("S16", f"{REDIS}.invalidate_logins", tests=TESTS)
def redis_accepts_logins_before_the_cutoff(invalidate_logins):
    async def faulty(self, name, before):
        pass

    return faulty


@canary("S17", f"{REDIS}.publish", tests=TESTS)
def redis_broadcasts_lose_their_reason(publish):
    async def faulty(self, kind, *session_ids, version=0, reason=""):
        await publish(self, kind, *session_ids, version=version)

    return faulty
