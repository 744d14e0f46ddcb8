"""What an alignment renders: against the training operator's own models, and with all that its addresses need."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from kubeflow.training import ApiClient

from alidade_crds.contract import JobDocument
from alidade_crds.jobs import FineTuneJobSpec, RewardModelSpec
from alidade_operator.api import CLAIM, CONFIG_MAP, FINE_TUNE_JOB, PYTORCH_JOB, REWARD_MODEL
from tests.operator.memory import HELPFULNESS, MemoryCluster
from tests.operator.test_alignmentrun import PROGRAM, with_rewards

GPUS = {"nodePool": "a100-80gb", "workers": 2, "gpusPerWorker": 8}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "two nodes of GPUs": {"compute": GPUS, "training": {"globalBatchSize": 64}},
    "a queue": {"compute": {"queue": "team-a"}},
    "two steps and two rewards": {"align": [{"raft": {}}, {"ppo": {}}], "rewardModels": [HELPFULNESS, PROGRAM]},
}


@pytest.fixture(params=CASES)
def cluster(request: pytest.FixtureRequest) -> MemoryCluster:
    """A run whose alignment has been launched, for each case."""
    return with_rewards(**CASES[request.param])


def test_the_training_operators_own_models_read_every_field(cluster: MemoryCluster) -> None:
    """Nothing that is rendered gets lost on the way through its models: no field is misspelt or misplaced."""
    body = cluster.of(PYTORCH_JOB)
    told = {"apiVersion": PYTORCH_JOB.api_version} | {name: body[name] for name in ("kind", "metadata", "spec")}
    told["metadata"] = {name: body["metadata"][name] for name in ("name", "namespace", "labels", "annotations")}
    read = ApiClient().deserialize(SimpleNamespace(data=json.dumps(told)), "KubeflowOrgV1PyTorchJob")
    assert ApiClient().sanitize_for_serialization(read) == told


def test_every_label_and_every_name_is_within_what_kubernetes_takes(cluster: MemoryCluster) -> None:
    for body in cluster.api.objects.values():
        assert all(len(value) <= 63 for value in body["metadata"].get("labels", {}).values())
    for name in cluster.names(PYTORCH_JOB):
        assert len(f"{name}-worker-0") <= 63


def test_what_a_stage_makes_is_read_by_its_own_kind(cluster: MemoryCluster) -> None:
    """As the API server and the controller of that kind read it: no unknown field, every rule's fields there."""
    for kind, spec in ((FINE_TUNE_JOB, FineTuneJobSpec), (REWARD_MODEL, RewardModelSpec)):
        [name] = cluster.names(kind)
        made = cluster.api.objects[kind.kind, name]["spec"]
        assert spec.model_validate(made).to_dict() == made


def test_the_pods_of_an_alignment_find_their_run_and_its_document(cluster: MemoryCluster) -> None:
    body, document = cluster.of(PYTORCH_JOB), cluster.of(CONFIG_MAP)
    for replica in body["spec"]["pytorchReplicaSpecs"].values():
        labels = replica["template"]["metadata"]["labels"]
        assert labels["alidade.dev/kind"] == "AlignmentRun"
        assert labels["app.kubernetes.io/instance"] == "demo"
        mounted = [
            volume["configMap"]["name"] for volume in replica["template"]["spec"]["volumes"] if "configMap" in volume
        ]
        assert document["metadata"]["name"] in mounted
    owners = {owner["uid"] for made in (body, document) for owner in made["metadata"]["ownerReferences"]}
    assert owners == {cluster.api.objects["AlignmentRun", "demo"]["metadata"]["uid"]}


def test_every_volume_that_an_alignment_reads_or_writes_is_mounted_once() -> None:
    cluster = MemoryCluster()
    for claim in ("start", "judges", "answers", "pairs", "results"):
        cluster.put(CLAIM, claim)
    cluster.put(CONFIG_MAP, "prompts", data={"a.json": "[]"})
    cluster.apply(
        sft={"model": {"uri": "pvc://start/model"}},
        rewardModels=[{"name": "rm", "model": {"uri": "pvc://judges/rm"}}],
        prompts={"uri": "configmap://prompts/a.json", "validation": {"uri": "pvc://answers/held-out.json"}},
        align=[{"raft": {}}, {"dpo": {"dataset": {"uri": "pvc://pairs/dpo.json"}}}],
        output={"uri": "pvc://results/demo"},
    )
    cluster.settle()
    template = cluster.of(PYTORCH_JOB)["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    paths = [mount["mountPath"] for mount in template["spec"]["containers"][0]["volumeMounts"]]
    assert sorted(path for path in paths if path.startswith("/volumes")) == [
        "/volumes/answers",
        "/volumes/configmaps/prompts",
        "/volumes/judges",
        "/volumes/pairs",
        "/volumes/results",
        "/volumes/start",
    ]
    jobs = [
        body for (kind, _), body in cluster.api.objects.items() if kind == "ConfigMap" and "job.json" in body["data"]
    ]
    document = JobDocument.model_validate_json(jobs[0]["data"]["job.json"])
    assert document.model.uri == "pvc://start/model"
