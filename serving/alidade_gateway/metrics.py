"""A gateway's metrics, kept in a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from alidade_crds.metric_names import GatewayMetric

# Seconds: from an answer out of a cache to the longest one that a client waits for.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Every metric that `metric_names` promises."""

    def __init__(self, model: str) -> None:
        self._registry = CollectorRegistry()
        self._model = model
        self._requests = self._counter(GatewayMetric.REQUESTS, "backend", "code")
        self._retries = self._counter(GatewayMetric.RETRIES, "backend", "reason")
        self._durations = self._histogram(GatewayMetric.DURATION, "backend")
        self._first_bytes = self._histogram(GatewayMetric.TIME_TO_FIRST_BYTE, "backend")
        self.held: Histogram = self._histogram(GatewayMetric.HELD).labels(model)
        self.waiting = self._gauge(GatewayMetric.WAITING)
        self.running = self._gauge(GatewayMetric.RUNNING)
        self.votes: Counter = self._counter(GatewayMetric.VOTES).labels(model)

    def answered(self, backend: str, code: int) -> None:
        """Counts a request's end."""
        self._requests.labels(self._model, backend, str(code)).inc()

    def tried_in_vain(self, backend: str, reason: str) -> None:
        """Counts a try that gave no answer."""
        self._retries.labels(self._model, backend, reason).inc()

    def first_byte(self, backend: str, seconds: float) -> None:
        """Records when an answer began, in seconds after the request came."""
        self._first_bytes.labels(self._model, backend).observe(seconds)

    def whole(self, backend: str, seconds: float) -> None:
        """Records when an answer was complete, in seconds after the request came."""
        self._durations.labels(self._model, backend).observe(seconds)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: GatewayMetric, *labels: str) -> Counter:
        return Counter(name, name.meaning, ["model", *labels], registry=self._registry)

    def _histogram(self, name: GatewayMetric, *labels: str) -> Histogram:
        return Histogram(name, name.meaning, ["model", *labels], buckets=_SECONDS, registry=self._registry)

    def _gauge(self, name: GatewayMetric) -> Gauge:
        child: Gauge = Gauge(name, name.meaning, ["model"], registry=self._registry).labels(self._model)
        return child
