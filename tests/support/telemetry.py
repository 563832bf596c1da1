"""Exporters in memory: the data that OpenTelemetry and Prometheus export of an installation."""

from contextlib import ExitStack

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from sojourn import telemetry


class Exporters:
    """Exporters and a registry of one test; closes what it has enabled."""

    def __init__(self):
        self.registry = CollectorRegistry()
        self._spans = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self._stack = ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()
        self.tracers.shutdown()
        self.meters.shutdown()

    def prometheus(self, sessions, **options):
        """Enable Prometheus."""
        started = telemetry.prometheus(sessions, registry=self.registry, **options)
        return self._stack.enter_context(started)

    def opentelemetry(self, sessions, **options):
        """Enable OpenTelemetry."""
        started = telemetry.opentelemetry(
            sessions, meter_provider=self.meters, tracer_provider=self.tracers, **options
        )
        return self._stack.enter_context(started)

    def request(self):
        """Return a block in which the span of a request is the current one."""
        return self.tracers.get_tracer("test").start_as_current_span("request")

    def spans(self, *names):
        """Return the spans of sojourn, without those of the requests."""
        return [
            span
            for span in self._spans.get_finished_spans()
            if span.instrumentation_scope.name == "sojourn" and (not names or span.name in names)
        ]

    def all_spans(self):
        """Return every span as JSON."""
        return [span.to_json() for span in self._spans.get_finished_spans()]

    def take_spans(self):
        """Return the names of sojourn's spans since the last call, in order."""
        names = [span.name for span in self.spans()]
        self._spans.clear()
        return names

    def scrape(self):
        """Return the text of a scrape."""
        return generate_latest(self.registry).decode()

    def sample(self, name, **labels):
        """Return a sample of the default realm from Prometheus; None if there is none."""
        return self.registry.get_sample_value(name, {"realm": "default", **labels})

    def calls(self, operation, result="ok", **labels):
        """Return the number of store calls that Prometheus has counted."""
        name = "sojourn_store_call_duration_seconds_count"
        return self.sample(name, operation=operation, result=result, **labels) or 0

    def metrics(self):
        """Return the metrics of OpenTelemetry by name."""
        found = {}
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                found |= {metric.name: metric for metric in scope.metrics}
        return found

    def points(self, name):
        """Return the values or counts of a metric by their attributes, without realm and system."""
        metric = self.metrics().get(name)
        hidden = {"sojourn.realm", "db.system.name"}
        return {
            tuple(sorted((k, v) for k, v in point.attributes.items() if k not in hidden)): (
                point.count if hasattr(point, "count") else point.value
            )
            for point in (metric.data.data_points if metric else ())
        }
