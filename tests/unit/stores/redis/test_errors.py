"""Errors of Valkey and Redis, as their source formats them."""

import pytest

from sojourn.errors import StoreUnavailable
from sojourn.stores.redis.client import as_server_error
from sojourn.stores.redis.errors import ServerError, as_store_error

PASSWORD = "a-password-of-the-server"


@pytest.mark.parametrize(
    "reply",
    [
        f"ERR unknown command 'AUTH', with args beginning with: 'app' '{PASSWORD}' ",
        f"ERR unknown command `AUTH`, with args beginning with: `app`, `{PASSWORD}`, ",  # Redis < 7
    ],
)
def test_the_arguments_of_an_unknown_command_are_not_shown(reply):
    """A18: a server or proxy without AUTH repeats the password, for other commands the data."""
    for error in (ServerError(reply), as_server_error(Exception(reply))):
        text = str(as_store_error(error))
        assert PASSWORD not in text
        assert "unknown command" in text
        assert "AUTH" in text


@pytest.mark.parametrize(
    "reply",
    [
        "ERR DB index is out of range",
        "ERR AUTH <password> called without any password configured for the default user.",
    ],
)
def test_a_rejected_connection_names_what_to_correct(reply):
    error = as_store_error(ServerError(reply), access_denied=True)
    assert isinstance(error, StoreUnavailable)
    assert "correct user, password and database in the URL" in str(error)
    assert "nothing was written" in str(as_store_error(ServerError(reply)))


def test_a_read_only_replica_is_named():
    error = as_store_error(ServerError("READONLY You can't write against a read only replica."))
    assert isinstance(error, StoreUnavailable)
    assert "name the primary in the URL" in str(error)
