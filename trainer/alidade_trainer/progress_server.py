"""Progress over HTTP: /progress for the operator, /metrics for Prometheus, /healthz for probes."""

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from alidade_crds.metric_names import TrainerMetric
from alidade_trainer.progress import Progress, StepMetrics, resident_bytes

# From tiny models on a CPU (milliseconds) to large ones that accumulate many micro-batches (minutes).
STEP_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class ProgressCollector(Collector):
    """Prometheus metrics read from Progress when they are asked for."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def collect(self) -> Iterator[Metric]:
        """The metrics that have a value by now."""
        for metric, value in self._gauges().items():
            if value is not None:
                yield GaugeMetricFamily(metric, metric.meaning, value=value)
        tokens = CounterMetricFamily(TrainerMetric.TOKENS.removesuffix("_total"), TrainerMetric.TOKENS.meaning)
        tokens.add_metric([], self._progress.tokens_total)
        yield tokens
        memory = GaugeMetricFamily(TrainerMetric.MEMORY, TrainerMetric.MEMORY.meaning, labels=["kind"])
        memory.add_metric(["resident"], resident_bytes())
        gpu = peak_gpu_bytes()
        if gpu is not None:
            memory.add_metric(["gpu_peak"], gpu)
        yield memory
        yield from self._alignment()

    def _alignment(self) -> Iterator[Metric]:
        """Of the present alignment step; nothing for other stages, to whose dashboards empty series would be noise."""
        step, iteration, metrics = self._progress.alignment()
        if step is None:
            return
        values = GaugeMetricFamily(TrainerMetric.ALIGNMENT, TrainerMetric.ALIGNMENT.meaning, labels=["step", "metric"])
        for name, value in metrics.items():
            values.add_metric([step, name], value)
        yield values
        done = GaugeMetricFamily(TrainerMetric.ITERATION, TrainerMetric.ITERATION.meaning, labels=["step"])
        done.add_metric([step], iteration or 0)
        yield done

    def _gauges(self) -> dict[TrainerMetric, float | None]:
        progress, last = self._progress, self._progress.last
        return {
            TrainerMetric.STEP: last.step if last else progress.resumed_from_step or 0,
            TrainerMetric.TOTAL_STEPS: progress.total_steps,
            TrainerMetric.EPOCH: last.epoch if last else None,
            TrainerMetric.LOSS: progress.recent_loss,
            TrainerMetric.EVAL_LOSS: progress.eval_loss,
            TrainerMetric.LEARNING_RATE: last.learning_rate if last else None,
            TrainerMetric.GRAD_NORM: last.grad_norm if last else None,
            TrainerMetric.TOKENS_PER_SECOND: progress.tokens_per_second,
            TrainerMetric.MFU: progress.share_of_peak,
            TrainerMetric.CHECKPOINT_STEP: progress.checkpoint_step,
            TrainerMetric.CHECKPOINT_TIME: progress.checkpoint_at,
        }


def peak_gpu_bytes() -> int | None:
    """Most GPU memory that this process has held so far; None without a GPU, or before torch is loaded."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated())


class ProgressServer:
    """Answers on its own threads until `close`."""

    def __init__(self, progress: Progress, *, host: str, port: int) -> None:
        """Binds at once; port 0 takes a free one. Raises OSError when the address cannot be bound."""
        registry = CollectorRegistry()
        registry.register(ProgressCollector(progress))
        self._step_seconds = Histogram(
            TrainerMetric.STEP_DURATION,
            TrainerMetric.STEP_DURATION.meaning,
            buckets=STEP_BUCKETS_S,
            registry=registry,
        )
        self._server = ThreadingHTTPServer((host, port), _handler(progress, registry))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="progress", daemon=True).start()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self._server.server_address[0]!s}:{self._server.server_address[1]}"

    def observe_step(self, metrics: StepMetrics) -> None:
        """Counts a step in the histogram of durations."""
        self._step_seconds.observe(metrics.seconds)

    def close(self) -> None:
        """Stops answering and frees the port."""
        self._server.shutdown()
        self._server.server_close()


def _handler(progress: Progress, registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30  # seconds; a client that never finishes its request must not keep a thread

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/progress":
                self._answer("application/json", progress.to_document().model_dump_json(by_alias=True).encode())
            elif path == "/metrics":
                self._answer("text/plain; version=0.0.4; charset=utf-8", generate_latest(registry))
            elif path == "/healthz":
                self._answer("text/plain; charset=utf-8", b"ok\n")
            else:
                self.send_error(404, explain="Known paths: /progress /metrics /healthz")

        def _answer(self, content_type: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are not logged: the log is for the training."""

    return Handler
