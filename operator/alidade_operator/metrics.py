"""The operator's own metrics, and the gauges it mirrors from running jobs."""

from prometheus_client import Counter, Gauge, Histogram

from alidade_crds.metric_names import JobMetric, OperatorMetric
from alidade_crds.status import JobStatus


def _counter_name(metric: OperatorMetric) -> str:
    """The name without `_total`, which the client library adds."""
    return metric.removesuffix("_total")


RECONCILES = Counter(_counter_name(OperatorMetric.RECONCILES), "Resources looked at.", ["kind", "outcome"])
RECONCILE_DURATION = Histogram(
    OperatorMetric.RECONCILE_DURATION,
    "Time from taking a resource off the queue to the end of its writes, in seconds.",
    ["kind"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
)
QUEUE_DEPTH = Gauge(OperatorMetric.QUEUE_DEPTH, "Resources that wait for a worker.")
QUEUE_WAIT = Histogram(
    OperatorMetric.QUEUE_WAIT,
    "Time a resource waited for a worker, in seconds.",
    buckets=(0.001, 0.01, 0.1, 0.3, 1, 3, 10, 30, 100),
)
RESOURCES = Gauge(OperatorMetric.RESOURCES, "Resources there are.", ["kind", "phase"])
WATCH_EVENTS = Counter(_counter_name(OperatorMetric.WATCH_EVENTS), "Changes the API server told of.", ["resource"])
RESYNC_REPAIRS = Counter(
    _counter_name(OperatorMetric.RESYNC_REPAIRS), "Objects that a full listing brought right.", ["resource"]
)
PROGRESS_READS = Counter(_counter_name(OperatorMetric.PROGRESS_READS), "Reads of a job's progress.", ["outcome"])
LEADER = Gauge(OperatorMetric.LEADER, "1 while this replica holds the lease, else 0.")

_JOB_GAUGES = {
    metric: Gauge(metric.value, help_text, ["namespace", "name", "kind"])
    for metric, help_text in (
        (JobMetric.STEP, "Optimizer steps done."),
        (JobMetric.TOTAL_STEPS, "Optimizer steps in all."),
        (JobMetric.EPOCH, "Passes over the dataset done."),
        (JobMetric.LOSS, "Mean training loss since the last report, in nats per token."),
        (JobMetric.EVAL_LOSS, "Newest loss on the held-out data, in nats per token."),
        (JobMetric.LEARNING_RATE, "Learning rate of the last step."),
        (JobMetric.TOKENS_PER_SECOND, "Tokens trained on per second, over all processes."),
        (JobMetric.ATTEMPTS, "Times the job was launched."),
    )
}


class JobGauges:
    """The gauges of jobs: there while a job runs, gone when it ends or its resource does."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str, str], set[JobMetric]] = {}

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
            }
        shown = self._shown.setdefault((namespace, name, kind), set())
        for metric, value in values.items():
            if value is not None:
                _JOB_GAUGES[metric].labels(namespace, name, kind).set(value)
                shown.add(metric)

    def hide(self, kind: str, namespace: str, name: str) -> None:
        """Takes the gauges of a job away."""
        for metric in self._shown.pop((namespace, name, kind), ()):
            _JOB_GAUGES[metric].remove(namespace, name, kind)
