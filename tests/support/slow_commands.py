"""Finds commands that block a Valkey server for long, by its SLOWLOG."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import redis

T = TypeVar("T")

#: Microseconds for which a command may block a server.
LONGEST_COMMAND = 10_000

#: The server measures with the wall clock: on a busy machine a command seems slow if the system
#: runs another process meanwhile. It is a different command each time.
ATTEMPTS = 5


async def without_slow_command(ports: Sequence[int], work: Callable[[], Awaitable[T]]) -> T:
    """Return the result of the work; fail if a command is slow in every attempt.

    Args:
        ports: of the servers; none for stores without SLOWLOG.
        work: is repeated if a command was slow.
    """
    slow: list[tuple[int, bytes]] = []
    admins = [redis.Redis(port=port) for port in ports]
    try:
        for _ in range(ATTEMPTS):
            for admin in admins:
                admin.config_set("slowlog-log-slower-than", LONGEST_COMMAND)
                admin.slowlog_reset()
            result = await work()
            found = [each for admin in admins for each in admin.slowlog_get(100)]
            slow = [(each["duration"], each["command"][:40]) for each in found]
            if not slow:
                return result
    finally:
        for admin in admins:
            admin.close()
    raise AssertionError(f"commands take longer than {LONGEST_COMMAND} us: {slow}")
