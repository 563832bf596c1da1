"""Types of the public names; read by mypy and pyright, never run.

`assert_type` states what is inferred. A line with an ignore must be an error: both checkers report
an unused ignore.
"""
# pyright: reportUnnecessaryTypeIgnoreComment=true

import asyncio
from collections.abc import Coroutine, MutableMapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_type

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware import Middleware

import sojourn
from sojourn import Session, Sessions
from sojourn.frameworks.starlette import SessionMiddleware as DropIn
from sojourn.sessions import SessionInfo


@dataclass
class Shop:
    """A typed state."""

    counter: int = 0
    name: str | None = None


def install_types_what_it_returns(app: object) -> None:
    """The state given to `install` is the state of its sessions."""
    assert_type(sojourn.install(app, state=Shop), Sessions[Shop])
    sessions = sojourn.install(app)  # without an annotation
    assert_type(sessions, Sessions[Any])
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
    assert_type(session.copy(), dict[str, Any])
    assert_type(session | {"a": 1}, dict[str, Any])
    assert_type(session == {}, bool)
    assert_type(session.popitem(), tuple[str, Any])
    session |= {"a": 1}
    assert_type(session, Session)
    session.increment("cart", path=("apple",))
    session.append("cart", 1, 2, path=["log", 5])
    session.add("cart", 1, path=("tags",))
    session.discard("cart", 1, path=("tags",))
    session.increment("cart", 1, ("apple",))  # type: ignore[call-arg]
    session.clear()
    session.clear(keep_login=True)
    session.clear(True)  # type: ignore[call-arg]


def a_state_is_typed(session: Session[Shop]) -> None:
    """`session.state` is the class that was given, attribute for attribute."""
    assert_type(session.state, Shop)
    assert_type(session.state.counter, int)
    session.state.counter += 1
    session.state.counter = "one"  # type: ignore[assignment]
    session.state.total = 1  # type: ignore[attr-defined]


def a_login_says_who_and_how(session: Session) -> None:
    """What is known of a user, and what a handler may demand."""
    session.login("ada", methods=("password",), labels={"device": "phone"}, remember=True)
    session.login("ada", methods=["password", "totp"])
    session.login(17)
    session.login(None)  # type: ignore[arg-type]
    session.login()  # type: ignore[call-arg]
    assert_type(session.user, str | None)
    assert_type(session.methods, tuple[str, ...])
    assert_type(session.authenticated_at, datetime | None)
    assert_type(session.remembered, bool)
    assert_type(session.ended_reason, str | None)
    assert_type(session.csrf_token, str)
    session.require_recent(timedelta(minutes=10), methods=["totp"])
    session.grant("delete-account", "2 minutes")
    assert_type(session.use_grant("delete-account"), bool)
    session.user = "ada"  # type: ignore[assignment]


async def lists_say_whose_sessions_there_are(sessions: Sessions, session: Session) -> None:
    """The verbs about users, and their twins."""
    assert_type(sessions.list_user("ada"), list[SessionInfo])
    assert_type(await sessions.alist_user("ada"), list[SessionInfo])
    (info,) = sessions.list_user("ada")
    assert_type(info.user, str | None)
    assert_type(info.authenticated_at, datetime | None)
    assert_type(sessions.revoke_user("ada", keep=session.id, actor="admin"), int)
    assert_type(await sessions.arevoke_where(idp_sid="s-1"), int)
    assert_type(sessions.credentials_changed("ada", keep=session), int)
    sessions.credentials_changed("ada", keep=session.id)  # type: ignore[arg-type]
    sessions.revoke_all(reason="a leak")
    assert_type(sessions.check_csrf(None, session), bool)


def options_of_users_are_checked(app: object) -> None:
    """Options that take one of several words take no other."""
    sojourn.install(app, preset="aal2", rotate_interval=None, on_reuse="ignore", encrypt="ticket")
    sojourn.install(app, max_sessions=3, on_limit="refuse", audit=print, passive=["/poll"])
    sojourn.install(app, timeout=None)  # type: ignore[arg-type]
    sojourn.install(app, encrypt="secret")  # type: ignore[arg-type]
    sojourn.install(app, preset="aal4")  # type: ignore[arg-type]
    sojourn.install(app, on_limit="evict")  # type: ignore[arg-type]


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


class Model(BaseModel):
    """A pydantic model as the state."""

    counter: int = 0


def a_pydantic_model_is_a_state(app: object) -> None:
    """`session.state` is the model, and its data has a version."""
    sessions = sojourn.install(
        app,
        state=Model,
        state_version=2,
        upgrade=lambda version, data: {**data, "from": version},
        on_invalid_state="default",
    )
    assert_type(sessions, Sessions[Model])
    sojourn.install(app, state=Model, on_invalid_state=lambda key, raw: 0)
    sojourn.install(app, state=Model, on_invalid_state="ignore")  # type: ignore[arg-type]
    sojourn.install(app, merge={"cart": sojourn.Merge.DICT_OF_SUM, "other": "dict of sum"})


async def verbs_are_coroutines(session: Session, sessions: Sessions) -> None:
    """What an `a...` verb returns is a coroutine of the result, with its parameters."""
    use: Coroutine[Any, Any, bool] = session.ause_grant("x")
    await use
    assert_type(await session.ause_grant("x"), bool)
    assert_type(await session.aclaim("key", default=0), Any)
    assert_type(await sessions.arevoke("id", reason="lost"), bool)
    assert_type(await asyncio.create_task(sessions.arevoke_user(17)), int)
    await asyncio.gather(sessions.acount(), session.ause_grant("x"))
    await session.ause_grant()  # type: ignore[call-arg]
    await sessions.arevoke("id", "lost")  # type: ignore[call-arg]


async def an_application(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application."""


def middleware_of_starlette_is_accepted(sessions: Sessions) -> None:
    """`Middleware` and `add_middleware` take both classes."""
    Middleware(DropIn, secret_key="a secret", store="memory://")
    Middleware(DropIn, sessions=sessions)
    Middleware(sojourn.asgi.SessionMiddleware, sessions=sessions)
    Starlette().add_middleware(DropIn, secret_key="a secret")
    DropIn(an_application, "a secret", "session")
    DropIn(app=an_application, secret_key="a secret")
    DropIn(an_application, max_age="a day")  # type: ignore[call-overload]
