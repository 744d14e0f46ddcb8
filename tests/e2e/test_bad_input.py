"""What is wrong is said in a sentence, at the earliest door, and can be mended without losing anything."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.jobs import TINY, Cluster, apply, conditions, config_map, finetune_job, listed, message, read, wait_until


def refused(cluster: Cluster, manifest: dict[str, Any]) -> str:
    """What kubectl prints when the API server refuses a manifest."""
    with pytest.raises(AssertionError) as caught:
        apply(cluster, manifest)
    return str(caught.value)


@pytest.mark.parametrize(
    ("blocks", "sentences"),
    [
        ({"trainig": {}}, ["trainig"]),
        ({"training": {"learningrate": 1}}, ["learningrate"]),
        (
            {"model": {"init": TINY, "uri": "pvc://models/base"}},
            ["spec.model", "exactly one of uri, from, init must be set"],
        ),
        (
            {"model": {"uri": "ftp://models/base"}},
            ["uri must start with hf://, s3://, gs://, https://, http://, pvc://"],
        ),
        ({"training": {"learningRate": 0}}, ["spec.training.learningRate", "greater than 0"]),
        ({"deepspeed": {"zeroStage": 4}}, ["spec.deepspeed.zeroStage", "less than or equal to 3"]),
        ({"method": "dpo"}, ["spec.method", "Unsupported value", '"pretrain"', '"sft"']),
        ({"training": {"earlyStopping": {}}}, ["training.earlyStopping needs dataset.validation"]),
        ({"training": {"microBatchSize": "some"}}, ["must be auto or a number from 1 to 4096"]),
        (
            {"training": {"globalBatchSize": 7}},
            ["training.globalBatchSize must be a multiple of the training processes"],
        ),
        ({"dataset": {"uri": "pvc://w/../x"}}, ["spec.dataset", "uri must not climb out of its volume"]),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_the_api_server_refuses_what_the_schema_can_tell(
    cluster_with_operator: Cluster, blocks: dict[str, Any], sentences: list[str]
) -> None:
    said = refused(cluster_with_operator, finetune_job("refused", **blocks))
    for sentence in sentences:
        assert sentence in said
    assert "refused" not in [job["metadata"]["name"] for job in listed(cluster_with_operator, "finetunejob")]


def test_a_name_from_which_no_pod_name_can_be_made_is_refused(cluster_with_operator: Cluster) -> None:
    assert "metadata.name may have at most 45 characters" in refused(cluster_with_operator, finetune_job("a" * 46))


def test_what_a_running_job_could_not_take_up_cannot_be_changed(trained_on_sums: Cluster) -> None:
    cluster = trained_on_sums
    apply(cluster, finetune_job("fixed", suspend=True))
    said = refused(cluster, finetune_job("fixed", suspend=True, model={"init": {**TINY, "layers": 2}}))
    assert "model cannot change after creation: delete the resource first, or apply it under a new name" in said
    assert read(cluster, "fixed")["spec"]["model"]["init"]["layers"] == 1
    cluster.kubectl("delete", "ftj", "fixed")


@pytest.mark.parametrize(
    ("blocks", "reason", "sentences"),
    [
        ({"compute": {"nodePool": "a100"}}, "NodePoolUnknown", ["spec.compute.nodePool", "a100", "local"]),
        ({"compute": {"gpusPerWorker": 2}}, "TooManyGpus", ["spec.compute.gpusPerWorker", "2", "local"]),
        ({"dataset": {"uri": "configmap://nowhere/train.json"}}, "ConfigMapMissing", ["spec.dataset.uri", "nowhere"]),
        ({"dataset": {"uri": "configmap://sums/test.json"}}, "ConfigMapMissing", ["test.json", "sums"]),
        ({"dataset": {"uri": "pvc://nowhere/train.json"}}, "VolumeMissing", ["spec.dataset.uri", "nowhere"]),
        (
            {"model": {"from": {"kind": "FineTuneJob", "name": "later"}}},
            "ReferencePending",
            ["spec.model.from", "FineTuneJob later"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_operator_says_what_only_the_cluster_can_tell(
    trained_on_sums: Cluster, blocks: dict[str, Any], reason: str, sentences: list[str]
) -> None:
    cluster = trained_on_sums
    apply(cluster, finetune_job("unaccepted", **blocks))
    wait_until(lambda: "Accepted" in conditions(read(cluster, "unaccepted")), "an answer", timeout_s=120)
    job = read(cluster, "unaccepted")
    cluster.kubectl("delete", "ftj", "unaccepted")
    assert conditions(job)["Accepted"][1] == reason
    for sentence in sentences:
        assert sentence in message(job, "Accepted")
    assert not listed(cluster, "pytorchjob", "app.kubernetes.io/instance=unaccepted")


def test_a_job_that_cannot_fit_is_refused_with_the_number_and_the_way_out(trained_on_sums: Cluster) -> None:
    cluster = trained_on_sums
    giant = {"hiddenSize": 8192, "layers": 80, "heads": 64, "vocabSize": 32000}
    apply(cluster, finetune_job("giant", model={"init": giant}, compute={"memory": "16Gi"}))
    wait_until(lambda: conditions(read(cluster, "giant")).get("Fits", ("",))[0] == "False", "an answer", timeout_s=120)
    job = read(cluster, "giant")
    cluster.kubectl("delete", "ftj", "giant")
    assert conditions(job)["Fits"] == ("False", "ExceedsMemory")
    assert "GiB" in message(job, "Fits")
    assert "16" in message(job, "Fits")


def test_a_namespace_without_the_workspace_volume_is_told_how_to_get_one_and_goes_on_by_itself(
    cluster_with_operator: Cluster,
) -> None:
    cluster = cluster_with_operator
    apply(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bare"}})

    def job() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(cluster.kubectl("get", "ftj", "waiting", "-n", "bare", "-o", "json"))
        return found

    manifests = [config_map("sums", train_json="[]"), finetune_job("waiting")]
    for manifest in manifests:
        manifest["metadata"]["namespace"] = "bare"
    apply(cluster, *manifests)
    wait_until(lambda: conditions(job()).get("Accepted") == ("False", "WorkspaceMissing"), "an answer", timeout_s=120)
    assert "alidade-workspace" in message(job(), "Accepted")
    assert "spec.output.uri" in message(job(), "Accepted")

    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "alidade-workspace", "namespace": "bare"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    apply(cluster, claim)
    wait_until(lambda: conditions(job())["Accepted"][0] == "True", "the job to be accepted", timeout_s=120)
    cluster.kubectl("delete", "namespace", "bare", "--timeout=120s")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "reason", "sentences"),
    [
        ('{"input": "a", "output": "b"}\n{"input": "c", "outp\n', "DataMalformed", ["train.jsonl", "line 2"]),
        ("", "DataEmpty", ["train.jsonl"]),
    ],
    ids=["broken record", "empty file"],
)
def test_data_that_cannot_be_read_fails_the_job_at_once_naming_file_and_line(
    trained_on_sums: Cluster, lines: str, reason: str, sentences: list[str]
) -> None:
    cluster = trained_on_sums
    apply(cluster, config_map("broken", train_jsonl=lines))
    apply(cluster, finetune_job("broken", dataset={"uri": "configmap://broken/train.jsonl"}, compute={"workers": 1}))
    wait_until(lambda: conditions(read(cluster, "broken")).get("Failed", ("",))[0] == "True", "the end", timeout_s=240)
    job = read(cluster, "broken")
    cluster.kubectl("delete", "ftj", "broken")
    cluster.kubectl("delete", "configmap", "broken")
    assert conditions(job)["Failed"][1] == reason
    assert job["status"]["attempts"] == 1, "trying again would fail again"
    for sentence in sentences:
        assert sentence in message(job, "Failed")


@pytest.mark.slow
def test_a_model_of_pickles_is_not_loaded(trained_on_sums: Cluster) -> None:
    cluster = trained_on_sums
    folder = cluster.kubeconfig.parent / "volumes" / "default" / "alidade-workspace" / "pickled"
    folder.mkdir(parents=True)
    Path(folder, "config.json").write_text('{"model_type": "llama"}')
    Path(folder, "pytorch_model.bin").write_bytes(b"\x80\x04.")
    uri = "pvc://alidade-workspace/pickled"
    apply(cluster, finetune_job("pickled", model={"uri": uri}, compute={"workers": 1}))
    wait_until(lambda: conditions(read(cluster, "pickled")).get("Failed", ("",))[0] == "True", "the end", timeout_s=240)
    job = read(cluster, "pickled")
    cluster.kubectl("delete", "ftj", "pickled")
    assert conditions(job)["Failed"][1] == "ModelUnsafe", message(job, "Failed")
    assert message(job, "Failed").startswith(f"{uri} holds its weights only as pickles (pytorch_model.bin)")
