"""Canaries of the store for Redis and Valkey."""

import copy
import hashlib
import time

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
def redis_lists_only_one_session(list_by_index):
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


@canary("A22", f"{REDIS}.server_time", tests="test_server_time")
def redis_returns_the_time_of_this_machine(server_time):
    async def faulty(self):
        return time.time_ns() // 1_000_000

    return faulty


@canary("A24", f"{REDIS}.register_keys", tests="test_key_fingerprints test_formats")
def redis_accepts_the_keys_of_every_application(register_keys):
    async def faulty(self, fingerprints):
        await register_keys(self, fingerprints)
        return True

    return faulty


@canary(
    "S16",
    "sojourn.stores.redis.scripts:ADVANCE_CUTOFF",
    tests="test_full_server",
    raises="RevocationIncomplete StoreUnavailable",
)
def a_full_server_refuses_cutoffs(script):
    faulty = copy.copy(script)
    faulty.text = script.text.replace("redis.call('DEL', KEYS[1])", "")
    faulty.sha = hashlib.sha1(faulty.text.encode()).hexdigest()  # noqa: S324 - as the server does
    return faulty
