"""The ReplicaSet controller of `apps/v1`: keeps a number of pods alive."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime, timedelta

from alidade_local.controllers.plan import Children, Plan
from alidade_local.controllers.pods import FINISHED_PHASES, is_active, is_ready, phase_of, pods_to_delete
from alidade_local.objects import (
    Object,
    condition_of,
    controller_reference,
    is_deleting,
    labels_of,
    matches_labels,
    name_of,
    namespace_of,
    parse_time,
)
from alidade_local.resources import PODS, REPLICA_SETS

# As many pods as are created or deleted in one go.
BURST = 50


def replicas_of(document: Object) -> int:
    """The number of pods a ReplicaSet or Deployment asks for."""
    replicas = document["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def replica_set_planner(replica_set: Object, children: Children, now: datetime) -> Plan:
    return plan_replica_set(replica_set, children[PODS], now)


def plan_replica_set(replica_set: Object, pods: Sequence[Object], now: datetime) -> Plan:
    """What to create, delete and report for a ReplicaSet whose pods are these."""
    if is_deleting(replica_set):
        return Plan()
    plan = Plan()
    active = [pod for pod in pods if is_active(pod)]
    # Pods that ended by themselves (evicted, node shut down) are replaced; the original leaves them to a collector.
    plan.delete += [(PODS, pod) for pod in pods if phase_of(pod) == "Failed" and not is_deleting(pod)]
    missing = replicas_of(replica_set) - len(active)
    if missing > 0:
        plan.create += [(PODS, build_pod(replica_set)) for _ in range(min(missing, BURST))]
    elif missing < 0:
        plan.delete += [(PODS, pod) for pod in pods_to_delete(active)[:-missing][:BURST]]
    seconds = int(replica_set["spec"].get("minReadySeconds") or 0)
    available = [pod for pod in active if available_at(pod, seconds) is not None]
    later = [moment for pod in available if (moment := available_at(pod, seconds)) is not None and moment > now]
    if later:
        plan.look_again_after((min(later) - now).total_seconds())
    ending = sum(1 for pod in pods if is_deleting(pod) and phase_of(pod) not in FINISHED_PHASES)
    plan.status = _status(replica_set, active, len(available) - len(later), ending)
    return plan


def available_at(pod: Object, min_ready_s: int) -> datetime | None:
    """When a pod has been ready for that many seconds; None while it is not ready."""
    ready = condition_of(pod, "Ready")
    if ready is None or ready["status"] != "True":
        return None
    return parse_time(ready["lastTransitionTime"]) + timedelta(seconds=min_ready_s)


def _status(replica_set: Object, active: Sequence[Object], available: int, ending: int) -> Object:
    template_labels = (replica_set["spec"]["template"].get("metadata") or {}).get("labels") or {}
    counts = {
        "replicas": len(active),
        "fullyLabeledReplicas": sum(1 for pod in active if matches_labels(template_labels, labels_of(pod))),
        "readyReplicas": sum(1 for pod in active if is_ready(pod)),
        "availableReplicas": available,
        "terminatingReplicas": ending,
    }
    status = {name: count for name, count in counts.items() if count or name == "replicas"}
    return status | {"observedGeneration": replica_set["metadata"].get("generation", 1)}


def build_pod(replica_set: Object) -> Object:
    template = copy.deepcopy(replica_set["spec"]["template"])
    metadata = template.get("metadata") or {}
    return {
        "metadata": {
            "generateName": f"{name_of(replica_set)}-",
            "namespace": namespace_of(replica_set),
            "labels": metadata.get("labels") or {},
            "annotations": metadata.get("annotations") or {},
            "ownerReferences": [controller_reference(replica_set, REPLICA_SETS.api_version, REPLICA_SETS.kind)],
        },
        "spec": template["spec"],
    }
