"""The PyTorchJob of one attempt, for the Kubeflow training operator 1.9."""

from dataclasses import dataclass
from typing import Any

from alidade_crds.blocks import Compute
from alidade_operator.api import PYTORCH_JOB, JsonObject
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.resources.labels import ATTEMPT_LABEL, QUEUE_LABEL, child_labels, owner_reference
from alidade_operator.resources.observation import ACTIVE_SECONDS_BEFORE, GPU_HOURS_BEFORE
from alidade_operator.resources.placement import near_one_another, pod_annotations, scheduling_policy
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


# Interrupted attempts are not counted against backoffLimit, so that no number bounds them: room for as many as spot
# nodes could take away in months.
MOST_ATTEMPTS = 9999


def longest_name(*, workers: int) -> int:
    """Most characters that a resource's name may have, so that those of its pods stay within 63.

    Pods are called `<name>-<attempt>-master-0` and `<name>-<attempt>-worker-<index>`.
    """
    suffix = f"-{MOST_ATTEMPTS}-worker-{workers - 2}" if workers > 1 else f"-{MOST_ATTEMPTS}-master-0"
    return NAME_LIMIT - len(suffix)


def processes_per_worker(compute: Compute) -> int:
    """Training processes of each pod: as asked for, else one for each GPU, or one on the CPU."""
    return compute.processes_per_worker or compute.gpus_per_worker or 1


def pytorch_job(
    attempt: Attempt, *, compute: Compute, mounts: Mounts, pool: NodePool, config: OperatorConfig
) -> JsonObject:
    """The PyTorchJob. One failed pod ends it and the next attempt is made; ended pods stay for their logs."""
    labels = child_labels(attempt.kind, attempt.name, "trainer") | {ATTEMPT_LABEL: str(attempt.number)}
    spec = pod_spec(trainer(config), mounts=mounts, compute=compute, pool=pool, config=config)
    template = job_template(labels, spec, compute, pool)
    # With cleanPodPolicy All the result would go with the pod that carries it; Running still frees every GPU.
    run_policy: dict[str, Any] = {"cleanPodPolicy": "Running"}
    policy = scheduling_policy(compute, pool)
    if policy is not None:
        run_policy["schedulingPolicy"] = policy
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


def job_template(labels: dict[str, str], spec: dict[str, Any], compute: Compute, pool: NodePool) -> dict[str, Any]:
    """The pod template of a job's workers, which prefer to be near one another."""
    near_one_another(spec, labels, compute, pool)
    annotations = pod_annotations(pool)
    return {"metadata": {"labels": labels} | ({"annotations": annotations} if annotations else {}), "spec": spec}


def _replica_specs(workers: int, template: dict[str, Any]) -> dict[str, Any]:
    specs = {"Master": {"replicas": 1, "restartPolicy": "Never", "template": template}}
    if workers > 1:
        specs["Worker"] = {"replicas": workers - 1, "restartPolicy": "Never", "template": template}
    return specs
