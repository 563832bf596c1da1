"""Deep check: creates, saves and deletes a record of its own, and broadcasts a message."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from sojourn.cli.doctor_checks import sqlite
from sojourn.cli.doctor_checks.connection import FAILING
from sojourn.cli.doctor_checks.context import CheckContext
from sojourn.cli.doctor_checks.findings import Finding, error, info
from sojourn.errors import ConfigurationError, StoreError
from sojourn.record import ID_BYTES, Record, pack_body
from sojourn.store import (
    GONE,
    SAVED,
    BroadcastMessage,
    Conflict,
    RequiresEventLoop,
    Store,
    SupportsBroadcast,
)

WRONG: Final = error(
    "deep-check-failed",
    "a store that does what its contract says: create, load, save, touch, delete",
    "another program or a proxy may change the data; test a store of your own with "
    "sojourn.testing.StoreSuite",
)
SILENT: Final = error(
    "broadcast-lost",
    "a message that arrives within two seconds, so that a revocation closes open connections at "
    "once; otherwise they detect it at their next re-check",
    "let the user subscribe to the channels (Valkey: &prefix:*); behind PgBouncer add listen_url=; "
    "see the warnings in the log of the application",
)
UNHEARD: Final = info(
    "broadcast-not-checked",
    "a store that can subscribe in a thread",
    "give the store a URL or a blocking client",
)

PROBLEMS: Final = (WRONG, SILENT, UNHEARD)

#: Milliseconds after which the record ends by itself, if the doctor is killed meanwhile.
_LIFETIME: Final = 60_000

#: Seconds for a message to arrive, and before that for the subscription to begin.
_MAX_DELAY: Final = 2.0
_MAX_SUBSCRIBING: Final = 5.0


def check_store(context: CheckContext) -> Iterator[Finding]:
    """Create a record, load, save, touch and delete it, and compare each result."""
    store = context.store
    assert store is not None  # noqa: S101 - it was reached
    now = context.now()
    record = Record(
        id=secrets.token_bytes(ID_BYTES),
        version=1,
        seen_at=now,
        created_at=now,
        absolute_at=now + _LIFETIME,
        idle_timeout=_LIFETIME,
        verifier=secrets.token_bytes(32),
        body=_body(),
    )
    try:
        yield from _check_steps(context, store, record)
    except StoreError as failure:
        problem = sqlite.problem_of(failure.__cause__) or FAILING
        yield problem.finding(f"{context.name}: {failure}")
    finally:
        with contextlib.suppress(StoreError):
            context.run(store.delete(record.id))


def _body() -> bytes:
    value = msgspec.msgpack.encode(secrets.token_urlsafe(96))  # text, which a JSON store holds, too
    return pack_body(None, {}, {"sojourn-doctor": value})


def _check_steps(context: CheckContext, store: Store, record: Record) -> Iterator[Finding]:
    saved = msgspec.structs.replace(record, version=2, body=_body())
    touched = saved.with_seen_at(record.seen_at + 1)
    steps: tuple[tuple[str, Any, object], ...] = (
        ("create", lambda: store.create(record), True),
        ("create of the same ID", lambda: store.create(record), False),
        ("load after create", lambda: store.load(record.id), record),
        ("save", lambda: store.save(saved, 1), SAVED),
        ("save of an old version", lambda: store.save(saved, 1), Conflict(saved)),
        ("touch", lambda: store.touch(touched), True),
        ("load after touch", lambda: store.load(record.id), touched),
        ("delete", lambda: store.delete(record.id), True),
        ("load after delete", lambda: store.load(record.id), None),
        ("save after delete", lambda: store.save(saved, 1), GONE),
    )
    for name, call, expected in steps:
        found = context.run(call())
        if found != expected:
            yield WRONG.finding(f"{name}: another result than the contract's")
            return


def check_broadcast(context: CheckContext) -> Iterator[Finding]:
    """Publish a message about a session that does not exist, and wait for it."""
    store = context.store
    if not isinstance(store, SupportsBroadcast):
        return
    if isinstance(store, RequiresEventLoop) and (advice := store.requires_event_loop()):
        yield UNHEARD.finding(advice)
        return
    session_id = secrets.token_bytes(ID_BYTES)
    subscribed, arrived = threading.Event(), threading.Event()

    def on_message(message: BroadcastMessage) -> None:
        if message.session_id == session_id:
            arrived.set()

    try:
        subscription = store.subscribe(on_message, subscribed.set)
    except (StoreError, ConfigurationError) as failure:
        yield SILENT.finding(str(failure))
        return
    try:
        if not subscribed.wait(_MAX_SUBSCRIBING):
            yield SILENT.finding(f"the subscription did not begin within {_MAX_SUBSCRIBING:g} s")
            return
        # No process has such a session, so the message has no effect on others.
        context.run(store.publish("rotated", session_id, version=1))
        if not arrived.wait(_MAX_DELAY):
            yield SILENT.finding(f"no message arrived within {_MAX_DELAY:g} s")
    except StoreError as failure:
        yield SILENT.finding(f"the message could not be sent: {failure}")
    finally:
        subscription.close()
