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
    "ALL_STORES",
    "FAST_STORES",
    "Installation",
    "installation",
    "postgresql",
    "shared_cluster",
    "shared_postgresql",
    "shared_valkey",
    "valkey",
]

FAST_STORES = ("sqlite", "valkey")
ALL_STORES = (
    *FAST_STORES,
    pytest.param("cluster", marks=pytest.mark.slow),
    pytest.param("postgresql", marks=pytest.mark.slow),
)


class Installation:
    """An application's sessions, and the environment of an operator of it."""

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


@pytest.fixture(params=ALL_STORES)
def installation(request, tmp_path):
    """An empty installation on each kind of store."""
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
