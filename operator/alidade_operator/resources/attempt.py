"""An attempt at a resource's job: its names, and what the objects that run it have in common, whatever they are."""

from dataclasses import dataclass
from typing import Any

from alidade_crds.blocks import Compute
from alidade_operator.config import NodePool
from alidade_operator.resources.labels import ATTEMPT_LABEL, QUEUE_LABEL, child_labels, owner_reference
from alidade_operator.resources.observation import ACTIVE_SECONDS_BEFORE, GPU_HOURS_BEFORE
from alidade_operator.resources.placement import near_one_another, pod_annotations

# Names of pods and values of labels end here.
NAME_LIMIT = 63
# Interrupted attempts are not counted against backoffLimit, so that no number bounds them: room for as many as spot
# nodes could take away in months.
MOST_ATTEMPTS = 9999


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
        """Name of the attempt's job."""
        return f"{self.base}-{self.number}"

    def labels(self, component: str) -> dict[str, str]:
        """Labels of its job."""
        return child_labels(self.kind, self.name, component) | {ATTEMPT_LABEL: str(self.number)}

    def metadata(self, component: str, compute: Compute) -> dict[str, Any]:
        """Metadata of its job, which carries what earlier attempts have used, and the queue that it waits in."""
        return {
            "name": self.job_name,
            "namespace": self.namespace,
            "labels": self.labels(component) | ({QUEUE_LABEL: compute.queue} if compute.queue else {}),
            "annotations": {
                GPU_HOURS_BEFORE: f"{self.gpu_hours_before:.6f}",
                ACTIVE_SECONDS_BEFORE: f"{self.active_seconds_before:.3f}",
            },
            "ownerReferences": [owner_reference(self.kind, self.name, self.uid)],
        }


def processes_per_worker(compute: Compute) -> int:
    """Training processes of each pod: as asked for, else one for each GPU, or one on the CPU."""
    return compute.processes_per_worker or compute.gpus_per_worker or 1


def suspension(compute: Compute) -> dict[str, bool]:
    """A job for a queue is created suspended; Kueue takes it from there, and the field is not ours again."""
    return {"suspend": True} if compute.queue else {}


def job_template(labels: dict[str, str], spec: dict[str, Any], compute: Compute, pool: NodePool) -> dict[str, Any]:
    """The pod template of a job's workers, which prefer to be near one another."""
    near_one_another(spec, labels, compute, pool)
    annotations = pod_annotations(pool)
    return {"metadata": {"labels": labels} | ({"annotations": annotations} if annotations else {}), "spec": spec}
