"""What is made of every example is what was reviewed, valid, and within the restricted Pod Security Standard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubeflow.training import ApiClient
from kubeflow_trainer_api import models

from alidade_crds.crd import KINDS
from tests.golden.rendering import (
    AS_TRAINJOB,
    EXAMPLES,
    FOLDER,
    documents,
    examples,
    golden_file,
    golden_files,
    trainjob_file,
)
from tests.operator.security import restricted
from tests.operator.trainermodels import is_within

GOLDEN = sorted(FOLDER.glob("*.yaml"))
# The oldest and the newest Kubernetes that we say we run on, as far as the validator knows them.
VERSIONS = ("1.29", "1.36")
BUILT_IN = ("v1", "apps/v1", "batch/v1", "policy/v1", "networking.k8s.io/v1", "autoscaling/v2")


def bodies(path: Path) -> list[dict[str, Any]]:
    return [body for body in yaml.safe_load_all(path.read_text(encoding="utf-8")) if body]


def pods(path: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name of the workload, its pods' metadata and spec."""
    for body in bodies(path):
        spec = body.get("spec") or {}
        templates = [replica["template"] for replica in (spec.get("pytorchReplicaSpecs") or {}).values()]
        if body["kind"] in ("Job", "Deployment"):
            templates.append(spec["template"])
        if body["kind"] == "TrainingRuntime":
            jobs = spec["template"]["spec"]["replicatedJobs"]
            templates += [job["template"]["spec"]["template"] for job in jobs]
        for template in templates:
            yield f"{body['kind']} {body['metadata']['name']}", template["metadata"], template["spec"]


def test_the_golden_files_are_what_the_operator_makes() -> None:
    made = golden_files()
    assert set(GOLDEN) == set(made), "run `python -m tests.golden.rendering`"
    stale = [path.name for path, text in made.items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "review what has changed, and run `python -m tests.golden.rendering`"


def test_every_example_has_one() -> None:
    assert {*map(golden_file, examples()), trainjob_file(AS_TRAINJOB)} == set(GOLDEN)
    assert {path.name for path in examples() if path.parent.name == "gpu"} == {
        "align.yaml", "evaluate.yaml", "finetune.yaml", "long-context.yaml", "serve.yaml",
    }  # fmt: skip


@pytest.mark.parametrize("path", examples(), ids=lambda path: path.name)
def test_every_example_is_a_resource_of_ours(path: Path) -> None:
    specs = {kind.kind: kind.spec for kind in KINDS}
    for body in documents(path):
        specs[body["kind"]].model_validate(body["spec"])


def test_the_readme_of_the_gpu_examples_names_every_file() -> None:
    readme = (EXAMPLES / "gpu" / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in (EXAMPLES / "gpu").glob("*.yaml") if f"`{path.name}`" not in readme] == []


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_kubernetes_knows_every_field(path: Path) -> None:
    for body in bodies(path):
        if body["apiVersion"] in BUILT_IN:
            for version in VERSIONS:
                kubernetes_validate.validate(body, version, strict=True)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_the_training_operator_knows_every_field(path: Path) -> None:
    client = ApiClient()
    for body in bodies(path):
        if body["kind"] == "PyTorchJob":
            read = client.deserialize(SimpleNamespace(data=json.dumps(body)), "KubeflowOrgV1PyTorchJob")
            assert client.sanitize_for_serialization(read) == body


def test_trainer_knows_every_field() -> None:
    found = [body for body in bodies(trainjob_file(AS_TRAINJOB)) if body["kind"] in ("TrainJob", "TrainingRuntime")]
    assert len(found) == 2
    for body in found:
        read = getattr(models, f"TrainerV1alpha1{body['kind']}").from_dict(body)
        assert is_within(body, read.to_dict())


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_every_pod_is_restricted(path: Path) -> None:
    for name, _, spec in pods(path):
        assert restricted(spec) == [], name


@pytest.mark.parametrize("path", [path for path in GOLDEN if path.name.startswith("gpu-")], ids=lambda path: path.name)
def test_what_runs_on_gpus_asks_for_all_that_it_takes(path: Path) -> None:
    seen = 0
    for name, _, spec in pods(path):
        container = spec["containers"][0]
        if container["name"] == "gateway":
            continue
        seen += 1
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert limits["nvidia.com/gpu"] == requests["nvidia.com/gpu"], name
        assert limits["memory"] == requests["memory"], name
        assert int(requests["cpu"]) >= 8
        assert {"mountPath": "/dev/shm", "name": "shm"} in container["volumeMounts"]
        assert spec["nodeSelector"]["cloud.google.com/gke-accelerator"].startswith("nvidia-")
        assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert seen


def test_every_job_on_gpus_is_held_back_for_its_queue() -> None:
    jobs = [body for path in GOLDEN for body in bodies(path) if body["kind"] in ("PyTorchJob", "TrainJob", "Job")]
    queued = [body for body in jobs if "kueue.x-k8s.io/queue-name" in body["metadata"]["labels"]]
    assert {body["metadata"]["labels"]["app.kubernetes.io/instance"] for body in queued} == {
        "assistant", "assistant-helpfulness-" + _hash(queued), "assistant-sft", "long-context",
    }  # fmt: skip
    for body in jobs:
        policy = body["spec"].get("runPolicy", body["spec"])
        assert policy.get("suspend", False) is (body in queued)


def _hash(jobs: list[dict[str, Any]]) -> str:
    """Of the inputs of the reward model's stage, in its name."""
    names = [str(body["metadata"]["name"]) for body in jobs]
    return next(name.split("-")[2] for name in names if name.startswith("assistant-helpfulness-"))
