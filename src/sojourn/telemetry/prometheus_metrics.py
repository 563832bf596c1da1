"""The metrics of Prometheus, one set for each registry, and the recorder of one installation."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from sojourn.events import Event
from sojourn.telemetry.buffered_histogram import BufferedHistogram, register_histogram
from sojourn.telemetry.metric_definitions import (
    BATCH_DURATION,
    BATCH_SIZE,
    BROADCAST_GAPS,
    COUNTERS,
    LIVE_SESSIONS,
    OPEN_CONNECTIONS,
    PURGED_RECORDS,
    Metric,
    counts_of,
)
from sojourn.telemetry.recorder import SECONDS

#: The store's calls; OpenTelemetry has a name for them that is common to all databases.
_CALL_DURATION: Final = Metric(
    "sojourn.store.call.duration",
    "s",
    "Duration of store calls by operation and result.",
    ("operation", "result"),
    SECONDS,
)

#: An instant, from which Prometheus derives the lag that OpenTelemetry observes.
_LAST_PURGE: Final = Metric(
    "sojourn.last_purge_timestamp",
    "s",
    "When a purge of the whole store ended last, or telemetry began.",
)


class Metrics:
    """The metrics of one registry; the label ``realm`` distinguishes installations."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(metric: Metric) -> Counter:
            labels = ("realm", *metric.labels)
            return Counter(metric.prometheus_name, metric.description, labels, registry=registry)

        def gauge(metric: Metric, mode: str) -> Gauge:
            return Gauge(
                metric.prometheus_name,
                metric.description,
                ("realm",),
                registry=registry,
                multiprocess_mode=mode,  # type: ignore[arg-type] # a literal of its modes
            )

        def histogram(metric: Metric) -> BufferedHistogram | Histogram:
            labels = ("realm", *metric.labels)
            return register_histogram(
                metric.prometheus_name, metric.description, labels, metric.bounds, registry
            )

        self.call_duration: BufferedHistogram | Histogram = histogram(_CALL_DURATION)
        self.batch_duration: BufferedHistogram | Histogram = histogram(BATCH_DURATION)
        self.batch_size: BufferedHistogram | Histogram = histogram(BATCH_SIZE)
        self.counters: dict[Metric, Counter] = {each: counter(each) for each in COUNTERS}
        self.open_connections: Gauge = gauge(OPEN_CONNECTIONS, "livesum")
        self.live_sessions: Gauge = gauge(LIVE_SESSIONS, "mostrecent")
        self.last_purge: Gauge = gauge(_LAST_PURGE, "max")


_metrics: Final[weakref.WeakKeyDictionary[CollectorRegistry, Metrics]] = weakref.WeakKeyDictionary()
_lock: Final = threading.Lock()


def metrics_of(registry: CollectorRegistry | None) -> Metrics:
    """Return the metrics of a registry, which can have each name once."""
    registry = REGISTRY if registry is None else registry
    with _lock:
        found = _metrics.get(registry)
        if found is None:
            found = _metrics[registry] = Metrics(registry)
        return found


class PrometheusRecorder:
    """Records the measurements of one installation; see ``Recorder``."""

    def __init__(self, metrics: Metrics, realm: str) -> None:
        self._metrics = metrics
        self._realm = realm
        self._batch_size = metrics.batch_size.labels(realm)
        self._batch_duration = metrics.batch_duration.labels(realm, "ok")
        self._failed_batch_duration = metrics.batch_duration.labels(realm, "error")
        # Counters without further labels exist from the start: a rate needs their first 0.
        for metric, counter in metrics.counters.items():
            if not metric.labels:
                counter.labels(realm)

    @property
    def target(self) -> object:
        """The metrics of the registry."""
        return self._metrics

    def call_observer(
        self,
        operation: str,
        result: str,
        error: str | None,  # noqa: ARG002 - for OpenTelemetry; the result says "error"
    ) -> Callable[[float], object]:
        """Return the method of a histogram, whose count is the number of operations."""
        return self._metrics.call_duration.labels(self._realm, operation, result).observe

    def batch(self, size: int, seconds: float, *, failed: bool) -> None:
        """Observe duration and size."""
        duration = self._failed_batch_duration if failed else self._batch_duration
        duration.observe(seconds)
        self._batch_size.observe(size)

    def event(self, event: Event) -> None:
        """Count an event."""
        for metric, number, values in counts_of(event):
            self._metrics.counters[metric].labels(self._realm, *values).inc(number)

    def connections(self, change: int) -> None:
        """Add to the gauge, which installations of the same realm share."""
        self._metrics.open_connections.labels(self._realm).inc(change)

    def broadcast_gap(self) -> None:
        """Count a gap."""
        self._metrics.counters[BROADCAST_GAPS].labels(self._realm).inc()

    def purged(self, removed: int | None) -> None:
        """Set the instant and count the records."""
        self._metrics.last_purge.labels(self._realm).set(time.time())
        if removed:
            self._metrics.counters[PURGED_RECORDS].labels(self._realm).inc(removed)

    def live_sessions(self, number: int) -> None:
        """Set the gauge."""
        self._metrics.live_sessions.labels(self._realm).set(number)

    def close(self) -> None:
        """Do nothing: metrics stay in their registry."""
