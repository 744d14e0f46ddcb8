"""Where pods go: which nodes, by which scheduler, together or apart."""

from collections.abc import Mapping
from typing import Any

from alidade_crds.blocks import Compute
from alidade_operator.config import NodePool

_HOSTNAME = "kubernetes.io/hostname"
_ZONE = "topology.kubernetes.io/zone"
_VOLCANO_QUEUE = "scheduling.volcano.sh/queue-name"
_VOLCANO_MEMBERS = "scheduling.volcano.sh/group-min-member"
# Above what an administrator's own preferences usually weigh: a ring over one far node is as slow as that node.
_NEARNESS = 100


def placement(compute: Compute, pool: NodePool) -> dict[str, Any]:
    """Fields of a pod's spec that bring it to the pool's nodes."""
    spec: dict[str, Any] = {}
    if pool.node_selector:
        spec["nodeSelector"] = dict(pool.node_selector)
    if pool.tolerations:
        spec["tolerations"] = list(pool.tolerations)
    if pool.affinity:
        spec["affinity"] = dict(pool.affinity)
    if pool.runtime_class_name:
        spec["runtimeClassName"] = pool.runtime_class_name
    if pool.gang_scheduling is not None:
        spec["schedulerName"] = pool.gang_scheduling.scheduler
    if compute.priority_class_name:
        spec["priorityClassName"] = compute.priority_class_name
    return spec


def near_one_another(spec: dict[str, Any], labels: Mapping[str, str], compute: Compute, pool: NodePool) -> None:
    """Makes the pods of a job with these labels prefer nodes of one rack, block or what else the pool's key names."""
    if pool.topology_key is None or compute.workers == 1:
        return
    term = {"labelSelector": {"matchLabels": dict(labels)}, "topologyKey": pool.topology_key}
    affinity = dict(spec.get("affinity", {}))
    pods = dict(affinity.get("podAffinity", {}))
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    pods[preferred] = [*pods.get(preferred, []), {"weight": _NEARNESS, "podAffinityTerm": term}]
    spec["affinity"] = affinity | {"podAffinity": pods}


def apart(labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Constraints by which replicas spread over zones and nodes where there is room; each revision for itself."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(labels)},
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key in (_ZONE, _HOSTNAME)
    ]


def scheduling_policy(compute: Compute, pool: NodePool) -> dict[str, Any] | None:
    """A PyTorchJob's schedulingPolicy, of which the training operator makes a PodGroup; None without a gang."""
    gang = pool.gang_scheduling
    if gang is None:
        return None
    policy: dict[str, Any] = {"minAvailable": compute.workers}
    if gang.queue is not None:
        policy["queue"] = gang.queue
    if compute.priority_class_name is not None:
        policy["priorityClass"] = compute.priority_class_name
    if gang.timeout_s is not None:
        policy["scheduleTimeoutSeconds"] = gang.timeout_s
    return policy


def pod_group_policy(pool: NodePool) -> dict[str, Any]:
    """The fields of a TrainingRuntime from which Trainer makes a PodGroup of all pods; none without a gang."""
    gang = pool.gang_scheduling
    if gang is None:
        return {}
    if gang.is_volcano:
        return {"podGroupPolicy": {"volcano": {}}}
    timeout = {"scheduleTimeoutSeconds": gang.timeout_s} if gang.timeout_s is not None else {}
    return {"podGroupPolicy": {"coscheduling": timeout}}


def volcano_queue(pool: NodePool) -> dict[str, str]:
    """The annotation by which Volcano finds the queue of a pool; none without one."""
    gang = pool.gang_scheduling
    return {_VOLCANO_QUEUE: gang.queue} if gang is not None and gang.is_volcano and gang.queue is not None else {}


def gang_of_a_job(compute: Compute, pool: NodePool) -> dict[str, str]:
    """Annotations of a Job of which Volcano makes a PodGroup; its scheduler alone reads them."""
    gang = pool.gang_scheduling
    return {_VOLCANO_MEMBERS: str(compute.workers)} if gang is not None and gang.is_volcano else {}


def pod_annotations(pool: NodePool) -> dict[str, str]:
    """Annotations of the pods of a pool."""
    return volcano_queue(pool) | dict(pool.pod_annotations)
