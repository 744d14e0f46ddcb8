"""The chart as helm renders it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "alidade"
NAMESPACE = "alidade-system"

Json = dict[str, Any]

# CSafeLoader where PyYAML has it: the resource types are 400 KB.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

GPU_POOLS: list[Json] = [
    {
        "name": "a100-80gb",
        "nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-a100-80gb"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "gpusPerNode": 8,
        "gpuMemoryGib": 80,
        "pricePerGpuHour": 3.9,
    },
    {"name": "a100-40gb", "gpusPerNode": 8, "gpuMemoryGib": 40, "env": [{"name": "NCCL_DEBUG", "value": "WARN"}]},
]

VALUE_SETS: dict[str, Json] = {
    "defaults": {},
    "all on": {
        "config": {"nodePools": GPU_POOLS, "trainerImage": "registry.example.com/trainer:1", "logLevel": "DEBUG"},
        "image": {"repository": "registry.example.com/operator", "digest": "sha256:" + "0" * 64},
        "imagePullSecrets": ["registry"],
        "workspace": {"namespaces": ["team-a", "team-b"], "storageClassName": "filestore", "size": "2Ti"},
        "monitoring": {"enabled": True, "labels": {"release": "monitoring"}, "rules": {"labels": {"team": "ml"}}},
        "networkPolicy": {"extraEgress": [{"ports": [{"port": 3128}]}]},
        "jobNetworkPolicy": {"namespaces": ["team-a"], "extraEgress": [{"ports": [{"port": 3128}]}]},
        "serviceAccount": {"annotations": {"iam.gke.io/gcp-service-account": "operator@example.com"}},
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "podLabels": {"team": "ml"},
        "podAnnotations": {"a": "b"},
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "volumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/own"}],
    },
    "two namespaces": {
        "watchNamespaces": ["team-a", "team-b"],
        "workspace": {"namespaces": ["team-a"]},
        "rbac": {"userRoles": False},
        "crds": {"install": False},
        "monitoring": {"enabled": True},
    },
    "webhook": {"webhook": {"enabled": True}, "networkPolicy": {"webhookCidrs": ["10.0.0.0/28"]}},
    "webhook in a namespace, by cert-manager": {
        "watchNamespaces": ["team-a"],
        "rbac": {"userRoles": False},
        "webhook": {"enabled": True, "failurePolicy": "Fail", "certManager": {"enabled": True}},
    },
    "as little as there is": {
        "replicas": 1,
        "crds": {"install": False, "keep": False},
        "rbac": {"create": False, "userRoles": False},
        "serviceAccount": {"create": False, "name": "own"},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "monitoring": {"enabled": False},
    },
    "monitors without rules": {
        "monitoring": {
            "enabled": True,
            "monitors": {"operator": False, "jobs": False},
            "rules": {"enabled": False},
            "dashboards": {"enabled": False},
        },
    },
}


def helm_path() -> str:
    """helm: the one that the variable HELM names, the project's own, or the one on PATH."""
    return os.environ.get("HELM") or program_path("helm")


def program_path(name: str) -> str:
    """helm or kubectl: the project's own, or the one on PATH."""
    bundled = ROOT / ".tools" / "bin" / name
    found = str(bundled) if bundled.exists() else shutil.which(name)
    assert found is not None, f"these tests need {name}: make .tools/bin/{name}"
    return found


def helm(*arguments: str, values: Json | None = None) -> subprocess.CompletedProcess[str]:
    """Runs helm; values are given by a file on the standard input."""
    more = [] if values is None else ["--values", "-"]
    return subprocess.run(
        [helm_path(), *arguments, *more],
        input=None if values is None else json.dumps(values),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def render(values: Json) -> list[Json]:
    """The objects of a release `alidade` in alidade-system, hooks too."""
    return list(_rendered(json.dumps(values)))


@cache
def _rendered(values: str) -> tuple[Json, ...]:
    done = helm("template", "alidade", str(CHART), "--namespace", NAMESPACE, values=json.loads(values))
    assert done.returncode == 0, done.stderr
    return tuple(document for document in yaml.load_all(done.stdout, Loader=_LOADER) if document)


def of_kind(objects: Sequence[Json], *kinds: str) -> list[Json]:
    """Those of the kinds."""
    return [one for one in objects if one["kind"] in kinds]


def the(objects: Sequence[Json], kind: str, name: str = "") -> Json:
    """The one of the kind, and of the name where there are several."""
    (found,) = [one for one in of_kind(objects, kind) if not name or one["metadata"]["name"] == name]
    return found


def pod_specs(objects: Sequence[Json]) -> Iterator[tuple[str, Json]]:
    """(kind and name, spec) of every pod and pod template."""
    for one in objects:
        who = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield who, one["spec"]
        elif "template" in (one.get("spec") or {}):
            yield who, one["spec"]["template"]["spec"]
