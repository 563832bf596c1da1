"""BufferedHistogram: a Prometheus histogram that buffers values and counts many of them at once."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, values
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

#: Observations that wait to be counted; to count them takes less than 0.1 ms.
_MAX_PENDING: Final = 256


class BufferedSeries:
    """The observations with one combination of label values.

    Values are counted when enough of them wait, and by a scrape: the two locks that
    ``Histogram.observe`` takes for each value are 5 % of the instructions of a request.

    Args:
        bounds: the upper bounds of the buckets, ascending, without infinity.
    """

    __slots__ = ("_bounds", "_counts", "_lock", "_pending", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._pending: deque[float] = deque()  # its methods are atomic
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Buffer a value; never waits for another thread."""
        pending = self._pending
        pending.append(value)
        if len(pending) >= _MAX_PENDING and self._lock.acquire(blocking=False):
            try:
                self._count_pending()
            finally:
                self._lock.release()

    def totals(self) -> tuple[list[int], float]:
        """Return the number of values in each bucket, the last one unbounded, and their sum."""
        with self._lock:
            self._count_pending()
            return self._counts.copy(), self._sum

    def _count_pending(self) -> None:
        for _ in range(len(self._pending)):  # not those that threads add meanwhile: this ends
            value = self._pending.popleft()
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value


class BufferedHistogram(Collector):
    """A histogram with labels, which counts in this process alone.

    Args:
        name: of the metric.
        documentation: of the metric.
        labels: the names of its labels.
        bounds: the upper bounds of the buckets, ascending, without infinity.

    Attributes:
        label_names: the names of its labels.
    """

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        self._name = name
        self._documentation = documentation
        self.label_names: tuple[str, ...] = tuple(labels)
        self._bounds = bounds
        self._buckets = (*map(str, bounds), "+Inf")
        self._series: dict[tuple[str, ...], BufferedSeries] = {}
        self._lock = threading.Lock()

    def labels(self, *label_values: str) -> BufferedSeries:
        """Return the series with these values of the labels, in their order."""
        with self._lock:
            found = self._series.get(label_values)
            if found is None:
                found = self._series[label_values] = BufferedSeries(self._bounds)
            return found

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """Return the metric without samples, so that the registry refuses a second one."""
        return [HistogramMetricFamily(self._name, self._documentation, labels=self.label_names)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Return the metric with the samples of every series."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self.label_names)
        with self._lock:
            series = list(self._series.items())
        for label_values, each in series:
            counts, total = each.totals()
            buckets = list(zip(self._buckets, accumulate(counts), strict=True))
            family.add_metric(label_values, buckets, total)
        return [family]


def register_histogram(
    name: str,
    documentation: str,
    labels: Sequence[str],
    bounds: Sequence[float],
    registry: CollectorRegistry,
) -> BufferedHistogram | Histogram:
    """Register and return a histogram.

    Returns:
        The client's own ``Histogram`` if several processes share their metrics: another process
        answers the scrape, so each observation has to be in the shared file at once.
    """
    if values.ValueClass is not values.MutexValue:
        return Histogram(name, documentation, labels, registry=registry, buckets=bounds)
    histogram = BufferedHistogram(name, documentation, labels, bounds)
    registry.register(histogram)
    return histogram
