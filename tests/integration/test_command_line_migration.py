"""`sojourn migrate` and `sojourn schema` as processes, between real stores."""

import pytest

import sojourn
from tests.integration.command_line_stores import (
    Installation,
    postgresql,
    shared_postgresql,
    shared_valkey,
    valkey,
)
from tests.support.command_line import SECRET, Terminal, run

__all__ = ["postgresql", "shared_postgresql", "shared_valkey", "valkey"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def old(tmp_path):
    made = Installation(f"sqlite:///{tmp_path}/old.db")
    yield made
    made.sessions.close()


@pytest.fixture(params=["sqlite", "valkey", "postgresql"])
def new_url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new.db"
    return request.getfixturevalue(request.param).url


def count(url: str) -> int:
    """Return the number of a user's sessions in a store."""
    sessions = sojourn.Sessions(store=url, secret=SECRET)
    try:
        return len(sessions.list_user("ada"))
    finally:
        sessions.close()


def test_sessions_are_moved(old, new_url):
    """S2: each session is in one of the stores; --prepare and a refused confirmation move none."""
    for _ in range(5):
        old.add("ada")
    prepared = run("migrate", old.url, new_url, "--prepare")
    assert prepared.code == 0
    assert "store=migrating(old, new, prepare=True)" in prepared.out
    assert run("migrate", old.url, new_url).code == 2  # no terminal to confirm on
    assert count(old.url) == 5

    moved = run("migrate", old.url, new_url, "--yes", "--json")
    assert moved.code == 0, moved.err
    assert (moved.document["moved"], moved.document["finished"]) == (5, True)
    assert (count(old.url), count(new_url)) == (0, 5)


def test_interrupted_migration_is_resumed(old, tmp_path):
    """A7: Ctrl-C loses no session; the next run moves the rest."""
    for _ in range(300):
        old.add("ada")
    new = f"sqlite:///{tmp_path}/new.db"
    command = ["migrate", old.url, new, "--yes", "--batch-size", "10", "--max-rate", "50"]
    moving = Terminal(*command)
    moving.read_until(lambda output: "10/300" in output)
    moving.type("\x03")
    code, output = moving.end()
    assert code == 130
    assert "run it again to continue" in output
    left = count(old.url)
    assert 0 < left < 300
    assert count(new) + left == 300
    assert run("migrate", old.url, new, "--yes").code == 0
    assert (count(old.url), count(new)) == (0, 300)


def test_a_misspelt_source_is_refused(tmp_path):
    answer = run("migrate", "sqlite:///absent.db", "sqlite:///new.db", "--yes", folder=tmp_path)
    assert answer.code == 2
    assert list(tmp_path.iterdir()) == []


def test_printed_sql_creates_the_tables(postgresql):
    """The error of a database user without the CREATE privilege names the command."""
    postgresql.query("CREATE ROLE guest LOGIN")
    url = postgresql.url.replace("postgres@", "guest@")
    environ = {"SOJOURN_STORE": url, "SOJOURN_SECRET": SECRET}
    refused = run("list", environ=environ)
    assert refused.code == 3
    assert "`sojourn schema postgresql`" in refused.err
    with postgresql.admin() as database:
        database.execute(run("schema", "postgresql").out)
        database.execute("GRANT USAGE ON SCHEMA public TO guest")
        database.execute(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest"
        )
    assert run("list", environ=environ).code == 1
