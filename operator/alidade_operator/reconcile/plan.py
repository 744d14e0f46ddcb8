"""What a plan is: children to make and to delete, the status to write, the events to post, when to look again."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from alidade_crds.alignmentrun import AlignmentRunStatus
from alidade_crds.base import Spec
from alidade_crds.evaluation import EvaluationStatus
from alidade_crds.jobs import JobBlocks
from alidade_crds.modelserve import ModelServeStatus
from alidade_crds.status import JobStatus, ResourceStatus
from alidade_operator.api import ALIGNMENT_RUN, EVALUATION, MODEL_SERVE, JsonObject, Kind
from alidade_operator.jobspecs import JOB_SPECS

S = TypeVar("S", bound=Spec)
T = TypeVar("T", bound=ResourceStatus)


STATUSES: dict[str, type[ResourceStatus]] = {
    ALIGNMENT_RUN.kind: AlignmentRunStatus,
    EVALUATION.kind: EvaluationStatus,
    MODEL_SERVE.kind: ModelServeStatus,
}
"""Statuses of the kinds that report more than a training job does."""


@dataclass(frozen=True)
class TrainingJob:
    """A FineTuneJob, a RewardModel, an Evaluation, or what an AlignmentRun aligns with: a resource that is one job.

    spec: parsed; None when it could not be, and spec_error says why. base: what the names of its attempts and of its
    ConfigMap begin with. is_begun: whether its spec has been accepted before; a failure that is found by one that has
    not is of an older spec, and another attempt follows.
    """

    kind: Kind
    namespace: str
    name: str
    uid: str
    generation: int
    terminating: bool
    spec: JobBlocks | None
    spec_error: str
    status: JobStatus
    base: str
    is_begun: bool = True

    @classmethod
    def parse(cls, kind: Kind, body: JsonObject) -> "TrainingJob":
        """The resource of an object of the API."""
        spec, spec_error = parse_spec(JOB_SPECS[kind.kind], body)
        return cls(
            kind=kind,
            **identity(body),
            spec=spec,
            spec_error=spec_error,
            status=parse_status(EvaluationStatus if kind is EVALUATION else JobStatus, body),
            base=body["metadata"]["name"],
        )


def identity(body: JsonObject) -> dict[str, Any]:
    """Which resource an object is, and whether it is being deleted."""
    metadata = body["metadata"]
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "generation": int(metadata.get("generation", 1)),
        "terminating": bool(metadata.get("deletionTimestamp")),
    }


def parse_spec(model: type[S], body: JsonObject) -> tuple[S | None, str]:
    """The spec, or None and the sentence that says why it cannot be read."""
    try:
        return model.model_validate(body.get("spec") or {}), ""
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return None, f"spec.{'.'.join(str(part) for part in first['loc'])}: {first['msg']}."


def parse_status(model: type[T], body: JsonObject) -> T:
    """The status as it was last written; an unreadable one counts as none, since it can be made anew."""
    try:
        return model.model_validate(body.get("status") or {})
    except ValidationError:
        return model()


@dataclass(frozen=True)
class Alone:
    """What no second child may be made for at the same time: the hash of its inputs.

    known: uids of the resources with these inputs that the plan knew of, and could not take.
    """

    inputs: str
    known: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Create:
    """A child that is made once and never rewritten, because others own fields of it."""

    kind: Kind
    body: JsonObject
    alone: Alone | None = None


@dataclass(frozen=True)
class Apply:
    """A child that is brought to what it should be by server-side apply."""

    kind: Kind
    body: JsonObject


@dataclass(frozen=True)
class Adjust:
    """A child that is there, of which some fields are to read otherwise; body: a merge patch with its name and uid.

    Not an apply: that would also send what a running job may not change, and would not take a field away that the
    child was created with.
    """

    kind: Kind
    body: JsonObject


Child = Create | Apply | Adjust


@dataclass(frozen=True)
class Delete:
    """An object that is no longer wanted; only the one of that uid is deleted."""

    kind: Kind
    name: str
    uid: str


@dataclass(frozen=True)
class Notice:
    """A Kubernetes Event about the resource; posted on transitions only."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Decision:
    """What was decided and why; one line of the log."""

    action: str
    why: str


@dataclass(frozen=True)
class PodTarget:
    """A pod that is asked for a document."""

    pod_uid: str
    ip: str
    path: str


@dataclass(frozen=True)
class ProgressTarget(PodTarget):
    """The pod that is asked for progress."""

    path: str = "/progress"


@dataclass(frozen=True)
class AdapterTarget(PodTarget):
    """A replica, and the adapters that it is to have: name and folder of each."""

    path: str = "/v1/models"
    adapters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is to be done about a resource now. The order is: children, then status, then deletions, then notices."""

    status: ResourceStatus | None = None
    """The status as it should read; None leaves it alone."""
    children: tuple[Child, ...] = ()
    deletions: tuple[Delete, ...] = ()
    notices: tuple[Notice, ...] = ()
    """What conditions have come to say."""
    remarks: tuple[Notice, ...] = ()
    """What no condition says."""
    decisions: tuple[Decision, ...] = ()
    look_again_s: float | None = None
    """Seconds after which time alone could change the plan."""
    progress: ProgressTarget | None = None
    readings: tuple[PodTarget, ...] = ()
    """Pods of a ModelServe that are asked for what they count."""
    loading: tuple[AdapterTarget, ...] = ()
    """Replicas of a ModelServe that load adapters while they run."""


def seconds_until(then: datetime, now: datetime) -> float:
    """Seconds from now, at least 0."""
    return max(0.0, (then - now).total_seconds())
