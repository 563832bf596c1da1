"""What a type checker tells a user of the front door; read by mypy and pyright, never run.

`assert_type` says what must be inferred. A line with an ignore must be an error: both checkers
report an ignore that is not needed. The state of a session is the reason for most of this.
"""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_type

import sojourn
from sojourn import Session, Sessions


@dataclass
class Shop:
    """A typed state."""

    counter: int = 0
    name: str | None = None


def install_types_what_it_returns(app: object) -> None:
    """The state given to `install` is the state of its sessions."""
    assert_type(sojourn.install(app, state=Shop), Sessions[Shop])
    sojourn.install(app, timeout="30 minutes", same_site="Strict")
    sojourn.install(app, timeout=timedelta(minutes=5), secret=["new", "old"])
    sojourn.install(app, merge={"counter": "sum", "tags": "union"})
    sojourn.install(app, timeuot=5)  # type: ignore[call-arg]


def a_session_is_a_mapping(session: Session) -> None:
    """Without a state, keys are strings and values are anything."""
    mapping: MutableMapping[str, Any] = session
    session["cart"] = {"apple": 2}
    session["cart"]["apple"] += 1
    session[1] = "one"  # type: ignore[index]
    assert_type(session.id, str)
    assert_type(session.new, bool)
    assert_type(session.created_at, datetime | None)
    assert_type(session.flashes(), list[tuple[str, str]])
    session.increment("visits", "1")  # type: ignore[arg-type]
    del mapping


def a_state_is_typed(session: Session[Shop]) -> None:
    """`session.state` is the class that was given, attribute for attribute."""
    assert_type(session.state, Shop)
    assert_type(session.state.counter, int)
    session.state.counter += 1
    session.state.counter = "one"  # type: ignore[assignment]
    session.state.total = 1  # type: ignore[attr-defined]


async def twins_have_the_same_types(sessions: Sessions[Shop], session: Session[Shop]) -> None:
    """Only the waiting differs between a verb and its async twin."""
    assert_type(sessions.revoke(session.id, reason="stolen phone"), bool)
    assert_type(await sessions.arevoke(session.id, reason="stolen phone"), bool)
    assert_type(sessions.purge(), int)
    assert_type(await sessions.apurge(), int)
    with session.exclusive():
        session.commit()
    async with session.exclusive():
        await session.acommit()


def a_listener_gets_its_event(sessions: Sessions) -> None:
    """The kind of event settles what the listener is called with."""

    def revoked(event: sojourn.Revoked) -> None: ...

    sessions.on(sojourn.Revoked, revoked)
    sessions.on(sojourn.Created, revoked)  # type: ignore[arg-type]
