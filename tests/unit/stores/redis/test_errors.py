"""Errors of Valkey and Redis, as their source formats them."""

import pytest

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
