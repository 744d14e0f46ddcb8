"""The Deployment controller of `apps/v1`: replaces pods by new ones at the pace that the strategy allows."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from alidade_local.controllers.plan import Children, Plan
from alidade_local.controllers.replicaset import replicas_of
from alidade_local.events import normal
from alidade_local.objects import (
    Object,
    annotations_of,
    controller_reference,
    format_time,
    is_deleting,
    name_of,
    namespace_of,
    parse_time,
)
from alidade_local.resources import DEPLOYMENTS, REPLICA_SETS

REVISION = "deployment.kubernetes.io/revision"
HASH_LABEL = "pod-template-hash"
DEFAULT_HISTORY = 10
DEFAULT_DEADLINE_S = 600


def deployment_planner(deployment: Object, children: Children, now: datetime) -> Plan:
    return plan_deployment(deployment, children[REPLICA_SETS], now)


def plan_deployment(deployment: Object, replica_sets: Sequence[Object], now: datetime) -> Plan:
    """What to create, scale, delete and report for a Deployment whose ReplicaSets are these."""
    if is_deleting(deployment):
        return Plan()
    live = [replica_set for replica_set in replica_sets if not is_deleting(replica_set)]
    work = _Work(deployment, live, now, Plan())
    if work.is_paused:
        _scale_paused(work)
    elif (new := work.new) is None:
        _create_new(work)
    else:
        _scale(work, new)
    _prune(work)
    _report(work)
    _number(work)
    return work.plan


@dataclass
class _Work:
    """One Deployment while it is being planned."""

    deployment: Object
    replica_sets: list[Object]
    now: datetime
    plan: Plan

    @property
    def new(self) -> Object | None:
        """The ReplicaSet of the present template."""
        wanted = template_hash(self.deployment)
        return next((rs for rs in self.replica_sets if _hash_of(rs) == wanted), None)

    @property
    def old(self) -> list[Object]:
        new = self.new
        return [replica_set for replica_set in self.replica_sets if replica_set is not new]

    @property
    def wanted(self) -> int:
        return replicas_of(self.deployment)

    @property
    def is_paused(self) -> bool:
        return bool(self.deployment["spec"].get("paused"))

    @property
    def recreates(self) -> bool:
        return (self.deployment["spec"].get("strategy") or {}).get("type") == "Recreate"

    def bound(self, name: str) -> int:
        """maxSurge (rounded up) or maxUnavailable (rounded down) in pods; 25 % if not given."""
        rolling = (self.deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
        value = rolling.get(name, "25%")
        if isinstance(value, str) and value.endswith("%"):
            share = self.wanted * int(value[:-1]) / 100
            return math.ceil(share) if name == "maxSurge" else math.floor(share)
        return int(value)

    @property
    def max_surge(self) -> int:
        return self.bound("maxSurge")

    @property
    def max_unavailable(self) -> int:
        unavailable = self.bound("maxUnavailable")
        # Both zero would never get anywhere.
        return 1 if unavailable == 0 and self.max_surge == 0 else unavailable


def template_hash(deployment: Object) -> str:
    """A short name for the pod template; equal templates have equal names."""
    canonical = json.dumps(deployment["spec"]["template"], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def _hash_of(replica_set: Object) -> str:
    return str((replica_set["metadata"].get("labels") or {}).get(HASH_LABEL, ""))


def _count(replica_sets: Sequence[Object], field: str) -> int:
    return sum(int((replica_set.get("status") or {}).get(field, 0)) for replica_set in replica_sets)


def _has_pods(replica_set: Object) -> bool:
    """Whether pods of a ReplicaSet may live: also those that end, and those made before its controller hears of 0."""
    status = replica_set.get("status") or {}
    is_known = status.get("observedGeneration", 0) >= replica_set["metadata"].get("generation", 0)
    pods = replicas_of(replica_set) + status.get("replicas", 0) + status.get("terminatingReplicas", 0)
    return pods > 0 or not is_known


def _revision_of(replica_set: Object) -> int:
    return int(annotations_of(replica_set).get(REVISION, "0"))


def _next_revision(work: _Work) -> int:
    return max((_revision_of(replica_set) for replica_set in work.replica_sets), default=0) + 1


def _create_new(work: _Work) -> None:
    if work.recreates:
        _give_up(work, work.old)
        if any(map(_has_pods, work.old)):
            return
        size = work.wanted
    else:
        total = sum(replicas_of(replica_set) for replica_set in work.old)
        size = min(work.wanted, max(work.wanted + work.max_surge - total, 0))
    made = build_replica_set(work.deployment, size, _next_revision(work))
    work.plan.create.append((REPLICA_SETS, made))
    if size:
        message = f"Scaled up replica set {name_of(made)} from 0 to {size}"
        work.plan.events.append(normal("ScalingReplicaSet", message))


def build_replica_set(deployment: Object, replicas: int, revision: int) -> Object:
    """The ReplicaSet of the Deployment's present template."""
    digest = template_hash(deployment)
    template = copy.deepcopy(deployment["spec"]["template"])
    labels = ((template.get("metadata") or {}).get("labels") or {}) | {HASH_LABEL: digest}
    template["metadata"] = (template.get("metadata") or {}) | {"labels": labels}
    selector = copy.deepcopy(deployment["spec"]["selector"])
    selector["matchLabels"] = (selector.get("matchLabels") or {}) | {HASH_LABEL: digest}
    return {
        "metadata": {
            "name": f"{name_of(deployment)}-{digest}",
            "namespace": namespace_of(deployment),
            "labels": labels,
            "annotations": {REVISION: str(revision)},
            "ownerReferences": [controller_reference(deployment, DEPLOYMENTS.api_version, DEPLOYMENTS.kind)],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": deployment["spec"].get("minReadySeconds") or 0,
            "selector": selector,
            "template": template,
        },
    }


def _scale(work: _Work, new: Object) -> None:
    """One step of the roll-out: the new ReplicaSet up within maxSurge, old ones down as availability allows."""
    if work.recreates:
        _give_up(work, work.old)
        if not any(map(_has_pods, work.old)):
            _scale_to(work, new, work.wanted)
        return
    total = sum(replicas_of(replica_set) for replica_set in work.replica_sets)
    present = replicas_of(new)
    if present > work.wanted:
        _scale_to(work, new, work.wanted)
    elif present < work.wanted:
        room = work.wanted + work.max_surge - total
        _scale_to(work, new, min(work.wanted, present + max(room, 0)))
    _scale_down_old(work, new, total)


def _scale_paused(work: _Work) -> None:
    """Keep the roll-out where it is; a changed number of pods is shared out among the ReplicaSets that have some."""
    active = [replica_set for replica_set in work.replica_sets if replicas_of(replica_set)]
    largest_first = sorted(
        active or work.replica_sets, key=lambda rs: (replicas_of(rs), _revision_of(rs)), reverse=True
    )
    if len(active) <= 1:
        for replica_set in sorted(largest_first, key=_revision_of, reverse=True)[:1]:
            _scale_to(work, replica_set, work.wanted)
        return
    total = sum(replicas_of(replica_set) for replica_set in active)
    surge = 0 if work.recreates else work.max_surge
    new_total = min(max(total, work.wanted), work.wanted + surge)
    # To the nearest number, and what is left over with the largest: a small one is not the first to lose its last pod.
    sizes, left = [], new_total - total
    if left < 0:  # of two of a size the older one goes first
        largest_first.sort(key=lambda rs: (-replicas_of(rs), _revision_of(rs)))
    clamped = min if left > 0 else max
    for size in map(replicas_of, largest_first):
        share = clamped(math.floor(size * new_total / total + 0.5) - size, left)
        sizes.append(size + share)
        left -= share
    sizes[0] += left
    for replica_set, size in zip(largest_first, sizes, strict=True):
        _scale_to(work, replica_set, size)


def _scale_down_old(work: _Work, new: Object, total: int) -> None:
    at_least = work.wanted - work.max_unavailable
    new_unavailable = max(replicas_of(new) - _count([new], "availableReplicas"), 0)
    removable = max(total - at_least - new_unavailable, 0)
    # First what does not work anyway, then what does, as far as enough stay available.
    for replica_set in sorted(work.old, key=_revision_of):
        broken = max(replicas_of(replica_set) - _count([replica_set], "availableReplicas"), 0)
        step = min(broken, removable)
        if step:
            _scale_to(work, replica_set, replicas_of(replica_set) - step)
            removable -= step
    spare = max(_count(work.replica_sets, "availableReplicas") - at_least, 0)
    for replica_set in sorted(work.old, key=_revision_of):
        planned = _planned_size(work, replica_set)
        step = min(planned, removable, spare)
        if step:
            _scale_to(work, replica_set, planned - step)
            removable, spare = removable - step, spare - step


def _planned_size(work: _Work, replica_set: Object) -> int:
    for _, document, patch in work.plan.patch:
        if document is replica_set:
            return int(patch["spec"]["replicas"])
    return replicas_of(replica_set)


def _scale_to(work: _Work, replica_set: Object, size: int) -> None:
    if size == _planned_size(work, replica_set):
        return
    verb = "up" if size > replicas_of(replica_set) else "down"
    work.plan.patch = [entry for entry in work.plan.patch if entry[1] is not replica_set]
    work.plan.patch.append((REPLICA_SETS, replica_set, {"spec": {"replicas": size}}))
    message = f"Scaled {verb} replica set {name_of(replica_set)} from {replicas_of(replica_set)} to {size}"
    work.plan.events.append(normal("ScalingReplicaSet", message))


def _give_up(work: _Work, replica_sets: Sequence[Object]) -> None:
    for replica_set in replica_sets:
        _scale_to(work, replica_set, 0)


def _number(work: _Work) -> None:
    """Give the present ReplicaSet the highest revision, also one that a roll-back made present again."""
    new = work.new
    if new is None:
        return
    newest_old = max((_revision_of(replica_set) for replica_set in work.old), default=0)
    revision = _revision_of(new) if _revision_of(new) > newest_old else newest_old + 1
    annotation = {"metadata": {"annotations": {REVISION: str(revision)}}}
    if _revision_of(new) != revision:
        work.plan.patch.append((REPLICA_SETS, new, annotation))
    if annotations_of(work.deployment).get(REVISION) != str(revision):
        work.plan.patch.append((DEPLOYMENTS, work.deployment, annotation))


def _prune(work: _Work) -> None:
    """Delete empty old ReplicaSets beyond the history that is kept."""
    limit = work.deployment["spec"].get("revisionHistoryLimit")
    kept = DEFAULT_HISTORY if limit is None else int(limit)
    empty = [rs for rs in work.old if replicas_of(rs) == 0 and _count([rs], "replicas") == 0]
    surplus = sorted(empty, key=_revision_of)[: max(len(empty) - kept, 0)]
    work.plan.delete += [(REPLICA_SETS, replica_set) for replica_set in surplus]


def _report(work: _Work) -> None:
    new = [work.new] if work.new is not None else []
    available = _count(work.replica_sets, "availableReplicas")
    counts = {
        "replicas": _count(work.replica_sets, "replicas"),
        "updatedReplicas": _count(new, "replicas"),
        "readyReplicas": _count(work.replica_sets, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(max(work.wanted, _count(work.replica_sets, "replicas")) - available, 0),
    }
    known: list[Object] = (work.deployment.get("status") or {}).get("conditions") or []
    work.plan.status = {name: count for name, count in counts.items() if count} | {
        "observedGeneration": work.deployment["metadata"].get("generation", 1),
        "conditions": [_available(work, available, known), _progressing(work, counts, known)],
    }


def _available(work: _Work, available: int, known: list[Object]) -> Object:
    if available >= work.wanted - work.max_unavailable:
        message = "Deployment has minimum availability."
        return _condition("Available", True, "MinimumReplicasAvailable", message, known, work.now)
    message = "Deployment does not have minimum availability."
    return _condition("Available", False, "MinimumReplicasUnavailable", message, known, work.now)


def _progressing(work: _Work, counts: dict[str, int], known: list[Object]) -> Object:
    """Whether the roll-out is complete, goes on, or has stood still longer than progressDeadlineSeconds."""
    if work.is_paused:
        return _condition("Progressing", None, "DeploymentPaused", "Deployment is paused", known, work.now)
    name = name_of(work.new) if work.new is not None else ""
    complete = (
        work.new is not None
        and counts["updatedReplicas"] == counts["replicas"] == work.wanted
        and counts["availableReplicas"] >= work.wanted
    )
    if complete:
        message = f'ReplicaSet "{name}" has successfully progressed.'
        return _condition("Progressing", True, "NewReplicaSetAvailable", message, known, work.now)
    before = next((condition for condition in known if condition["type"] == "Progressing"), None)
    deadline_s = work.deployment["spec"].get("progressDeadlineSeconds") or DEFAULT_DEADLINE_S
    old_counts = {name: (work.deployment.get("status") or {}).get(name, 0) for name in counts}
    stands_still = before is not None and old_counts == counts and before["reason"] != "NewReplicaSetAvailable"
    if before is not None and stands_still:
        ends = parse_time(before["lastUpdateTime"]) + timedelta(seconds=deadline_s)
        if work.now >= ends:
            message = f'ReplicaSet "{name}" has timed out progressing.'
            return _condition("Progressing", False, "ProgressDeadlineExceeded", message, known, work.now)
        work.plan.look_again_after((ends - work.now).total_seconds())
        return before
    message = f'ReplicaSet "{name}" is progressing.'
    fresh = _condition("Progressing", True, "ReplicaSetUpdated", message, known, work.now)
    work.plan.look_again_after(deadline_s)
    return fresh | {"lastUpdateTime": format_time(work.now)}


def _condition(
    condition_type: str, value: bool | None, reason: str, message: str, known: list[Object], now: datetime
) -> Object:
    """value: None for Unknown."""
    status = "Unknown" if value is None else str(value)
    before = next((condition for condition in known if condition["type"] == condition_type), None)
    if before and (before["status"], before["reason"], before["message"]) == (status, reason, message):
        return before
    unchanged = before is not None and before["status"] == status
    return {
        "type": condition_type,
        "status": status,
        "reason": reason,
        "message": message,
        "lastUpdateTime": format_time(now),
        "lastTransitionTime": before["lastTransitionTime"] if before and unchanged else format_time(now),
    }
