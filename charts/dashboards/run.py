"""The dashboard of one job or AlignmentRun: what it learns, how fast, on what memory."""

from alidade_crds.metric_names import (
    EvaluationMetric,
    JobMetric,
    ResourceMetric,
    ResultMetric,
    RunMetric,
    TrainerMetric,
)
from charts.dashboards.panels import Json, Query, Row, Variable, bars, curve, dashboard, number, table
from charts.external import DcgmMetric

_ONE = 'namespace="$namespace", name=~"$name"'
_EACH = "max by (namespace, name, kind)"
_WHO = "{{kind}} {{name}}"
# The target's `kind` is that of the resource; Prometheus keeps the metric's own under another name.
_MEMORY = f"max by (name, exported_kind) ({TrainerMetric.MEMORY}{{{_ONE}}})"


def _job(metric: JobMetric) -> str:
    return f"{_EACH} ({metric}{{{_ONE}}})"


def _trainer(metric: TrainerMetric) -> str:
    return f"{_EACH} ({metric}{{{_ONE}}})"


def _aligned(*names: str) -> Query:
    """Metrics of an alignment's iterations, by step."""
    wanted = "|".join(names)
    expr = f'max by (name, step, metric) ({RunMetric.ALIGNMENT}{{{_ONE}, metric=~"{wanted}"}})'
    return Query(expr, "{{name}} {{step}} {{metric}}")


def run() -> Json:
    """The dashboard."""
    share = f"max({JobMetric.STEP}{{{_ONE}}} / {JobMetric.TOTAL_STEPS}{{{_ONE}}})"
    step_s = f"sum by (name, kind, le) (rate({TrainerMetric.STEP_DURATION}_bucket{{{_ONE}}}[$__rate_interval]))"
    # DCGM's exporter names the pod that holds the GPU.
    gpus_of = f'{DcgmMetric.UTILIZATION}{{namespace="$namespace", pod=~"($name)-.+"}}'
    memory_of = f'{DcgmMetric.MEMORY_USED}{{namespace="$namespace", pod=~"($name)-.+"}}'
    rows = [
        Row(
            "Now",
            (
                number("Done", share, unit="percentunit"),
                number("Loss", f"min({JobMetric.LOSS}{{{_ONE}}})", unit="none"),
                number("Tokens per second", f"sum({_job(JobMetric.TOKENS_PER_SECOND)})"),
                number("Attempts", f"max({JobMetric.ATTEMPTS}{{{_ONE}}})"),
                number("GPU hours", f"max({ResourceMetric.GPU_HOURS}{{{_ONE}}})"),
                number("Age of the checkpoint", f"time() - max({TrainerMetric.CHECKPOINT_TIME}{{{_ONE}}})", unit="s"),
            ),
        ),
        Row(
            "Learning",
            (
                curve(
                    "Loss",
                    Query(_trainer(TrainerMetric.LOSS), _WHO),
                    Query(_trainer(TrainerMetric.EVAL_LOSS), _WHO + " held out"),
                    unit="none",
                    description="Nats per token; of a reward model, nats per pair.",
                ),
                curve(
                    "Loss of each dataset",
                    Query(f"max by (name, dataset) ({TrainerMetric.DATASET_LOSS}{{{_ONE}}})", "{{name}} {{dataset}}"),
                    Query(
                        f"max by (name, dataset) ({TrainerMetric.DATASET_EVAL_LOSS}{{{_ONE}}})",
                        "{{name}} {{dataset}} held out",
                    ),
                    unit="none",
                    description="Nats per token, where several datasets are mixed.",
                ),
                curve("Gradient norm", Query(_trainer(TrainerMetric.GRAD_NORM), _WHO), unit="none"),
                curve(
                    "Gradient noise scale",
                    Query(_trainer(TrainerMetric.NOISE_SCALE), _WHO),
                    unit="none",
                    description="Sequences beyond which a larger batch teaches little more.",
                ),
                curve("Learning rate", Query(_trainer(TrainerMetric.LEARNING_RATE), _WHO), unit="sci"),
                curve("Step", Query(_job(JobMetric.STEP), _WHO), Query(_job(JobMetric.TOTAL_STEPS), _WHO + " in all")),
                curve("Epoch", Query(_job(JobMetric.EPOCH), _WHO), unit="none"),
                curve(
                    "Checkpoints",
                    Query(_trainer(TrainerMetric.CHECKPOINT_STEP), _WHO),
                    description="Step of the newest complete checkpoint.",
                ),
            ),
        ),
        Row(
            "Alignment",
            (
                curve("Reward", _aligned("reward", "acceptedReward", "penalisedReward"), unit="none"),
                curve("Divergence", _aligned("kl", "klCoefficient"), unit="none", description="KL in nats per answer."),
                curve("Acceptance, ends of answers", _aligned("acceptance", "eosRate"), unit="percentunit"),
                curve("Length of answers", _aligned("responseLength"), description="Tokens."),
                curve("Entropy, explained variance", _aligned("entropy", "explainedVariance"), unit="none"),
                curve(
                    "Iteration",
                    Query(_job(JobMetric.ITERATION), _WHO),
                    Query(_job(JobMetric.TOTAL_ITERATIONS), _WHO + " in all"),
                ),
            ),
        ),
        Row(
            "Speed and memory",
            (
                curve("Tokens per second", Query(_trainer(TrainerMetric.TOKENS_PER_SECOND), _WHO)),
                curve(
                    "Model FLOPs utilisation",
                    Query(_trainer(TrainerMetric.MFU), _WHO),
                    unit="percentunit",
                    description="Share of the GPUs' peak arithmetic, where the node pool names it.",
                ),
                curve(
                    "Time of a step",
                    Query(f"histogram_quantile(0.5, {step_s})", _WHO + " median"),
                    Query(f"histogram_quantile(0.95, {step_s})", _WHO + " 95 %"),
                    unit="s",
                ),
                curve(
                    "Memory of the first process",
                    Query(_MEMORY, "{{name}} {{exported_kind}}"),
                    unit="bytes",
                ),
                curve(
                    "GPU utilisation",
                    Query(f"avg by (pod) ({gpus_of})", "{{pod}}"),
                    unit="percent",
                    description="By NVIDIA's DCGM exporter.",
                ),
                curve("GPU memory", Query(f"sum by (pod) ({memory_of}) * 1024 * 1024", "{{pod}}"), unit="bytes"),
            ),
        ),
        Row(
            "Evaluation",
            (
                bars(
                    "Samples done",
                    Query(
                        f"{_EACH} ({EvaluationMetric.SAMPLES}{{{_ONE}}} / {EvaluationMetric.TOTAL_SAMPLES}{{{_ONE}}})",
                        "{{name}}",
                    ),
                    unit="percentunit",
                ),
                table(
                    "Results",
                    {
                        "Value": _result(ResultMetric.VALUE),
                        "Low": _result(ResultMetric.LOW),
                        "High": _result(ResultMetric.HIGH),
                    },
                    description="With 95 % intervals.",
                    width=16,
                ),
            ),
        ),
    ]
    told = "|".join((JobMetric.ATTEMPTS, ResultMetric.VALUE, *ResourceMetric))
    variables = [
        Variable("namespace", f'{{__name__=~"{told}"}}', "namespace", is_multi=False),
        Variable("name", f'{{__name__=~"{told}", namespace="$namespace"}}', "name"),
    ]
    return dashboard("alidade-run", "Alidade / Run", "What a job or an AlignmentRun learns.", rows, variables)


def _result(metric: ResultMetric) -> str:
    return f"max by (namespace, name, suite, metric, model) ({metric}{{{_ONE}}})"
