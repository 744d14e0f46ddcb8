"""The dashboard of all resources: what there is, what is in trouble, what it costs."""

from alidade_crds.metric_names import JobMetric, OperatorMetric, ResourceMetric
from charts.dashboards.panels import Json, Query, Row, Variable, bars, curve, dashboard, number, table

_OF = 'namespace=~"$namespace"'
_EACH = "max by (namespace, name, kind)"
_GPU_HOURS = f"{_EACH} ({ResourceMetric.GPU_HOURS}{{{_OF}}})"
_QUEUED = f"{_EACH} ({ResourceMetric.QUEUED}{{{_OF}}})"
_PROBLEMS = f"max by (namespace, name, kind, condition, reason) ({ResourceMetric.PROBLEM}{{{_OF}}})"
_COST = f"max by (namespace, name, kind, currency) ({ResourceMetric.COST}{{{_OF}}})"
_STACKED: Json = {"custom": {"stacking": {"mode": "normal"}, "fillOpacity": 20}}
# Every replica of the operator tells the same.
_PHASES = f"max by (kind, phase) ({OperatorMetric.RESOURCES})"


def fleet() -> Json:
    """The dashboard."""
    running = f'sum(max by (kind) ({OperatorMetric.RESOURCES}{{phase="Running"}})) or vector(0)'
    rows = [
        Row(
            "Now",
            (
                number("Running", running, description="Resources of all namespaces in the phase Running."),
                number("In trouble", f"count({_PROBLEMS}) or vector(0)"),
                number("In queues", f"count({_QUEUED}) or vector(0)"),
                number("Longest in a queue", f"max({_QUEUED}) or vector(0)", unit="s"),
                number("GPU hours", f"sum({_GPU_HOURS}) or vector(0)", description="Of the resources that there are."),
                number("Tokens per second", f"sum({_EACH} ({JobMetric.TOKENS_PER_SECOND}{{{_OF}}})) or vector(0)"),
            ),
        ),
        Row(
            "Resources",
            (
                curve(
                    "By phase",
                    Query(_PHASES, "{{kind}} {{phase}}"),
                    description="Of all namespaces.",
                    width=12,
                    field_options=_STACKED,
                ),
                bars("In trouble, by reason", Query(f"count by (reason) ({_PROBLEMS})", "{{reason}}"), width=12),
                table(
                    "What is in trouble",
                    {"In trouble": _PROBLEMS},
                    description="kubectl describe says in a sentence what to do.",
                ),
            ),
        ),
        Row(
            "GPUs and money",
            (
                curve(
                    "GPUs held",
                    Query(f"sum by (namespace) (rate({ResourceMetric.GPU_HOURS}{{{_OF}}}[10m]) * 3600)"),
                    description="Growth of GPU hours; it is written for whole minutes of running pods.",
                ),
                bars("GPU hours", Query(f"topk(10, {_GPU_HOURS})", "{{kind}} {{namespace}}/{{name}}")),
                bars("Cost", Query(f"topk(10, {_COST})", "{{namespace}}/{{name}} ({{currency}})")),
                curve("Time in queues", Query(_QUEUED, "{{kind}} {{namespace}}/{{name}}"), unit="s", width=12),
                curve(
                    "Cost by namespace",
                    Query(f"sum by (namespace, currency) ({_COST})", "{{namespace}} ({{currency}})"),
                    description="Of the resources that there are; what is deleted is not counted any more.",
                    width=12,
                ),
            ),
        ),
        Row(
            "Running jobs",
            (
                table(
                    "Progress",
                    {
                        "Step": f"{_EACH} ({JobMetric.STEP}{{{_OF}}})",
                        "Of": f"{_EACH} ({JobMetric.TOTAL_STEPS}{{{_OF}}})",
                        "Loss": f"{_EACH} ({JobMetric.LOSS}{{{_OF}}})",
                        "Tokens/s": f"{_EACH} ({JobMetric.TOKENS_PER_SECOND}{{{_OF}}})",
                        "Attempts": f"{_EACH} ({JobMetric.ATTEMPTS}{{{_OF}}})",
                    },
                ),
            ),
        ),
    ]
    told = "|".join((JobMetric.ATTEMPTS, *ResourceMetric))
    namespace = Variable("namespace", f'{{__name__=~"{told}"}}', "namespace")
    return dashboard("alidade-fleet", "Alidade / Fleet", "All resources, their troubles and costs.", rows, [namespace])
