"""The child processes of ``StoreSuite``.

``write`` changes one session and prints the number of each change after its commit. ``login`` saves
the logins that it reads from standard input and prints their results. ``ConcurrencyTests`` and
``LimitTests`` check the outcome.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

from sojourn._core.concurrency import run
from sojourn.record import Record
from sojourn.sessions import Sessions
from sojourn.store import LimitPolicy, LoginSaved, SessionLimit
from sojourn.stores.urls import open_store
from sojourn.testing.records import save_login
from sojourn.testing.visitor import Visitor

SECRET: Final = b"the secret of tests: 7Jm2Qw9vXc4Rk1"


def start_worker(*arguments: object, loop: bool = False) -> subprocess.Popen[str]:
    """Start a worker; its standard input and output are pipes.

    Args:
        arguments: the name of a function below and its arguments.
        loop: run it under asyncio.
    """
    program = f"from {__name__} import main; main()"
    command = [sys.executable, "-c", program, "loop" if loop else "blocking", *arguments]
    return subprocess.Popen(  # noqa: S603 - this module
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


async def write(url: str, cookie: str, name: str, times: str) -> None:
    """Increment a counter and set new keys; print each number after its commit."""
    sessions: Sessions[Any] = Sessions(store=url, secret=SECRET, max_bytes=10**7)
    visitor = Visitor(sessions, cookie=cookie)
    for number in range(int(times)):
        async with visitor.visit() as session:
            session.increment("counter")
            session[f"{name}-{number}"] = number
            session.setdefault("nested", {})[f"{name}-{number}"] = number
        print(number, flush=True)  # noqa: T201 - read by the parent
    sessions.close()


async def login(url: str, policy: str, max_sessions: str) -> None:
    """Read records ("<id> <bytes>" in hex) until the input ends, then save each as a login.

    Prints "saved" with the IDs of evicted sessions, or the name of the status.
    """
    store: Any = open_store(url, realm="default", timeout=10)
    limit = SessionLimit(int(max_sessions), LimitPolicy(policy))
    print("ready", flush=True)  # noqa: T201 - read by the parent
    for line in sys.stdin.readlines():
        session_id, data = (bytes.fromhex(word) for word in line.split())
        record = Record.from_bytes(session_id, data)
        result = await save_login(store, record, record.version - 1, limit=limit)
        if isinstance(result, LoginSaved):
            print("saved", *(evicted.hex() for evicted in result.evicted))  # noqa: T201 - as above
        else:
            print(result)  # noqa: T201 - as above


def main() -> None:
    """Run the function that the arguments name."""
    mode, function, *arguments = sys.argv[1:]
    functions: dict[str, Callable[..., Coroutine[Any, Any, None]]]
    functions = {"write": write, "login": login}
    coroutine = functions[function](*arguments)
    if mode == "loop":
        asyncio.run(coroutine)
    else:
        run(coroutine)
