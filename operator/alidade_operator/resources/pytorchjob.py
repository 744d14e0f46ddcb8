"""The PyTorchJob of one attempt, for the Kubeflow training operator 1.9."""

from collections.abc import Mapping
from typing import Any

from alidade_crds.blocks import Compute
from alidade_operator.api import PYTORCH_JOB, JsonObject
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.resources.attempt import (
    MOST_ATTEMPTS,
    NAME_LIMIT,
    Attempt,
    job_template,
    processes_per_worker,
    suspension,
)
from alidade_operator.resources.observation import (
    TRAINING_CONTAINER,
    JobState,
    TrainingJobView,
    attempt_view,
    parse_time,
    true_conditions,
)
from alidade_operator.resources.placement import scheduling_policy
from alidade_operator.resources.trainingpod import Mounts, pod_spec, trainer


def longest_name(*, workers: int) -> int:
    """Most characters that a resource's name may have, so that those of its pods stay within 63.

    Pods are called `<name>-<attempt>-master-0` and `<name>-<attempt>-worker-<index>`.
    """
    suffix = f"-{MOST_ATTEMPTS}-worker-{workers - 2}" if workers > 1 else f"-{MOST_ATTEMPTS}-master-0"
    return NAME_LIMIT - len(suffix)


def pytorch_job(
    attempt: Attempt, *, compute: Compute, mounts: Mounts, pool: NodePool, config: OperatorConfig
) -> JsonObject:
    """The PyTorchJob. One failed pod ends it and the next attempt is made; ended pods stay for their logs."""
    spec = pod_spec(trainer(config, TRAINING_CONTAINER), mounts=mounts, compute=compute, pool=pool, config=config)
    template = job_template(attempt.labels("trainer"), spec, compute, pool)
    # With cleanPodPolicy All the result would go with the pod that carries it; Running still frees every GPU.
    run_policy: dict[str, Any] = {"cleanPodPolicy": "Running"}
    policy = scheduling_policy(compute, pool)
    if policy is not None:
        run_policy["schedulingPolicy"] = policy
    return {
        "apiVersion": PYTORCH_JOB.api_version,
        "kind": PYTORCH_JOB.kind,
        "metadata": attempt.metadata("trainer", compute),
        "spec": {
            "nprocPerNode": str(processes_per_worker(compute)),
            "runPolicy": run_policy | suspension(compute),
            "pytorchReplicaSpecs": _replica_specs(compute.workers, template),
        },
    }


def _replica_specs(workers: int, template: dict[str, Any]) -> dict[str, Any]:
    specs = {"Master": {"replicas": 1, "restartPolicy": "Never", "template": template}}
    if workers > 1:
        specs["Worker"] = {"replicas": workers - 1, "restartPolicy": "Never", "template": template}
    return specs


def pytorch_job_view(body: Mapping[str, Any], *, owner_uid: str) -> TrainingJobView | None:
    """A PyTorchJob whose name ends with an attempt's number, or None for another one."""
    run_policy, status = (body.get("spec") or {}).get("runPolicy") or {}, body.get("status") or {}
    conditions = true_conditions(body)
    suspended = bool(run_policy.get("suspend"))
    return attempt_view(
        PYTORCH_JOB,
        body,
        owner_uid,
        suspended=suspended,
        state=_state(conditions, suspended=suspended),
        ending=conditions.get("Succeeded") or conditions.get("Failed") or {},
        # It begins anew when a queue lets the job in again, which is what leaves suspended time out.
        started_at=parse_time(status.get("startTime")),
        # Once it has run the condition stays, and becomes False.
        had_pods=any(condition.get("type") == "Running" for condition in status.get("conditions") or []),
    )


def _state(conditions: Mapping[str, Any], *, suspended: bool) -> JobState:
    # The last condition is not "the state": the training operator moves updated ones to the end.
    if "Failed" in conditions:
        return "failed"
    if "Succeeded" in conditions:
        return "succeeded"
    if suspended:
        return "suspended"
    return "running" if "Running" in conditions else "waiting"
