"""Small jobs for the end-to-end tests, and what is read of them."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.cluster_fixtures import RunningCluster as Cluster
from tests.cluster_fixtures import wait_until

PAIRS = [{"input": f"What is {a} plus {b}?", "output": f"It is {a + b}."} for a in range(12) for b in range(12)]
TINY = {"hiddenSize": 32, "layers": 1, "heads": 2, "vocabSize": 320, "contextLength": 64}


def config_map(name: str, **files: str) -> dict[str, Any]:
    """A ConfigMap with these files; `_` in a key's name stands for `.`."""
    data = {key.replace("_", "."): text for key, text in files.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def finetune_job(name: str, *, steps: int = 40, **spec: Any) -> dict[str, Any]:
    """A FineTuneJob that a CPU finishes in seconds; keyword arguments replace blocks of its spec."""
    blocks: dict[str, Any] = {
        "method": "sft",
        "model": {"init": TINY},
        "dataset": {"uri": "configmap://sums/train.json", "maxLength": 64, "packing": False},
        "training": {
            "maxSteps": steps, "epochs": 1000, "globalBatchSize": 8, "microBatchSize": 4, "precision": "fp32",
            "learningRate": 0.01, "gradientCheckpointing": False,
        },
        "checkpoint": {"everySteps": 10},
        "compute": {"workers": 2},
    }  # fmt: skip
    metadata = {"name": name}
    return {
        "apiVersion": "alidade.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": metadata,
        "spec": {**blocks, **spec},
    }


def apply(cluster: Cluster, *manifests: dict[str, Any]) -> str:
    """Applies manifests and returns what kubectl printed."""
    return cluster.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(manifests))


def read(cluster: Cluster, name: str, kind: str = "finetunejob") -> dict[str, Any]:
    """A resource as it is now."""
    found: dict[str, Any] = json.loads(cluster.kubectl("get", kind, name, "-o", "json"))
    return found


def listed(cluster: Cluster, kind: str, selector: str | None = None) -> list[dict[str, Any]]:
    """All resources of a kind."""
    narrowed = ("-l", selector) if selector else ()
    items: list[dict[str, Any]] = json.loads(cluster.kubectl("get", kind, "-o", "json", *narrowed))["items"]
    return items


def conditions(resource: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Status and reason of every condition."""
    entries = resource.get("status", {}).get("conditions", [])
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in entries}


def message(resource: dict[str, Any], condition_type: str) -> str:
    """The sentence of a condition."""
    entries = resource.get("status", {}).get("conditions", [])
    return next((str(entry["message"]) for entry in entries if entry["type"] == condition_type), "")


def finished(cluster: Cluster, name: str, *, timeout_s: float = 400) -> dict[str, Any]:
    """The job once it has succeeded; AssertionError with its conditions when it fails."""

    def ended() -> dict[str, Any] | None:
        job = read(cluster, name)
        assert conditions(job).get("Failed", ("",))[0] != "True", job["status"]
        return job if conditions(job).get("Succeeded", ("",))[0] == "True" else None

    return wait_until(ended, f"{name} has succeeded", timeout_s=timeout_s)


def output_folder(cluster: Cluster, job: dict[str, Any]) -> Path:
    """The folder on this machine that holds the job's model, checkpoints and metrics."""
    _, _, path = job["status"]["model"]["uri"].partition("://")
    return (cluster.kubeconfig.parent / "volumes" / "default" / path).parent


def has_checkpoint(cluster: Cluster, name: str) -> bool:
    """Whether a job has something to resume from. Seen on its volume: its status is told only every other second."""
    outputs = cluster.kubeconfig.parent / "volumes" / "default" / "alidade-workspace" / "finetunejobs"
    return any(outputs.glob(f"{name}-*/checkpoints/step-*"))


def loss_curve(folder: Path) -> dict[int, float]:
    """Training loss of every step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}
