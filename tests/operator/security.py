"""The restricted Pod Security Standard (kubernetes.io/docs/concepts/security/pod-security-standards), control by
control, and a root that nothing can be written to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ALLOWED_VOLUMES = frozenset(
    {
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
    }
)  # fmt: skip


def restricted(spec: dict[str, Any]) -> list[str]:
    """What a pod's spec violates."""
    return [*_of_pod(spec), *(found for container in _containers(spec) for found in _of_container(container))]


def _containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", []), *spec["containers"], *spec.get("ephemeralContainers", [])]


def _of_pod(spec: dict[str, Any]) -> Iterator[str]:
    yield from (f"{name} is set" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name))
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        if len(kinds) != 1 or not kinds <= ALLOWED_VOLUMES:
            yield f"volume {volume['name']} is {', '.join(sorted(kinds))}"
    context = spec.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
        yield "the pod may run as root"
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "the pod has no seccomp profile"
    yield from (f"{name} is set" for name in ("sysctls", "seLinuxOptions", "windowsOptions") if context.get(name))
    if spec.get("automountServiceAccountToken") is not False:
        yield "the pod has a token of Kubernetes"


def _of_container(container: dict[str, Any]) -> Iterator[str]:
    context, name = container.get("securityContext", {}), container["name"]
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may escalate"
    if context.get("privileged") or context.get("procMount", "Default") != "Default":
        yield f"{name} is privileged"
    capabilities = context.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name} has capabilities"
    if context.get("runAsNonRoot", True) is not True or context.get("runAsUser") == 0:
        yield f"{name} may run as root"
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{name} can write to its root"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield f"{name} has a port of the host"
