"""The metrics of Prometheus, one set for each registry, and the recorder of one installation."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

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
from sojourn.telemetry.buffered_histogram import BufferedHistogram, register_histogram
from sojourn.telemetry.recorder import SECONDS, SIZES


class Metrics:
    """The metrics of one registry; the label ``realm`` tells installations apart."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, documentation: str, *more: str) -> Counter:
            return Counter(name, documentation, ("realm", *more), registry=registry)

        def gauge(name: str, documentation: str, mode: str) -> Gauge:
            return Gauge(
                name,
                documentation,
                ("realm",),
                registry=registry,
                multiprocess_mode=mode,  # type: ignore[arg-type] # a literal of its modes
            )

        def histogram(
            name: str, documentation: str, bounds: Sequence[float], *more: str
        ) -> BufferedHistogram | Histogram:
            return register_histogram(name, documentation, ("realm", *more), bounds, registry)

        self.call_duration: BufferedHistogram | Histogram = histogram(
            "sojourn_store_call_duration_seconds",
            "Duration of store calls by operation and result",
            SECONDS,
            *("operation", "result"),
        )
        self.batch_duration: BufferedHistogram | Histogram = histogram(
            "sojourn_store_batch_duration_seconds",
            "Duration of the batches in which store calls travel",
            SECONDS,
            "result",
        )
        self.batch_size: BufferedHistogram | Histogram = histogram(
            "sojourn_store_batch_size", "Store calls in one batch", SIZES
        )
        self.store_failures: Counter = counter(
            "sojourn_store_failures_total", "Requests whose store call failed", "operation"
        )
        self.conflicts: Counter = counter(
            "sojourn_conflicts_total", "Commits that met a newer record and were replayed"
        )
        self.conflict_attempts: Counter = counter(
            "sojourn_conflict_attempts_total", "Newer records that commits met"
        )
        self.creations: Counter = counter("sojourn_creations_total", "Sessions that were created")
        self.logins: Counter = counter("sojourn_logins_total", "Logins")
        self.rotations: Counter = counter("sojourn_rotations_total", "Rotations of a ticket")
        self.reuses: Counter = counter(
            "sojourn_reuses_total", "Replaced tickets that were used again, a sign of theft"
        )
        self.rejections: Counter = counter(
            "sojourn_rejections_total", "Tickets that were rejected", "reason"
        )
        self.revocations: Counter = counter(
            "sojourn_revocations_total", "Sessions that were destroyed or revoked", "reason"
        )
        self.expirations: Counter = counter(
            "sojourn_expirations_total", "Sessions that were found expired by a request", "limit"
        )
        self.open_connections: Gauge = gauge(
            "sojourn_open_connections", "Open WebSockets of sessions", "livesum"
        )
        self.live_sessions: Gauge = gauge(
            "sojourn_live_sessions", "Live sessions of the store", "mostrecent"
        )
        self.broadcast_gaps: Counter = counter(
            "sojourn_broadcast_gaps_total",
            "Starts and interruptions of the subscription to messages of other processes",
        )
        self.purged_records: Counter = counter(
            "sojourn_purged_records_total", "Expired records that the background purge removed"
        )
        self.last_purge: Gauge = gauge(
            "sojourn_last_purge_timestamp_seconds",
            "When a purge of the whole store ended last, or telemetry began",
            "max",
        )


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
        for each in (
            *(metrics.conflicts, metrics.conflict_attempts, metrics.creations, metrics.logins),
            *(metrics.rotations, metrics.reuses, metrics.broadcast_gaps, metrics.purged_records),
        ):
            each.labels(realm)

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
        metrics, realm = self._metrics, self._realm
        match event:
            case Rejected():
                metrics.rejections.labels(realm, labels.rejection(event.reason)).inc()
            case Revoked():
                metrics.revocations.labels(realm, labels.revocation(event.reason)).inc()
            case Expired():
                metrics.expirations.labels(realm, labels.limit(event.limit)).inc()
            case StoreFailed():
                operation = labels.failed_operation(event.operation)
                metrics.store_failures.labels(realm, operation).inc()
            case Conflicted():
                metrics.conflicts.labels(realm).inc()
                metrics.conflict_attempts.labels(realm).inc(event.attempts)
            case Created():
                metrics.creations.labels(realm).inc()
            case Authenticated():
                metrics.logins.labels(realm).inc()
            case Rotated():
                metrics.rotations.labels(realm).inc()
            case Reused():
                metrics.reuses.labels(realm).inc()
            case _:
                pass  # reads, writes and touches are store calls

    def connections(self, change: int) -> None:
        """Add to the gauge, which installations of the same realm share."""
        self._metrics.open_connections.labels(self._realm).inc(change)

    def broadcast_gap(self) -> None:
        """Count a gap."""
        self._metrics.broadcast_gaps.labels(self._realm).inc()

    def purged(self, removed: int | None) -> None:
        """Set the instant and count the records."""
        self._metrics.last_purge.labels(self._realm).set(time.time())
        if removed:
            self._metrics.purged_records.labels(self._realm).inc(removed)

    def live_sessions(self, number: int) -> None:
        """Set the gauge."""
        self._metrics.live_sessions.labels(self._realm).set(number)

    def close(self) -> None:
        """Do nothing: metrics stay in their registry."""
