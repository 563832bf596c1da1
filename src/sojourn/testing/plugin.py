"""Fixtures for tests of applications; pytest loads this plugin if sojourn is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from sojourn.sessions import Sessions
from sojourn.testing.clock import FakeClock
from sojourn.testing.opened_session import OpenSession, open_session

if TYPE_CHECKING:
    from starlette.testclient import TestClient


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker that the suites use, for projects with ``strict_markers``."""
    config.addinivalue_line("markers", "slow: takes more than a few seconds (sojourn.testing)")


class ClientFactory(Protocol):
    """The type of the fixture ``session_client``."""

    def __call__(self, app: Any, **data: Any) -> tuple[TestClient, OpenSession]:
        """Return a test client and its session, which holds the data."""
        ...


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that only ``fake_clock.advance("5 minutes")`` moves."""
    return FakeClock()


@pytest.fixture
def memory_sessions(fake_clock: FakeClock) -> Iterator[Sessions[Any]]:
    """A ``Sessions`` in memory that uses ``fake_clock``."""
    sessions: Sessions[Any] = Sessions(store="memory://", clock=fake_clock)
    yield sessions
    sessions.close()


@pytest.fixture
def session_client() -> Iterator[ClientFactory]:
    """Create a Starlette or FastAPI test client with a session.

    ``client, session = session_client(app, cart={"apple": 2})``: the client sends the cookie of a
    session that holds this data; ``session.data()`` returns its present data.
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
