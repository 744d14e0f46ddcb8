"""Where a reader sits: a folder with the repository's files, kubectl, and a cluster that has the pages' resources."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster_fixtures import RunningCluster
from tests.documents.pages import ROOT, blocks

NAMESPACE = "documents"


@dataclass(frozen=True)
class Desk:
    """Where a reader sits: a folder with the repository's files, kubectl and a cluster."""

    folder: Path
    kubeconfig: Path

    def start(self, text: str) -> subprocess.Popen[str]:
        """Starts a command line as a shell does."""
        path = f"{ROOT / '.tools/bin'}:{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", "-c", text],
            cwd=self.folder,
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig), "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        """Waits for the end of a command line."""
        process = self.start(text)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(text, process.returncode, out, err)

    def watch(self, text: str) -> str:
        """What is wrong with a watch, which does not end by itself, or nothing."""
        with self.start(f"exec {text}") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            process.kill()
            return "" if "NAME" in line else f"it prints {line!r}: {process.stderr.read()}"

    def set_status(self, target: str, status: dict[str, Any]) -> None:
        """Writes into a status as the operator does, which has seen every change."""
        patch = json.dumps({"status": {"observedGeneration": 999} | status})
        done = self.run(f"kubectl patch {target} --subresource=status --type=merge -p '{patch}'")
        assert done.returncode == 0, done.stderr

    def save(self, page: str) -> None:
        """Saves the files that a page shows."""
        for block in blocks(page):
            if block.title:
                (self.folder / block.title).write_text(block.text, encoding="utf-8")


def condition(kind: str, status: str = "True", message: str = "said by the operator") -> dict[str, str]:
    """A condition as the operator writes it."""
    return {
        "type": kind, "status": status, "reason": "Valid", "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip


# What the commands read that the operator has written by then.
STATUSES: dict[str, dict[str, Any]] = {
    "ar/kbqa": {
        "stages": [
            {"name": "sft", "kind": "FineTuneJob", "ref": "kbqa-sft-1", "phase": "Succeeded", "reused": True},
            {"name": "correctness", "kind": "RewardModel", "ref": "kbqa-correctness-1", "phase": "Succeeded"},
            {"name": "evaluation", "kind": "Evaluation", "ref": "kbqa-eval-1", "phase": "Succeeded"},
        ],
        "conditions": [condition("GatePassed", message="reward.mean is 2.1")],
    },
    "ar/kbqa-ppo": {
        "stages": [{"name": "sft", "kind": "FineTuneJob", "ref": "kbqa-sft-1", "phase": "Succeeded", "reused": True}]
    },
    "ftj/assistant-sft": {
        "attempts": 4, "interruptions": 3, "gpuHours": 25.6, "cost": "99.84 USD",
        "lastFailure": {"reason": "Interrupted", "message": "taken away", "attempt": 3, "at": "2026-01-01T00:00:00Z"},
        "conditions": [condition("Suspended"), condition("Fits", message="needs about 24 GiB")],
    },
    "eval/kbqa": {
        "results": [{"suite": "generation", "metric": "f1", "model": "sft", "value": 1, "low": 0, "high": 1, "n": 9}]
    },
    "ms/kbqa": {"quantization": {"method": "gguf", "type": "q4_k_m", "sizeBytes": 800}},
}  # fmt: skip


@pytest.fixture(scope="module")
def desk(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk with the resources of the examples, in the states that the pages find them in."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("charts", "docs", "examples", "tests"):
        (folder / name).symlink_to(ROOT / name)
    content = yaml.safe_load(cluster.kubeconfig.read_text())
    content["contexts"][0]["context"]["namespace"] = NAMESPACE
    (folder / "kubeconfig").write_text(yaml.safe_dump(content))
    there = Desk(folder, folder / "kubeconfig")
    for name in (NAMESPACE, "team-a", "alidade-system"):
        there.run(f"kubectl create namespace {name}")
    for page in ("docs/how-to/serve.md", "docs/how-to/evaluate.md"):
        there.save(page)
    staged = there.run(
        "kubectl apply --server-side -k examples/kbqa && kubectl apply --server-side "
        "-f examples/kbqa/finetune.yaml -f examples/kbqa/align-ppo.yaml -f examples/gpu/finetune.yaml "
        "-f kbqa.yaml -f evaluation.yaml && kubectl create service clusterip kbqa --tcp=80"
    )
    assert staged.returncode == 0, staged.stderr
    for target, status in STATUSES.items():
        there.set_status(target, status)
    yield there
    there.run(f"kubectl delete namespace {NAMESPACE} --wait=false")
