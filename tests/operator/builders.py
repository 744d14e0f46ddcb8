"""Resources and observations for tests, as short as what the test is about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from alidade_crds.contract import Failure, ResultDocument
from alidade_crds.evaluation import EvaluationResult, EvaluationSpec, EvaluationStatus
from alidade_crds.jobs import FineTuneJobSpec
from alidade_crds.packed import PackedResults
from alidade_crds.status import JobStatus, ModelInfo
from alidade_operator.api import EVALUATION, FINE_TUNE_JOB, PYTORCH_JOB
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.reconcile.plan import Plan, TrainingJob
from alidade_operator.reconcile.trainingjob import plan_training_job
from alidade_operator.resources.observation import Observed, PodView, Termination, TrainingJobView

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
UID = "0f8fad5b-d9cb-469f-a165-70867728950e"
INIT = {"init": {"hiddenSize": 64, "layers": 2, "heads": 4, "vocabSize": 512}}
CONFIG = OperatorConfig(
    node_pools=[
        NodePool(name="local"),
        NodePool(
            name="a100-80gb",
            gpus_per_node=8,
            gpu_memory_gib=80,
            price_per_gpu_hour=2.5,
            node_selector={"gpu": "a100"},
            tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            peak_tflops=312,
            env=[{"name": "NCCL_DEBUG", "value": "WARN"}],
        ),
    ]
)
MODEL = ModelInfo(
    uri="pvc://alidade-workspace/finetunejobs/demo-0f8fad5b/model",
    digest="sha256:abc",
    parameters=1000,
    trainable_parameters=1000,
)


def job(name: str = "demo", *, status: JobStatus | None = None, generation: int = 1, **blocks: Any) -> TrainingJob:
    """A FineTuneJob with the blocks of its spec as in YAML; by default a tiny model from scratch."""
    spec = {"method": "pretrain", "model": INIT, "dataset": {"uri": "pvc://data/train.json"}} | blocks
    return TrainingJob(
        kind=FINE_TUNE_JOB,
        base=name,
        namespace="team-a",
        name=name,
        uid=UID,
        generation=generation,
        terminating=False,
        spec=FineTuneJobSpec.model_validate(spec),
        spec_error="",
        status=status or JobStatus(),
    )


def evaluation(name: str = "demo", *, status: EvaluationStatus | None = None, **fields: Any) -> TrainingJob:
    """An Evaluation with the fields of its spec as in YAML; by default two models and one suite of answers."""
    spec = {
        "models": [{"name": "base", "model": {"uri": "pvc://data/base"}}, {"name": "tuned", "model": {"uri": "pvc://data/tuned"}}],
        "suites": [{"type": "generation", "dataset": "pvc://data/questions.json"}],
    } | fields  # fmt: skip
    return replace(
        job(name, status=status or EvaluationStatus()), kind=EVALUATION, spec=EvaluationSpec.model_validate(spec)
    )


def measured(model: str, verdict: str | None = None, **values: Any) -> EvaluationResult:
    """A result of the suite `generation`."""
    known = {"suite": "generation", "metric": "f1", "value": 0.5, "low": 0.4, "high": 0.6, "n": 100}
    return EvaluationResult(**(known | {"model": model, "verdict": verdict} | values))


def evaluated(*results: EvaluationResult, **values: Any) -> ResultDocument:
    """The result of an evaluation that has ended well; by default with a number of each model."""
    packed = PackedResults.of(results or [measured("base"), measured("tuned", "better")])
    report = "pvc://alidade-workspace/evaluations/demo-0f8fad5b/report.html"
    return ResultDocument(**({"outcome": "succeeded", "evaluation": packed, "report_uri": report} | values))


def observed(**values: Any) -> Observed:
    """What is observed in a namespace that has the usual claims."""
    return Observed(**({"claims": frozenset({"alidade-workspace", "data"})} | values))


def training_job(attempt: int = 1, *, state: str = "running", **values: Any) -> TrainingJobView:
    """A PyTorchJob of the FineTuneJob `demo`, a minute old."""
    known = TrainingJobView(
        kind=PYTORCH_JOB,
        name=f"demo-{attempt}",
        uid=f"job-{attempt}",
        base="demo",
        attempt=attempt,
        owned=True,
        terminating=False,
        suspended=state == "suspended",
        state=state,  # type: ignore[arg-type]
        message="",
        active_since=NOW - timedelta(minutes=1),
        ended_at=NOW if state in ("succeeded", "failed") else None,
        gpu_hours_before=0.0,
        active_seconds_before=0.0,
    )
    return replace(known, **values)


def pod(attempt: int = 1, *, worker: int | None = None, **values: Any) -> PodView:
    """The first pod of an attempt, or one of its workers, running for a minute."""
    known = PodView(
        name=f"demo-{attempt}-master-0" if worker is None else f"demo-{attempt}-worker-{worker}",
        uid=f"pod-{attempt}-{worker}",
        job_name=f"demo-{attempt}",
        job_uid=f"job-{attempt}",
        is_master=worker is None,
        phase="Running",
        reason="",
        message="",
        image_missing=False,
        ip="10.0.0.7",
        node="node-1",
        ready_to_report=True,
        deletion_deadline=None,
        disruption="",
        started_at=NOW - timedelta(minutes=1),
        termination=None,
    )
    return replace(known, **values)


def ended_pod(attempt: int = 1, *, exit_code: int = 0, result: ResultDocument | None = None, **values: Any) -> PodView:
    """A pod that has ended, with the termination message of the result."""
    message = values.pop("message_text", result.to_termination_message() if result is not None else "")
    termination = Termination(exit_code, values.pop("reason_text", ""), message, values.pop("finished_at", NOW))
    phase = "Succeeded" if exit_code == 0 else "Failed"
    return pod(attempt, phase=phase, ready_to_report=False, termination=termination, **values)


def success(**values: Any) -> ResultDocument:
    """The result of a job that has made its model."""
    return ResultDocument(**({"outcome": "succeeded", "model": MODEL, "step": 40} | values))


def failure(reason: str = "DataMalformed", *, retryable: bool = False, message: str = "Line 2 is broken.") -> Any:
    """The result of a job that has failed."""
    return ResultDocument(
        outcome="failed", failure=Failure(reason=reason, message=message, retryable=retryable), step=3
    )


def plan(resource: TrainingJob, seen: Observed, *, now: datetime = NOW, config: OperatorConfig = CONFIG) -> Plan:
    """The plan for a resource."""
    return plan_training_job(resource, seen, config, now)


def after(resource: TrainingJob, made: Plan) -> TrainingJob:
    """The resource once a plan's status has been written."""
    return replace(resource, status=made.status or resource.status)


def condition(made: Plan, kind: str) -> tuple[str, str, str]:
    """Status, reason and message of a condition that a plan states."""
    assert made.status is not None, "the plan leaves the status alone"
    return next((item.status, item.reason, item.message) for item in made.status.conditions if item.type == kind)


def created(made: Plan) -> list[str]:
    """Names of the children that a plan makes, by kind."""
    return [f"{child.kind.kind}/{child.body['metadata']['name']}" for child in made.children]


def deleted(made: Plan) -> list[str]:
    """Names of what a plan deletes, by kind."""
    return [f"{item.kind.kind}/{item.name}" for item in made.deletions]
