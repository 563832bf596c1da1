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

from sojourn.events import Event
from sojourn.telemetry.metric_definitions import (
    BATCH_DURATION,
    BATCH_SIZE,
    BROADCAST_GAPS,
    COUNTERS,
    LIVE_SESSIONS,
    OPEN_CONNECTIONS,
    PURGED_RECORDS,
    STORE_FAILURES,
    Metric,
    counts_of,
)
from sojourn.telemetry.recorder import SECONDS
from sojourn.telemetry.semantic_conventions import system_name, version

if TYPE_CHECKING:
    from sojourn.sessions import Sessions

#: With the bounds that the conventions advise for it, and shorter ones.
_CALL_DURATION: Final = Metric(
    "db.client.operation.duration",
    "s",
    "Duration of database client operations.",
    bounds=tuple(sorted({*SECONDS, 10.0})),
)

#: The attributes that stand for the labels of Prometheus.
_ATTRIBUTES: Final = {
    "operation": "db.operation.name",
    "reason": "sojourn.reason",
    "limit": "sojourn.limit",
}


class Instruments:
    """The instruments of one provider.

    Attributes:
        recorders: whose last purge and live sessions are observed at each collection.
    """

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("sojourn", version())

        def counter(metric: Metric) -> Counter:
            return meter.create_counter(metric.name, metric.unit, metric.description)

        def histogram(metric: Metric) -> Histogram:
            return meter.create_histogram(
                metric.name,
                metric.unit,
                metric.description,
                explicit_bucket_boundaries_advisory=metric.bounds,
            )

        self.recorders: weakref.WeakSet[MeterRecorder] = weakref.WeakSet()
        self.call_duration: Histogram = histogram(_CALL_DURATION)
        self.batch_duration: Histogram = histogram(BATCH_DURATION)
        self.batch_size: Histogram = histogram(BATCH_SIZE)
        self.counters: dict[Metric, Counter] = {each: counter(each) for each in COUNTERS}
        connections, live = OPEN_CONNECTIONS, LIVE_SESSIONS
        self.open_connections: UpDownCounter = meter.create_up_down_counter(
            connections.name, connections.unit, connections.description
        )
        meter.create_observable_gauge(live.name, [self._live_sessions], live.unit, live.description)
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
        for metric, number, values in counts_of(event):
            attributes = {
                _ATTRIBUTES[label]: value
                for label, value in zip(metric.labels, values, strict=True)
            }
            shared = self._system if metric is STORE_FAILURES else self.attributes
            self._instruments.counters[metric].add(number, {**shared, **attributes})

    def connections(self, change: int) -> None:
        """Add to the number of open connections."""
        self._instruments.open_connections.add(change, self.attributes)

    def broadcast_gap(self) -> None:
        """Count a gap."""
        self._instruments.counters[BROADCAST_GAPS].add(1, self.attributes)

    def purged(self, removed: int | None) -> None:
        """Record the instant and count the records."""
        self.purged_at = time.monotonic()
        if removed:
            self._instruments.counters[PURGED_RECORDS].add(removed, self.attributes)

    def live_sessions(self, number: int) -> None:
        """Record the number."""
        self.number_of_sessions = number

    def close(self) -> None:
        """Observe nothing any more."""
        self._instruments.recorders.discard(self)
