"""Which pods of a resource tell what happens in it."""

from collections.abc import Sequence
from typing import Any

from alidade.errors import NotFoundError
from alidade.state import SERVE, Body, why_not_yet

_FIRST_POD = {
    "PyTorchJob": "training.kubeflow.org/job-name={job},training.kubeflow.org/job-role=master",
    "TrainJob": "jobset.sigs.k8s.io/jobset-name={job},batch.kubernetes.io/job-completion-index=0",
    "Job": "batch.kubernetes.io/job-name={job},batch.kubernetes.io/job-completion-index=0",
}
"""Labels of the pod that tells most, by the kind of job."""


def selector_of_logs(kind: str, name: str, body: Body) -> str:
    """Labels of the pods whose log is the resource's: of the present attempt's first process, or of the replicas; while
    a model is quantized, of that.

    Raises NotFoundError, with the reason, while there are none.
    """
    status = body.get("status", {})
    if kind == SERVE:
        job = (status.get("quantizationJob") or {}).get("jobRef") if status.get("phase") == "Quantizing" else None
        if job is None and status.get("selector"):
            return str(status["selector"])
    else:
        job = status.get("jobRef")
    if job is None:
        lacks = "has no replicas" if kind == SERVE else "has not been launched"
        raise NotFoundError(f"{kind} {name} {lacks}; {why_not_yet(kind, body)}")
    return _FIRST_POD[job.get("kind", "PyTorchJob")].format(job=job["name"])


def newest(pods: Sequence[Any], kind: str, name: str, body: Body) -> Any:
    """The youngest of the pods found by that selector. Raises NotFoundError when there are none."""
    if pods:
        return max(pods, key=lambda pod: pod.metadata.creation_timestamp)
    if kind == SERVE and body.get("status", {}).get("phase") != "Quantizing":
        raise NotFoundError(f"{kind} {name} has no replicas; {why_not_yet(kind, body)}")
    raise NotFoundError(
        f"the pods of {kind} {name} are gone, and their logs with them; the report beside the model stays"
    )


def present_stage(body: Body) -> tuple[str, str] | None:
    """Kind and name of the resource whose job is a run's present one; None where the run has one itself, or none."""
    status = body.get("status", {})
    if status.get("jobRef"):
        return None
    stages: list[Body] = status.get("stages", [])
    stage: Body = next((one for one in stages if one["name"] == status.get("stage")), {})
    return (stage["kind"], stage["ref"]) if stage.get("ref") else None
