"""Requests of the store, and the commands that a batch of them becomes. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from sojourn.record import Record, UnreadableRecord
from sojourn.store import LimitPolicy, MessageKind, SessionLimit
from sojourn.stores.broadcast_messages import encode_message
from sojourn.stores.redis.connection import Argument, Line
from sojourn.stores.redis.encoding import (
    channel_of,
    created_at,
    decode_value,
    encode_record,
    encode_value,
)
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.scripts import (
    AUTHENTICATED_AT,
    EVICT,
    LOGIN,
    PUBLISH_SHARDED,
    SEEN_AT,
    TTL_MARGIN,
    WRITE,
    WRITE_ONE,
    Script,
)

# Requests


class GetRaw(msgspec.Struct, frozen=True, gc=False):
    """Requests the stored value of a record; the result is None if there is none."""

    id: bytes


class GetRecord(GetRaw, frozen=True, gc=False):
    """Requests a record; the result is None if there is none, or an ``UnreadableRecord``.

    The records of a batch are decoded together instead of each by its caller, which is faster
    because of the processor's caches.
    """


class WriteStep(msgspec.Struct, frozen=True, gc=False):
    """Requests one step of the script ``WRITE``; the result is the script's.

    Attributes:
        id: of the record.
        created_at: of the record that is written; 0 if unknown.
        arguments: the verb and its arguments.
        is_idempotent: may be executed twice.
    """

    id: bytes
    created_at: int
    arguments: tuple[Argument, ...]
    is_idempotent: bool = False


class RawCommand(msgspec.Struct, frozen=True):
    """Requests a command of its own; the result is the reply.

    Attributes:
        arguments: the command; with a script, the number of keys, the keys and the arguments.
        key: determines the node in a cluster.
        script: the script to call, if any.
        is_idempotent: may be executed twice.
    """

    arguments: Line
    key: str
    script: Script | None = None
    is_idempotent: bool = False


Request = GetRaw | WriteStep | RawCommand


class InvalidatedHead(msgspec.Struct, frozen=True):
    """The result of deleting a record that was absent because of ``invalidate_all``.

    Attributes:
        head: of the removed value; it contains the names under which the session was indexed.
    """

    head: bytes


def is_idempotent(request: Request) -> bool:
    """Return whether a request may be executed twice."""
    return isinstance(request, GetRaw) or request.is_idempotent


def has_writes(requests: Sequence[Request]) -> bool:
    """Return whether a request of a batch is not a load; also True for an empty batch."""
    return {*map(type, requests)} != _LOADS


#: The types of a batch of loads.
_LOADS: Final = {GetRecord}


def create(record: Record, digests: Sequence[bytes] = ()) -> WriteStep:
    """Return the request that inserts a record indexed under names."""
    value = encode_value(record, digests)
    return WriteStep(record.id, record.created_at, ("c", value, _lifetime(record)))


def save(record: Record, expected_version: int) -> WriteStep:
    """Return the request that replaces a record, keeps its names and publishes the change."""
    version, value = expected_version.to_bytes(8), encode_record(record)
    return WriteStep(
        record.id, record.created_at, ("s", version, value, _lifetime(record), record.id)
    )


def save_login(record: Record, expected_version: int, digests: Sequence[bytes]) -> WriteStep:
    """Return the request that replaces a record and its names."""
    version, value = expected_version.to_bytes(8), encode_value(record, digests)
    return WriteStep(record.id, record.created_at, ("b", version, value, _lifetime(record)))


def touch(record: Record) -> WriteStep:
    """Return the request that moves ``seen_at``."""
    arguments = ("t", record.seen_at.to_bytes(8))
    return WriteStep(record.id, record.created_at, arguments, is_idempotent=True)


def delete(session_id: bytes) -> WriteStep:
    """Return the request that removes a record."""
    return WriteStep(session_id, 0, ("d",))


def login(
    record: Record,
    expected_version: int,
    digests: Sequence[bytes],
    *,
    keys: Keys,
    limit: SessionLimit | None,
    now: int,
) -> RawCommand:
    """Return the request that executes a whole login, for a single server."""
    named = [keys.cutoff(""), keys.record(record.id)]
    for digest in digests:
        named += keys.index(digest)[:2]
    most, policy = (0, LimitPolicy.REFUSE) if limit is None else (limit.max_sessions, limit.policy)
    version, value = expected_version.to_bytes(8), encode_value(record, digests)
    arguments: Line = (
        *(record.id, version, value, _lifetime(record), index_ttl(record)),
        *(now, most, _EVICTION_ORDERS[policy], *keys.prefixes()),
    )
    return call_script(LOGIN, named, arguments)


def evict(
    session_id: bytes, digest: bytes, *, keys: Keys, limit: SessionLimit, now: int
) -> RawCommand:
    """Return the request that evicts sessions which a login has left above its limit."""
    arguments: Line = (
        *(session_id, digest, now, limit.max_sessions, _EVICTION_ORDERS[limit.policy]),
        *keys.prefixes(),
    )
    return call_script(EVICT, (keys.cutoff(""), keys.index(digest).entries), arguments)


_EVICTION_ORDERS: Final = {
    LimitPolicy.EVICT_OLDEST: AUTHENTICATED_AT,
    LimitPolicy.EVICT_IDLEST: SEEN_AT,
    LimitPolicy.REFUSE: 0,
}


def server_time(keys: Keys) -> RawCommand:
    """Return the request for the server's time.

    In a cluster it is always sent to the node of one slot: the clocks of nodes may differ, and all
    processes must use the same one.
    """
    return RawCommand(("TIME",), keys.events, is_idempotent=True)


def publish(
    kind: MessageKind, session_id: bytes, keys: Keys, *, version: int, reason: str
) -> RawCommand:
    """Return the request that publishes a message; a duplicate is harmless (law S17)."""
    channel = channel_of(kind, session_id, keys)
    message = encode_message(kind, session_id, version=version, reason=reason)
    if kind == "changed" and keys.is_cluster:
        return RawCommand((1, channel, message), channel, PUBLISH_SHARDED, is_idempotent=True)
    # In a cluster any node will do; the session's node spreads the load.
    key = keys.record(session_id)
    return RawCommand(("PUBLISH", channel, message), key, is_idempotent=True)


def call_script(script: Script, keys: Sequence[str], arguments: Iterable[Argument]) -> RawCommand:
    """Return the request that calls a script; the keys must share a slot."""
    return RawCommand((len(keys), *keys, *arguments), keys[0], script)


def _lifetime(record: Record) -> int:
    # Counted from the last activity: a store has no clock. Never less than the remaining time.
    remaining = record.absolute_at - record.seen_at
    if 0 < record.idle_timeout <= remaining:  # every save: two calls of builtins less
        return record.idle_timeout + TTL_MARGIN
    return max(min(record.idle_timeout, remaining), 0) + TTL_MARGIN


def index_ttl(record: Record) -> int:
    """Return the milliseconds for which the indexes of a record's names are needed."""
    return max(record.absolute_at - record.seen_at, 0) + TTL_MARGIN


# Batches


class Command(msgspec.Struct, frozen=True):
    """One command of a batch.

    Attributes:
        arguments: without the script's name.
        key: determines the node in a cluster.
        script: the script to call, if any.
        positions: of its requests in the batch.
        is_joined: the first element of the reply is the cutoff, the others belong to the requests.
    """

    arguments: Line
    key: str
    script: Script | None
    positions: Sequence[int]
    is_joined: bool

    def line(self, *, with_text: bool = False) -> Line:
        """Return the whole command; ``with_text`` sends the script itself, as after NOSCRIPT."""
        if self.script is None:
            return self.arguments
        if with_text:
            return ("EVAL", self.script.text, *self.arguments)
        return ("EVALSHA", self.script.sha, *self.arguments)


def build_commands(requests: Sequence[Request], keys: Keys) -> list[Command]:
    """Return the commands for a batch.

    Its reads are one MGET and its writes one call of the script ``WRITE``, in a cluster one of each
    for every hash tag. Both also read the cutoff of ``invalidate_all`` in the same atomic step;
    records created before it are absent from every result.
    """
    if len(requests) == 1:  # a thread without others: a tenth of a call's time in Python
        return [_build_command(requests[0], keys)]
    reads: list[int] = []
    writes: list[int] = []
    commands: list[Command] = []
    for position, request in enumerate(requests):
        if isinstance(request, GetRaw):
            reads.append(position)
        elif isinstance(request, WriteStep):
            writes.append(position)
        else:
            commands.append(
                Command(request.arguments, request.key, request.script, (position,), False)
            )
    for cutoff, positions in _group(reads, requests, keys):
        named = keys.records([requests[position].id for position in positions])  # type: ignore[union-attr]
        commands.append(Command(("MGET", cutoff, *named), cutoff, None, positions, True))
    for cutoff, positions in _group(writes, requests, keys):
        steps: list[WriteStep] = [requests[position] for position in positions]  # type: ignore[misc]
        arguments: list[Argument] = [len(steps) + 1, cutoff]
        arguments += keys.records([step.id for step in steps])
        for step in steps:
            arguments += step.arguments
        commands.append(Command(tuple(arguments), cutoff, WRITE, positions, True))
    return commands


def _build_command(request: Request, keys: Keys) -> Command:
    """Return the command for a batch of one request."""
    if isinstance(request, RawCommand):
        return Command(request.arguments, request.key, request.script, _ONE_POSITION, False)
    cutoff, key = keys.cutoff_and_record(request.id)
    if isinstance(request, GetRaw):
        return Command(("MGET", cutoff, key), cutoff, None, _ONE_POSITION, True)
    return Command((2, cutoff, key, *request.arguments), cutoff, WRITE, _ONE_POSITION, True)


#: The positions of a batch of one.
_ONE_POSITION: Final = (0,)


def _group(
    positions: list[int], requests: Sequence[Request], keys: Keys
) -> Iterable[tuple[str, list[int]]]:
    """Return groups of positions that can be one command, each with the key of its cutoff."""
    if not positions:
        return ()
    if not keys.is_cluster:
        return ((keys.cutoff(""), positions),)
    groups: dict[str, list[int]] = {}
    for position in positions:
        tag = keys.tag(requests[position].id)  # type: ignore[union-attr]
        groups.setdefault(tag, []).append(position)
    return [(keys.cutoff(tag), group) for tag, group in groups.items()]


def split_command(command: Command, requests: Sequence[Request]) -> list[Command]:
    """Return commands with one key each that replace a joined one, then a GET of the cutoff.

    For a slot that is being migrated, where no node has all keys. The commands are not atomic
    together, which is harmless: what is written beside a new cutoff is absent all the same.
    """
    pieces = []
    # The keys of records follow the cutoff, which follows MGET or the number of keys.
    for position, key in zip(command.positions, command.arguments[2:], strict=False):
        request = requests[position]
        arguments: Line
        script: Script | None
        if isinstance(request, WriteStep):
            arguments, script = (1, key, *request.arguments), WRITE_ONE
        else:
            arguments, script = ("GET", key), None
        pieces.append(Command(arguments, str(key), script, (position,), False))
    return [*pieces, Command(("GET", command.key), command.key, None, (), False)]


def merge_replies(command: Command, replies: Sequence[Any]) -> Any:
    """Return the reply of a joined command, from those of ``split_command``."""
    *parts, cutoff = replies
    if isinstance(cutoff, Exception):
        return cutoff
    is_write = command.script is not None
    return [cutoff, *(part[0] if is_write and isinstance(part, list) else part for part in parts)]


def distribute_reply(
    command: Command, reply: Any, requests: Sequence[Request], outcomes: list[Any]
) -> None:
    """Set the outcome of each request of a command."""
    if not command.is_joined or isinstance(reply, Exception):
        for position in command.positions:
            outcomes[position] = reply
        return
    cutoff, *parts = reply
    for position, part in zip(command.positions, parts, strict=True):
        request = requests[position]
        outcome = part if cutoff is None else _apply_cutoff(part, request, cutoff)
        if type(request) is GetRecord and isinstance(outcome, bytes):
            try:
                outcome = decode_value(request.id, outcome)
            except UnreadableRecord as error:
                outcome = error
        outcomes[position] = outcome


_NO_RECORD: Final = 0


def _apply_cutoff(part: Any, request: Request, cutoff: bytes) -> Any:
    """Return a result in which records created before the cutoff are absent."""
    if isinstance(part, Exception):
        return part
    if isinstance(request, GetRaw):
        return None if part is None or created_at(part) < cutoff else part
    assert isinstance(request, WriteStep)  # noqa: S101 - raw commands are not joined
    if request.arguments[0] in ("s", "b", "t"):
        return part if request.created_at.to_bytes(8) >= cutoff else _NO_RECORD
    if request.arguments[0] == "d" and part and created_at(part) < cutoff:
        return InvalidatedHead(part)
    return part
