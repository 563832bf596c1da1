"""Checks of the connection: open the store, reach it, measure the round trip."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median
from typing import Final

from sojourn._core.concurrency import Deadline
from sojourn.cli.doctor_checks import sqlite
from sojourn.cli.doctor_checks.context import CheckContext
from sojourn.cli.doctor_checks.findings import Finding, error, warning
from sojourn.errors import ConfigurationError, StoreError
from sojourn.record import ID_BYTES, UnreadableRecord

UNREACHABLE: Final = error(
    "store-unreachable",
    "a store that answers at its address",
    "start the server; check host and port of the URL, the firewall, and on which addresses the "
    "server listens",
)
LOGIN: Final = error(
    "store-login",
    "a user and a password that the server accepts",
    "correct user and password in the URL (percent-encode special characters), or create the user "
    "on the server",
)
DATABASE: Final = error(
    "store-database",
    "a database that exists on the server",
    "correct the database in the URL, or create it on the server",
)
TLS: Final = error(
    "store-tls",
    "a server that answers in TLS, as the URL demands",
    "enable TLS on the server, or give the port on which it has TLS; without TLS write redis:// or "
    "sslmode=disable, in a private network only",
)
TLS_EXPECTED: Final = error(
    "store-tls-expected",
    "a URL with TLS, as the server demands",
    "write rediss:// (PostgreSQL: ?sslmode=verify-full) and add ca= if the authority is your own",
)
CERTIFICATE: Final = error(
    "store-certificate",
    "a certificate of the server for this host name by a trusted authority",
    "add ?ca=/path/to/ca.pem (PostgreSQL: ?sslrootcert=) to the URL, or correct the certificate",
)
FAILING: Final = error(
    "store-failing",
    "a store that executes calls",
    "the message of the server says why; see also its log",
)
UNUSABLE: Final = error(
    "store-unusable",
    "a store that can be opened",
    "do what the message says; if a pool or an asyncio client belongs to a running application, "
    "examine the store by its URL: sojourn doctor --store URL",
)
SLOW: Final = warning(
    "store-slow",
    "a round trip of less than 20 ms, because each request with a session makes one or two",
    "run the application nearer to the server; look for a slow network, a proxy, a busy server",
)

PROBLEMS: Final = (
    *(UNREACHABLE, LOGIN, DATABASE, TLS, TLS_EXPECTED, CERTIFICATE, FAILING, UNUSABLE, SLOW),
)

#: An ID that no session has, because IDs are random.
_UNUSED_ID: Final = bytes(ID_BYTES)

#: Seconds; the median of the round trips.
_SLOW: Final = 0.02


def check_open(context: CheckContext) -> Iterator[Finding]:
    """Open the store.

    Raises:
        ConfigurationError: the URL is invalid.
    """
    try:
        context.open()
    except StoreError as failure:
        problem = sqlite.problem_of(failure.__cause__) or FAILING
        yield problem.finding(str(failure))
        context.block("the store could not be opened")
    except ConfigurationError as failure:
        if context.database is None:  # a mistake in the options
            raise
        problem = sqlite.problem_of(failure.__cause__) or UNUSABLE
        yield problem.finding(str(failure))
        context.block("the store could not be opened")


def check_answer(context: CheckContext) -> Iterator[Finding]:
    """Load a record that does not exist."""
    try:
        load(context)
    except StoreError as failure:
        problem = sqlite.problem_of(failure.__cause__) or FAILING
        yield problem.finding(str(failure))
        context.block("the store does not answer")
    except ConfigurationError as failure:
        yield UNUSABLE.finding(str(failure))
        context.block("the store cannot be used here")
    else:
        context.is_reached = True


def check_round_trips(context: CheckContext) -> Iterator[Finding]:
    """Measure how long a load takes."""
    load(context)  # the first one may connect
    for _ in range(context.round_trips):
        started_at = time.perf_counter()
        load(context)
        context.durations.append(time.perf_counter() - started_at)
    if (typical := median(context.durations)) > _SLOW:
        yield SLOW.finding(f"a median of {typical * 1000:.1f} ms in {context.round_trips} calls")


def load(context: CheckContext) -> None:
    """Load a record that does not exist.

    Raises:
        StoreError: the store failed.
        ConfigurationError: the store's client cannot be used here.
    """
    store = context.store
    assert store is not None  # noqa: S101 - it was opened
    try:
        context.run(Deadline(context.timeout).bound(store.load(_UNUSED_ID)))
    except UnreadableRecord:
        return
