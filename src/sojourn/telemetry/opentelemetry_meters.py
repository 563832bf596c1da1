"""The instruments of OpenTelemetry, one set for each provider, and the recorder of an installation.

Names, units and attributes follow the semantic conventions for database clients where they have
one; others begin with ``sojourn``.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import (
    CallbackOptions,
    Counter,
    Histogram,
    MeterProvider,
    Observation,
    UpDownCounter,
    get_meter_provider,
)

from sojourn.events import (
    Authenticated,
    Conflicted,
    Created,
    Event,
    Expired,
    Rejected,
    Reused,
    Revoked,
    Rotated,
    StoreFailed,
)
from sojourn.telemetry import labels
from sojourn.telemetry.recorder import SECONDS, SIZES
from sojourn.telemetry.semantic_conventions import system_name, version

if TYPE_CHECKING:
    from sojourn.sessions import Sessions

#: The bounds that the conventions advise for ``db.client.operation.duration``, and shorter ones.
_CALL_SECONDS: Final = tuple(sorted({*SECONDS, 10.0}))


class Instruments:
    """The instruments of one provider.

    Attributes:
        recorders: whose last purge and live sessions are observed at each collection.
    """

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("sojourn", version())
        counter = meter.create_counter
        self.recorders: weakref.WeakSet[MeterRecorder] = weakref.WeakSet()
        self.call_duration: Histogram = meter.create_histogram(
            "db.client.operation.duration",
            "s",
            "Duration of database client operations.",
            explicit_bucket_boundaries_advisory=_CALL_SECONDS,
        )
        self.batch_duration: Histogram = meter.create_histogram(
            "sojourn.store.batch.duration",
            "s",
            "Duration of the batches in which store calls travel.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self.batch_size: Histogram = meter.create_histogram(
            "sojourn.store.batch.size",
            "{call}",
            "Store calls in one batch.",
            explicit_bucket_boundaries_advisory=SIZES,
        )
        self.store_failures: Counter = counter(
            "sojourn.store.failures", "{call}", "Requests whose store call failed."
        )
        self.conflicts: Counter = counter(
            "sojourn.conflicts", "{commit}", "Commits that met a newer record and were replayed."
        )
        self.conflict_attempts: Counter = counter(
            "sojourn.conflict.attempts", "{attempt}", "Newer records that commits met."
        )
        self.creations: Counter = counter(
            "sojourn.creations", "{session}", "Sessions that were created."
        )
        self.logins: Counter = counter("sojourn.logins", "{login}", "Logins.")
        self.rotations: Counter = counter(
            "sojourn.rotations", "{rotation}", "Rotations of a ticket."
        )
        self.reuses: Counter = counter(
            "sojourn.reuses", "{ticket}", "Replaced tickets that were used again."
        )
        self.rejections: Counter = counter(
            "sojourn.rejections", "{ticket}", "Tickets that were rejected."
        )
        self.revocations: Counter = counter(
            "sojourn.revocations", "{session}", "Sessions that were destroyed or revoked."
        )
        self.expirations: Counter = counter(
            "sojourn.expirations", "{session}", "Sessions that were found expired by a request."
        )
        self.broadcast_gaps: Counter = counter(
            "sojourn.broadcast.gaps", "{gap}", "Starts and interruptions of the subscription."
        )
        self.purged_records: Counter = counter(
            "sojourn.purged_records", "{record}", "Records that the background purge removed."
        )
        self.open_connections: UpDownCounter = meter.create_up_down_counter(
            "sojourn.open_connections", "{connection}", "Open WebSockets of sessions."
        )
        meter.create_observable_gauge(
            "sojourn.live_sessions", [self._live_sessions], "{session}", "Live sessions."
        )
        meter.create_observable_gauge(
            "sojourn.purge.lag", [self._purge_lags], "s", "Since a purge of the whole store ended."
        )

    def _live_sessions(self, _: CallbackOptions) -> Iterable[Observation]:
        for recorder in list(self.recorders):
            if recorder.number_of_sessions is not None:
                yield Observation(recorder.number_of_sessions, recorder.attributes)

    def _purge_lags(self, _: CallbackOptions) -> Iterable[Observation]:
        for recorder in list(self.recorders):
            if recorder.purged_at is not None:
                yield Observation(time.monotonic() - recorder.purged_at, recorder.attributes)


_instruments: Final[weakref.WeakKeyDictionary[MeterProvider, Instruments]] = (
    weakref.WeakKeyDictionary()
)
_lock: Final = threading.Lock()


def instruments_of(provider: MeterProvider | None) -> Instruments:
    """Return the instruments of a provider; an observable instrument can be created once."""
    provider = get_meter_provider() if provider is None else provider
    with _lock:
        found = _instruments.get(provider)
        if found is None:
            found = _instruments[provider] = Instruments(provider)
        return found


class MeterRecorder:
    """Records the measurements of one installation; see ``Recorder``.

    Attributes:
        attributes: of every measurement.
        number_of_sessions: the last count; None if there was none.
        purged_at: when the last purge ended, by ``time.monotonic``; None if there is no purge.
    """

    def __init__(self, instruments: Instruments, sessions: Sessions[Any]) -> None:
        self._instruments = instruments
        self.attributes: dict[str, str] = {"sojourn.realm": sessions.config.realm}
        self._system = {"db.system.name": system_name(sessions.store), **self.attributes}
        self.number_of_sessions: int | None = None
        self.purged_at: float | None = None
        instruments.recorders.add(self)

    @property
    def target(self) -> object:
        """The instruments of the provider."""
        return self._instruments

    def call_observer(
        self, operation: str, result: str, error: str | None
    ) -> Callable[[float], object]:
        """Return a function that records a duration; its count is the number of operations."""
        attributes = {
            **self._system,
            "db.operation.name": operation,
            "sojourn.result": result,
            **({} if error is None else {"error.type": error}),
        }
        record = self._instruments.call_duration.record
        return lambda seconds: record(seconds, attributes)

    def batch(self, size: int, seconds: float, *, failed: bool) -> None:
        """Record duration and size."""
        result = {"sojourn.result": "error" if failed else "ok"}
        self._instruments.batch_duration.record(seconds, {**self._system, **result})
        self._instruments.batch_size.record(size, self._system)

    def event(self, event: Event) -> None:
        """Count an event."""
        instruments, attributes = self._instruments, self.attributes
        match event:
            case Rejected():
                reason = labels.rejection(event.reason)
                instruments.rejections.add(1, {**attributes, "sojourn.reason": reason})
            case Revoked():
                reason = labels.revocation(event.reason)
                instruments.revocations.add(1, {**attributes, "sojourn.reason": reason})
            case Expired():
                limit = labels.limit(event.limit)
                instruments.expirations.add(1, {**attributes, "sojourn.limit": limit})
            case StoreFailed():
                operation = labels.failed_operation(event.operation)
                instruments.store_failures.add(1, {**self._system, "db.operation.name": operation})
            case Conflicted():
                instruments.conflicts.add(1, attributes)
                instruments.conflict_attempts.add(event.attempts, attributes)
            case Created():
                instruments.creations.add(1, attributes)
            case Authenticated():
                instruments.logins.add(1, attributes)
            case Rotated():
                instruments.rotations.add(1, attributes)
            case Reused():
                instruments.reuses.add(1, attributes)
            case _:
                pass  # reads, writes and touches are store calls

    def connections(self, change: int) -> None:
        """Add to the number of open connections."""
        self._instruments.open_connections.add(change, self.attributes)

    def broadcast_gap(self) -> None:
        """Count a gap."""
        self._instruments.broadcast_gaps.add(1, self.attributes)

    def purged(self, removed: int | None) -> None:
        """Note the instant and count the records."""
        self.purged_at = time.monotonic()
        if removed:
            self._instruments.purged_records.add(removed, self.attributes)

    def live_sessions(self, number: int) -> None:
        """Note the number."""
        self.number_of_sessions = number

    def close(self) -> None:
        """Observe nothing any more."""
        self._instruments.recorders.discard(self)
