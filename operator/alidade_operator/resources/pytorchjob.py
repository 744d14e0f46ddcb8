"""The PyTorchJob of one attempt, for the Kubeflow training operator 1.9."""

from dataclasses import dataclass
from typing import Any

from alidade_crds.blocks import Compute
from alidade_operator.api import PYTORCH_JOB, JsonObject
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.resources.labels import ATTEMPT_LABEL, QUEUE_LABEL, child_labels, owner_reference
from alidade_operator.resources.observation import ACTIVE_SECONDS_BEFORE, GPU_HOURS_BEFORE
from alidade_operator.resources.trainingpod import Mounts, pod_spec, trainer

# Names of pods and values of labels end here.
NAME_LIMIT = 63


@dataclass(frozen=True)
class Attempt:
    """Which attempt at which resource's job, and what earlier attempts have used."""

    kind: str
    namespace: str
    name: str
    uid: str
    base: str
    """What the names of the attempts' jobs begin with."""
    number: int
    gpu_hours_before: float = 0.0
    active_seconds_before: float = 0.0

    @property
    def job_name(self) -> str:
        """Name of the attempt's PyTorchJob or Job."""
        return f"{self.base}-{self.number}"


def longest_name(*, workers: int, attempts: int) -> int:
    """Most characters that a resource's name may have, so that those of its pods stay within 63.

    Pods are called `<name>-<attempt>-master-0` and `<name>-<attempt>-worker-<index>`.
    """
    suffix = f"-{attempts}-worker-{workers - 2}" if workers > 1 else f"-{attempts}-master-0"
    return NAME_LIMIT - len(suffix)


def processes_per_worker(compute: Compute) -> int:
    """Training processes of each pod: as asked for, else one for each GPU, or one on the CPU."""
    return compute.processes_per_worker or compute.gpus_per_worker or 1


def pytorch_job(
    attempt: Attempt, *, compute: Compute, mounts: Mounts, pool: NodePool, config: OperatorConfig
) -> JsonObject:
    """The PyTorchJob. One failed pod ends it and the next attempt is made; ended pods stay for their logs."""
    labels = child_labels(attempt.kind, attempt.name, "trainer") | {ATTEMPT_LABEL: str(attempt.number)}
    template = {
        "metadata": {"labels": labels},
        "spec": pod_spec(trainer(config), mounts=mounts, compute=compute, pool=pool, config=config),
    }
    # With cleanPodPolicy All the result would go with the pod that carries it; Running still frees every GPU.
    run_policy: dict[str, Any] = {"cleanPodPolicy": "Running"}
    job_labels = dict(labels)
    if compute.queue:
        # Created suspended; Kueue takes it from here, and the field is not ours again.
        run_policy["suspend"] = True
        job_labels[QUEUE_LABEL] = compute.queue
    return {
        "apiVersion": PYTORCH_JOB.api_version,
        "kind": PYTORCH_JOB.kind,
        "metadata": {
            "name": attempt.job_name,
            "namespace": attempt.namespace,
            "labels": job_labels,
            "annotations": {
                GPU_HOURS_BEFORE: f"{attempt.gpu_hours_before:.6f}",
                ACTIVE_SECONDS_BEFORE: f"{attempt.active_seconds_before:.3f}",
            },
            "ownerReferences": [owner_reference(attempt.kind, attempt.name, attempt.uid)],
        },
        "spec": {
            "nprocPerNode": str(processes_per_worker(compute)),
            "runPolicy": run_policy,
            "pytorchReplicaSpecs": _replica_specs(compute.workers, template),
        },
    }


def _replica_specs(workers: int, template: dict[str, Any]) -> dict[str, Any]:
    specs = {"Master": {"replicas": 1, "restartPolicy": "Never", "template": template}}
    if workers > 1:
        specs["Worker"] = {"replicas": workers - 1, "restartPolicy": "Never", "template": template}
    return specs
