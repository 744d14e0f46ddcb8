"""What a survey comes to: one finding a line, each with what to do where something is amiss."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from alidade_cli.doctor.survey import Json, Survey
from alidade_crds import GROUP
from alidade_crds.crd import KINDS

State = Literal["ok", "missing", "warning", "optional", "hidden"]
"""missing: nothing works without. warning: some things do not. optional: for whoever wants it. hidden: the account may
not look."""

GPU = "nvidia.com/gpu"
_OLDEST = (1, 29)
_WORKSPACE = "alidade-workspace"
# Provisioners whose volumes several nodes may write to; of others the API does not say.
_SHARED = re.compile(r"filestore|efs\.csi|file\.csi\.azure|nfs|cephfs|fsx|lustre|gluster|juicefs|weka|quobyte|longhorn")


@dataclass(frozen=True)
class Finding:
    """One thing looked at. fix: what to do, empty when nothing is."""

    name: str
    state: State
    message: str
    fix: str = ""


def findings(seen: Survey, now: datetime | None = None) -> list[Finding]:
    """Everything, in the order in which it matters."""
    checks: tuple[Callable[[], Finding | Iterator[Finding]], ...] = (
        lambda: _version(seen),
        lambda: _types(seen),
        lambda: _operator(seen, now or datetime.now(UTC)),
        lambda: _training(seen),
        lambda: _gpus(seen),
        lambda: _pools(seen),
        lambda: _workspace(seen),
        lambda: _storage(seen),
        lambda: _webhook(seen),
        lambda: _kueue(seen),
        lambda: _others(seen),
    )
    found: list[Finding] = []
    for check in checks:
        one = check()
        found += [one] if isinstance(one, Finding) else list(one)
    return found


def _version(seen: Survey) -> Finding:
    match = re.match(r"v(\d+)\.(\d+)", seen.version)
    if match is None or tuple(int(part) for part in match.groups()) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        return Finding("Kubernetes", "missing", seen.version, f"Alidade needs {oldest} or newer.")
    return Finding("Kubernetes", "ok", seen.version)


def _types(seen: Survey) -> Finding:
    lacking = [kind.kind for kind in KINDS if kind.plural not in seen.own_kinds]
    if lacking:
        fix = "helm upgrade --install alidade charts/alidade --namespace alidade-system --create-namespace"
        return Finding("resource types", "missing", f"{GROUP} lacks {', '.join(lacking)}", fix)
    return Finding("resource types", "ok", ", ".join(kind.kind for kind in KINDS))


def _operator(seen: Survey, now: datetime) -> Finding:
    if seen.leases is None and seen.operators is None:
        return Finding("operator", "hidden", "you may list neither Deployments nor Leases of all namespaces")
    for lease in seen.leases or []:
        spec = lease.get("spec") or {}
        holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
        if holder and renewed:
            age_s = (now - datetime.fromisoformat(renewed)).total_seconds()
            if age_s <= 2 * spec.get("leaseDurationSeconds", 15):
                return Finding("operator", "ok", f"{holder} works; it said so {max(age_s, 0):.0f} s ago")
            message = f"{holder} has been silent for {age_s:.0f} s, and nobody has taken over"
            return Finding("operator", "missing", message, _look_at(lease["metadata"]["namespace"]))
    for one in seen.operators or []:
        metadata, status = one["metadata"], one.get("status") or {}
        where = f"Deployment {metadata['name']} in {metadata['namespace']}"
        if status.get("readyReplicas"):
            return Finding("operator", "warning", f"{where} is ready and holds no lease yet", "Look again in a moment.")
        return Finding("operator", "missing", f"{where} has no ready replica", _look_at(metadata["namespace"]))
    fix = "Install the chart; one that runs without leader election, as `alidade up` has it, is not to be seen here."
    return Finding("operator", "warning", "neither a Deployment nor a lease of it is there", fix)


def _look_at(namespace: str) -> str:
    return f"kubectl logs --namespace {namespace} --selector app.kubernetes.io/component=operator --tail 20"


_INSTALL = "kubectl apply --server-side --kustomize 'https://github.com/kubeflow/trainer//manifests/overlays/"
# What training jobs are, by the operator's word for it: plural, version, who runs them, how that is installed.
_BACKENDS = {
    "PyTorchJob": ("pytorchjobs", "kubeflow.org/v1", "training operator", f"{_INSTALL}standalone?ref=v1.9.4'"),
    "TrainJob": ("trainjobs", "trainer.kubeflow.org/v1alpha1", "trainer", f"{_INSTALL}manager?ref=v2.3.0'"),
}


def _training(seen: Survey) -> Iterator[Finding]:
    """Only what the operator's configuration names; without one to be seen, what it is by default."""
    configuration = seen.configuration or {}
    default = configuration.get("trainingBackend") or "PyTorchJob"
    pools = configuration.get("nodePools") or [{}]
    for kind in sorted({pool.get("trainingBackend") or default for pool in pools}):
        plural, version, name, fix = _BACKENDS[kind]
        if plural in seen.training_kinds:
            yield Finding(name, "ok", f"{kind}s are known")
        else:
            yield Finding(name, "missing", f"{kind}s ({version}) are not known: no job can train", fix)


def _gpus_of(node: Json) -> int:
    return int((node.get("status", {}).get("allocatable") or {}).get(GPU, 0))


def _gpus(seen: Survey) -> Finding:
    if seen.nodes is None:
        return Finding("GPUs", "hidden", "you may not list nodes")
    having = [node for node in seen.nodes if _gpus_of(node)]
    if not having:
        fix = "Add a node pool with GPUs, and NVIDIA's device plugin or GPU operator; jobs on CPUs need neither."
        return Finding("GPUs", "warning", f"none of {_count(seen.nodes, 'node')} offers {GPU}", fix)
    kinds = sorted({(node["metadata"].get("labels") or {}).get("nvidia.com/gpu.product", "GPU") for node in having})
    total = sum(_gpus_of(node) for node in having)
    return Finding("GPUs", "ok", f"{total} on {_count(having, 'node')}: {', '.join(kinds)}")


def _pools(seen: Survey) -> Iterator[Finding]:
    """The node pools that the operator's configuration has, against the nodes there are."""
    if seen.configuration is None or seen.nodes is None:
        return
    for pool in seen.configuration.get("nodePools") or []:
        name, wanted, gpus = f"node pool {pool['name']}", pool.get("nodeSelector") or {}, pool.get("gpusPerNode") or 0
        fitting = [node for node in seen.nodes if wanted.items() <= (node["metadata"].get("labels") or {}).items()]
        labels = ", ".join(f"{key}={value}" for key, value in wanted.items()) or "any node"
        if not fitting:
            fix = "Right where an autoscaler makes them when they are asked for; else mend nodeSelector or the labels."
            yield Finding(name, "warning", f"no node has {labels}", fix)
        elif gpus and max(map(_gpus_of, fitting)) < gpus:
            message = f"its nodes offer {max(map(_gpus_of, fitting))} GPUs at most, gpusPerNode says {gpus}"
            yield Finding(name, "warning", message, "Set gpusPerNode to what a node has, or mend the device plugin.")
        else:
            yield Finding(name, "ok", f"{_count(fitting, 'node')} ({labels})")


def _workspace(seen: Survey) -> Finding:
    claim_name = (seen.configuration or {}).get("workspaceClaim") or _WORKSPACE
    name = f"workspace of {seen.namespace}"
    if seen.claims is None:
        return Finding(name, "hidden", f"you may not list claims of {seen.namespace}")
    claim = next((one for one in seen.claims if one["metadata"]["name"] == claim_name), None)
    if claim is None:
        fix = f"Add {seen.namespace} to the chart's workspace.namespaces, or name an output in every resource."
        return Finding(name, "warning", f"there is no claim {claim_name}", fix)
    phase, modes = (claim.get("status") or {}).get("phase"), claim["spec"].get("accessModes") or []
    if phase == "Lost":
        return Finding(name, "missing", f"claim {claim_name} has lost its volume", "Restore the volume.")
    if "ReadWriteMany" not in modes:
        fix = "Right on one node; jobs of several need ReadWriteMany."
        return Finding(name, "warning", f"claim {claim_name} is {', '.join(modes)}", fix)
    return Finding(name, "ok", f"claim {claim_name} is {phase or 'new'}, {', '.join(modes)}")


def _storage(seen: Survey) -> Finding:
    if seen.storage_classes is None:
        return Finding("shared storage", "hidden", "you may not list storage classes")
    shared = [one for one in seen.storage_classes if _SHARED.search(one["provisioner"])]
    if shared:
        return Finding("shared storage", "ok", ", ".join(f"{one['metadata']['name']}" for one in shared))
    claims = [one for one in seen.claims or [] if "ReadWriteMany" in (one["spec"].get("accessModes") or [])]
    if any((one.get("status") or {}).get("phase") == "Bound" for one in claims):
        return Finding("shared storage", "ok", "a ReadWriteMany claim is bound")
    have = ", ".join(f"{one['metadata']['name']} ({one['provisioner']})" for one in seen.storage_classes) or "none"
    fix = "Install a provisioner of shared file systems, such as Filestore, EFS, Azure Files, NFS or CephFS."
    return Finding("shared storage", "warning", f"no storage class known for ReadWriteMany; there are: {have}", fix)


def _webhook(seen: Survey) -> Finding:
    if seen.webhooks is None:
        return Finding("admission webhook", "hidden", "you may not list ValidatingWebhookConfigurations")
    own = [
        hook
        for one in seen.webhooks
        for hook in one.get("webhooks") or []
        if any(GROUP in rule.get("apiGroups", []) for rule in hook.get("rules") or [])
    ]
    if not own:
        message = "not installed: what a cluster lacks for a resource is told by its conditions only"
        return Finding("admission webhook", "optional", message)
    if not all(hook["clientConfig"].get("caBundle") for hook in own):
        fix = "The operator, or cert-manager, writes it: look at their logs."
        return Finding("admission webhook", "warning", "its configuration has no caBundle yet", fix)
    return Finding("admission webhook", "ok", ", ".join(hook["name"] for hook in own))


def _kueue(seen: Survey) -> Finding:
    if "kueue.x-k8s.io" not in seen.groups:
        return Finding("Kueue", "optional", "not installed: resources that name compute.queue stay suspended")
    if seen.queues is None:
        return Finding("Kueue", "hidden", f"you may not list LocalQueues of {seen.namespace}")
    if not seen.queues:
        fix = "Make one, or name none in compute.queue."
        return Finding("Kueue", "warning", f"installed, and {seen.namespace} has no LocalQueue", fix)
    return Finding("Kueue", "ok", "queues " + ", ".join(one["metadata"]["name"] for one in seen.queues))


_OTHERS = (
    ("Prometheus operator", "monitoring.coreos.com", "monitors, alerts and dashboards of the chart"),
    ("KEDA", "keda.sh", "autoscaling.provider keda"),
    ("cert-manager", "cert-manager.io", "webhook.certManager"),
)


def _others(seen: Survey) -> Iterator[Finding]:
    for name, group, needed in _OTHERS:
        there = group in seen.groups
        yield Finding(name, "ok" if there else "optional", "installed" if there else f"not installed: no {needed}")


def _count(things: list[Any], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"
