"""The Job of one attempt, for what needs no training operator: pods that share their work by their index."""

from collections.abc import Mapping
from typing import Any

from alidade_crds.blocks import Compute
from alidade_operator.api import JOB, JsonObject
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.resources.attempt import MOST_ATTEMPTS, NAME_LIMIT, Attempt, job_template, suspension
from alidade_operator.resources.observation import (
    TrainingJobView,
    attempt_view,
    ending_state,
    parse_time,
    true_conditions,
)
from alidade_operator.resources.placement import gang_of_a_job
from alidade_operator.resources.trainingpod import Mounts, Program, pod_spec

# Kubernetes adds five letters to the name of a pod.
POD_SUFFIX = "-00000"


def longest_name(*, workers: int) -> int:
    """Most characters that a resource's name may have, so that its pods' host names stay within 63.

    Pods are called `<name>-<attempt>-<index>-<five letters>`.
    """
    return NAME_LIMIT - len(f"-{MOST_ATTEMPTS}-{workers - 1}{POD_SUFFIX}")


def batch_job(
    attempt: Attempt,
    program: Program,
    *,
    component: str,
    compute: Compute,
    mounts: Mounts,
    pool: NodePool,
    config: OperatorConfig,
) -> JsonObject:
    """The Job. One failed pod ends it and the next attempt is made; ended pods stay for their logs."""
    pod = pod_spec(program, mounts=mounts, compute=compute, pool=pool, config=config) | {"restartPolicy": "Never"}
    metadata = attempt.metadata(component, compute)
    metadata["annotations"] |= gang_of_a_job(compute, pool)
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": metadata,
        "spec": {
            "completionMode": "Indexed",
            "completions": compute.workers,
            "parallelism": compute.workers,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": job_template(attempt.labels(component), pod, compute, pool),
            **suspension(compute),
        },
    }


def batch_job_view(body: Mapping[str, Any], *, owner_uid: str) -> TrainingJobView | None:
    """A Job whose name ends with an attempt's number, or None for another one."""
    conditions, status = true_conditions(body), body.get("status") or {}
    suspended = bool((body.get("spec") or {}).get("suspend"))
    return attempt_view(
        JOB,
        body,
        owner_uid,
        suspended=suspended,
        state=ending_state(conditions, suspended=suspended) or ("running" if status.get("ready") else "waiting"),
        ending=conditions.get("Complete") or conditions.get("Failed") or {},
        started_at=parse_time(status.get("startTime")),
        had_pods=bool(status.get("failed")),
    )
