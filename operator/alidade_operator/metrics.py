"""The operator's own metrics, and the gauges it mirrors from running jobs."""

from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram

from alidade_crds.alignmentrun import AlignmentRunStatus
from alidade_crds.evaluation import EvaluationStatus
from alidade_crds.metric_names import JobMetric, OperatorMetric, ResultMetric, RunMetric
from alidade_crds.status import JobStatus


def counter(metric: OperatorMetric, labels: Sequence[str] = ()) -> Counter:
    """The counter of a metric; the client library adds the `_total` of its name."""
    return Counter(metric.removesuffix("_total"), metric.meaning, labels)


RECONCILES = counter(OperatorMetric.RECONCILES, ["kind", "outcome"])
RECONCILE_DURATION = Histogram(
    OperatorMetric.RECONCILE_DURATION,
    OperatorMetric.RECONCILE_DURATION.meaning,
    ["kind"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
)
QUEUE_DEPTH = Gauge(OperatorMetric.QUEUE_DEPTH, OperatorMetric.QUEUE_DEPTH.meaning)
QUEUE_WAIT = Histogram(
    OperatorMetric.QUEUE_WAIT, OperatorMetric.QUEUE_WAIT.meaning, buckets=(0.001, 0.01, 0.1, 0.3, 1, 3, 10, 30, 100)
)
API_CALLS = counter(OperatorMetric.API_CALLS, ["verb", "resource", "code"])
RESOURCES = Gauge(OperatorMetric.RESOURCES, OperatorMetric.RESOURCES.meaning, ["kind", "phase"])
MISSING_KINDS = Gauge(OperatorMetric.MISSING_KINDS, OperatorMetric.MISSING_KINDS.meaning, ["kind"])
WATCH_EVENTS = counter(OperatorMetric.WATCH_EVENTS, ["resource"])
RESYNC_REPAIRS = counter(OperatorMetric.RESYNC_REPAIRS, ["resource"])
PROGRESS_READS = counter(OperatorMetric.PROGRESS_READS, ["outcome"])
SERVING_READS = counter(OperatorMetric.SERVING_READS, ["outcome"])
ADMISSIONS = counter(OperatorMetric.ADMISSIONS, ["kind", "outcome"])
ADMISSION_DURATION = Histogram(
    OperatorMetric.ADMISSION_DURATION,
    OperatorMetric.ADMISSION_DURATION.meaning,
    ["kind"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3),
)
LEADER = Gauge(OperatorMetric.LEADER, OperatorMetric.LEADER.meaning)

_JOB_GAUGES = {metric: Gauge(metric, metric.meaning, ["namespace", "name", "kind"]) for metric in JobMetric}
_ALIGNMENT = Gauge(RunMetric.ALIGNMENT, RunMetric.ALIGNMENT.meaning, ["namespace", "name", "step", "metric"])

_RESULTS = {
    metric: Gauge(metric, metric.meaning, ["namespace", "name", "suite", "metric", "model"]) for metric in ResultMetric
}


class ResultGauges:
    """The results of Evaluations: there from their end on, gone with the resource."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str], set[tuple[ResultMetric, str, str, str]]] = {}

    def show(self, namespace: str, name: str, status: EvaluationStatus) -> None:
        """Sets the gauges of an Evaluation to its results."""
        before, now = self._shown.get((namespace, name), set()), set()
        for one in status.results:
            values = {ResultMetric.VALUE: one.value, ResultMetric.LOW: one.low, ResultMetric.HIGH: one.high}
            for metric, value in values.items():
                if value is not None:
                    _RESULTS[metric].labels(namespace, name, one.suite, one.metric, one.model).set(value)
                    now.add((metric, one.suite, one.metric, one.model))
        self._remove(namespace, name, before - now)
        self._shown[namespace, name] = now

    def hide(self, namespace: str, name: str) -> None:
        """Takes the gauges of an Evaluation away."""
        self._remove(namespace, name, self._shown.pop((namespace, name), set()))

    def _remove(self, namespace: str, name: str, gone: set[tuple[ResultMetric, str, str, str]]) -> None:
        for metric, *labels in gone:
            _RESULTS[metric].remove(namespace, name, *labels)


class JobGauges:
    """The gauges of jobs: there while a job runs, gone when it ends or its resource does."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str, str], set[JobMetric]] = {}
        self._steps: dict[tuple[str, str, str], set[tuple[str, str]]] = {}

    def show(self, kind: str, namespace: str, name: str, status: JobStatus) -> None:
        """Sets the gauges of a running job to what its status says."""
        progress = status.progress
        values: dict[JobMetric, float | None] = {JobMetric.ATTEMPTS: status.attempts}
        if progress is not None:
            values |= {
                JobMetric.STEP: progress.step,
                JobMetric.TOTAL_STEPS: progress.total_steps,
                JobMetric.EPOCH: progress.epoch,
                JobMetric.LOSS: progress.loss,
                JobMetric.EVAL_LOSS: progress.eval_loss,
                JobMetric.LEARNING_RATE: progress.learning_rate,
                JobMetric.TOKENS_PER_SECOND: progress.tokens_per_second,
                JobMetric.ITERATION: progress.iteration,
                JobMetric.TOTAL_ITERATIONS: progress.total_iterations,
            }
        shown = self._shown.setdefault((namespace, name, kind), set())
        for metric, value in values.items():
            if value is not None:
                _JOB_GAUGES[metric].labels(namespace, name, kind).set(value)
                shown.add(metric)
        if isinstance(status, AlignmentRunStatus):
            self._show_steps(kind, namespace, name, status)

    def _show_steps(self, kind: str, namespace: str, name: str, status: AlignmentRunStatus) -> None:
        steps = self._steps.setdefault((namespace, name, kind), set())
        for stage in status.stages:
            if stage.kind == "Alignment":
                for metric, value in stage.metrics.items():
                    _ALIGNMENT.labels(namespace, name, stage.name, metric).set(value)
                    steps.add((stage.name, metric))

    def hide(self, kind: str, namespace: str, name: str) -> None:
        """Takes the gauges of a job away."""
        for metric in self._shown.pop((namespace, name, kind), ()):
            _JOB_GAUGES[metric].remove(namespace, name, kind)
        for step, label in self._steps.pop((namespace, name, kind), ()):
            _ALIGNMENT.remove(namespace, name, step, label)
