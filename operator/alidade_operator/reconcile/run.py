"""An AlignmentRun as its plan sees it: the resource, what is observed of its stages, and hashes of their inputs."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alidade_crds.alignmentrun import AlignmentRunSpec, AlignmentRunStatus, StageStatus
from alidade_crds.evaluation import EvaluationResult
from alidade_crds.reasons import ConditionType
from alidade_crds.status import JobStatus, ModelInfo
from alidade_operator.api import JsonObject, Kind
from alidade_operator.reconcile.plan import identity, parse_spec, parse_status
from alidade_operator.resources.observation import Observed, TrainingJobView

HASH_LENGTH = 8
"""Digits of a hash in a name: two of a thousand stages of a namespace are alike by chance once in 10,000 namespaces."""

# What does not decide a result: when it runs, where, for how long, where it goes, who watches.
_NOT_INPUTS = frozenset(
    {
        "suspend", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished",
        "output", "checkpoint", "tracking", "elastic",
    }
)  # fmt: skip
_NOT_INPUTS_OF_COMPUTE = frozenset({"nodePool", "cpu", "memory", "queue", "priorityClassName", "credentials"})


@dataclass(frozen=True)
class AlignmentRun:
    """An AlignmentRun: spec parsed, and why not when it could not be."""

    namespace: str
    name: str
    uid: str
    generation: int
    terminating: bool
    spec: AlignmentRunSpec | None
    spec_error: str
    status: AlignmentRunStatus

    @classmethod
    def parse(cls, body: JsonObject) -> "AlignmentRun":
        """The resource of an object of the API."""
        spec, spec_error = parse_spec(AlignmentRunSpec, body)
        return cls(**identity(body), spec=spec, spec_error=spec_error, status=parse_status(AlignmentRunStatus, body))

    @property
    def is_changed(self) -> bool:
        """Whether the spec is another one than the status speaks of."""
        return self.status.observed_generation != self.generation

    @property
    def is_begun(self) -> bool:
        """Whether the stages of the status, and its data, are those of the present spec: it has been accepted once.

        Later launches may be refused (a claim is gone, a pool was taken away) when the model to start from is there.
        """
        true = {condition.type for condition in self.status.conditions if condition.status == "True"}
        misfits = any(item.type == ConditionType.FITS and item.status == "False" for item in self.status.conditions)
        accepted = ConditionType.ACCEPTED in true and not misfits
        return not self.is_changed and (accepted or ConditionType.SFT_READY in true)

    @property
    def has_ended(self) -> bool:
        """Whether it has succeeded or failed, and nothing was changed since."""
        ends = ("Succeeded", "Failed")
        return not self.is_changed and any(
            condition.type in ends and condition.status == "True" for condition in self.status.conditions
        )


@dataclass(frozen=True)
class ResourceView:
    """A resource that a stage takes its result from."""

    kind: str
    name: str
    uid: str
    owned: bool
    """Whether the run has made it."""
    inputs: str | None
    run_generation: int
    """Generation of the run that asked for it last; 0 for what no run has made."""
    suspended: bool
    deadline_s: int | None
    terminating: bool
    status: JobStatus

    def has(self, condition_type: str) -> bool:
        """Whether a condition holds."""
        return any(item.type == condition_type and item.status == "True" for item in self.status.conditions)

    def message(self, condition_type: str) -> str:
        """The sentence of a condition."""
        return next((item.message for item in self.status.conditions if item.type == condition_type), "")

    @property
    def has_succeeded(self) -> bool:
        """Whether its model is there."""
        return self.has("Succeeded") and self.status.model is not None

    @property
    def has_failed(self) -> bool:
        """Whether there will be none."""
        return self.has("Failed")

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.has("Succeeded") or self.has_failed


@dataclass(frozen=True)
class ResultView:
    """An Evaluation or a ModelServe that the run has made."""

    name: str
    uid: str
    owned: bool
    terminating: bool
    is_current: bool
    """Whether its status speaks of its newest spec."""
    run_generation: int
    spec: JsonObject
    conditions: Mapping[str, tuple[str, str]]
    """Status and message by type."""
    results: tuple[EvaluationResult, ...] = ()
    done: Mapping[str, float] = field(default_factory=dict)
    """What an Evaluation has measured and what there is to measure: step and total_steps."""

    def has(self, condition_type: str) -> bool:
        """Whether a condition holds."""
        return self.conditions.get(condition_type, ("",))[0] == "True"

    @property
    def has_ended(self) -> bool:
        """Whether an Evaluation runs no more."""
        return self.has("Succeeded") or self.has("Failed")


def nothing_alike(inputs: str) -> Sequence[ResourceView]:
    """No resource has these inputs."""
    del inputs
    return ()


def nothing_aligned(inputs: str) -> tuple[str, StageStatus] | None:
    """No other run has aligned a model from these inputs."""
    del inputs
    return None


@dataclass(frozen=True)
class RunObserved:
    """All that a run's plan depends on beside the resource, the configuration and the time."""

    resources: Mapping[tuple[str, str], ResourceView] = field(default_factory=dict)
    """By kind and name: those that the spec names, those that the run has made, those whose results it has taken."""
    made: tuple[ResourceView, ...] = ()
    """Training resources that the run has made."""
    alike: Callable[[str], Sequence[ResourceView]] = nothing_alike
    """Training resources of the namespace, made by any run from inputs of a hash."""
    aligned: Callable[[str], tuple[str, StageStatus] | None] = nothing_aligned
    """Another run, and its stage, that has aligned a model from inputs of a hash."""
    circle: tuple[str, ...] = ()
    place: Observed = field(default_factory=Observed)
    """Claims, ConfigMaps and installed kinds, looked up until the spec is accepted."""
    data: Mapping[str, str] = field(default_factory=dict)
    """Digests of the ConfigMap data that the spec names, by address."""
    job: Observed | None = None
    """What there is of the alignment job, once it can be told which one it is."""
    other_jobs: tuple[TrainingJobView, ...] = ()
    """Jobs of alignments from other inputs: the spec has changed since."""
    evaluations: tuple[ResultView, ...] = ()
    """Evaluations that the run has made, of this model or of older ones."""
    serving: ResultView | None = None


@dataclass(frozen=True)
class MadeStage:
    """A stage whose resource the run makes: what it is to be."""

    stage: str
    kind: Kind
    name: str
    inputs: str
    spec: JsonObject


def inputs_hash(*parts: Any) -> str:
    """The hash of all that decides a result; parts: JSON values."""
    text = json.dumps([_inputs(part) for part in parts], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]


def _inputs(part: Any) -> Any:
    """A block without what does not decide a result."""
    if not isinstance(part, dict):
        return part
    kept = {name: value for name, value in part.items() if name not in _NOT_INPUTS}
    compute = kept.get("compute")
    if isinstance(compute, dict):
        kept["compute"] = {name: value for name, value in compute.items() if name not in _NOT_INPUTS_OF_COMPUTE}
        if not kept["compute"]:  # as by default
            del kept["compute"]
    return kept


def model_identity(model: ModelInfo) -> str:
    """What says that a model is the same one."""
    return model.digest or model.uri


def child_name(run: str, stage: str, inputs: str) -> str:
    """Name of what a run makes for a stage."""
    return f"{run}-{stage}-{inputs}"
