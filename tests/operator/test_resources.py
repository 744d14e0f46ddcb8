"""Rendered children: against the training operator's own models, and against the restricted Pod Security Standard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kubeflow.training import ApiClient

from alidade_crds.contract import JobDocument
from alidade_operator.config import OperatorConfig
from tests.operator.builders import CONFIG, UID, job, observed, plan

CASES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "two workers on the CPU": {"compute": {"workers": 2, "processesPerWorker": 2, "cpu": "2", "memory": "4Gi"}},
    "a node of GPUs": {
        "model": {"uri": "hf://x/llama-7b"},
        "compute": {"nodePool": "a100-80gb", "workers": 4, "gpusPerWorker": 8, "priorityClassName": "high"},
    },
    "a queue": {"compute": {"queue": "team-a"}},
    "data from everywhere": {
        "model": {"uri": "pvc://models/base"},
        "vocabulary": {"extendWith": {"uri": "pvc://pieces/chinese.model"}},
        "dataset": {
            "uri": "configmap://sums/train.json",
            "validation": {"uri": "configmap://held-out/eval.json"},
            "mix": [{"uri": "pvc://corpus/wiki", "weight": 0.1}, {"uri": "hf://org/text", "weight": 0.1}],
        },
        "output": {"uri": "pvc://results/demo"},
    },
}
SEEN: dict[str, Any] = {
    "claims": frozenset({"alidade-workspace", "data", "models", "corpus", "results", "pieces"}),
    "config_maps": {"sums": frozenset({"train.json"}), "held-out": frozenset({"eval.json"})},
}


def rendered(
    blocks: dict[str, Any], config: OperatorConfig = CONFIG, **seen: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ConfigMap and the PyTorchJob of a launch."""
    made = plan(job(**blocks), observed(**(SEEN | seen)), config=config)
    assert len(made.children) == 2, made.decisions
    return made.children[0].body, made.children[1].body


def templates(pytorch_job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for replica in pytorch_job["spec"]["pytorchReplicaSpecs"].values():
        yield replica["template"]


@pytest.fixture(params=CASES)
def pytorch_job(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The PyTorchJob of each case."""
    return rendered(CASES[request.param])[1]


def test_the_training_operators_own_models_read_every_field(pytorch_job: dict[str, Any]) -> None:
    """Nothing that is rendered gets lost on the way through its models: no field is misspelt or misplaced."""
    client = ApiClient()
    read = client.deserialize(SimpleNamespace(data=json.dumps(pytorch_job)), "KubeflowOrgV1PyTorchJob")
    assert client.sanitize_for_serialization(read) == pytorch_job


def test_the_webhook_of_the_training_operator_would_accept_it(pytorch_job: dict[str, Any]) -> None:
    replicas = pytorch_job["spec"]["pytorchReplicaSpecs"]
    assert replicas["Master"]["replicas"] == 1
    assert replicas.get("Worker", {"replicas": 1})["replicas"] >= 1
    assert {replica["restartPolicy"] for replica in replicas.values()} == {"Never"}
    for template in templates(pytorch_job):
        assert [container["name"] for container in template["spec"]["containers"]] == ["pytorch"]
        assert template["spec"]["containers"][0]["image"]
    assert pytorch_job["spec"]["nprocPerNode"].isdigit()
    assert pytorch_job["spec"]["runPolicy"]["cleanPodPolicy"] in ("Running", "All")


def test_every_pod_passes_the_restricted_pod_security_standard(pytorch_job: dict[str, Any]) -> None:
    """The controls of kubernetes.io/docs/concepts/security/pod-security-standards, one by one."""
    allowed_volumes = {
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
    }  # fmt: skip
    for template in templates(pytorch_job):
        spec = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for volume in spec["volumes"]:
            assert set(volume) - {"name"} <= allowed_volumes
        pod_context = spec["securityContext"]
        assert pod_context["runAsNonRoot"] is True
        assert pod_context["runAsUser"] != 0
        assert pod_context["seccompProfile"]["type"] == "RuntimeDefault"
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["runAsNonRoot"] is True
            assert context["readOnlyRootFilesystem"] is True
            assert not context.get("privileged")
            assert all("hostPort" not in port for port in container["ports"])


def test_every_mount_has_its_volume_and_every_path_the_trainer_is_told_is_mounted(pytorch_job: dict[str, Any]) -> None:
    for template in templates(pytorch_job):
        container = template["spec"]["containers"][0]
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(set(paths)) == len(paths)
        environment = {item["name"]: item.get("value") for item in container["env"]}
        assert len(environment) == len(container["env"]), "no name twice"
        assert environment["ALIDADE_JOB"].startswith(tuple(f"{path}/" for path in paths))
        assert environment["ALIDADE_SCRATCH"] in paths
        for name in ("HOME", "HF_HOME", "TMPDIR"):
            assert environment[name].startswith("/scratch")
        assert environment["ALIDADE_TERMINATION_LOG"] == container["terminationMessagePath"]
        port = next(port["containerPort"] for port in container["ports"] if port["name"] == "metrics")
        assert environment["ALIDADE_PORT"] == str(port)
        address = next(item for item in container["env"] if item["name"] == "POD_IP")
        assert address["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}


def test_a_pool_gives_its_nodes_gpus_and_environment() -> None:
    _, body = rendered(CASES["a node of GPUs"])
    assert body["spec"]["nprocPerNode"] == "8"
    assert body["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 3
    for template in templates(body):
        spec = template["spec"]
        assert spec["nodeSelector"] == {"gpu": "a100"}
        assert spec["tolerations"] == CONFIG.node_pools[1].tolerations
        assert spec["priorityClassName"] == "high"
        container = spec["containers"][0]
        assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}
        assert {"name": "NCCL_DEBUG", "value": "WARN"} in container["env"]


def test_shared_memory_and_scratch_are_volumes() -> None:
    _, body = rendered({})
    volumes = {volume["name"]: volume for volume in next(templates(body))["spec"]["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert volumes["scratch"]["emptyDir"] == {}


def test_every_claim_and_config_map_that_the_spec_names_is_mounted_once() -> None:
    _, body = rendered(CASES["data from everywhere"])
    spec = next(templates(body))["spec"]
    paths = [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]]
    assert sorted(path for path in paths if path.startswith("/volumes")) == [
        "/volumes/configmaps/held-out",
        "/volumes/configmaps/sums",
        "/volumes/corpus",
        "/volumes/models",
        "/volumes/pieces",
        "/volumes/results",
    ]


def test_what_is_fetched_is_kept_on_the_claim_for_it() -> None:
    """Only where something is: the claim of a job that reads volumes alone need not be there."""
    config = CONFIG.model_copy(update={"cache_claim": "cache"})
    claims = SEEN["claims"] | {"cache"}
    _, body = rendered({"model": {"uri": "s3://models/base"}, "method": "sft"}, config, claims=claims)
    container = next(templates(body))["spec"]["containers"][0]
    told = {item["name"]: item.get("value") for item in container["env"]}
    assert told["ALIDADE_CACHE"] == "/volumes/cache/.alidade-cache"
    assert told["HF_HOME"] == "/volumes/cache/.alidade-cache/hf"
    assert "/volumes/cache" in [mount["mountPath"] for mount in container["volumeMounts"]]
    for blocks, given in (({}, config), ({"model": {"uri": "hf://org/base"}, "method": "sft"}, CONFIG)):
        container = next(templates(rendered(blocks, given)[1]))["spec"]["containers"][0]
        told = {item["name"]: item.get("value") for item in container["env"]}
        assert "ALIDADE_CACHE" not in told
        assert told["HF_HOME"] == "/scratch/hf"


def test_children_carry_labels_and_go_with_their_resource(pytorch_job: dict[str, Any]) -> None:
    config_map, _ = rendered({})
    for body in (config_map, pytorch_job):
        metadata = body["metadata"]
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "alidade"
        assert metadata["labels"]["app.kubernetes.io/instance"] == "demo"
        assert metadata["ownerReferences"] == [
            {
                "apiVersion": "alidade.dev/v1alpha1",
                "kind": "FineTuneJob",
                "name": "demo",
                "uid": UID,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    for template in templates(pytorch_job):
        assert template["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "alidade", "or its pods go unseen"
        assert all(len(value) <= 63 for value in template["metadata"]["labels"].values())


def test_suspension_is_left_out_without_a_queue() -> None:
    """Kueue and others own the field where there is one."""
    assert "suspend" not in rendered({})[1]["spec"]["runPolicy"]
    assert rendered(CASES["a queue"])[1]["spec"]["runPolicy"]["suspend"] is True


def test_the_job_document_says_what_the_spec_says() -> None:
    blocks = {
        **CASES["a node of GPUs"],
        "method": "sft",
        "training": {"epochs": 2, "globalBatchSize": 512},
        "deepspeed": {"zeroStage": 3},
    }
    config_map, _ = rendered(blocks)
    document = JobDocument.model_validate_json(config_map["data"]["job.json"])
    spec = job(**blocks).spec
    assert spec is not None
    assert document.stage == "sft"
    assert document.model.uri == "hf://x/llama-7b"
    assert document.dataset == spec.dataset
    assert document.training == spec.training.model_copy(update={"micro_batch_size": 16})
    assert document.peak_tflops == 312
    assert document.owner.uid == UID
    assert document.output == "pvc://alidade-workspace/finetunejobs/demo-0f8fad5b"


def test_the_job_document_of_a_cpu_job_leaves_the_micro_batch_to_the_trainer() -> None:
    config_map, _ = rendered({})
    document = JobDocument.model_validate_json(config_map["data"]["job.json"])
    assert document.training.micro_batch_size == "auto"
    assert document.peak_tflops is None
    assert document.model.init is not None
