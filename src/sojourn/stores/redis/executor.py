"""Executor: executes a batch, loads unknown scripts, retries idempotent requests once."""

from __future__ import annotations

import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from sojourn.errors import StoreError, StoreUnavailable
from sojourn.stores.reconnection import ReconnectionLimit
from sojourn.stores.redis.commands import (
    Command,
    Request,
    build_commands,
    distribute_reply,
    is_idempotent,
    merge_replies,
    split_command,
)
from sojourn.stores.redis.connection import Transport
from sojourn.stores.redis.errors import (
    TRANSIENT_CODES,
    ConnectionLost,
    ServerError,
    as_store_error,
    has_code,
)
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.server_checks import check_server

logger: logging.Logger = logging.getLogger("sojourn")

#: The part of the timeout for connecting to a server that failed.
_PROBE_TIMEOUT: Final = 0.1

#: The least number of seconds for that: a new connection takes two round trips.
_MIN_PROBE_TIMEOUT: Final = 0.05


class Executor:
    """Executes batches, one at a time; see ``BatchExecutor``.

    Its circuit breaker opens at the first failure. While it is open, a batch first connects with a
    tenth of its deadline and fails if that fails; see ``ReconnectionLimit``. So an unreachable
    server costs one full deadline once and a tenth afterwards, and the first call after its return
    succeeds.

    Args:
        transport: to the server; closed with the executor.
        keys: the names of keys.
        name: of the server, for messages.
        timeout: seconds that a call may take.
    """

    __slots__ = ("_is_open", "_keys", "_limit", "_name", "_transport", "timeout")

    def __init__(self, transport: Transport, keys: Keys, *, name: str, timeout: float) -> None:
        self._transport = transport
        self._keys = keys
        self._name = name
        self._limit = ReconnectionLimit(_PROBE_TIMEOUT, _MIN_PROBE_TIMEOUT)
        self._is_open = True  # the circuit breaker: the first batch connects
        self.timeout: float = timeout

    async def execute(self, requests: Sequence[Request], deadline: float) -> list[Any]:
        """Return the outcome of each request, in order; see ``Execute``.

        Raises:
            StoreUnavailable: the server is unreachable or did not answer before the deadline.
        """
        if self._is_open:
            await self._probe(deadline)
        outcomes = await self._attempt(requests, deadline)
        failed = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, Exception)]
        if failed:
            lost = [at for at in failed if isinstance(outcomes[at], ConnectionLost)]
            if lost:
                await self._retry(requests, lost, outcomes, deadline)
            for at in failed:
                outcome = outcomes[at]
                if isinstance(outcome, ServerError):
                    outcomes[at] = as_store_error(outcome)
                    await self._open_if_transient(outcome)
        return outcomes

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()

    async def _attempt(self, requests: Sequence[Request], deadline: float) -> list[Any]:
        """Return the outcomes; ``ConnectionLost`` for requests that may have been executed."""
        commands = build_commands(requests, self._keys)
        outcomes: list[Any] = [None] * len(requests)
        try:
            replies = await self._send(commands, deadline)
            if ServerError in map(type, replies):
                await self._send_again(requests, commands, replies, deadline)
        except ConnectionLost as error:
            self._is_open = True
            if error.timed_out:
                raise self._unavailable(error) from error
            return [error] * len(requests)
        except ServerError as error:  # the server rejected a reconnection
            self._is_open = True
            raise await self._rejected(error) from error
        for command, reply in zip(commands, replies, strict=True):
            distribute_reply(command, reply, requests, outcomes)
        return outcomes

    async def _send_again(
        self,
        requests: Sequence[Request],
        commands: Sequence[Command],
        replies: list[Any],
        deadline: float,
    ) -> None:
        """Send commands whose script is unknown or whose slot is being migrated; set their replies.

        They did nothing. A script is unknown at its first use, after a restart and SCRIPT FLUSH.
        """
        unknown = [at for at, reply in enumerate(replies) if has_code(reply, "NOSCRIPT")]
        if unknown:
            again = [commands[at] for at in unknown]
            late = await self._send(again, deadline, with_text=True)
            for at, reply in zip(unknown, late, strict=True):
                replies[at] = reply
        for at, command in enumerate(commands):
            if command.is_joined and has_code(replies[at], "TRYAGAIN"):
                pieces = split_command(command, requests)
                parts = await self._send(pieces, deadline, with_text=True)
                replies[at] = merge_replies(command, parts)

    def _send(
        self, commands: Sequence[Command], deadline: float, *, with_text: bool = False
    ) -> Coroutine[Any, Any, list[Any]]:
        if len(commands) == 1:  # a list for one element costs as much as the element
            (command,) = commands
            line = command.line(with_text=with_text)
            return self._transport.exchange((line,), (command.key,), deadline)
        lines = [command.line(with_text=with_text) for command in commands]
        keys = [command.key for command in commands]
        return self._transport.exchange(lines, keys, deadline)

    async def _retry(
        self,
        requests: Sequence[Request],
        lost: list[int],
        outcomes: list[Any],
        deadline: float,
    ) -> None:
        """Repeat idempotent requests once, on a new connection; fail the others."""
        repeated = [at for at in lost if is_idempotent(requests[at])]
        for at in lost:
            outcomes[at] = self._unavailable(outcomes[at])
        if not repeated:
            return
        try:
            await self._probe(deadline)
        except StoreUnavailable:
            return
        again = await self._attempt([requests[at] for at in repeated], deadline)
        for at, outcome in zip(repeated, again, strict=True):
            is_lost = isinstance(outcome, ConnectionLost)
            outcomes[at] = self._unavailable(outcome) if is_lost else outcome

    async def _probe(self, deadline: float) -> None:
        """Connect; close the circuit breaker, or raise."""
        started = time.monotonic()
        try:
            info = await self._transport.connect(self._limit.deadline(deadline, self.timeout))
        except ConnectionLost as error:
            raise self._unavailable(error) from error
        except ServerError as error:
            raise await self._rejected(error) from error
        self._is_open = False
        is_first = not self._limit.was_connected
        self._limit.connected(time.monotonic() - started)
        if is_first:
            for warning in check_server(info):
                logger.warning("%s: %s", self._name, warning)

    async def _open_if_transient(self, error: ServerError) -> None:
        """Open the circuit breaker if the server cannot work for now."""
        if error.code in TRANSIENT_CODES and error.code != "TRYAGAIN":
            await self._transport.reset()
            self._is_open = True

    async def _rejected(self, error: ServerError) -> StoreError:
        await self._transport.reset()
        return as_store_error(error, access_denied=True)

    def _unavailable(self, cause: ConnectionLost) -> StoreError:
        error = StoreUnavailable(f"{self._name}: {cause}. Try again later")
        error.__cause__ = cause
        return error
