"""The metrics that Prometheus and OpenTelemetry have in common, and which events they count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

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


@dataclass(frozen=True, slots=True, eq=False)  # each is stated once, and compared by identity
class Metric:
    """A counter, a gauge or, with bounds, a histogram.

    Attributes:
        name: in OpenTelemetry; that in Prometheus follows from it.
        unit: by the rules of UCUM, as in OpenTelemetry.
        description: a phrase with a full stop.
        labels: in Prometheus, besides ``realm``.
        bounds: the upper bounds of the buckets of a histogram.
    """

    name: str
    unit: str
    description: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def prometheus_name(self) -> str:
        """The name without the ``_total`` of a counter."""
        return self.name.replace(".", "_") + ("_seconds" if self.unit == "s" else "")


BATCH_DURATION: Final = Metric(
    "sojourn.store.batch.duration",
    "s",
    "Duration of the batches in which store calls travel.",
    ("result",),
    SECONDS,
)
BATCH_SIZE: Final = Metric(
    "sojourn.store.batch.size", "{call}", "Store calls in one batch.", bounds=SIZES
)
STORE_FAILURES: Final = Metric(
    "sojourn.store.failures", "{call}", "Requests whose store call failed.", ("operation",)
)
CONFLICTS: Final = Metric(
    "sojourn.conflicts", "{commit}", "Commits that met a newer record and were replayed."
)
CONFLICT_ATTEMPTS: Final = Metric(
    "sojourn.conflict.attempts", "{attempt}", "Newer records that commits met."
)
CREATIONS: Final = Metric("sojourn.creations", "{session}", "Sessions that were created.")
LOGINS: Final = Metric("sojourn.logins", "{login}", "Logins.")
ROTATIONS: Final = Metric("sojourn.rotations", "{rotation}", "Rotations of a ticket.")
REUSES: Final = Metric(
    "sojourn.reuses", "{ticket}", "Replaced tickets that were used again, a sign of theft."
)
REJECTIONS: Final = Metric(
    "sojourn.rejections", "{ticket}", "Tickets that were rejected.", ("reason",)
)
REVOCATIONS: Final = Metric(
    "sojourn.revocations", "{session}", "Sessions that were destroyed or revoked.", ("reason",)
)
EXPIRATIONS: Final = Metric(
    "sojourn.expirations",
    "{session}",
    "Sessions that were found expired by a request.",
    ("limit",),
)
BROADCAST_GAPS: Final = Metric(
    "sojourn.broadcast.gaps",
    "{gap}",
    "Starts and interruptions of the subscription to messages of other processes.",
)
PURGED_RECORDS: Final = Metric(
    "sojourn.purged_records", "{record}", "Expired records that the background purge removed."
)
OPEN_CONNECTIONS: Final = Metric(
    "sojourn.open_connections", "{connection}", "Open WebSockets of sessions."
)
LIVE_SESSIONS: Final = Metric("sojourn.live_sessions", "{session}", "Live sessions of the store.")

COUNTERS: Final = (
    *(STORE_FAILURES, CONFLICTS, CONFLICT_ATTEMPTS, CREATIONS, LOGINS, ROTATIONS, REUSES),
    *(REJECTIONS, REVOCATIONS, EXPIRATIONS, BROADCAST_GAPS, PURGED_RECORDS),
)


def counts_of(event: Event) -> Iterator[tuple[Metric, int, tuple[str, ...]]]:
    """Yield the counters that an event increments, by how much, and the values of their labels."""
    match event:
        case Rejected():
            yield REJECTIONS, 1, (labels.rejection(event.reason),)
        case Revoked():
            yield REVOCATIONS, 1, (labels.revocation(event.reason),)
        case Expired():
            yield EXPIRATIONS, 1, (labels.limit(event.limit),)
        case StoreFailed():
            yield STORE_FAILURES, 1, (labels.failed_operation(event.operation),)
        case Conflicted():
            yield CONFLICTS, 1, ()
            yield CONFLICT_ATTEMPTS, event.attempts, ()
        case Created():
            yield CREATIONS, 1, ()
        case Authenticated():
            yield LOGINS, 1, ()
        case Rotated():
            yield ROTATIONS, 1, ()
        case Reused():
            yield REUSES, 1, ()
        case _:
            pass  # reads, writes and touches are store calls
