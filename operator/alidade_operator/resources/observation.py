"""What the cluster says of children and neighbours, parsed: plans see these values and no raw objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from alidade_crds.contract import ProgressDocument, ResultDocument
from alidade_crds.status import JobStatus, ModelInfo
from alidade_operator.api import Kind
from alidade_operator.resources.labels import is_owned_by

GPU_HOURS_BEFORE = "alidade.dev/gpu-hours-before"
ACTIVE_SECONDS_BEFORE = "alidade.dev/active-seconds-before"

TRAINING_CONTAINER = "pytorch"
NODE_CONTAINER = "node"
"""Of a TrainJob's pods."""
EVALUATION_CONTAINER = "evaluation"
QUANTIZATION_CONTAINER = "quantization"
SERVER_CONTAINER = "server"
GATEWAY_CONTAINER = "gateway"
_CONTAINERS = (
    TRAINING_CONTAINER, NODE_CONTAINER, EVALUATION_CONTAINER, QUANTIZATION_CONTAINER, SERVER_CONTAINER,
    GATEWAY_CONTAINER,
)  # fmt: skip
_BATCH_JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
_BATCH_INDEX = "batch.kubernetes.io/job-completion-index"
_JOB_NAME_LABEL = "training.kubeflow.org/job-name"
_JOB_SET_NAME_LABEL = "jobset.sigs.k8s.io/jobset-name"
_REPLICA_TYPE_LABEL = "training.kubeflow.org/replica-type"
_REPLICA_INDEX_LABEL = "training.kubeflow.org/replica-index"

JobState = Literal["waiting", "running", "suspended", "succeeded", "failed"]


@dataclass(frozen=True)
class TrainingJobView:
    """A PyTorchJob, TrainJob or Job: one attempt at a resource's job."""

    kind: Kind
    name: str
    uid: str
    base: str
    attempt: int
    owned: bool
    """Whether this resource is its controller; a leftover of an older resource of the same name is not owned."""
    terminating: bool
    suspended: bool
    """Whether its field `suspend` holds it back, which is the queue's doing."""
    state: JobState
    message: str
    """What its newest condition says."""
    active_since: datetime | None
    """When its controller took it up; None while a queue holds it back."""
    ended_at: datetime | None
    gpu_hours_before: float
    active_seconds_before: float
    created_at: datetime | None = None
    had_pods: bool = True
    """Whether pods of it have run, or failed: one that was never given any has not lost them."""

    @property
    def title(self) -> str:
        """Its kind and name, for messages."""
        return f"{self.kind.kind} {self.name}"


@dataclass(frozen=True)
class Termination:
    """How the training container of a pod ended."""

    exit_code: int
    reason: str
    message: str
    finished_at: datetime | None

    def result(self) -> ResultDocument | None:
        """The result document that the trainer left, or None for any other message."""
        try:
            return ResultDocument.model_validate_json(self.message)
        except ValidationError:
            return None


@dataclass(frozen=True)
class PodView:
    """A pod of a training job."""

    name: str
    uid: str
    job_name: str
    job_uid: str | None
    """None where its controller is not the job itself, but something that the job has made."""
    is_master: bool
    phase: str
    reason: str
    message: str
    """What is the matter with it in one phrase: eviction, image, scheduling; empty when nothing is."""
    image_missing: bool
    ip: str | None
    node: str | None
    ready_to_report: bool
    """Whether its training container runs, so that progress can be asked for."""
    deletion_deadline: datetime | None
    disruption: str
    """Why its node, or its room there, is taken away, in one phrase; empty when it is not."""
    started_at: datetime | None
    termination: Termination | None
    created_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether its processes are gone."""
        return self.phase in ("Succeeded", "Failed")

    def belongs_to(self, job: TrainingJobView) -> bool:
        """Whether it is the job's, and not an older one's of the same name."""
        if self.job_uid is not None:
            return self.job_uid == job.uid
        is_younger = self.created_at is None or job.created_at is None or self.created_at >= job.created_at
        return self.job_name == job.name and is_younger


@dataclass(frozen=True)
class QueueView:
    """What Kueue says of a job that it has not admitted. reason: one CamelCase word; both may be empty."""

    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class ReplicaLoad:
    """Requests at a server: those that wait, and those that are being answered."""

    waiting: int
    running: int


@dataclass(frozen=True)
class SourceView:
    """The resource that spec.model.from names, and what its own model comes from."""

    exists: bool
    succeeded: bool = False
    failed: bool = False
    model: ModelInfo | None = None


@dataclass(frozen=True)
class EndpointView:
    """A ModelServe. url: where it answers, once it does."""

    exists: bool
    url: str | None = None


@dataclass(frozen=True)
class Observed:
    """All that a plan for a training job depends on beside the resource, the configuration and the time."""

    jobs: tuple[TrainingJobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    document_exists: bool = False
    document_foreign: bool = False
    """Whether the ConfigMap of the job document belongs to an older resource of the same name."""
    claims: frozenset[str] = frozenset()
    config_maps: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    """Keys of every ConfigMap the spec names; None for one that does not exist. Empty until they were looked up."""
    source: SourceView | None = None
    source_circle: tuple[str, ...] = ()
    """`Kind/name` of resources that refer to one another in a circle, from this one on; empty when none do."""
    sources: Mapping[tuple[str, str], SourceView] = field(default_factory=dict)
    """By kind and name: the resources whose models an Evaluation takes."""
    endpoint: EndpointView | None = None
    """The ModelServe that an Evaluation asks."""
    progress: ProgressDocument | None = None
    queue: QueueView | None = None
    """Of a job that a queue holds back; None where nothing is known of that."""
    runtime_digest: str = ""
    """Digest of the TrainingRuntime of its TrainJobs; empty where there is none."""
    missing_kinds: frozenset[str] = frozenset()
    """Those of what runs training jobs that the cluster does not know."""


def parse_time(text: str | None) -> datetime | None:
    """A time of the API, or None."""
    return datetime.fromisoformat(text) if text else None


def true_conditions(body: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The conditions that hold, by type."""
    return {
        condition["type"]: condition
        for condition in (body.get("status") or {}).get("conditions") or []
        if condition.get("status") == "True"
    }


def ending_state(conditions: Mapping[str, Any], *, suspended: bool) -> JobState | None:
    """The state of a Job, or of what is like one, that has ended or is held back; None for one that is under way."""
    if "Failed" in conditions:
        return "failed"
    if "Complete" in conditions:
        return "succeeded"
    return "suspended" if suspended else None


def attempt_view(
    kind: Kind,
    body: Mapping[str, Any],
    owner_uid: str,
    *,
    suspended: bool,
    state: JobState,
    ending: Mapping[str, Any],
    started_at: datetime | None,
    had_pods: bool,
) -> TrainingJobView | None:
    """What all kinds of jobs say alike, and what each says in its own way; None for a name without a number.

    ending: the condition by which it has ended. started_at: when its controller took it up, where it says so.
    """
    metadata = body["metadata"]
    base, _, number = metadata["name"].rpartition("-")
    if not number.isdigit():
        return None
    annotations = metadata.get("annotations") or {}
    true = true_conditions(body)
    newest: Mapping[str, Any] = max(true.values(), key=lambda item: str(item.get("lastTransitionTime", "")), default={})
    completion = (body.get("status") or {}).get("completionTime")
    created_at = parse_time(metadata.get("creationTimestamp"))
    # A queue has just let it in when its controller still says that it is suspended.
    is_held = suspended or "Suspended" in true
    return TrainingJobView(
        kind=kind,
        name=metadata["name"],
        uid=metadata["uid"],
        base=base,
        attempt=int(number),
        owned=is_owned_by(metadata, owner_uid),
        terminating=bool(metadata.get("deletionTimestamp")),
        suspended=suspended,
        state=state,
        message=str((ending or newest).get("message", "")),
        active_since=None if is_held else started_at or created_at,
        ended_at=parse_time(completion or ending.get("lastTransitionTime")),
        gpu_hours_before=_number(annotations.get(GPU_HOURS_BEFORE)),
        active_seconds_before=_number(annotations.get(ACTIVE_SECONDS_BEFORE)),
        created_at=created_at,
        had_pods=had_pods,
    )


def _number(text: str | None) -> float:
    try:
        return float(text) if text else 0.0
    except ValueError:
        return 0.0


def pod_view(body: Mapping[str, Any]) -> PodView:
    """A pod."""
    metadata, status = body["metadata"], body.get("status") or {}
    labels = metadata.get("labels") or {}
    container: Mapping[str, Any] = next(
        (item for item in status.get("containerStatuses") or [] if item.get("name") in _CONTAINERS), {}
    )
    job_set = labels.get(_JOB_SET_NAME_LABEL)
    controller = next((ref["uid"] for ref in metadata.get("ownerReferences") or [] if ref.get("controller")), None)
    state = container.get("state") or {}
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    running = state.get("running")
    trouble, image_missing = _trouble(status)
    return PodView(
        name=metadata["name"],
        uid=metadata["uid"],
        job_name=labels.get(_JOB_NAME_LABEL) or job_set or labels.get(_BATCH_JOB_NAME_LABEL, ""),
        # A JobSet is named like its TrainJob, and the pods are those of a Job that it has made.
        job_uid=controller if job_set is None else None,
        is_master=_is_first(metadata),
        phase=status.get("phase", "Pending"),
        reason=str(status.get("reason", "")),
        message=trouble,
        image_missing=image_missing,
        ip=status.get("podIP"),
        node=(body.get("spec") or {}).get("nodeName"),
        ready_to_report=running is not None and not metadata.get("deletionTimestamp"),
        deletion_deadline=parse_time(metadata.get("deletionTimestamp")),
        disruption=_disruption(status),
        started_at=parse_time((running or ended or {}).get("startedAt")),
        termination=_termination(ended) if ended and running is None else None,
        created_at=parse_time(metadata.get("creationTimestamp")),
    )


def _is_first(metadata: Mapping[str, Any]) -> bool:
    """Whether a pod is the one that speaks for its job: the master of a PyTorchJob, index 0 of a Job or TrainJob."""
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    is_master = (labels.get(_REPLICA_TYPE_LABEL), labels.get(_REPLICA_INDEX_LABEL)) == ("master", "0")
    return is_master or (labels.get(_BATCH_INDEX) or annotations.get(_BATCH_INDEX)) == "0"


def _termination(terminated: Mapping[str, Any]) -> Termination:
    return Termination(
        exit_code=int(terminated.get("exitCode", -1)),
        reason=str(terminated.get("reason", "")),
        message=str(terminated.get("message", "")),
        finished_at=parse_time(terminated.get("finishedAt")),
    )


# Of status.reason: how a kubelet ends pods of a node that shuts down, or that make room for a more important one.
_TAKEN_BY_KUBELET = frozenset({"NodeShutdown", "Terminated", "Preempting", "Preempted", "NodeLost"})
_BY_KUBELET = "TerminationByKubelet"


def _disruption(status: Mapping[str, Any]) -> str:
    """Kubernetes' word that a pod ends for no reason of its own.

    Not an eviction for want of memory or disk on the node: what was used there may well have been the pod's own.
    """
    condition: Mapping[str, Any] = next(
        (one for one in status.get("conditions") or [] if one.get("type") == "DisruptionTarget"), {}
    )
    target = condition.get("reason", "") if condition.get("status") == "True" else ""
    reason = status.get("reason", "")
    if reason not in _TAKEN_BY_KUBELET and (not target or target == _BY_KUBELET):
        return ""
    said = condition.get("message") or status.get("message") or ""
    return f"{target or reason}: {said}".rstrip(": ")


def queue_view(workloads: Sequence[Mapping[str, Any]]) -> QueueView:
    """What the Workloads that Kueue has made for a job say of its wait."""
    for workload in workloads:
        status = workload.get("status") or {}
        conditions = {one.get("type"): one for one in status.get("conditions") or []}
        evicted, reserved = conditions.get("Evicted", {}), conditions.get("QuotaReserved", {})
        if reserved.get("status") == "True":
            return QueueView("WaitingForChecks", _checks(status))
        if (workload.get("spec") or {}).get("active") is False:
            return QueueView("Inactive", "its Workload is not active")
        if reserved:
            return QueueView(str(reserved.get("reason", "")), str(reserved.get("message", "")))
        if evicted.get("status") == "True":
            return QueueView(str(evicted.get("reason", "")), str(evicted.get("message", "")))
    if workloads:
        return QueueView()
    # Kueue takes up only the kinds that its configuration lists: neither PyTorchJob nor TrainJob is among its defaults.
    return QueueView("NoWorkload", "Kueue has not taken it up; if that stays so, its integrations lack this kind")


def _checks(status: Mapping[str, Any]) -> str:
    """The admission checks that are not ready, as `name: message`."""
    waiting = [one for one in status.get("admissionChecks") or [] if one.get("state") != "Ready"]
    named = [f"{one.get('name', '')}: {one.get('message', '')}".rstrip(": ") for one in waiting]
    return "its quota is reserved; admission checks are not ready" + (f" ({'; '.join(named)})" if named else "")


_IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})


def _trouble(status: Mapping[str, Any]) -> tuple[str, bool]:
    """What keeps a pod from running, and whether it is the image."""
    if status.get("phase") == "Failed" and status.get("reason"):
        return f"{status['reason']}: {status.get('message', '')}".rstrip(": "), False
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason and reason not in ("ContainerCreating", "PodInitializing"):
            return f"{reason}: {waiting.get('message', '')}".rstrip(": "), reason in _IMAGE_REASONS
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": "), False
    return "", False


def source_view(body: Mapping[str, Any] | None) -> SourceView:
    """The resource that a model comes from; it need not exist."""
    if body is None:
        return SourceView(exists=False)
    try:
        status = JobStatus.model_validate(body.get("status") or {})
    except ValidationError:
        return SourceView(exists=True)
    true = {condition.type for condition in status.conditions if condition.status == "True"}
    return SourceView(exists=True, succeeded="Succeeded" in true, failed="Failed" in true, model=status.model)


def endpoint_view(body: Mapping[str, Any] | None) -> EndpointView:
    """The ModelServe that an endpoint names; it need not exist."""
    if body is None:
        return EndpointView(exists=False)
    status = body.get("status") or {}
    available = true_conditions(body).get("Available") is not None
    return EndpointView(exists=True, url=status.get("url") if available else None)
