"""Evaluations of small models on the local cluster, from apply to the numbers in the status."""

import json
from typing import Any

from tests.cluster_fixtures import RunningCluster as Cluster
from tests.cluster_fixtures import wait_until
from tests.e2e.jobs import apply, conditions, finetune_job, finished, listed, message, read

ANSWERS = {"type": "generation", "dataset": "configmap://sums/train.json", "maxNewTokens": 16}


def evaluation(name: str, **spec: Any) -> dict[str, Any]:
    """An Evaluation on `sums` of the model that knows sums, against one that has hardly begun to."""
    models = [
        {"name": short, "model": {"from": {"kind": "FineTuneJob", "name": f"{short}-of-sums"}}}
        for short in ("early", "late")
    ]
    fields = {"models": models, "suites": [ANSWERS], "compute": {"workers": 2}}
    metadata = {"name": name}
    return {"apiVersion": "alidade.dev/v1alpha1", "kind": "Evaluation", "metadata": metadata, "spec": fields | spec}


def test_an_evaluation_waits_for_its_models_and_says_which_is_better(trained_on_sums: Cluster) -> None:
    cluster = trained_on_sums
    suites = [ANSWERS, {"type": "perplexity", "dataset": "configmap://sums/train.json"}]
    leaks = {"trainingData": ["configmap://sums/train.json"]}
    apply(cluster, evaluation("sums", suites=suites, leakCheck=leaks))
    wait_until(
        lambda: conditions(read(cluster, "sums", "evaluation")).get("Accepted") == ("Unknown", "ReferencePending"),
        "the evaluation waits for its models",
    )
    apply(cluster, finetune_job("early-of-sums", steps=1), finetune_job("late-of-sums", steps=60))
    status = finished(cluster, "sums", "evaluation")["status"]
    found = {(one["suite"], one["metric"], one["model"]): one for one in status["results"]}
    late = found["perplexity", "perplexity", "late"]
    assert late["verdict"] == "better"
    assert late["low"] <= late["value"] <= late["high"]
    assert late["differenceHigh"] < 0
    assert found["generation", "f1", "early"].get("verdict") is None, "it is the baseline"
    assert found["generation", "leaked", "*"]["value"] == 1, "it was trained on the test"
    assert all(one["n"] == 144 for one in status["results"])
    assert "late: " in status["verdict"]
    folder = cluster.kubeconfig.parent / "volumes" / "default" / status["reportUri"].removeprefix("pvc://")
    assert folder.read_text().startswith("<!doctype html>")
    results = json.loads((folder.parent / "results.json").read_text())
    assert len(results["results"]) == len(status["results"])
    pods = listed(cluster, "pods", "app.kubernetes.io/instance=sums,app.kubernetes.io/component=evaluation")
    assert len(pods) == 2


def test_a_record_without_an_answer_is_named_once_and_not_tried_again(trained_on_sums: Cluster) -> None:
    cluster = trained_on_sums
    suite = {"type": "ranking", "dataset": "configmap://sums/train.json"}
    model = {"name": "early", "model": {"from": {"kind": "FineTuneJob", "name": "early-of-sums"}}}
    apply(cluster, finetune_job("early-of-sums", steps=1))
    apply(cluster, evaluation("unranked", models=[model], suites=[suite]))
    wait_until(
        lambda: conditions(read(cluster, "unranked", "evaluation")).get("Failed", ("",))[0] == "True",
        "the evaluation fails",
        timeout_s=120,
    )
    ended = read(cluster, "unranked", "evaluation")
    assert conditions(ended)["Failed"] == ("True", "DataMalformed")
    assert "spec.suites[0].dataset" in message(ended, "Failed")
    assert ended["status"]["attempts"] == 1
