"""LoRA adapters of FineTuneJobs served beside their model on the local cluster, and what becomes of a change."""

import json
from typing import Any

from tests.cluster_fixtures import RunningCluster as Cluster
from tests.cluster_fixtures import wait_until
from tests.e2e.jobs import apply, conditions, finetune_job, message, read, wait_until_childless
from tests.e2e.test_modelserve import Asker, ask, is_serving, model_serve


def adapter(name: str, source: str) -> dict[str, Any]:
    """An entry of spec.adapters."""
    return {"name": name, "model": {"from": {"kind": "FineTuneJob", "name": source}}}


def answer(cluster: Cluster, name: str, adapter_id: str | None = None) -> tuple[int, str]:
    """An answer of eight tokens, by the model itself or with an adapter."""
    parameters: dict[str, Any] = {"max_new_tokens": 8}
    if adapter_id is not None:
        parameters["adapter_id"] = adapter_id
    return ask(cluster, name, "/generate", {"inputs": "What is 1 plus 2?", "parameters": parameters})


def test_adapters_answer_beside_their_model_and_come_and_go_without_a_request_lost(trained_on_sums: Cluster) -> None:
    cluster = trained_on_sums
    base = {"from": {"kind": "FineTuneJob", "name": "base-of-sums"}}
    lora = {"type": "lora", "rank": 4, "alpha": 64}
    one = {"workers": 1}
    apply(
        cluster,
        finetune_job("base-of-sums", steps=20, compute=one),
        finetune_job("lora-of-sums", steps=30, model=base, adapter=lora, compute=one),
        finetune_job("all-weights", steps=10, model=base, compute=one),
    )
    apply(cluster, model_serve("beside", "base-of-sums", adapters=[adapter("sums", "lora-of-sums")]))
    wait_until(
        lambda: is_serving(cluster, "beside", 1), lambda: str(read(cluster, "beside", "modelserve")), timeout_s=300
    )
    assert read(cluster, "beside", "modelserve")["status"]["adapters"] == ["sums"]
    plain, added = answer(cluster, "beside"), answer(cluster, "beside", "sums")
    assert (plain[0], added[0]) == (200, 200)
    assert plain[1] != added[1], "the adapter has an effect"
    code, text = answer(cluster, "beside", "none")
    assert code == 422
    assert "adapters served beside the model: sums" in text

    # One that is no adapter is refused, and what is served goes on being served.
    apply(cluster, model_serve("beside", "base-of-sums", adapters=[adapter("all", "all-weights")]))
    wait_until(
        lambda: conditions(read(cluster, "beside", "modelserve")).get("Accepted") == ("False", "InvalidSpec"),
        lambda: str(read(cluster, "beside", "modelserve")),
        timeout_s=240,
    )
    assert "trains all weights and has no adapter" in message(read(cluster, "beside", "modelserve"), "Accepted")
    assert answer(cluster, "beside", "sums")[0] == 200

    # The list is emptied: replicas without adapters take over.
    asker = Asker(cluster, "beside")
    try:
        apply(cluster, model_serve("beside", "base-of-sums"))
        wait_until(
            lambda: is_serving(cluster, "beside", 3), lambda: str(read(cluster, "beside", "modelserve")), timeout_s=120
        )
    finally:
        asker.stop()
    assert asker.lost == []
    assert read(cluster, "beside", "modelserve")["status"].get("adapters", []) == []
    code, text = ask(cluster, "beside", "/v1/models")
    assert [one["id"] for one in json.loads(text)["data"]] == ["beside"]
    cluster.kubectl("delete", "modelserve", "beside")
    wait_until_childless(cluster, "ModelServe", "beside", "deployments,services,pods", timeout_s=90)
