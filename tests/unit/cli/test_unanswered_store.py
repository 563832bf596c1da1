"""A server that accepts connections and never answers: a command ends after one timeout."""

import socket
import time

import pytest

from sojourn.cli.target import Target
from sojourn.errors import StoreUnavailable
from sojourn.sessions import Sessions
from tests.unit.cli.test_group import SECRET, invoked

#: Seconds.
TIMEOUT = 0.3

ID = "0f8b5d0e6f0c4c1f9f5d1d6f2b7a9c31"


@pytest.fixture
def server():
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def address_of(server):
    """Return host and port."""
    return f"127.0.0.1:{server.getsockname()[1]}"


def connections_of(server):
    """Return the number of connections that were made; each call that timed out makes another."""
    server.setblocking(False)
    number = 0
    try:
        while True:
            server.accept()[0].close()
            number += 1
    except BlockingIOError:
        return number


@pytest.fixture
def short_timeout(monkeypatch):
    """Let the commands wait for a shorter time than users do."""
    options = Target.options

    def shortened(target):
        return {**options.fget(target), "store_timeout": TIMEOUT}

    monkeypatch.setattr(Target, "options", property(shortened))


@pytest.mark.usefixtures("short_timeout")
@pytest.mark.parametrize("url", ["redis://{}", "postgresql://u@{}/sessions"])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("list", 3),
        ("list --user ada", 3),
        ("count", 3),
        ("stats", 3),
        ("history", 3),
        (f"show {ID}", 3),
        ("purge", 3),
        (f"revoke {ID}", 3),
        ("revoke-user ada --yes", 4),
        ("revoke-all --yes", 4),
        ("top --once", 3),
    ],
)
def test_a_command_ends_after_one_timeout(server, url, words, code):
    """A call that fails after the deadline of its verb is the last one."""
    answer = invoked(f"--store={url.format(address_of(server))}", *words.split())
    assert answer.exit_code == code, answer.output
    assert answer.stderr.startswith("Error: ")
    assert answer.stderr.count("\n") == 1
    assert address_of(server) in answer.stderr
    assert connections_of(server) == 1


def test_a_command_waits_two_seconds_and_names_the_store(server):
    """The default of `store_timeout`, for which the options of the command line have no name."""
    started_at = time.monotonic()
    answer = invoked(f"--store=redis://{address_of(server)}", "list")
    assert 1.9 < time.monotonic() - started_at < 3.9
    assert answer.exit_code == 3
    assert f"RedisStore({address_of(server)}, sojourn:default): no answer" in answer.stderr


@pytest.mark.parametrize(
    "verb",
    [
        lambda sessions: sessions.ping(),
        lambda sessions: sessions.count(),
        lambda sessions: sessions.list_page(),
        lambda sessions: sessions.history(),
    ],
)
def test_a_verb_raises_what_its_first_call_has_raised(server, verb):
    """The message names the store, as that of the deadline would not."""
    url = f"redis://{address_of(server)}"
    sessions = Sessions(store=url, secret=SECRET, store_timeout=TIMEOUT, history="1 day")
    try:
        with pytest.raises(StoreUnavailable, match="RedisStore"):
            verb(sessions)
    finally:
        sessions.close()
