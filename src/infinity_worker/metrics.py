"""What Prometheus is told: counters and histograms, in a registry of the worker's own.

Every label has few values: routes and models are those that are served, whatever callers send.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from infinity_worker.logs import JobRecord

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"
"""The label of a route or a model that is not served."""

_PREFIX = "infinity_worker_"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


class Gauges(NamedTuple):
    """What is looked up when Prometheus asks.

    Attributes:
        is_ready: whether the worker is in the pool.
        restarts: how often the engine was started again.
        waiting_items: items of requests that are not done.
        requests: requests that are not done.
        engine_bytes: the engine's resident memory; None where it is not this worker's own.
    """

    is_ready: bool = False
    restarts: int = 0
    waiting_items: int = 0
    requests: int = 0
    engine_bytes: int | None = None


class Metrics:
    """Counts requests and what they cost."""

    def __init__(self) -> None:
        # Series of times at which the others began: twice as much to store, for nothing.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it bare
        self._registry = CollectorRegistry()
        self._gauges = _GaugeCollector()
        self._registry.register(self._gauges)
        ProcessCollector(registry=self._registry)
        self._requests = self._counter("requests", "Requests answered.", ["route", "model", "code"])
        self._items = self._counter("items", "Items embedded.", ["model", "modality"])
        self._tokens = self._counter("tokens", "Tokens of the texts.", ["model"])
        self._cached = self._counter(
            "cache_hits", "Texts whose embeddings were remembered.", ["model"]
        )
        self._seconds = Histogram(
            f"{_PREFIX}request_seconds",
            "From a request's headers to its answer.",
            ["route"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        self._batch = self._histogram("batch_items", "Items of an engine request.", _ITEMS)
        self._wait = self._histogram(
            "queue_wait_seconds", "What a request waits until its first items are sent.", _SECONDS
        )
        self._engine = self._histogram(
            "engine_seconds", "How long an engine request takes.", _SECONDS
        )
        # Finding a labelled child costs more than counting with it.
        self._found: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, record: JobRecord, code: int, seconds: float) -> None:
        """Count a request that was answered."""
        model = record.model or OTHER
        key = (record.route, model, code)
        children = self._found.get(key)
        if children is None:
            children = self._found[key] = (
                self._requests.labels(record.route, model, str(code)),
                self._seconds.labels(record.route),
            )
        requests, latency = children
        requests.inc()
        latency.observe(seconds)
        counts = {"text": record.texts, "image": record.images, "audio": record.recordings}
        for modality, items in counts.items():
            if items:
                self._items.labels(model, modality).inc(items)
        if record.tokens:
            self._tokens.labels(model).inc(record.tokens)
        if record.cached:
            self._cached.labels(model).inc(record.cached)

    def engine_request(self, items: int, seconds: float, waits: Sequence[float]) -> None:
        """Count an engine request that was answered (see `lanes.Meter`)."""
        self._batch.observe(items)
        self._engine.observe(seconds)
        for wait in waits:
            self._wait.observe(wait)

    def exposition(self, gauges: Gauges) -> bytes:
        """Everything in Prometheus's text format."""
        self._gauges.now = gauges
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, labels: Sequence[str]) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(_PREFIX + name, text, registry=self._registry, buckets=buckets)


class _GaugeCollector(Collector):
    def __init__(self) -> None:
        self.now = Gauges()

    def collect(self) -> Iterator[Metric]:
        """What there is to say now."""
        now = self.now
        yield CounterMetricFamily(
            f"{_PREFIX}engine_restarts", "Times the engine was started again.", now.restarts
        )
        for name, text, value in (
            ("ready", "Whether the worker answers and belongs into the pool.", now.is_ready),
            ("waiting_items", "Items of requests that are not done.", now.waiting_items),
            ("requests_in_progress", "Requests that are not done.", now.requests),
        ):
            yield GaugeMetricFamily(_PREFIX + name, text, value)
        if now.engine_bytes is not None:
            yield GaugeMetricFamily(
                f"{_PREFIX}engine_resident_bytes", "The engine's memory.", now.engine_bytes
            )
