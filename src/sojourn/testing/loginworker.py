"""A process of its own that logs one user in: ``python -m sojourn.testing.loginworker``.

What lives here: the other side of the laws about limits. What must not: judging. It takes records
from its input, one a line, ID and bytes in hexadecimal, until the input ends; then it binds them as
fast as it can, and says for each ``full`` or ``done`` and which sessions had to go.
"""

from __future__ import annotations

import argparse
import sys
from typing import cast

from sojourn._core.concurrency import run
from sojourn.record import Record
from sojourn.store import LIMIT_REACHED, LimitPolicy, LoginSaved, SessionLimit
from sojourn.stores.urls import open_store
from sojourn.testing.logins import save_login
from sojourn.testing.storekit import ListingStore


def main() -> None:
    """Read the arguments and the records, and bind them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("evict", type=LimitPolicy)
    parser.add_argument("most", type=int)
    asked = parser.parse_args()
    store = cast("ListingStore", open_store(asked.url, realm="default", timeout=10))
    limit = SessionLimit(asked.most, asked.evict)
    print("ready", flush=True)  # noqa: T201 - this is how the parent hears of it
    lines = [[bytes.fromhex(word) for word in line.split()] for line in sys.stdin]
    for session_id, data in lines:
        record = Record.from_bytes(session_id, data)
        answer = run(save_login(store, record, record.version - 1, limit=limit))
        if isinstance(answer, LoginSaved):
            print("done", *(gone.hex() for gone in answer.evicted))  # noqa: T201 - as above
        else:
            print("full" if answer is LIMIT_REACHED else "lost")  # noqa: T201 - as above


if __name__ == "__main__":
    main()
