"""What controllers ask about pods."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from alidade_local.objects import Object, created_at, is_condition_true, is_deleting, parse_time

FINISHED_PHASES = ("Succeeded", "Failed")


def phase_of(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def is_active(pod: Object) -> bool:
    """Whether the pod runs or will run."""
    return phase_of(pod) not in FINISHED_PHASES and not is_deleting(pod)


def is_ready(pod: Object) -> bool:
    return is_condition_true(pod, "Ready")


def restarts_of(pod: Object) -> int:
    """How often the pod's containers were restarted in place, all together."""
    status = pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return sum(container.get("restartCount", 0) for container in containers)


def finished_at(pod: Object) -> datetime:
    """When the pod ended: with its last container, or, if none ran, when its conditions last changed."""
    status = pod.get("status") or {}
    ends = [
        container["state"]["terminated"]["finishedAt"]
        for container in status.get("containerStatuses") or []
        if "terminated" in (container.get("state") or {})
    ] or [condition["lastTransitionTime"] for condition in status.get("conditions") or []]
    return max(map(parse_time, ends), default=created_at(pod))


def pods_to_delete(pods: Sequence[Object]) -> list[Object]:
    """The pods in the order in which they are given up: unbound, pending, not ready, then the youngest."""
    youngest_first = sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True)
    return sorted(
        youngest_first, key=lambda pod: (bool(pod["spec"].get("nodeName")), phase_of(pod) == "Running", is_ready(pod))
    )
