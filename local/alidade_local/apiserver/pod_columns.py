"""The columns of pods: what `kubectl get pods` says about a pod is found in many places of it."""

from typing import Any

from alidade_local.apiserver import timestamps
from alidade_local.apiserver.tables import AGE, NAME, TableColumn

Json = dict[str, Any]


def _statuses(pod: Json, name: str) -> list[Json]:
    return (pod.get("status") or {}).get(name) or []


def _ready(pod: Json) -> str:
    containers = _statuses(pod, "containerStatuses")
    return f"{sum(bool(item.get('ready')) for item in containers)}/{len(pod['spec'].get('containers') or ())}"


def _restarts(pod: Json) -> str:
    statuses = _statuses(pod, "containerStatuses")
    count = sum(int(item.get("restartCount", 0)) for item in statuses)
    ends = [
        finished
        for item in statuses
        if (finished := ((item.get("lastState") or {}).get("terminated") or {}).get("finishedAt"))
    ]
    return f"{count} ({timestamps.age(max(ends))} ago)" if count and ends else str(count)


def pod_status(pod: Json) -> str:
    """One word for how a pod is, by the rules of the original."""
    status = pod.get("status") or {}
    reason = _init_reason(pod)
    if reason is None:
        reason = _main_reason(pod, status.get("reason") or status.get("phase") or "Unknown")
    if pod["metadata"].get("deletionTimestamp"):
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return reason


def _end_reason(terminated: Json) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _init_reason(pod: Json) -> str | None:
    """What the first unfinished init container waits for; nothing when all are done."""
    total = len(pod["spec"].get("initContainers") or ())
    for index, item in enumerate(_statuses(pod, "initContainerStatuses")):
        state = item.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting") or {}
        if terminated is not None and terminated.get("exitCode") == 0:
            continue
        if terminated is not None:
            return f"Init:{_end_reason(terminated)}"
        if waiting.get("reason") and waiting["reason"] != "PodInitializing":
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{total}"
    return None


def _main_reason(pod: Json, reason: str) -> str:
    running = False
    for item in reversed(_statuses(pod, "containerStatuses")):
        state = item.get("state") or {}
        if (state.get("waiting") or {}).get("reason"):
            reason = state["waiting"]["reason"]
        elif state.get("terminated") is not None:
            reason = _end_reason(state["terminated"])
        elif item.get("ready") and state.get("running") is not None:
            running = True
    if reason == "Completed" and running:
        conditions = (pod.get("status") or {}).get("conditions") or ()
        ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
        return "Running" if ready else "NotReady"
    return reason


def _readiness_gates(pod: Json) -> str:
    gates = [item["conditionType"] for item in pod["spec"].get("readinessGates") or ()]
    if not gates:
        return "<none>"
    met = {item["type"] for item in _statuses(pod, "conditions") if item["status"] == "True"}
    return f"{sum(gate in met for gate in gates)}/{len(gates)}"


POD_COLUMNS = (
    NAME,
    TableColumn("Ready", _ready),
    TableColumn("Status", pod_status),
    TableColumn("Restarts", _restarts),
    AGE,
    TableColumn("IP", lambda pod: (pod.get("status") or {}).get("podIP") or "<none>", priority=1),
    TableColumn("Node", lambda pod: pod["spec"].get("nodeName") or "<none>", priority=1),
    TableColumn(
        "Nominated Node", lambda pod: (pod.get("status") or {}).get("nominatedNodeName") or "<none>", priority=1
    ),
    TableColumn("Readiness Gates", _readiness_gates, priority=1),
)
