"""The Job of one attempt, for what needs no training operator: pods that share their work by their index."""

from typing import Any

from alidade_crds.blocks import Compute
from alidade_operator.api import JOB, JsonObject
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.resources.labels import ATTEMPT_LABEL, QUEUE_LABEL, child_labels, owner_reference
from alidade_operator.resources.observation import ACTIVE_SECONDS_BEFORE, GPU_HOURS_BEFORE
from alidade_operator.resources.placement import gang_of_a_job
from alidade_operator.resources.pytorchjob import MOST_ATTEMPTS, NAME_LIMIT, Attempt, job_template
from alidade_operator.resources.trainingpod import Mounts, Program, pod_spec

# Kubernetes adds five letters to the name of a pod.
_POD_SUFFIX = "-00000"


def longest_name(*, workers: int) -> int:
    """Most characters that a resource's name may have, so that its pods' host names stay within 63.

    Pods are called `<name>-<attempt>-<index>-<five letters>`.
    """
    return NAME_LIMIT - len(f"-{MOST_ATTEMPTS}-{workers - 1}{_POD_SUFFIX}")


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
    labels = child_labels(attempt.kind, attempt.name, component) | {ATTEMPT_LABEL: str(attempt.number)}
    pod = pod_spec(program, mounts=mounts, compute=compute, pool=pool, config=config) | {"restartPolicy": "Never"}
    spec: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": compute.workers,
        "parallelism": compute.workers,
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "template": job_template(labels, pod, compute, pool),
    }
    job_labels = dict(labels)
    if compute.queue:
        # Created suspended; Kueue takes it from here, and the field is not ours again.
        spec["suspend"] = True
        job_labels[QUEUE_LABEL] = compute.queue
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": {
            "name": attempt.job_name,
            "namespace": attempt.namespace,
            "labels": job_labels,
            "annotations": {
                GPU_HOURS_BEFORE: f"{attempt.gpu_hours_before:.6f}",
                ACTIVE_SECONDS_BEFORE: f"{attempt.active_seconds_before:.3f}",
                **gang_of_a_job(compute, pool),
            },
            "ownerReferences": [owner_reference(attempt.kind, attempt.name, attempt.uid)],
        },
        "spec": spec,
    }
