"""Which port of a pod a port of a Service leads to."""

from __future__ import annotations

from alidade_local.objects import Object


def resolve_target_port(entry: Object, pod: Object) -> int:
    """The number of the pod's port that an entry of a Service's ports leads to."""
    target = entry.get("targetPort") or entry["port"]
    if isinstance(target, str) and not target.isdigit():
        for container in pod["spec"]["containers"]:
            for declared in container.get("ports") or []:
                if declared.get("name") == target:
                    return int(declared["containerPort"])
        return int(entry["port"])
    return int(target)
