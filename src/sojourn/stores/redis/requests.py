"""Requests: what the store asks of the server, and how a batch of them becomes a few commands.

What lives here: one small class for each kind, composing commands, and taking their replies apart.
What must not: sending (``courier.py``). All of it is pure, so the whole wire format is tested
without a server.

The loads of a batch are one MGET, its writes one call of the script ``WRITE``; in a cluster one of
each for every tag. Both bring the mark of ``invalidate_all`` along, in the same step: what was created
before it is absent from every answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from sojourn.record import Record, UnreadableRecord
from sojourn.store import LimitPolicy, MessageKind, SessionLimit
from sojourn.stores.redis.announcements import channel_of, encode
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.scripts import (
    AUTHENTICATED_AT,
    BIND,
    MARGIN,
    SEEN_AT,
    TELL,
    WRITE,
    WRITE_ONE,
    Script,
)
from sojourn.stores.redis.values import Value, created_at, pack, shorten, unpack

#: A piece of a command.
Word = str | bytes | int


class Peek(msgspec.Struct, frozen=True, gc=False):
    """Asks for the stored value of a record; answers None if there is none."""

    id: bytes


class Load(Peek, frozen=True, gc=False):
    """Asks for a record; answers None if there is none, an error of reading if it is none of ours.

    All records of a batch are read in one go, not each by its own caller: a processor is quicker
    with what it has just done.
    """


class Write(msgspec.Struct, frozen=True, gc=False):
    """Asks for one step of the script ``WRITE``; answers as that does, but for what is void.

    Attributes:
        id: whose record.
        created_at: of the record that is written; 0 where it is not known.
        words: the verb and what it needs.
        repeatable: doing it twice is the same as once.
    """

    id: bytes
    created_at: int
    words: tuple[Word, ...]
    repeatable: bool = False


class Call(msgspec.Struct, frozen=True):
    """Asks for a command of its own; answers the reply.

    Attributes:
        words: the command; where a script is given, the number of its keys, these, its arguments.
        key: decides where it goes in a cluster.
        script: what is called.
        repeatable: doing it twice is the same as once.
    """

    words: tuple[Word, ...]
    key: str
    script: Script | None = None
    repeatable: bool = False


Request = Peek | Write | Call


class Command(msgspec.Struct, frozen=True):
    """What goes to the server as one command, and whom its reply concerns.

    Attributes:
        words: without the script's name.
        key: decides where it goes in a cluster.
        script: what is called, None for an ordinary command.
        positions: of its requests in the batch.
        joined: the first element of the reply is the mark, the others belong to the requests.
    """

    words: tuple[Word, ...]
    key: str
    script: Script | None
    positions: list[int]
    joined: bool

    def line(self, *, whole: bool = False) -> tuple[Word, ...]:
        """Return the command in full; ``whole`` with the script's text, as after NOSCRIPT."""
        if self.script is None:
            return self.words
        if whole:
            return ("EVAL", self.script.text, *self.words)
        return ("EVALSHA", self.script.sha, *self.words)


def create(record: Record, lists: Sequence[bytes] = ()) -> Write:
    """Return the request that inserts a record, listed as told."""
    value = pack(record, lists)
    return Write(record.id, record.created_at, ("c", value, _px(record)))


def save(record: Record, expected_version: int) -> Write:
    """Return the request that replaces a record, leaves its lists as they are, and tells of it."""
    words = ("s", expected_version.to_bytes(8), shorten(record), _px(record), record.id)
    return Write(record.id, record.created_at, words)


def save_login(record: Record, expected_version: int, lists: Sequence[bytes]) -> Write:
    """Return the request that replaces a record and the lists it is in."""
    words = ("b", expected_version.to_bytes(8), pack(record, lists), _px(record))
    return Write(record.id, record.created_at, words)


def bind_at_once(
    record: Record,
    expected_version: int,
    lists: Sequence[bytes],
    *,
    keys: Keys,
    limit: SessionLimit | None,
    now: int,
) -> Call:
    """Return the request that does a whole login, for a server that has every key."""
    named = [keys.mark(""), keys.record(record.id)]
    for digest in lists:
        named += keys.lists(digest)[:2]
    most, evict = (0, LimitPolicy.REFUSE) if limit is None else (limit.max_sessions, limit.policy)
    needed = max(record.absolute_at - record.seen_at, 0) + MARGIN
    version, value = expected_version.to_bytes(8), pack(record, lists)
    what = (record.id, version, value, _px(record), needed, now, most, _ORDERS[evict])
    return run_script(BIND, named, (*what, *keys.beginnings()))


_ORDERS: Final = {
    LimitPolicy.EVICT_OLDEST: AUTHENTICATED_AT,
    LimitPolicy.EVICT_IDLEST: SEEN_AT,
    LimitPolicy.REFUSE: 0,
}


def touch(record: Record) -> Write:
    """Return the request that moves ``seen_at``."""
    words = ("t", record.seen_at.to_bytes(8))
    return Write(record.id, record.created_at, words, repeatable=True)


def delete(session_id: bytes) -> Write:
    """Return the request that removes a record."""
    return Write(session_id, 0, ("d",))


def publish(kind: MessageKind, session_id: bytes, keys: Keys, *, version: int, reason: str) -> Call:
    """Return the request that tells who listens what happened to a session.

    A message that is heard twice does no harm, so it is sent again where the connection broke.
    """
    channel = channel_of(kind, session_id, keys)
    message = encode(kind, session_id, version=version, reason=reason)
    if kind == "changed" and keys.clustered:
        return Call((1, channel, message), channel, TELL, repeatable=True)
    # In a cluster any node will do: that of the session, so that all of them have their part.
    return Call(("PUBLISH", channel, message), keys.record(session_id), repeatable=True)


def run_script(script: Script, keys: Sequence[str], arguments: Iterable[Word]) -> Call:
    """Return the request that calls a script; the keys must share a slot."""
    return Call((len(keys), *keys, *arguments), keys[0], script)


def _px(record: Record) -> int:
    # From its last activity, not from now: a store has no clock. Never less than is left.
    return max(min(record.idle_timeout, record.absolute_at - record.seen_at), 0) + MARGIN


def compose(requests: Sequence[Request], keys: Keys) -> list[Command]:
    """Return the commands that carry out a batch."""
    peeks: dict[int, Peek] = {}
    writes: dict[int, Write] = {}
    commands: list[Command] = []
    for position, request in enumerate(requests):
        if isinstance(request, Peek):
            peeks[position] = request
        elif isinstance(request, Write):
            writes[position] = request
        else:
            alone = Command(request.words, request.key, request.script, [position], joined=False)
            commands.append(alone)
    for tag, asked in _by_tag(peeks, keys).items():
        mark = keys.mark(tag)
        named = keys.records([request.id for request in asked.values()])
        commands.append(Command(("MGET", mark, *named), mark, None, list(asked), joined=True))
    for tag, told in _by_tag(writes, keys).items():
        mark = keys.mark(tag)
        words: list[Word] = [len(told) + 1, mark]
        words += keys.records([request.id for request in told.values()])
        for request in told.values():
            words += request.words
        commands.append(Command(tuple(words), mark, WRITE, list(told), joined=True))
    return commands


_R = TypeVar("_R", Peek, Write)


def _by_tag(chosen: dict[int, _R], keys: Keys) -> dict[str, dict[int, _R]]:
    """Return requests by where they may go as one command; their positions stay with them."""
    if not keys.clustered:
        return {"": chosen} if chosen else {}
    grouped: dict[str, dict[int, _R]] = {}
    for position, request in chosen.items():
        grouped.setdefault(keys.tag(request.id), {})[position] = request
    return grouped


def apart(command: Command, requests: Sequence[Request]) -> list[Command]:
    """Return what does a joined command's work with one key each, then asks for the mark.

    For a slot that is on its way from one node to another: neither has all the keys. It is not one
    step any more, which harms nobody: what is written beside a new mark is absent all the same.
    """
    pieces = []
    # Before the keys stands the mark, and before that MGET or the number of keys.
    for position, key in zip(command.positions, command.words[2:], strict=False):
        request = requests[position]
        words: tuple[Word, ...]
        script: Script | None
        if isinstance(request, Write):
            words, script = (1, key, *request.words), WRITE_ONE
        else:
            words, script = ("GET", key), None
        pieces.append(Command(words, str(key), script, [position], joined=False))
    return [*pieces, Command(("GET", command.key), command.key, None, [], joined=False)]


def together(command: Command, replies: Sequence[Any]) -> Any:
    """Return what a joined command would have answered."""
    *parts, mark = replies
    if isinstance(mark, Exception):
        return mark
    one = command.script is not None
    return [mark, *(part[0] if one and isinstance(part, list) else part for part in parts)]


def deal(command: Command, reply: Any, requests: Sequence[Request], outcomes: list[Any]) -> None:
    """Give each request of a command its part of the reply."""
    if not command.joined or isinstance(reply, Exception):
        for position in command.positions:
            outcomes[position] = reply
        return
    mark = reply[0]
    for at, position in enumerate(command.positions, 1):
        part = reply[at]
        request = requests[position]
        if mark is not None:
            part = _but_void(part, request, mark)
        if type(request) is Load and isinstance(part, Value):
            try:
                part = unpack(request.id, part)
            except UnreadableRecord as damage:
                part = damage
        outcomes[position] = part


_GONE: Final = 0


def _but_void(part: Any, request: Request, mark: bytes) -> Any:
    """Return what is left of an answer when everything created before a mark is absent."""
    if isinstance(part, Exception):
        return part
    if isinstance(request, Peek):
        return None if part is None or created_at(part) < mark else part
    assert isinstance(request, Write)  # noqa: S101 - calls are not joined
    if request.words[0] in ("s", "b", "t"):
        return part if request.created_at.to_bytes(8) >= mark else _GONE
    if request.words[0] == "d" and part and created_at(part) < mark:
        return Void(part)
    return part


class Void(msgspec.Struct, frozen=True):
    """A deleted record that was absent already; ``head`` tells where it was listed."""

    head: Value
