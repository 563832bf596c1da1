"""Coroutines of ``a...`` methods: accepted by every runner, refused as a condition."""

import asyncio
import inspect
import sys

import anyio
import pytest
from starlette._utils import is_async_callable

from sojourn._core.checked_coroutine import CheckedCoroutine, checked_coroutine
from sojourn._core.concurrency import run
from sojourn.session import NullSession, Session
from sojourn.sessions import Sessions
from sojourn.testing import Visitor

#: What frameworks call: asyncio's function is deprecated since Python 3.14, and inspect's does not
#: read the mark of Python 3.11.
if sys.version_info >= (3, 14):
    iscoroutinefunction = inspect.iscoroutinefunction
else:
    iscoroutinefunction = asyncio.iscoroutinefunction

VERBS = [
    (cls, name)
    for cls in (Session, NullSession, Sessions)
    for name, member in inspect.getmembers(cls)
    if name[0] == "a" and hasattr(cls, name[1:]) and not name.startswith("add")
]


@pytest.fixture
def session():
    sessions = Sessions(store="memory://")
    visitor = Visitor(sessions)

    async def begin():
        async with visitor.visit() as session:
            session["n"] = 1
            session.grant("delete")
        return await visitor.load()

    return run(begin())


def test_every_async_method_is_found():
    assert {"acommit", "aclaim", "ause_grant", "arefresh"} <= {name for _, name in VERBS}
    assert {"arevoke_user", "alist_user", "apurge"} <= {name for _, name in VERBS}


@pytest.mark.parametrize(("cls", "name"), VERBS, ids=lambda part: getattr(part, "__name__", part))
def test_every_async_method_returns_a_checked_coroutine(cls, name):
    """A24: frameworks recognise the method as a coroutine function."""
    function = getattr(cls, name)
    assert iscoroutinefunction(function)
    assert is_async_callable(function)
    assert inspect.iscoroutinefunction(inspect.unwrap(function))
    parameters = list(inspect.signature(function).parameters.values())[1:]
    arguments = [None for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    coroutine = function(object.__new__(cls), *arguments)
    assert type(coroutine) is CheckedCoroutine
    coroutine.close()


async def double(number):
    return 2 * number


def test_frameworks_recognise_a_checked_function():
    """A24: on each supported Python."""
    verb = checked_coroutine(double)
    assert iscoroutinefunction(verb)
    assert is_async_callable(verb)
    assert verb.__name__ == "double"
    assert run(verb(2)) == 4


def test_the_public_marker_of_a_coroutine_function_is_set(monkeypatch):
    """A24: Python 3.12 and later read it."""
    marked = []

    def mark(function):
        marked.append(function)
        return function

    monkeypatch.setattr(inspect, "markcoroutinefunction", mark, raising=False)
    monkeypatch.delattr(asyncio.coroutines, "_is_coroutine", raising=False)
    verb = checked_coroutine(double)
    assert marked == [verb]
    assert run(verb(2)) == 4


class Suspension:
    """Suspends its coroutine once; the value that resumes it is the result."""

    def __await__(self):
        return (yield)


def test_a_value_sent_by_the_event_loop_reaches_the_coroutine():
    async def receive():
        return await Suspension()

    coroutine = checked_coroutine(receive)()
    assert coroutine.send(None) is None
    with pytest.raises(StopIteration) as end:
        coroutine.send("sent")
    assert end.value.value == "sent"


def test_a_coroutine_that_is_not_awaited_raises_as_a_condition(session):
    """A24: ``if session.ause_grant(...)`` would otherwise always be true."""
    for coroutine in (session.ause_grant("delete"), session.aclaim("n"), session.acommit()):
        with pytest.raises(TypeError, match=r"no truth value: await it"):
            bool(coroutine)
        with pytest.raises(TypeError, match=r"Session\.a\w+\(\) returned a coroutine"):
            not coroutine  # noqa: B018 - raises
        coroutine.close()
    assert session.use_grant("delete")


def test_a_coroutine_that_is_never_awaited_is_warned_about(session):
    """A24: by the warning of the coroutine inside."""
    with pytest.warns(RuntimeWarning, match=r"Session\.acommit' was never awaited"):
        session.acommit()


async def by_await(coroutine):
    return await coroutine


async def by_task(coroutine):
    return await asyncio.create_task(coroutine, name="verb")


async def by_future(coroutine):
    return await asyncio.ensure_future(coroutine)


async def by_gather(coroutine):
    (result,) = await asyncio.gather(coroutine)
    return result


async def by_wait_for(coroutine):
    return await asyncio.wait_for(coroutine, 5)


async def by_group(coroutine):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(coroutine)
    return task.result()


async def by_anyio(coroutine):
    results = []

    async def keep():
        results.append(await coroutine)

    async with anyio.create_task_group() as group:
        group.start_soon(keep)
    return results[0]


RUNNERS = [by_await, by_task, by_future, by_gather, by_wait_for, by_group, by_anyio]


@pytest.mark.parametrize("runner", RUNNERS)
def test_every_runner_accepts_a_checked_coroutine(session, runner):
    async def claim():
        return await runner(session.aclaim("n")), await session.aclaim("n", "gone")

    assert asyncio.run(claim()) == (1, "gone")


def test_asyncio_run_and_anyio_accept_a_checked_coroutine_directly(session):
    session["n"] = 2
    asyncio.run(session.acommit())
    session["n"] = 3

    async def in_a_group():
        async with anyio.create_task_group() as group:
            group.start_soon(session.acommit)

    asyncio.run(in_a_group())
    session.refresh()
    assert session["n"] == 3


def test_a_task_of_a_checked_coroutine_can_be_cancelled_and_shown(session):
    """It has the attributes that tasks and debuggers read."""
    coroutine = session.acommit()
    assert "acommit" in repr(coroutine)
    assert coroutine.__name__ == "acommit"
    assert coroutine.cr_frame is not None
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
    with pytest.raises(AttributeError, match="has no attribute 'result'"):
        coroutine.result  # noqa: B018 - raises
    with pytest.raises(asyncio.CancelledError):
        coroutine.throw(asyncio.CancelledError())
    assert coroutine.cr_frame is None
