"""Progress over HTTP: /progress for the operator, /metrics for Prometheus, /healthz for probes."""

import sys
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from alidade_crds.metric_names import TrainerMetric
from alidade_engine.status_server import StatusServer
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
        yield _of_datasets(TrainerMetric.DATASET_LOSS, self._progress.dataset_losses())
        yield _of_datasets(TrainerMetric.DATASET_EVAL_LOSS, self._progress.eval_losses)
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
            TrainerMetric.NOISE_SCALE: progress.noise_scale,
            TrainerMetric.TOKENS_PER_SECOND: progress.tokens_per_second,
            TrainerMetric.MFU: progress.share_of_peak,
            TrainerMetric.CHECKPOINT_STEP: progress.checkpoint_step,
            TrainerMetric.CHECKPOINT_TIME: progress.checkpoint_at,
        }


def _of_datasets(metric: TrainerMetric, losses: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(metric, metric.meaning, labels=["dataset"])
    for name, loss in losses.items():
        family.add_metric([name], loss)
    return family


def peak_gpu_bytes() -> int | None:
    """Most GPU memory that this process has held so far; None without a GPU, or before torch is loaded."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated())


class ProgressServer(StatusServer):
    """The status server of a training, which also counts how long steps take."""

    def __init__(self, progress: Progress, *, host: str, port: int) -> None:
        """As `StatusServer`."""
        registry = CollectorRegistry()
        registry.register(ProgressCollector(progress))
        self._step_seconds = Histogram(
            TrainerMetric.STEP_DURATION,
            TrainerMetric.STEP_DURATION.meaning,
            buckets=STEP_BUCKETS_S,
            registry=registry,
        )

        def document() -> bytes:
            return progress.to_document().model_dump_json(by_alias=True).encode()

        super().__init__(document, registry, host=host, port=port)

    def observe_step(self, metrics: StepMetrics) -> None:
        """Counts a step in the histogram of durations."""
        self._step_seconds.observe(metrics.seconds)
