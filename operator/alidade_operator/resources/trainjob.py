"""The TrainJob of one attempt, and the TrainingRuntime that holds its pods, for Kubeflow Trainer 2.

A TrainJob may patch only some fields of its runtime's pods, and others with each minor version of the API. So the
resource has a runtime of its own that is complete; docs/decisions/0009-trainjobs-with-their-own-runtime.md says more.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from alidade_crds.blocks import Compute
from alidade_operator.api import TRAIN_JOB, TRAINING_RUNTIME, JsonObject
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.resources.attempt import (
    MOST_ATTEMPTS,
    NAME_LIMIT,
    Attempt,
    job_template,
    processes_per_worker,
    suspension,
)
from alidade_operator.resources.batchjob import POD_SUFFIX
from alidade_operator.resources.labels import child_labels, owner_reference
from alidade_operator.resources.observation import (
    NODE_CONTAINER,
    TrainingJobView,
    attempt_view,
    ending_state,
    parse_time,
    true_conditions,
)
from alidade_operator.resources.placement import pod_group_policy, volcano_queue
from alidade_operator.resources.trainingpod import Mounts, pod_spec, trainer

# Names that Trainer looks for: the job of the JobSet whose pods get their ranks, and its label.
_NODE = "node"
_ANCESTOR = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
_DIGEST = "alidade.dev/digest"


def longest_name(*, workers: int) -> int:
    """Most characters that a resource's name may have, so that those of its pods stay within 63.

    Pods are called `<name>-<attempt>-node-0-<index>-<five letters>`.
    """
    return NAME_LIMIT - len(f"-{MOST_ATTEMPTS}-{_NODE}-0-{workers - 1}{POD_SUFFIX}")


def runtime_name(base: str, uid: str) -> str:
    """Name of the TrainingRuntime of a resource's attempts; a new resource of the same name gets another one."""
    return f"{base}-{uid[:8]}"


def training_runtime(
    attempt: Attempt, *, compute: Compute, mounts: Mounts, pool: NodePool, config: OperatorConfig
) -> JsonObject:
    """The TrainingRuntime: one failed pod ends its JobSet; ended pods stay for their logs.

    It is the same for every attempt, as long as the operator's configuration is.
    """
    labels = child_labels(attempt.kind, attempt.name, "trainer")
    pod = pod_spec(trainer(config, NODE_CONTAINER), mounts=mounts, compute=compute, pool=pool, config=config)
    job = {
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "template": job_template(labels, pod | {"restartPolicy": "Never"}, compute, pool),
    }
    node = {"name": _NODE, "replicas": 1, "template": {"metadata": {"labels": _ANCESTOR}, "spec": job}}
    queue = volcano_queue(pool)
    spec = {
        "mlPolicy": {"torch": {}},
        **pod_group_policy(pool),
        "template": ({"metadata": {"annotations": queue}} if queue else {}) | {"spec": {"replicatedJobs": [node]}},
    }
    return {
        "apiVersion": TRAINING_RUNTIME.api_version,
        "kind": TRAINING_RUNTIME.kind,
        "metadata": {
            "name": runtime_name(attempt.base, attempt.uid),
            "namespace": attempt.namespace,
            "labels": labels,
            "annotations": {_DIGEST: hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]},
            "ownerReferences": [owner_reference(attempt.kind, attempt.name, attempt.uid)],
        },
        "spec": spec,
    }


def digest_of(runtime: Mapping[str, Any]) -> str:
    """What tells a TrainingRuntime of ours from an earlier state of it."""
    return str((runtime["metadata"].get("annotations") or {}).get(_DIGEST, ""))


def train_job(attempt: Attempt, *, compute: Compute) -> JsonObject:
    """The TrainJob: how many pods of its runtime there are, and how many processes each has."""
    return {
        "apiVersion": TRAIN_JOB.api_version,
        "kind": TRAIN_JOB.kind,
        "metadata": attempt.metadata("trainer", compute),
        "spec": {
            "runtimeRef": {
                "apiGroup": TRAINING_RUNTIME.group,
                "kind": TRAINING_RUNTIME.kind,
                "name": runtime_name(attempt.base, attempt.uid),
            },
            "trainer": {"numNodes": compute.workers, "numProcPerNode": processes_per_worker(compute)},
            **suspension(compute),
        },
    }


def train_job_view(body: Mapping[str, Any], *, owner_uid: str) -> TrainingJobView | None:
    """A TrainJob whose name ends with an attempt's number, or None for another one."""
    conditions = true_conditions(body)
    suspended = bool((body.get("spec") or {}).get("suspend"))
    nodes = next((one for one in _jobs(body) if one.get("name") == _NODE), {})
    return attempt_view(
        TRAIN_JOB,
        body,
        owner_uid,
        suspended=suspended,
        state=ending_state(conditions, suspended=suspended) or ("running" if nodes.get("ready") else "waiting"),
        ending=conditions.get("Complete") or conditions.get("Failed") or {},
        started_at=_resumed_at(body),
        # Of its JobSet's Job, which fails by its pods alone.
        had_pods=bool(nodes.get("failed")),
    )


def _jobs(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from (body.get("status") or {}).get("jobsStatus") or []


def _resumed_at(body: Mapping[str, Any]) -> datetime | None:
    """When a queue let it in, which is what leaves suspended time out; None for one that was never suspended."""
    known = (body.get("status") or {}).get("conditions") or []
    return next((parse_time(one.get("lastTransitionTime")) for one in known if one.get("type") == "Suspended"), None)
