"""The status of a pod, computed from what is known of its containers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from alidade_local.kubelet.records import ContainerRecord, Running, Terminated
from alidade_local.objects import Object, format_time

KUBELET_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")


@dataclass(frozen=True)
class PodState:
    """Everything the status depends on besides the pod's spec.

    sidecars: names of the init containers that stay running beside the others (restartPolicy Always).
    ended: (reason, message) when the kubelet ended the pod (deadline, node shutdown), whatever its containers say.
    """

    init_containers: Sequence[ContainerRecord]
    containers: Sequence[ContainerRecord]
    pod_ip: str
    host_ip: str
    started_at: datetime
    sidecars: frozenset[str] = frozenset()
    ended: tuple[str, str] | None = None


def pod_phase(restart_policy: str, state: PodState) -> str:
    """The phase, by the rules of the kubelet's getPhase."""
    if state.ended is not None:
        return "Failed"
    for record in state.init_containers:
        if record.name in state.sidecars:
            continue
        ended = _ended(record)
        if ended is None:
            return "Pending"
        if ended.exit_code != 0:
            return "Failed" if restart_policy == "Never" else "Pending"
    ends = [_ended(record) for record in state.containers]
    running = any(isinstance(record.state, Running) for record in state.containers)
    if any(end is None and not isinstance(r.state, Running) for end, r in zip(ends, state.containers, strict=True)):
        return "Pending"
    if running or restart_policy == "Always":
        return "Running"
    if all(end is not None and end.exit_code == 0 for end in ends):
        return "Succeeded"
    return "Failed" if restart_policy == "Never" else "Running"


def _ended(record: ContainerRecord) -> Terminated | None:
    """How a container that does not run now ended: its state, or its last one while it waits to be restarted."""
    if isinstance(record.state, Terminated):
        return record.state
    return None if isinstance(record.state, Running) else record.last


def pod_status(pod: Object, state: PodState, now: datetime) -> Object:
    """The status document; what others put into it (the PodScheduled condition, qosClass) is kept."""
    phase = pod_phase(pod["spec"].get("restartPolicy") or "Always", state)
    known: Object = pod.get("status") or {}
    reason, message = state.ended or (None, None)
    return {
        "phase": phase,
        "reason": reason,
        "message": message,
        "hostIP": state.host_ip,
        "hostIPs": [{"ip": state.host_ip}],
        "podIP": state.pod_ip,
        "podIPs": [{"ip": state.pod_ip}],
        "startTime": known.get("startTime") or format_time(state.started_at),
        "conditions": _conditions(known.get("conditions") or [], phase, state, now),
        "initContainerStatuses": [record.status() for record in state.init_containers] or None,
        "containerStatuses": [record.status() for record in state.containers],
    }


def _conditions(known: list[Object], phase: str, state: PodState, now: datetime) -> list[Object]:
    kept = [condition for condition in known if condition["type"] not in KUBELET_CONDITIONS]
    before = {condition["type"]: condition for condition in known}
    values = {
        "PodReadyToStartContainers": (phase in ("Pending", "Running"), "", ""),
        "Initialized": _initialized(phase, state),
        "Ready": _ready(phase, state),
        "ContainersReady": _ready(phase, state),
    }
    return [_condition(name, *value, before.get(name), now) for name, value in values.items()] + kept


def _initialized(phase: str, state: PodState) -> tuple[bool, str, str]:
    if phase == "Succeeded":
        return True, "PodCompleted", ""
    waiting = [
        record.name
        for record in state.init_containers
        if not (record.started if record.name in state.sidecars else _succeeded(record))
    ]
    if waiting:
        return False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(waiting)}]"
    return True, "", ""


def _ready(phase: str, state: PodState) -> tuple[bool, str, str]:
    if phase in ("Succeeded", "Failed"):
        return False, "PodCompleted" if phase == "Succeeded" else "PodFailed", ""
    unready = [record.name for record in state.containers if not record.ready]
    if unready:
        return False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    return True, "", ""


def _succeeded(record: ContainerRecord) -> bool:
    ended = _ended(record)
    return ended is not None and ended.exit_code == 0


def _condition(
    condition_type: str, value: bool, reason: str, message: str, before: Object | None, now: datetime
) -> Object:
    status = str(value)
    unchanged = before is not None and before["status"] == status
    condition: Object = {
        "type": condition_type,
        "status": status,
        "lastProbeTime": None,
        "lastTransitionTime": before["lastTransitionTime"] if before and unchanged else format_time(now),
    }
    return condition | ({"reason": reason} if reason else {}) | ({"message": message} if message else {})
