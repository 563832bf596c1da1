"""BufferedHistogram: it has the samples of the Prometheus client's own histogram."""

import threading

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest, values

from sojourn.telemetry import buffered_histogram as module
from sojourn.telemetry.buffered_histogram import BufferedHistogram, register_histogram

BOUNDS = (0.000_01, 0.001, 0.25, 5.0)
NAME = "calls_seconds"


def made(registry):
    return register_histogram(NAME, "Calls", ("operation",), BOUNDS, registry)


def lines(registry):
    """Return the lines of a scrape but for those on the creation."""
    return [
        line for line in generate_latest(registry).decode().splitlines() if "created" not in line
    ]


def test_samples_are_those_of_the_histogram_of_the_client():
    """Bounds are inclusive; 0 and what exceeds each bound count as well."""
    registry, expected = CollectorRegistry(), CollectorRegistry()
    histogram = made(registry)
    theirs = Histogram(NAME, "Calls", ("operation",), registry=expected, buckets=BOUNDS)
    for operation in ("load", "save"):
        for seconds in (0.0, 0.000_01, 0.000_011, 0.001, 0.2, 0.25, 5.0, 5.1, 600.0):
            histogram.labels(operation).observe(seconds)
            theirs.labels(operation).observe(seconds)
    assert lines(registry) == lines(expected)
    assert lines(registry) == lines(expected)  # a scrape takes nothing away


def test_what_waits_is_bounded():
    """Without a scrape, too, memory does not grow with the number of calls."""
    series = BufferedHistogram(NAME, "Calls", ("operation",), BOUNDS).labels("load")
    for _ in range(10 * module._MAX_PENDING + 3):
        series.observe(0.5)
        assert len(series._pending) < module._MAX_PENDING
    assert series.totals() == ([0, 0, 0, 2563, 0], 0.5 * 2563)


def test_threads_lose_no_observation():
    """Eight threads observe while another one scrapes."""
    registry = CollectorRegistry()
    histogram = made(registry)
    ended = threading.Event()
    seen = []

    def observe():
        for _ in range(5_000):
            histogram.labels("load").observe(0.5)

    def scrape():
        while not ended.is_set():
            seen.append(registry.get_sample_value(f"{NAME}_count", {"operation": "load"}) or 0)

    threads = [threading.Thread(target=observe) for _ in range(8)]
    scraper = threading.Thread(target=scrape)
    for each in (scraper, *threads):
        each.start()
    for each in threads:
        each.join()
    ended.set()
    scraper.join()
    assert seen == sorted(seen)  # a counter that falls would be taken for a restart
    assert registry.get_sample_value(f"{NAME}_count", {"operation": "load"}) == 40_000
    assert registry.get_sample_value(f"{NAME}_sum", {"operation": "load"}) == 20_000


def test_an_observation_during_a_scrape_does_not_wait():
    series = BufferedHistogram(NAME, "Calls", ("operation",), BOUNDS).labels("load")
    with series._lock:
        for _ in range(module._MAX_PENDING + 1):
            series.observe(0.5)
    assert series.totals()[0] == [0, 0, 0, module._MAX_PENDING + 1, 0]


def test_a_registry_refuses_a_second_histogram_of_the_name():
    registry = CollectorRegistry()
    made(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        made(registry)


def test_several_processes_use_the_histogram_of_the_client(monkeypatch):
    """With ``PROMETHEUS_MULTIPROC_DIR``, the client replaces the class of its values."""

    class SharedValue(values.MutexValue):
        pass

    monkeypatch.setattr(values, "ValueClass", SharedValue)
    assert isinstance(made(CollectorRegistry()), Histogram)
