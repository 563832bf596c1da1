"""Enables telemetry in a candidate; the environment selects the kind."""

from __future__ import annotations

import os
from typing import Any

TELEMETRY_VARIABLE = "BENCHMARK_TELEMETRY"

OFF = "off"
PROMETHEUS = "prometheus"
METERS = "meters"
SPANS = "spans"
SAMPLED_SPANS = "sampled spans"

KINDS = (OFF, PROMETHEUS, METERS, SPANS, SAMPLED_SPANS)
"""What the variable may say. With spans there are meters, too."""


def switch_on(sessions: Any) -> None:
    """Enable the telemetry that the environment selects; none by default."""
    kind = os.environ.get(TELEMETRY_VARIABLE, OFF)
    if kind == OFF:
        return
    from sojourn import telemetry

    if kind == PROMETHEUS:
        telemetry.prometheus(sessions)
        return
    telemetry.opentelemetry(
        sessions,
        spans=kind != METERS,
        meter_provider=_meter_provider(),
        tracer_provider=None if kind == METERS else _tracer_provider(kind),
    )


def _meter_provider() -> Any:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    return MeterProvider([InMemoryMetricReader()])


def _tracer_provider(kind: str) -> Any:
    """Return a provider that exports in batches and discards them."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, TraceIdRatioBased

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider(
        sampler=TraceIdRatioBased(0.1) if kind == SAMPLED_SPANS else ALWAYS_ON
    )
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    return provider
