"""The child process of ``StoreSuite``.

It changes one session and prints the number of each change after its commit; ``ConcurrencyTests``
checks the outcome.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any, Final

from sojourn._core.concurrency import run
from sojourn.sessions import Sessions
from sojourn.testing.visitor import Visitor

SECRET: Final = b"the secret of tests: 7Jm2Qw9vXc4Rk1"


def start_worker(*arguments: object, loop: bool = False) -> subprocess.Popen[str]:
    """Start a worker; its standard output is a pipe.

    Args:
        arguments: those of ``write``.
        loop: run it under asyncio.
    """
    program = f"from {__name__} import main; main()"
    command = [sys.executable, "-c", program, "loop" if loop else "blocking", *arguments]
    return subprocess.Popen(  # noqa: S603 - this module
        list(map(str, command)), stdout=subprocess.PIPE, text=True
    )


async def write(url: str, cookie: str, name: str, times: str) -> None:
    """Increment a counter and set new keys; print each number after its commit."""
    sessions: Sessions[Any] = Sessions(
        store=url, secret=SECRET, max_bytes=10**7, store_timeout="30 seconds"
    )
    visitor = Visitor(sessions, cookie=cookie)
    for number in range(int(times)):
        async with visitor.visit() as session:
            session.increment("counter")
            session[f"{name}-{number}"] = number
            session.setdefault("nested", {})[f"{name}-{number}"] = number
        print(number, flush=True)  # noqa: T201 - read by the parent
    sessions.close()


def main() -> None:
    """Run ``write`` with the arguments."""
    mode, *arguments = sys.argv[1:]
    coroutine = write(*arguments)
    if mode == "loop":
        asyncio.run(coroutine)
    else:
        run(coroutine)
