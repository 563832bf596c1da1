"""A process of its own that writes to one session: ``python -m sojourn.testing.worker``.

What lives here: the other side of the laws about several processes (S10) and killed ones (S11).
What must not: judging; it says on its output what it has committed, one number a line.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from sojourn._core.concurrency import run
from sojourn.sessions import Sessions
from sojourn.testing.visitor import Visitor

SECRET = b"the secret of tests: 7Jm2Qw9vXc4Rk1"


async def write(sessions: Sessions[Any], cookie: str, name: str, times: int) -> None:
    """Increment one key and set keys of its own, saying each number once it is committed."""
    visitor = Visitor(sessions, cookie=cookie)
    for number in range(times):
        async with visitor.visit() as session:
            session.increment("counter")
            session[f"{name}-{number}"] = number
            session.setdefault("nested", {})[f"{name}-{number}"] = number
        print(number, flush=True)  # noqa: T201 - this is how the parent hears of it


def main() -> None:
    """Read the arguments and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("cookie")
    parser.add_argument("name")
    parser.add_argument("times", type=int)
    parser.add_argument("--loop", action="store_true")
    asked = parser.parse_args()
    sessions: Sessions[Any] = Sessions(store=asked.url, secret=SECRET, max_bytes=10**7)
    work = write(sessions, asked.cookie, asked.name, asked.times)
    if asked.loop:
        asyncio.run(work)
    else:
        run(work)
    sessions.close()


if __name__ == "__main__":
    main()
