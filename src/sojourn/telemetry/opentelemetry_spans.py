"""SpanObserver: a span for each load and each commit of a session."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import time_ns
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanKind,
    StatusCode,
    TracerProvider,
    get_current_span,
    get_tracer,
    use_span,
)

from sojourn._core.observer import ImmediateLoad, Load, Swap
from sojourn._core.working_copy import Client, WorkingCopy
from sojourn._crypto.tickets import Ticket
from sojourn.record import Record
from sojourn.telemetry.failure_log import FailureLog
from sojourn.telemetry.semantic_conventions import error_type, system_name, version

if TYPE_CHECKING:
    from sojourn.sessions import Sessions

T = TypeVar("T")


class SpanObserver:
    """Records the spans of one installation; an ``EngineObserver``.

    Neither exceptions nor descriptions are recorded, because messages of applications may name
    users; ``error.type`` has the class of the error.

    Args:
        sessions: the installation.
        provider: of the tracer; None for the global one.
        include_session_id: whether spans have the public ID.
    """

    def __init__(
        self,
        sessions: Sessions[Any],
        provider: TracerProvider | None,
        *,
        include_session_id: bool,
    ) -> None:
        self._tracer = get_tracer("sojourn", version(), tracer_provider=provider)
        self._include_session_id = include_session_id
        self._failures = FailureLog()
        system = system_name(sessions.store)
        # The conventions allow INTERNAL for databases in memory.
        self._kind = SpanKind.INTERNAL if system == "memory" else SpanKind.CLIENT
        common = {"db.system.name": system, "sojourn.realm": sessions.config.realm}
        self._load_attributes = {**common, "db.operation.name": "load"}
        self._commit_attributes = {**common, "db.operation.name": "commit"}

    def observed_load(self, load: Load) -> Load:
        """Record a span around a load."""

        async def observed(ticket: Ticket | None, client: Client | None = None) -> WorkingCopy:
            if ticket is None:
                return await load(ticket, client)
            with self._span("load session", self._load_attributes) as end:
                copy = await load(ticket, client)
                found = copy.record is not None
                end.result = "ok" if found else "absent"
                end.session_id = ticket.session_id if found else None
            return copy

        return observed

    def observed_immediate_load(self, load: ImmediateLoad) -> ImmediateLoad:
        """Record a span after a load that needed no coroutine."""

        def observed(ticket: Ticket, client: Client | None) -> WorkingCopy | None:
            started_at = time_ns()
            copy = load(ticket, client)
            if copy is not None:  # otherwise `load` follows
                self._record("load session", self._load_attributes, started_at, ticket.session_id)
            return copy

        return observed

    def observed_swap(self, swap: Swap) -> Swap:
        """Record a span after a commit that needed no coroutine."""

        def observed(record: Record, expected_version: int) -> bool:
            started_at = time_ns()
            swapped = swap(record, expected_version)
            if swapped:  # otherwise a commit with a coroutine follows
                self._record("commit session", self._commit_attributes, started_at, record.id)
            return swapped

        return observed

    async def observed_commit(self, copy: WorkingCopy, writing: Coroutine[Any, Any, T]) -> T:
        """Record a span around a commit."""
        with self._span("commit session", self._commit_attributes) as end:
            result = await writing
            end.result = "absent" if copy.revoked else "ok"
            end.session_id = copy.session_id()
        return result

    @contextmanager
    def _span(self, name: str, attributes: dict[str, str]) -> Iterator[_Outcome]:
        """Make a span the current one in the block, and end it with what the block has recorded."""
        end = _Outcome()
        span = self._start(name, attributes, None)
        with use_span(span, record_exception=False, set_status_on_exception=False):
            try:
                yield end
            except BaseException as error:
                end.error = error
                raise
            finally:
                self._end(span, end)

    def _record(
        self, name: str, attributes: dict[str, str], started_at: int, session_id: bytes
    ) -> None:
        span = self._start(name, attributes, started_at)
        self._end(span, _Outcome("ok", session_id))

    def _start(self, name: str, attributes: dict[str, str], started_at: int | None) -> Span:
        try:
            return self._tracer.start_span(
                name, kind=self._kind, attributes=attributes, start_time=started_at
            )
        except Exception as failure:  # noqa: BLE001 - logged by the method
            self._failures.report(failure)
            return NonRecordingSpan(get_current_span().get_span_context())

    def _end(self, span: Span, end: _Outcome) -> None:
        try:
            if end.result is not None:
                span.set_attribute("sojourn.result", end.result)
            if end.session_id is not None and self._include_session_id:
                span.set_attribute("session.id", end.session_id.hex())
            if end.error is not None:
                span.set_attribute("error.type", error_type(end.error))
                if isinstance(end.error, Exception):  # a cancelled request has not failed
                    span.set_status(StatusCode.ERROR)
            span.end()
        except Exception as failure:  # noqa: BLE001 - logged by the method
            self._failures.report(failure)


@dataclass(slots=True)
class _Outcome:
    """How a load or a commit ended."""

    result: str | None = None
    session_id: bytes | None = None
    error: BaseException | None = None
