"""The dashboard of the operator itself."""

from alidade_crds.metric_names import OperatorMetric
from charts.dashboards.panels import Json, Query, Row, bars, curve, dashboard, number

_RATE = "[$__rate_interval]"


def _quantile(share: float, metric: OperatorMetric, *labels: str) -> str:
    by = ", ".join((*labels, "le"))
    return f"histogram_quantile({share:g}, sum by ({by}) (rate({metric}_bucket{_RATE})))"


def operator() -> Json:
    """The dashboard."""
    reconciles = f"rate({OperatorMetric.RECONCILES}{_RATE})"
    calls = f"rate({OperatorMetric.API_CALLS}{_RATE})"
    failed_calls = f'rate({OperatorMetric.API_CALLS}{{code=~"0|4..|5.."}}{_RATE})'
    rows = [
        Row(
            "Now",
            (
                number("Replicas", f"count({OperatorMetric.LEADER})"),
                number("Holding the lease", f"sum({OperatorMetric.LEADER})", description="One is right."),
                number("Resources", f"sum(max by (kind, phase) ({OperatorMetric.RESOURCES})) or vector(0)"),
                number("Waiting for a worker", f"sum({OperatorMetric.QUEUE_DEPTH})"),
                number("Reconciles per second", f"sum({reconciles})"),
                number("API calls per second", f"sum({calls})"),
            ),
        ),
        Row(
            "Reconciling",
            (
                curve("By kind", Query(f"sum by (kind) ({reconciles})", "{{kind}}"), unit="ops"),
                curve("By outcome", Query(f"sum by (outcome) ({reconciles})", "{{outcome}}"), unit="ops"),
                curve(
                    "Duration (95 %)",
                    Query(_quantile(0.95, OperatorMetric.RECONCILE_DURATION, "kind"), "{{kind}}"),
                    unit="s",
                ),
                curve("Queue", Query(f"sum by (pod) ({OperatorMetric.QUEUE_DEPTH})", "{{pod}}")),
                curve(
                    "Wait for a worker",
                    Query(_quantile(0.5, OperatorMetric.QUEUE_WAIT), "median"),
                    Query(_quantile(0.95, OperatorMetric.QUEUE_WAIT), "95 %"),
                    unit="s",
                ),
                bars(
                    "Resources",
                    Query(f"sum by (kind) (max by (kind, phase) ({OperatorMetric.RESOURCES}))", "{{kind}}"),
                ),
            ),
        ),
        Row(
            "The Kubernetes API",
            (
                curve("Calls", Query(f"sum by (verb) ({calls})", "{{verb}}"), unit="reqps"),
                curve(
                    "Calls refused or failed",
                    Query(f"sum by (verb, resource, code) ({failed_calls})", "{{verb}} {{resource}} {{code}}"),
                    unit="reqps",
                    description='404 is an answer to "is it there?"; 0 is no answer.',
                ),
                curve(
                    "Changes told of",
                    Query(f"sum by (resource) (rate({OperatorMetric.WATCH_EVENTS}{_RATE}))", "{{resource}}"),
                    unit="ops",
                ),
                curve(
                    "Lost events repaired",
                    Query(f"sum by (resource) (increase({OperatorMetric.RESYNC_REPAIRS}[1h]))", "{{resource}}"),
                    description="In the last hour.",
                ),
                curve(
                    "Reads of pods",
                    Query(f"sum by (outcome) (rate({OperatorMetric.PROGRESS_READS}{_RATE}))", "jobs {{outcome}}"),
                    Query(f"sum by (outcome) (rate({OperatorMetric.SERVING_READS}{_RATE}))", "servers {{outcome}}"),
                    unit="ops",
                ),
                curve(
                    "Resources reviewed as they are applied",
                    Query(f"sum by (kind, outcome) (rate({OperatorMetric.ADMISSIONS}{_RATE}))", "{{kind}} {{outcome}}"),
                    unit="ops",
                ),
                curve(
                    "Time of a review, 95th percentile",
                    Query(
                        "histogram_quantile(0.95, sum by (kind, le) "
                        f"(rate({OperatorMetric.ADMISSION_DURATION}_bucket{_RATE})))",
                        "{{kind}}",
                    ),
                    unit="s",
                    description="The API server waits for it by webhook.timeoutSeconds.",
                ),
                curve(
                    "Kinds that the cluster does not know",
                    Query(f"max by (kind) ({OperatorMetric.MISSING_KINDS})", "{{kind}}"),
                    description="alidade doctor says what each is for.",
                ),
            ),
        ),
    ]
    return dashboard("alidade-operator", "Alidade / Operator", "How the operator itself does.", rows)
