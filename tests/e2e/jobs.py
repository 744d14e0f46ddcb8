"""Small jobs for the end-to-end tests, and what is read of them."""

import json
from pathlib import Path
from typing import Any

import yaml

from alidade_local.service_ports import cluster_address, listening_ports
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


TRAINING = {
    "globalBatchSize": 8, "microBatchSize": 4, "precision": "fp32", "learningRate": 0.01,
    "gradientCheckpointing": False,
}  # fmt: skip


def alignment_run(name: str, **spec: Any) -> dict[str, Any]:
    """An AlignmentRun over `sums` and `wrong`, from SFT to RAFT to PPO, that a CPU finishes in a minute."""
    sft = {
        "method": "sft",
        "model": {"init": TINY},
        "dataset": {"uri": "configmap://sums/train.json", "maxLength": 64, "packing": False},
        "training": {**TRAINING, "maxSteps": 60, "epochs": 1000},
        "checkpoint": {"everySteps": 20},
        "compute": {"workers": 2},
    }
    reward = {
        "dataset": {"uri": "configmap://wrong/train.json", "maxLength": 64, "validation": {"fraction": 0.1}},
        "training": {**TRAINING, "learningRate": 0.003, "epochs": 2},
        "checkpoint": {"everySteps": 10},
    }
    blocks: dict[str, Any] = {
        "sft": {"template": sft},
        "rewardModels": [{"name": "right", "template": reward}],
        "prompts": {
            "uri": "configmap://sums/train.json",
            "maxLength": 48,
            "validation": {"uri": "configmap://sums/train.json"},
        },
        "align": [
            {"raft": {"iterations": 3, "promptsPerIteration": 32, "samplesPerPrompt": 4}},
            {"ppo": {"iterations": 3, "rolloutBatchSize": 32, "miniBatchSize": 16}},
        ],
        "generation": {"maxNewTokens": 16},
        "training": {**TRAINING, "learningRate": 0.001},
        "compute": {"workers": 2},
        "checkpoint": {"everySteps": 4},
    }
    return {
        "apiVersion": "alidade.dev/v1alpha1",
        "kind": "AlignmentRun",
        "metadata": {"name": name},
        "spec": {**blocks, **spec},
    }


def wrong_sums() -> dict[str, Any]:
    """The ConfigMap `wrong`: the right sum of every pair against a wrong one."""
    preferences = [
        {"prompt": pair["input"], "chosen": pair["output"], "rejected": f"It is {(index * 7) % 23 + 30}."}
        for index, pair in enumerate(PAIRS)
    ]
    return config_map("wrong", train_json=json.dumps({"type": "paired_text_to_text", "instances": preferences}))


def apply(cluster: Cluster, *manifests: dict[str, Any], namespace: str | None = None) -> str:
    """Applies manifests, to their own namespaces unless one is given, and returns what kubectl printed."""
    where = ("-n", namespace) if namespace is not None else ()
    return cluster.kubectl("apply", "--server-side", *where, "-f", "-", stdin=yaml.safe_dump_all(manifests))


def read(cluster: Cluster, name: str, kind: str = "finetunejob", namespace: str = "default") -> dict[str, Any]:
    """A resource as it is now."""
    found: dict[str, Any] = json.loads(cluster.kubectl("get", kind, name, "-n", namespace, "-o", "json"))
    return found


def listed(
    cluster: Cluster, kind: str, selector: str | None = None, namespace: str = "default"
) -> list[dict[str, Any]]:
    """All resources of a kind."""
    narrowed = ("-l", selector) if selector else ()
    text = cluster.kubectl("get", kind, "-n", namespace, "-o", "json", *narrowed)
    items: list[dict[str, Any]] = json.loads(text)["items"]
    return items


def children(cluster: Cluster, parent: str, name: str, kinds: str) -> list[dict[str, Any]]:
    """What belongs to a resource in the namespace `default`, by the labels that say so; several kinds with commas.

    parent: the kind of the resource, as in its manifest. Its name alone would take in the children of its namesakes of
    other kinds, which tests of one cluster leave behind.
    """
    return listed(cluster, kinds, f"alidade.dev/kind={parent},app.kubernetes.io/instance={name}")


def wait_until_childless(cluster: Cluster, parent: str, name: str, kinds: str, *, timeout_s: float = 120.0) -> None:
    """Return once nothing of these kinds belongs to the resource; fails after the timeout, naming what is left."""

    def remaining() -> str:
        left = [_what_holds(child) for child in children(cluster, parent, name, kinds)]
        return f"children of {parent} {name} were to go, of which there are still {'; '.join(left) or 'none by now'}"

    wait_until(lambda: not children(cluster, parent, name, kinds), remaining, timeout_s=timeout_s)


def _what_holds(resource: dict[str, Any]) -> str:
    """An object with everything that decides whether it goes."""
    metadata = resource["metadata"]
    facts = {key: metadata.get(key) for key in ("uid", "deletionTimestamp", "finalizers")}
    owners = [f"{owner['kind']} {owner['name']} {owner['uid']}" for owner in metadata.get("ownerReferences") or []]
    told = ", ".join(f"{key} {value}" for key, value in facts.items())
    return f"{resource['kind']}/{metadata['name']} ({told}, owners {owners})"


def conditions(resource: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Status and reason of every condition."""
    entries = resource.get("status", {}).get("conditions", [])
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in entries}


def message(resource: dict[str, Any], condition_type: str) -> str:
    """The sentence of a condition."""
    entries = resource.get("status", {}).get("conditions", [])
    return next((str(entry["message"]) for entry in entries if entry["type"] == condition_type), "")


def service_address(cluster: Cluster, name: str) -> tuple[str, int]:
    """Where a Service is listened on."""
    service = read(cluster, name, "service")
    return cluster_address(service), listening_ports(service)[80]


def finished(
    cluster: Cluster, name: str, kind: str = "finetunejob", namespace: str = "default", *, timeout_s: float = 400
) -> dict[str, Any]:
    """The resource once it has succeeded; AssertionError with its conditions when it fails."""

    def ended() -> dict[str, Any] | None:
        job = read(cluster, name, kind, namespace)
        assert conditions(job).get("Failed", ("",))[0] != "True", job["status"]
        return job if conditions(job).get("Succeeded", ("",))[0] == "True" else None

    # Each look starts a kubectl, which takes from the training what it waits for.
    return wait_until(ended, f"{name} has succeeded", timeout_s=timeout_s, pause_s=0.5)


def output_folder(cluster: Cluster, job: dict[str, Any]) -> Path:
    """The folder on this machine that holds the job's model, checkpoints and metrics."""
    _, _, path = job["status"]["model"]["uri"].partition("://")
    return (cluster.kubeconfig.parent / "volumes" / job["metadata"]["namespace"] / path).parent


def folders_of(cluster: Cluster, name: str) -> list[Path]:
    """The output folders of the FineTuneJobs of that name, also of one that is not done."""
    outputs = cluster.kubeconfig.parent / "volumes" / "default" / "alidade-workspace" / "finetunejobs"
    return list(outputs.glob(f"{name}-*"))


def has_checkpoint(cluster: Cluster, name: str) -> bool:
    """Whether a job has something to resume from. Seen on its volume: its status is told only every other second."""
    return any(any(folder.glob("checkpoints/step-*")) for folder in folders_of(cluster, name))


def loss_curve(folder: Path) -> dict[int, float]:
    """Training loss of every step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}
