"""Courier: carries a batch to the server, and knows what to do when it does not arrive.

What lives here: NOSCRIPT, lost connections, the circuit breaker, and the check of the server at the
first connection. What must not: which client is used (``links.py``) and who shares a batch
(``batching.py``). Written once for asyncio and for threads.

The breaker opens at the first failure. While it is open nothing is sent but a probe on a fresh
connection, with a tenth of the deadline, and the batch that waits for it shares its outcome. So a
silent server costs one full deadline once, after that little, and is used again by the first call
after its return: nobody has to wait for an interval to pass.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Final

from sojourn.errors import StoreError, StoreUnavailable
from sojourn.stores.redis.inspection import inspect
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.links import Broken, Link
from sojourn.stores.redis.replies import PASSING, Refusal, as_store_error, is_split
from sojourn.stores.redis.requests import Peek, Request, apart, compose, deal, together

logger: logging.Logger = logging.getLogger("sojourn")

#: The part of its deadline that a caller waits for a server that did not answer the last one.
_PATIENCE: Final = 0.1

#: Seconds that a probe gets however short that is, as long as the deadline lasts: an answer takes a
#: round trip, or two with a new connection.
_LEAST: Final = 0.05


class Courier:
    """Carries batches, one at a time.

    Args:
        link: the way to the server.
        keys: what things are called there.
        name: of the server, for messages.
        timeout: seconds that a call may take.
    """

    __slots__ = ("_checked", "_keys", "_link", "_name", "open", "timeout")

    def __init__(self, link: Link, keys: Keys, *, name: str, timeout: float) -> None:
        self._link = link
        self._keys = keys
        self._name = name
        self._checked = False
        self.timeout: float = timeout
        self.open: bool = True  # nothing is known of the server yet

    async def carry(self, requests: Sequence[Request], deadline: float) -> list[Any]:
        """Return what became of each request, in order; an exception is that request's alone.

        Raises:
            StoreUnavailable: the server cannot be reached, or not in time.
        """
        if self.open:
            await self._probe(deadline)
        outcomes = await self._exchange(requests, deadline)
        failed = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, Exception)]
        if failed:
            lost = [at for at in failed if isinstance(outcomes[at], Broken)]
            if lost:
                await self._again(requests, lost, outcomes, deadline)
            for at in failed:
                outcome = outcomes[at]
                if isinstance(outcome, Refusal):
                    outcomes[at] = as_store_error(outcome)
                    self._note(outcome)
        return outcomes

    def close(self) -> None:
        """Let go of the connection."""
        self._link.close()

    async def _exchange(self, requests: Sequence[Request], deadline: float) -> list[Any]:
        """Return the outcome of each request; of one that broke underway it is ``Broken``."""
        commands = compose(requests, self._keys)
        outcomes: list[Any] = [None] * len(requests)
        try:
            replies = await self._link.exchange(commands, deadline)
            unknown = [at for at, reply in enumerate(replies) if _is_unknown_script(reply)]
            if unknown:  # after SCRIPT FLUSH, a restart, or for the first time: it did nothing
                texts = [commands[at] for at in unknown]
                late = await self._link.exchange(texts, deadline, whole=True)
                for at, reply in zip(unknown, late, strict=True):
                    replies[at] = reply
            for at, command in enumerate(commands):
                if command.joined and is_split(replies[at]):
                    pieces = apart(command, requests)
                    answers = await self._link.exchange(pieces, deadline, whole=True)
                    replies[at] = together(command, answers)
        except Broken as broken:
            self.open = True
            if broken.late:
                raise self._unavailable(broken) from broken
            return [broken] * len(requests)
        except Refusal as refusal:  # of a new connection, where the last one was lost unnoticed
            self.open = True
            raise self._refused(refusal) from refusal
        for command, reply in zip(commands, replies, strict=True):
            deal(command, reply, requests, outcomes)
        return outcomes

    async def _again(
        self,
        requests: Sequence[Request],
        lost: list[int],
        outcomes: list[Any],
        deadline: float,
    ) -> None:
        """Repeat, once and on a new connection, what may be done twice; give up the rest."""
        twice = [at for at in lost if _is_repeatable(requests[at])]
        for at in lost:
            outcomes[at] = self._unavailable(outcomes[at])
        if not twice:
            return
        try:
            await self._probe(deadline)
        except StoreUnavailable:
            return  # each has its error already
        again = await self._exchange([requests[at] for at in twice], deadline)
        for at, outcome in zip(twice, again, strict=True):
            outcomes[at] = self._unavailable(outcome) if isinstance(outcome, Broken) else outcome

    async def _probe(self, deadline: float) -> None:
        now = time.monotonic()
        if self._checked:
            deadline = min(deadline, now + max(_LEAST, _PATIENCE * self.timeout))
        try:
            facts = await self._link.probe(deadline)
        except Broken as broken:
            raise self._unavailable(broken) from broken
        except Refusal as refusal:
            raise self._refused(refusal) from refusal
        self.open = False
        if not self._checked:
            self._checked = True
            for warning in inspect(facts):
                logger.warning("%s: %s", self._name, warning)

    def _note(self, refusal: Refusal) -> None:
        if refusal.code in PASSING and not is_split(refusal):
            self._link.drop()
            self.open = True

    def _refused(self, refusal: Refusal) -> StoreError:
        self._link.drop()
        return as_store_error(refusal, shut_out=True)

    def _unavailable(self, broken: Broken) -> StoreError:
        error = StoreUnavailable(f"{self._name}: {broken}. Try again later")
        error.__cause__ = broken
        return error


def _is_unknown_script(reply: object) -> bool:
    return isinstance(reply, Refusal) and reply.code == "NOSCRIPT"


def _is_repeatable(request: Request) -> bool:
    return isinstance(request, Peek) or request.repeatable
