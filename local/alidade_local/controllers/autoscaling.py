"""HorizontalPodAutoscalers without metrics: replicas are kept between the bounds; conditions say what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from alidade_local.client import ApiClient, NotFoundError
from alidade_local.controllers.controller import Controller
from alidade_local.controllers.replicaset import replicas_of
from alidade_local.events import EventRecorder, normal
from alidade_local.informer import Informers
from alidade_local.objects import Key, Object, condition_of, format_time, is_deleting, key_of, namespace_of, uid_of
from alidade_local.resources import AUTOSCALERS, DEPLOYMENTS, REPLICA_SETS

COMPONENT = "horizontal-pod-autoscaler"
NO_METRICS = (
    "the HPA was unable to compute the replica count: the local cluster has no metrics API; replicas stay as they are "
    "between spec.minReplicas and spec.maxReplicas"
)


@dataclass(frozen=True)
class Decision:
    """What is to be done about a target. replicas: the number it should have; reason: why another than it has."""

    replicas: int
    reason: str
    status: Object


def target_key(autoscaler: Object) -> tuple[str, Key]:
    """(kind, key) of what an autoscaler scales."""
    reference = autoscaler["spec"]["scaleTargetRef"]
    return reference["kind"], Key(namespace_of(autoscaler), reference["name"])


def decide(autoscaler: Object, target: Object, now: datetime) -> Decision:
    """How many replicas the target should have, and what to report."""
    spec, present = autoscaler["spec"], replicas_of(target)
    reason = ""
    wanted = present
    if present and present > spec["maxReplicas"]:
        wanted, reason = spec["maxReplicas"], "Current number of replicas above Spec.MaxReplicas"
    elif present and present < spec["minReplicas"]:
        wanted, reason = spec["minReplicas"], "Current number of replicas below Spec.MinReplicas"
    able = ("AbleToScale", True, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
    if present:
        active = ("ScalingActive", False, f"FailedGet{spec['metrics'][0]['type']}Metric", NO_METRICS)
    else:
        message = "scaling is disabled since the replica count of the target is zero"
        active = ("ScalingActive", False, "ScalingDisabled", message)
    before = autoscaler.get("status") or {}
    status: Object = {
        "currentReplicas": int((target.get("status") or {}).get("replicas", 0)),
        "desiredReplicas": wanted,
        "conditions": [_condition(autoscaler, *one, now) for one in (able, active)],
    }
    if reason:
        status["lastScaleTime"] = format_time(now)
    elif "lastScaleTime" in before:
        status["lastScaleTime"] = before["lastScaleTime"]
    return Decision(wanted, reason, status)


def missing_status(autoscaler: Object, now: datetime) -> Object:
    """The status of an autoscaler whose target is not there, or not of a kind that is scaled here."""
    kind, key = target_key(autoscaler)
    message = (
        f"the HPA controller was unable to get the target's current scale: {kind} {key.name} not found; the local "
        "cluster scales Deployments and ReplicaSets"
    )
    condition = _condition(autoscaler, "AbleToScale", False, "FailedGetScale", message, now)
    return (autoscaler.get("status") or {}) | {"desiredReplicas": 0, "conditions": [condition]}


def _condition(autoscaler: Object, kind: str, value: bool, reason: str, message: str, now: datetime) -> Object:
    before = condition_of(autoscaler, kind)
    unchanged = before is not None and before["status"] == str(value)
    moment = before["lastTransitionTime"] if before is not None and unchanged else format_time(now)
    return {"type": kind, "status": str(value), "reason": reason, "message": message, "lastTransitionTime": moment}


class Autoscaler:
    """Looks at an autoscaler whenever it or its target changes."""

    def __init__(self, client: ApiClient, informers: Informers) -> None:
        self.controller = Controller("autoscaling", self._reconcile)
        self.events = EventRecorder(client, COMPONENT)
        self._client = client
        self._autoscalers = informers.of(AUTOSCALERS)
        self._resources = {resource.kind: resource for resource in (DEPLOYMENTS, REPLICA_SETS)}
        self._targets = {kind: informers.of(resource) for kind, resource in self._resources.items()}
        self.controller.follow(informers, AUTOSCALERS)
        for informer in self._targets.values():
            informer.listen(self._on_target)

    def _on_target(self, before: Object | None, after: Object | None) -> None:
        document = after or before
        if document is None:
            return
        kind = document["kind"]
        for autoscaler in self._autoscalers.all(namespace_of(document)):
            if target_key(autoscaler) == (kind, key_of(document)):
                self.controller.queue.add(key_of(autoscaler))

    async def _reconcile(self, key: Key) -> None:
        autoscaler = self._autoscalers.get(key)
        if autoscaler is None or is_deleting(autoscaler):
            return
        kind, target = target_key(autoscaler)
        found = self._targets[kind].get(target) if kind in self._targets else None
        now = datetime.now(UTC)
        if found is None:
            await self._write(autoscaler, missing_status(autoscaler, now))
            return
        decision = decide(autoscaler, found, now)
        if decision.reason:
            patch = {"metadata": {"uid": uid_of(found)}, "spec": {"replicas": decision.replicas}}
            self._targets[kind].absorb(await self._client.patch(self._resources[kind], target, patch))
            message = f"New size: {decision.replicas}; reason: {decision.reason}"
            self.events.record(AUTOSCALERS, autoscaler, normal("SuccessfulRescale", message))
        await self._write(autoscaler, decision.status)

    async def _write(self, autoscaler: Object, status: Object) -> None:
        if status == autoscaler.get("status"):
            return
        try:
            self._autoscalers.absorb(await self._client.update_status(AUTOSCALERS, {**autoscaler, "status": status}))
        except NotFoundError:
            return
