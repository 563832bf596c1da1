"""The pytest plugin: fixtures for the tests of applications that have sessions.

What lives here: ``fake_clock``, ``memory_sessions``, ``session_client``. What must not: imports of
frameworks outside the fixture that needs one. Pytest loads this by itself wherever sojourn is
installed, and shows it with ``pytest --fixtures``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from sojourn.sessions import Sessions
from sojourn.testing.clock import FakeClock
from sojourn.testing.opened import OpenSession, open_session

if TYPE_CHECKING:
    from starlette.testclient import TestClient


class ClientMaker(Protocol):
    """What ``session_client`` is."""

    def __call__(self, app: Any, **data: Any) -> tuple[TestClient, OpenSession]:
        """Return a client whose session holds the data, and that session."""
        ...


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that stands still until the test says ``fake_clock.advance("5 minutes")``."""
    return FakeClock()


@pytest.fixture
def memory_sessions(fake_clock: FakeClock) -> Iterator[Sessions[Any]]:
    """Sessions in memory, under ``fake_clock``, for ``SessionMiddleware(app, memory_sessions)``."""
    sessions: Sessions[Any] = Sessions(store="memory://", clock=fake_clock)
    yield sessions
    sessions.close()


@pytest.fixture
def session_client() -> Iterator[ClientMaker]:
    """Make a Starlette or FastAPI test client that has a session already.

    ``client, session = session_client(app, cart={"apple": 2})``: the client sends the cookie of a
    session that holds this data; ``session.data()`` shows what it holds later.
    """
    clients: list[TestClient] = []

    def make(app: Any, **data: Any) -> tuple[TestClient, OpenSession]:
        from starlette.testclient import TestClient

        session = open_session(app, **data)
        client = TestClient(app, cookies=session.cookies)
        clients.append(client)
        return client, session

    yield make
    for client in clients:
        client.close()
