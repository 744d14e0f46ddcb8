"""Names of the Prometheus metrics that dashboards, alerts and rules may rely on."""

from enum import StrEnum


class OperatorMetric(StrEnum):
    """What the operator exports at /metrics; the comment of each says type, labels and unit."""

    RECONCILES = "alidade_operator_reconciles_total"
    """Counter (kind, outcome): resources looked at; outcome is changed, unchanged or error."""
    RECONCILE_DURATION = "alidade_operator_reconcile_duration_seconds"
    """Histogram (kind): time from taking a resource off the queue to the end of its writes, in seconds."""
    QUEUE_DEPTH = "alidade_operator_queue_depth"
    """Gauge: resources that wait for a worker."""
    QUEUE_WAIT = "alidade_operator_queue_wait_seconds"
    """Histogram: time a resource waited for a worker, in seconds."""
    API_CALLS = "alidade_operator_api_calls_total"
    """Counter (verb, resource, code): calls of the Kubernetes API."""
    RESOURCES = "alidade_operator_resources"
    """Gauge (kind, phase): resources there are."""
    WATCH_EVENTS = "alidade_operator_watch_events_total"
    """Counter (resource): changes the API server told of."""
    RESYNC_REPAIRS = "alidade_operator_resync_repairs_total"
    """Counter (resource): objects that the watch had lost and a full listing brought right."""
    PROGRESS_READS = "alidade_operator_progress_reads_total"
    """Counter (outcome): reads of a job's progress; outcome is read, unreachable or malformed."""
    LEADER = "alidade_operator_leader"
    """Gauge: 1 while this replica holds the lease, else 0."""


class JobMetric(StrEnum):
    """Gauges (namespace, name, kind) that the operator mirrors from the progress of running jobs; gone when a job ends."""

    STEP = "alidade_job_step"
    """Optimizer steps done."""
    TOTAL_STEPS = "alidade_job_total_steps"
    """Optimizer steps in all."""
    EPOCH = "alidade_job_epoch"
    """Passes over the dataset done."""
    LOSS = "alidade_job_loss"
    """Mean training loss since the last report, in nats per token."""
    EVAL_LOSS = "alidade_job_eval_loss"
    """Newest loss on the held-out data, in nats per token."""
    LEARNING_RATE = "alidade_job_learning_rate"
    """Learning rate of the last step."""
    TOKENS_PER_SECOND = "alidade_job_tokens_per_second"
    """Tokens trained on per second, over all processes."""
    ATTEMPTS = "alidade_job_attempts"
    """Times the job was launched."""
