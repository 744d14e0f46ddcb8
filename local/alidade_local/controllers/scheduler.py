"""The scheduler: binds pods to the node they fit on, and says why others wait."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from alidade_local.client import ApiClient, ConflictError, NotFoundError
from alidade_local.controllers.controller import Controller
from alidade_local.controllers.pods import FINISHED_PHASES, phase_of
from alidade_local.events import EventRecorder, normal, warning
from alidade_local.informer import Informers
from alidade_local.objects import (
    Key,
    Object,
    condition_of,
    format_time,
    is_deleting,
    key_of,
    labels_of,
    matches_expression,
    matches_labels,
    name_of,
    namespace_of,
    uid_of,
)
from alidade_local.quantities import parse_quantity
from alidade_local.resources import NODES, PODS

SCHEDULER_NAME = "default-scheduler"
Resources = Mapping[str, Decimal]


def pod_requests(pod: Object) -> dict[str, Decimal]:
    """What a pod asks of its node: the sum of its containers, or its largest init container if that is more."""
    spec = pod["spec"]
    total = _sum(_container_requests(container) for container in spec["containers"])
    beside: dict[str, Decimal] = {}
    largest: dict[str, Decimal] = {}
    for container in spec.get("initContainers") or []:
        requests = _container_requests(container)
        if container.get("restartPolicy") == "Always":
            beside = _sum([beside, requests])
        else:
            together = _sum([beside, requests])
            largest = {name: max(together.get(name, Decimal(0)), largest.get(name, Decimal(0))) for name in together}
    total = _sum([total, beside])
    names = set(total) | set(largest)
    return {name: max(total.get(name, Decimal(0)), largest.get(name, Decimal(0))) for name in names}


def _container_requests(container: Object) -> dict[str, Decimal]:
    resources = container.get("resources") or {}
    amounts = (resources.get("limits") or {}) | (resources.get("requests") or {})
    return {name: parse_quantity(amount) for name, amount in amounts.items()}


def _sum(parts: Iterable[Resources]) -> dict[str, Decimal]:
    total: dict[str, Decimal] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, Decimal(0)) + amount
    return total


def misfits(pod: Object, node: Object, bound_pods: Sequence[Object]) -> list[str]:
    """Why the node does not take the pod besides the pods that are bound to it; empty when it does."""
    if node["spec"].get("unschedulable"):
        return ["node(s) were unschedulable"]
    if not _selects(pod["spec"], labels_of(node)):
        return ["node(s) didn't match Pod's node affinity/selector"]
    taint = _untolerated_taint(pod["spec"], node)
    if taint is not None:
        return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"]
    allocatable = {name: parse_quantity(amount) for name, amount in node["status"]["allocatable"].items()}
    live = [other for other in bound_pods if phase_of(other) not in FINISHED_PHASES]
    used = _sum(pod_requests(other) for other in live)
    reasons = []
    if len(live) + 1 > allocatable.get("pods", Decimal(0)):
        reasons.append("Too many pods")
    for name, amount in sorted(pod_requests(pod).items()):
        if amount and used.get(name, Decimal(0)) + amount > allocatable.get(name, Decimal(0)):
            reasons.append(f"Insufficient {name}")
    return reasons


def _selects(spec: Object, labels: Mapping[str, str]) -> bool:
    if not matches_labels(spec.get("nodeSelector") or {}, labels):
        return False
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not affinity:
        return True
    return any(
        all(matches_expression(expression, labels) for expression in term.get("matchExpressions") or [])
        for term in affinity["nodeSelectorTerms"]
    )


def _untolerated_taint(spec: Object, node: Object) -> Object | None:
    tolerations: list[Object] = spec.get("tolerations") or []
    taints: list[Object] = node["spec"].get("taints") or []
    for taint in taints:
        hard = taint["effect"] in ("NoSchedule", "NoExecute")
        if hard and not any(_tolerates(toleration, taint) for toleration in tolerations):
            return taint
    return None


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    if toleration["key"] != taint["key"]:
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")


def choose_node(pod: Object, nodes: Sequence[Object], pods: Sequence[Object]) -> tuple[str, str]:
    """(name of a node that takes the pod, "") or ("", the sentence that says why none does)."""
    counted: dict[str, int] = {}
    for node in nodes:
        bound = [other for other in pods if other["spec"].get("nodeName") == name_of(node)]
        reasons = misfits(pod, node, bound)
        if not reasons:
            return name_of(node), ""
        for reason in reasons:
            counted[reason] = counted.get(reason, 0) + 1
    if not nodes:
        return "", "no nodes available to schedule pods"
    details = ", ".join(f"{count} {reason}" for reason, count in sorted(counted.items()))
    return "", f"0/{len(nodes)} nodes are available: {details}."


def needs_scheduling(pod: Object) -> bool:
    """Whether the pod waits for this scheduler."""
    spec = pod["spec"]
    return (
        not spec.get("nodeName")
        and not is_deleting(pod)
        and phase_of(pod) not in FINISHED_PHASES
        and spec.get("schedulerName", SCHEDULER_NAME) == SCHEDULER_NAME
        and not spec.get("schedulingGates")
    )


class Scheduler:
    """Binds one pod after another, so that two never count on the same room."""

    def __init__(self, client: ApiClient, informers: Informers) -> None:
        self.events = EventRecorder(client, SCHEDULER_NAME)
        self.controller = Controller("scheduler", self._schedule, workers=1)
        self._client = client
        self._pods = informers.of(PODS)
        self._nodes = informers.of(NODES)
        self._pods.listen(self._on_pod)
        self._nodes.listen(lambda _before, _after: self._retry_waiting())

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        if after is not None and needs_scheduling(after):
            self.controller.queue.add(key_of(after))
        freed = before is not None and before["spec"].get("nodeName") and phase_of(before) not in FINISHED_PHASES
        if freed and (after is None or phase_of(after) in FINISHED_PHASES):
            self._retry_waiting()

    def _retry_waiting(self) -> None:
        for pod in self._pods.all():
            if needs_scheduling(pod):
                self.controller.queue.add(key_of(pod))

    async def _schedule(self, key: Key) -> None:
        pod = self._pods.get(key)
        if pod is None or not needs_scheduling(pod):
            return
        node_name, why_not = choose_node(pod, self._nodes.all(), self._pods.all())
        if node_name:
            await self._bind(pod, node_name)
        else:
            await self._report(pod, why_not)

    async def _bind(self, pod: Object, node_name: str) -> None:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name_of(pod), "namespace": namespace_of(pod), "uid": uid_of(pod)},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node_name},
        }
        try:
            await self._client.create_subresource(PODS, key_of(pod), "binding", binding)
        except (NotFoundError, ConflictError):
            return  # deleted, replaced or bound meanwhile: its next event brings it back if need be
        # Its room counts as taken before the watch says so.
        bound = await self._client.find(PODS, key_of(pod))
        if bound is not None:
            self._pods.absorb(bound)
        message = f"Successfully assigned {namespace_of(pod)}/{name_of(pod)} to {node_name}"
        self.events.record(PODS, pod, normal("Scheduled", message))

    async def _report(self, pod: Object, why_not: str) -> None:
        known = condition_of(pod, "PodScheduled")
        if known is not None and known["status"] == "False" and known.get("message") == why_not:
            return
        now = format_time(datetime.now(UTC))
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": why_not,
            "lastProbeTime": None,
            "lastTransitionTime": known["lastTransitionTime"] if known and known["status"] == "False" else now,
        }
        others = [c for c in (pod.get("status") or {}).get("conditions") or [] if c["type"] != "PodScheduled"]
        self._pods.absorb(await self._client.patch_status(PODS, pod, {"conditions": [*others, condition]}))
        self.events.record(PODS, pod, warning("FailedScheduling", why_not))
