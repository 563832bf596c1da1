"""Types of errors, events and dependencies; read by mypy and pyright, never run."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from dataclasses import dataclass
from typing import Annotated, assert_type

import msgspec
from fastapi import FastAPI

import sojourn
from sojourn import Merge, Session, Sessions, errors
from sojourn.frameworks.fastapi import SessionDep
from sojourn.sessions import SessionInfo, Usage
from sojourn.store import Count


class Cart(msgspec.Struct):
    """A typed state as a Struct, with a declared merge and a nested dataclass."""

    counter: Annotated[int, Merge.SUM] = 0
    items: dict[str, int] = {}


@dataclass
class Empty:
    """Another state."""


app = FastAPI()
sessions = sojourn.install(app, state=Cart, store="memory://")
assert_type(sessions, Sessions[Cart])
assert_type(Sessions(state=Cart, store="memory://"), Sessions[Cart])
assert_type(sojourn.get(app).usage(), Usage)


@app.get("/")
async def page(session: SessionDep) -> int:
    """A dependency gives a session, whose untyped values are anything."""
    assert_type(session.id, str)
    count: int = session["counter"]
    return count


def a_struct_is_a_state(session: Session[Cart]) -> None:
    """Nested values keep their types."""
    assert_type(session.state.counter, int)
    assert_type(session.state.items, dict[str, int])
    session.state.items["apple"] = 1
    session.state.items["apple"] = "one"  # type: ignore[assignment]
    session.state.nothing  # type: ignore[attr-defined]  # noqa: B018


def one_state_is_not_another(session: Session[Cart]) -> Session[Empty]:
    """A session is of one class."""
    return session  # type: ignore[return-value]


def errors_say_what_a_program_needs() -> None:
    """Every attribute has a type."""
    try:
        ...
    except errors.NotSerializable as error:
        assert_type(error.key, str)
        assert_type(error.path, str)
        assert_type(error.type, type)
    except errors.SessionTooLarge as error:
        assert_type(error.size, int)
        assert_type(error.limit, int)
        assert_type(error.largest, tuple[tuple[str, int], ...])
    except errors.InvalidState as error:
        assert_type(error.field, str)
        assert_type(error.found, type)
    except errors.SessionConflict as error:
        assert_type(error.session_id, str)
        assert_type(error.attempts, int)
    except errors.ExclusiveTimeout as error:
        assert_type(error.waited, float)
    except errors.SessionGone as error:
        assert_type(error.session_id, str)
    except errors.RecentAuthRequired as error:
        assert_type(error.age, float | None)
        assert_type(error.limit, float)
        assert_type(error.missing, tuple[str, ...])
    except errors.LimitReached as error:
        assert_type(error.limit, int)


def events_say_what_happened(event: sojourn.Conflicted, other: sojourn.StoreFailed) -> None:
    """Every field has a type, and none can be changed."""
    assert_type(event.attempts, int)
    assert_type(event.session_id, str)
    assert_type(other.operation, str)
    event.attempts = 2  # type: ignore[misc]


def events_say_who(login: sojourn.Authenticated, end: sojourn.Revoked) -> None:
    """Who logged in, how, and who ended a session."""
    assert_type(login.user, str)
    assert_type(login.methods, tuple[str, ...])
    assert_type(end.reason, str)
    assert_type(end.actor, str | None)


async def what_is_known_of_a_session(session_id: str) -> None:
    """Absence is None."""
    assert_type(sessions.get(session_id), SessionInfo | None)
    assert_type(await sessions.aget(session_id), SessionInfo | None)
    assert_type(await sessions.acount(), Count)
