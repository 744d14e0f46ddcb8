"""A server's metrics, kept in a registry of its own."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from alidade_crds.metric_names import ServeMetric, TgiMetric

# Seconds: from a token of a small model to the longest answer that a client waits for.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TOKENS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 32768, 131072)


class _PlainCounter(Collector):
    """A counter under exactly its name: text-generation-inference's have no `_total`, which Counter would add."""

    def __init__(self, name: TgiMetric, registry: CollectorRegistry, label: str | None = None) -> None:
        self._name, self._meaning, self._label = str(name), name.meaning, label
        self._values: dict[str, int] = {} if label else {"": 0}
        registry.register(self)

    def inc(self, value: str = "") -> None:
        self._values[value] = self._values.get(value, 0) + 1

    def collect(self) -> Iterator[Metric]:
        metric = Metric(self._name, self._meaning, "unknown")
        for value, count in self._values.items():
            labels: Mapping[str, str] = {self._label: value} if self._label else {}
            metric.add_sample(self._name, dict(labels), count)
        yield metric


class Metrics:
    """Every metric that `metric_names` promises."""

    def __init__(self, model: str) -> None:
        self._registry = CollectorRegistry()
        self.count = _PlainCounter(TgiMetric.REQUEST_COUNT, self._registry)
        self.success = _PlainCounter(TgiMetric.REQUEST_SUCCESS, self._registry)
        self.failure = _PlainCounter(TgiMetric.REQUEST_FAILURE, self._registry, "err")
        self.duration = self._histogram(TgiMetric.REQUEST_DURATION, _SECONDS)
        self.queue_duration = self._histogram(TgiMetric.QUEUE_DURATION, _SECONDS)
        self.inference_duration = self._histogram(TgiMetric.INFERENCE_DURATION, _SECONDS)
        self.validation_duration = self._histogram(TgiMetric.VALIDATION_DURATION, _SECONDS)
        self.mean_time_per_token = self._histogram(TgiMetric.MEAN_TIME_PER_TOKEN, _SECONDS)
        self.input_length = self._histogram(TgiMetric.INPUT_LENGTH, _TOKENS)
        self.generated_tokens = self._histogram(TgiMetric.GENERATED_TOKENS, _TOKENS)
        self.max_new_tokens = self._histogram(TgiMetric.MAX_NEW_TOKENS, _TOKENS)
        self.queue_size = Gauge(TgiMetric.QUEUE_SIZE, TgiMetric.QUEUE_SIZE.meaning, registry=self._registry)
        self.batch_size = Gauge(TgiMetric.BATCH_SIZE, TgiMetric.BATCH_SIZE.meaning, registry=self._registry)
        self._model = model
        self.first_token = self._labelled_histogram(ServeMetric.TIME_TO_FIRST_TOKEN)
        self.per_token = self._labelled_histogram(ServeMetric.TIME_PER_OUTPUT_TOKEN)
        self._requests = Counter(
            ServeMetric.REQUESTS, ServeMetric.REQUESTS.meaning, ["model", "outcome"], registry=self._registry
        )
        self.running = self._gauge(ServeMetric.REQUESTS_RUNNING)
        self.waiting = self._gauge(ServeMetric.REQUESTS_WAITING)
        self.ready = self._gauge(ServeMetric.READY)
        self.prompt = self._counter(ServeMetric.PROMPT_TOKENS)
        self.reused = self._counter(ServeMetric.REUSED_TOKENS)
        self.generated = self._counter(ServeMetric.GENERATED_TOKENS)
        self.drafted = self._counter(ServeMetric.DRAFTED_TOKENS)
        self.accepted = self._counter(ServeMetric.ACCEPTED_TOKENS)

    def outcome(self, outcome: str) -> None:
        """Counts a request's end, in both vocabularies; a client that went away is no failure."""
        self._requests.labels(self._model, outcome).inc()
        if outcome == "ok":
            self.success.inc()
        elif outcome != "cancelled":
            self.failure.inc(outcome)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)

    def _histogram(self, name: TgiMetric, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, name.meaning, buckets=buckets, registry=self._registry)

    def _labelled_histogram(self, name: ServeMetric) -> Histogram:
        made = Histogram(name, name.meaning, ["model"], buckets=_SECONDS, registry=self._registry)
        child: Histogram = made.labels(self._model)
        return child

    def _gauge(self, name: ServeMetric) -> Gauge:
        child: Gauge = Gauge(name, name.meaning, ["model"], registry=self._registry).labels(self._model)
        return child

    def _counter(self, name: ServeMetric) -> Counter:
        child: Counter = Counter(name, name.meaning, ["model"], registry=self._registry).labels(self._model)
        return child
