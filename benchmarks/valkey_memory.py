"""Memory of a session in Valkey: `python -m benchmarks.valkey_memory`.

Logs three sessions of each user in through an ASGI application, then sums `MEMORY USAGE` over all
keys, so that a session includes its share of the user index. The record has about 200 bytes, 75 of
which are the application's data. `used_memory` also counts the server's hash tables and is
reported separately.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import tables
from benchmarks.asgi_client import Exchange, make_scope, run
from benchmarks.candidates.candidate import SECRET, Message, Receive, Scope, Send
from benchmarks.processes import run_valkey

SESSIONS_PER_USER = 3
_CONCURRENT = 100


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one session, averages.

    Attributes:
        record: length of the stored value.
        memory_usage: `MEMORY USAGE` of all keys.
        used_memory: growth of the server's `used_memory`.
    """

    record: float
    memory_usage: float
    used_memory: float


async def _login(scope: Scope, receive: Receive, send: Send) -> None:
    session = scope["session"]
    session.login(scope["path"].lstrip("/"))
    session["cart"] = {"apple": 2, "pear": 1, "plum": 7}
    start: Message = {"type": "http.response.start", "status": 200, "headers": []}
    await send(start)
    await send({"type": "http.response.body", "body": b"logged in ok"})


async def measure(url: str, users: int) -> Memory:
    """Create the sessions and ask the server for their memory."""
    import redis

    import sojourn

    sessions = sojourn.Sessions(store=url, secret=SECRET)
    app = sojourn.asgi.SessionMiddleware(_login, sessions)

    async def log_in(user: str) -> None:
        exchange = Exchange()
        await app({**make_scope(f"/{user}", None), "state": {}}, exchange.receive, exchange.send)

    await log_in("warm-up")  # connects and loads the scripts
    with redis.Redis.from_url(url) as admin:
        keys_before = set(admin.scan_iter(count=1000))
        used_before = admin.info("memory")["used_memory"]
        logins = [f"user-{n:06d}" for n in range(users) for _ in range(SESSIONS_PER_USER)]
        for start in range(0, len(logins), _CONCURRENT):
            await asyncio.gather(*map(log_in, logins[start : start + _CONCURRENT]))
        used = admin.info("memory")["used_memory"] - used_before
        pipeline = admin.pipeline(transaction=False)
        keys = sorted(set(admin.scan_iter(count=1000)) - keys_before)
        for key in keys:
            pipeline.memory_usage(key, samples=0)
        usage = sum(pipeline.execute())
        strings = [key for key in keys if admin.type(key) == b"string"]
        for key in strings:
            pipeline.strlen(key)
        lengths = pipeline.execute()
    sessions.close()
    count = len(logins)
    if len(strings) != count:
        raise AssertionError(f"expected {count} records, found {len(strings)}")
    return Memory(sum(lengths) / count, usage / count, used / count)


def show(memory: Memory) -> str:
    """Return the figures as a table."""
    header = ["bytes of a session with user in Valkey", "record", "MEMORY USAGE", "used_memory"]
    cells = (memory.record, memory.memory_usage, memory.used_memory)
    return tables.table(header, [["**sojourn**", *(f"{cell:.0f}" for cell in cells)]])


def main() -> None:
    """Measure, print a table and, with `--json`, write the figures for RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=3000)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, run_valkey(Path(directory), None) as url:
        memory: Memory = run(measure(url, arguments.users))
    tables.write_json(arguments.json, asdict(memory))
    print(show(memory))


if __name__ == "__main__":
    main()
