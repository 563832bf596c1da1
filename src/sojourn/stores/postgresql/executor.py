"""Executor: executes a batch, creates the tables, repeats what may be repeated; circuit breaker."""

from __future__ import annotations

import copy
import logging
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

from sojourn._core.concurrency import sleep
from sojourn.errors import StoreError, StoreUnavailable
from sojourn.stores.postgresql.connection import Transport
from sojourn.stores.postgresql.errors import (
    PREPARED_STATEMENT_ERRORS,
    REPEATABLE,
    UNDEFINED_TABLE,
    ConnectionLost,
    ServerError,
    as_store_error,
)
from sojourn.stores.postgresql.pipeline import Preparation
from sojourn.stores.postgresql.schema_migration import Migrator
from sojourn.stores.postgresql.transactions import (
    NOT_SAVED,
    Load,
    Planner,
    Request,
    is_idempotent,
    newer,
)
from sojourn.stores.reconnection import ReconnectionLimit

logger: logging.Logger = logging.getLogger("sojourn")

_random: Final = secrets.SystemRandom()

#: The part of the timeout for connecting to a server that failed.
_PROBE_TIMEOUT: Final = 0.25

#: The least number of seconds for that: a new connection takes several round trips and starts a
#: process of the server.
_MIN_PROBE_TIMEOUT: Final = 0.1

#: How often a transaction that the server rolled back is repeated.
_MAX_REPETITIONS: Final = 10

#: Seconds before the second repetition on average; doubled up to ten times that.
_REPETITION_DELAY: Final = 0.005
_MAX_REPETITION_DELAY: Final = 0.05


#: Seconds before each retry of idempotent requests whose connection was lost. More than one,
#: because a pooler has several connections to a server that was restarted.
_RETRY_DELAYS: Final = (0.0, 0.05, 0.2)


class Executor:
    """Executes batches, one at a time; see ``BatchExecutor``.

    Its circuit breaker opens at the first failure. While it is open, a batch first connects with a
    quarter of its deadline and fails if that fails; see ``ReconnectionLimit``. So an unreachable
    server costs one full deadline once and a quarter afterwards, and the first call after its
    return succeeds.

    Args:
        transport: to the server; closed with the executor.
        planner: makes transactions of requests.
        migrator: creates the tables.
        preparation: of statements.
        name: of the store, for messages.
        timeout: seconds that a call may take.
    """

    __slots__ = (
        "_is_open",
        "_limit",
        "_migrator",
        "_name",
        "_planner",
        "_preparation",
        "_transport",
        "timeout",
    )

    def __init__(
        self,
        transport: Transport,
        planner: Planner,
        migrator: Migrator,
        preparation: Preparation,
        *,
        name: str,
        timeout: float,
    ) -> None:
        self._transport = transport
        self._planner = planner
        self._migrator = migrator
        self._preparation = preparation
        self._name = name
        self._limit = ReconnectionLimit(_PROBE_TIMEOUT, _MIN_PROBE_TIMEOUT)
        self._is_open = True  # the circuit breaker: the first batch connects
        self.timeout: float = timeout

    async def execute(self, requests: Sequence[Request], deadline: float) -> list[Any]:
        """Return the outcome of each request, in order; see ``Execute``.

        Raises:
            StoreUnavailable: the server is unreachable or did not answer before the deadline.
            StoreError: the tables are missing and cannot be created.
        """
        if self._is_open:
            await self._probe(deadline)
        outcomes = await self._attempt(requests, deadline)
        if any(isinstance(outcome, ConnectionLost | ServerError) for outcome in outcomes):
            await self._repeat(requests, outcomes, deadline)
            await self._retry(requests, outcomes, deadline)
            return [self._raised(outcome) for outcome in outcomes]
        return outcomes

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()

    async def _attempt(self, requests: Sequence[Request], deadline: float) -> list[Any]:
        """Return the outcomes; ``ConnectionLost`` for requests that may have been executed."""
        steps = self._planner.plan(requests)
        outcomes: list[Any] = [None] * len(requests)
        try:
            results = await self._transport.exchange([step.transaction for step in steps], deadline)
        except ConnectionLost as error:
            self._is_open = True
            if error.timed_out or not error.was_sent:
                raise self._unavailable(error) from error
            return [error] * len(requests)
        for step, result in zip(steps, results, strict=True):
            if isinstance(result, ServerError):
                for position in step.positions:
                    outcomes[position] = result
            else:
                step.distribute(result, outcomes)
        if any(outcome is NOT_SAVED for outcome in outcomes):
            await self._load_newer(requests, outcomes, deadline)
        return outcomes

    async def _load_newer(
        self, requests: Sequence[Any], outcomes: list[Any], deadline: float
    ) -> None:
        """Set the outcome of saves that found another version or none."""
        failed = [at for at, outcome in enumerate(outcomes) if outcome is NOT_SAVED]
        loads = [Load(requests[at].record.id) for at in failed]
        try:
            found = await self._attempt(loads, deadline)
        except StoreError as error:  # the other outcomes of the batch are known
            found = [copy.copy(error) for _ in failed]
        for at, stored in zip(failed, found, strict=True):
            outcomes[at] = newer(stored)

    async def _repeat(
        self, requests: Sequence[Request], outcomes: list[Any], deadline: float
    ) -> None:
        """Repeat transactions that the server rolled back and that may succeed now."""
        for repetition in range(_MAX_REPETITIONS):
            failed = {
                at: outcome
                for at, outcome in enumerate(outcomes)
                if isinstance(outcome, ServerError) and outcome.sqlstate in _REPEATABLE_CODES
            }
            if not failed or time.monotonic() >= deadline:
                return
            codes = {outcome.sqlstate for outcome in failed.values()}
            if not PREPARED_STATEMENT_ERRORS.isdisjoint(codes):
                self._disable_prepared_statements()
            if repetition:  # random, so that two processes do not fail together again
                delay = min(_REPETITION_DELAY * 2**repetition, _MAX_REPETITION_DELAY)
                await sleep(delay * _random.random())
            try:
                if UNDEFINED_TABLE in codes:  # the tables were dropped meanwhile
                    self._migrator.check_again()
                    await self._prepare_tables(deadline)
                again = await self._attempt([requests[at] for at in failed], deadline)
            except StoreError as error:  # the other outcomes of the batch are known
                again = [copy.copy(error) for _ in failed]
            for at, outcome in zip(failed, again, strict=True):
                outcomes[at] = outcome

    async def _retry(
        self, requests: Sequence[Request], outcomes: list[Any], deadline: float
    ) -> None:
        """Repeat idempotent requests whose connection was lost, on a new connection."""
        for delay in _RETRY_DELAYS:
            repeated = [
                at
                for at, outcome in enumerate(outcomes)
                if isinstance(outcome, ConnectionLost) and is_idempotent(requests[at])
            ]
            if not repeated or time.monotonic() + delay >= deadline:
                return
            await sleep(delay)
            try:
                await self._probe(deadline)
                again = await self._attempt([requests[at] for at in repeated], deadline)
            except StoreError:  # the other outcomes of the batch are known
                return
            for at, outcome in zip(repeated, again, strict=True):
                outcomes[at] = outcome

    def _disable_prepared_statements(self) -> None:
        if self._preparation.threshold is not None:
            logger.warning(
                "%s: the connection leads to a pooler without support for prepared statements, so "
                "none are used from now on; add prepare_threshold=none to the URL",
                self._name,
            )
        self._preparation.threshold = None

    async def _probe(self, deadline: float) -> None:
        """Connect; close the circuit breaker, or raise."""
        started = time.monotonic()
        try:
            await self._transport.connect(self._limit.deadline(deadline, self.timeout))
        except ConnectionLost as error:
            raise self._unavailable(error) from error
        self._limit.connected(time.monotonic() - started)
        await self._prepare_tables(deadline)
        self._is_open = False

    async def _prepare_tables(self, deadline: float) -> None:
        try:
            await self._migrator.prepare(self._transport, deadline)
        except ConnectionLost as error:
            raise self._unavailable(error) from error
        except ServerError as error:
            self._transport.reset()
            raise as_store_error(error, self._name) from error

    def _raised(self, outcome: Any) -> Any:
        """Return the exception that the caller gets, or its result."""
        if isinstance(outcome, ConnectionLost):
            return self._unavailable(outcome)
        if isinstance(outcome, ServerError):
            if outcome.is_transient:
                self._transport.reset()
                self._is_open = True
            return as_store_error(outcome, self._name)
        return outcome

    def _unavailable(self, cause: ConnectionLost) -> StoreUnavailable:
        error = StoreUnavailable(f"{self._name}: {cause}. Try again later")
        error.__cause__ = cause
        return error


_REPEATABLE_CODES: Final = frozenset({*REPEATABLE, *PREPARED_STATEMENT_ERRORS, UNDEFINED_TABLE})
