"""Metrics and spans: ``prometheus`` and ``opentelemetry``.

No metric, label or span contains a ticket, a user or a label of a session, and none contains a
session ID unless ``include_session_id`` is set.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sojourn.errors import ConfigurationError
from sojourn.telemetry.instrumentation import Telemetry, attach
from sojourn.telemetry.live_sessions import LiveSessionCounter

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
    from prometheus_client import CollectorRegistry

    from sojourn.sessions import Sessions

__all__ = ["Telemetry", "opentelemetry", "prometheus"]


def prometheus(
    sessions: Sessions[Any],
    *,
    registry: CollectorRegistry | None = None,
    count_interval: float | None = None,
) -> Telemetry:
    """Count and measure with the Prometheus client, until the result is closed.

    The metrics are direct counters, gauges and histograms, so they also work with several processes
    (``PROMETHEUS_MULTIPROC_DIR``). Several installations may use one registry: their label
    ``realm`` differs.

    Args:
        sessions: the installation.
        registry: of the metrics; None for the default one of the Prometheus client.
        count_interval: seconds between two counts of the live sessions, in a thread; None for no
            count.

    Raises:
        ConfigurationError: the Prometheus client is not installed; the installation already has
            metrics in this registry; or its store cannot count.
    """
    _require("prometheus_client", "prometheus")
    from sojourn.telemetry.prometheus_metrics import PrometheusRecorder, metrics_of

    metrics = metrics_of(registry)
    counter = LiveSessionCounter.of(sessions, count_interval)
    recorder = PrometheusRecorder(metrics, sessions.config.realm)
    return attach(sessions, recorder=recorder, counter=counter)


def opentelemetry(
    sessions: Sessions[Any],
    *,
    meters: bool = True,
    spans: bool = True,
    include_session_id: bool = False,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
    count_interval: float | None = None,
) -> Telemetry:
    """Record OpenTelemetry metrics, and a span for each load and commit, until closed.

    A span is a child of the current one, such as that of the request. Names and attributes follow
    the semantic conventions for database clients.

    Args:
        sessions: the installation.
        meters: whether to record metrics.
        spans: whether to record spans.
        include_session_id: whether spans have the attribute ``session.id``, the public ID.
        meter_provider: None for the global one.
        tracer_provider: None for the global one.
        count_interval: seconds between two counts of the live sessions, in a thread; None for no
            count.

    Raises:
        ConfigurationError: ``opentelemetry-api`` is not installed; the installation already has
            spans, or metrics of this provider; its store cannot count; or both ``meters`` and
            ``spans`` are False.
    """
    _require("opentelemetry", "opentelemetry")
    if not (meters or spans):
        raise ConfigurationError(
            "telemetry.opentelemetry expects meters=True or spans=True, found neither"
        )
    if count_interval is not None and not meters:
        raise ConfigurationError(
            "count_interval is for metrics: expected meters=True, found meters=False"
        )
    counter = LiveSessionCounter.of(sessions, count_interval)
    recorder = observer = None
    if meters:
        from sojourn.telemetry.opentelemetry_meters import MeterRecorder, instruments_of

        recorder = MeterRecorder(instruments_of(meter_provider), sessions)
    if spans:
        from sojourn.telemetry.opentelemetry_spans import SpanObserver

        observer = SpanObserver(sessions, tracer_provider, include_session_id=include_session_id)
    return attach(sessions, recorder=recorder, observer=observer, counter=counter)


def _require(package: str, extra: str) -> None:
    if find_spec(package) is None:
        raise ConfigurationError(
            f"telemetry.{extra} expects the package {package}, which is not installed: "
            f"pip install 'sojourn[{extra}]'"
        )
