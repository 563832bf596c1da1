"""Commands of a batch: a single request is sent as the same command as several."""

import os

import pytest

from sojourn.stores.redis import commands
from sojourn.stores.redis.commands import GetRaw, GetRecord, Request, WriteStep, build_commands
from sojourn.stores.redis.keys import Keys
from sojourn.testing.records import make_record

ID = os.urandom(16)
REQUESTS: list[Request] = [
    GetRaw(ID),
    GetRecord(ID),
    commands.create(make_record(id=ID)),
    commands.save(make_record(id=ID), 1),
    commands.touch(make_record(id=ID)),
    commands.delete(ID),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
@pytest.mark.parametrize("is_cluster", [False, True])
def test_a_single_request_is_encoded_as_in_a_larger_batch(
    request_: Request, is_cluster: bool
) -> None:
    keys = Keys("sojourn", "default", is_cluster=is_cluster)
    (alone,) = build_commands([request_], keys)
    (joined,) = build_commands([request_, request_], keys)
    if isinstance(request_, WriteStep):
        count, cutoff, key, again, *arguments = joined.arguments
        assert (count, key) == (3, again)
        assert arguments == [*request_.arguments, *request_.arguments]
        assert alone.arguments == (2, cutoff, key, *request_.arguments)
    else:
        assert alone.arguments == joined.arguments[:-1]
    assert (alone.key, alone.script) == (joined.key, joined.script)
    assert (alone.positions, alone.is_joined) == ((0,), True)


def test_a_request_that_is_not_batched_is_sent_unchanged() -> None:
    keys = Keys("sojourn", "default", is_cluster=False)
    request = commands.server_time(keys)
    (command,) = build_commands([request], keys)
    assert command.arguments == ("TIME",)
    assert not command.is_joined
