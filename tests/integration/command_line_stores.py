"""The installations that the tests of the command line work on."""

from contextlib import ExitStack

import pytest

import sojourn
from tests.integration.valkey import running
from tests.integration.valkey_groups import ValkeyCluster
from tests.support.command_line import SECRET, run
from tests.support.postgresql_fixtures import postgresql, shared_postgresql
from tests.support.valkey_fixtures import shared_valkey, valkey

__all__ = [
    "Installation",
    "installation",
    "on_stores",
    "postgresql",
    "shared_cluster",
    "shared_postgresql",
    "shared_valkey",
    "valkey",
]

_STORES = ("sqlite", "valkey", "cluster", "postgresql")


def on_stores(*fast: str):
    """Run a test with `installation` on each kind of store; `make test` runs the given kinds."""
    params = [
        name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in _STORES
    ]
    return pytest.mark.parametrize("installation", params, indirect=True)


class Installation:
    """An application's sessions, and the environment of its operator."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.environ = {"SOJOURN_STORE": url, "SOJOURN_SECRET": SECRET}
        self.sessions = sojourn.Sessions(store=url, secret=SECRET)

    def add(self, user=None, **labels: str) -> str:
        """Create a session, with a user if one is given; return its ID."""
        with self.sessions.open(labels=labels) as visit:
            visit.session["cart"] = {"apple": 2}
            if user is not None:
                visit.session.login(user)
        return visit.session.id

    def run(self, *words: str, **options):
        """Run a command of `sojourn`."""
        return run(*words, environ=self.environ, **options)


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory):
    with running(ValkeyCluster(tmp_path_factory.mktemp("cluster"), steady=True)) as cluster:
        yield cluster


@pytest.fixture
def installation(request, tmp_path):
    """An empty installation; `on_stores` names its store."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/sessions.db"
    elif request.param == "cluster":
        cluster = request.getfixturevalue("shared_cluster")
        cluster.flush()
        url = cluster.url
    else:
        url = request.getfixturevalue(request.param).url
    with ExitStack() as stack:
        made = Installation(url)
        stack.callback(made.sessions.close)
        yield made
