"""Manifests of small workloads, and what tests ask about them."""

from __future__ import annotations

import json
from typing import Any

from alidade_local.kubelet.processes import marked_processes
from tests.cluster_fixtures import RunningCluster, wait_until

Doc = dict[str, Any]

SLEEP = "import time; time.sleep(600)"


def container(code: str, *, name: str = "main", **extra: Any) -> Doc:
    """A container that runs a Python program."""
    return {"name": name, "image": "none", "command": ["python", "-u", "-c", code], **extra}


def pod(name: str, *containers: Doc, policy: str = "Never", grace_s: int = 5, **spec: Any) -> Doc:
    base = {"restartPolicy": policy, "terminationGracePeriodSeconds": grace_s, "containers": list(containers)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": base | spec}


def pytorch_job(name: str, master: str, worker: str | None, *, policy: str = "Never", **spec: Any) -> Doc:
    """A PyTorchJob of one master and, if there is a program for it, one worker."""
    replicas = {
        kind: {
            "replicas": 1,
            "restartPolicy": policy,
            "template": {"spec": {"terminationGracePeriodSeconds": 5, "containers": [container(code, name="pytorch")]}},
        }
        for kind, code in (("Master", master), ("Worker", worker))
        if code is not None
    }
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name},
        "spec": {"nprocPerNode": "1", "pytorchReplicaSpecs": replicas, **spec},
    }


def batch_job(name: str, code: str, *, policy: str = "Never", **spec: Any) -> Doc:
    template = {"spec": {"restartPolicy": policy, "containers": [container(code)]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": template, **spec},
    }


def apply(cluster: RunningCluster, *documents: Doc) -> None:
    cluster.kubectl("apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, documents)))


def get(cluster: RunningCluster, kind: str, name: str) -> Doc | None:
    """The object, None when there is none."""
    text = cluster.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
    found: Doc | None = json.loads(text) if text.strip() else None
    return found


def status(cluster: RunningCluster, kind: str, name: str) -> Doc:
    found = get(cluster, kind, name)
    return (found or {}).get("status") or {}


def conditions(cluster: RunningCluster, kind: str, name: str) -> dict[str, str]:
    entries = status(cluster, kind, name).get("conditions") or []
    return {entry["type"]: entry["status"] for entry in entries}


def wait_for_condition(cluster: RunningCluster, kind: str, name: str, condition: str) -> None:
    cluster.kubectl("wait", f"{kind}/{name}", f"--for=condition={condition}", "--timeout=120s")


def wait_for_phase(cluster: RunningCluster, name: str, phase: str) -> Doc:
    """The pod's status once it is in the phase."""

    def reached() -> Doc | None:
        found = status(cluster, "pod", name)
        return found if found.get("phase") == phase else None

    return wait_until(reached, f"pod {name} is {phase}")


def terminated(pod_status: Doc, index: int = 0) -> Doc:
    found: Doc = pod_status["containerStatuses"][index]["state"]["terminated"]
    return found


def processes(cluster: RunningCluster, uid: str) -> list[int]:
    """Ids of the live processes of a pod."""
    return marked_processes(f"{cluster.data_dir.resolve()}:/{uid}/")


def events(cluster: RunningCluster, name: str) -> set[str]:
    """The reasons of the events about an object."""
    text = cluster.kubectl("get", "events", "--field-selector", f"involvedObject.name={name}", "-o", "json")
    return {item["reason"] for item in json.loads(text)["items"]}
