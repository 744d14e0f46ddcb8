"""From `kubectl apply` to a trained model, through every part."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.jobs import (
    Cluster,
    apply,
    children,
    conditions,
    finetune_job,
    finished,
    folders_of,
    has_checkpoint,
    loss_curve,
    output_folder,
    read,
    wait_until,
    wait_until_childless,
)  # fmt: skip

pytestmark = pytest.mark.slow


def test_a_job_goes_from_apply_to_a_model_that_can_be_asked(trained_on_sums: Cluster) -> None:
    cluster = trained_on_sums
    apply(cluster, finetune_job("whole", tracking={"tensorboard": {}}))
    job = finished(cluster, "whole")
    status = job["status"]
    assert conditions(job)["Accepted"] == ("True", "Valid")
    assert conditions(job)["Fits"][0] in ("True", "Unknown")
    assert conditions(job)["Succeeded"] == ("True", "Completed")
    assert all(entry["observedGeneration"] == job["metadata"]["generation"] for entry in status["conditions"])
    assert status["attempts"] == 1
    assert status["progress"]["step"] == status["progress"]["totalSteps"] == 40
    assert status["model"]["digest"].startswith("sha256:")

    folder = output_folder(cluster, job)
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [
        "checkpoints", "metrics.jsonl", "model", "report.html", "report.json", "result.json", "tensorboard",
        "tracking.json",
    ]  # fmt: skip
    curve = loss_curve(folder)
    assert set(curve) == set(range(1, 41))
    assert curve[40] < 0.5 * curve[1], "forty steps on sums must teach something"
    (events,) = (folder / "tensorboard").iterdir()
    assert events.read_bytes().count(b"train/loss") == 40, "one process of two tells the tracker"

    answer = subprocess.run(
        [Path(sys.executable).parent / "alidade-chat", "--model", folder / "model", "--prompt", "What is 1 plus 1?"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "It is" in answer.stdout

    table = cluster.kubectl("get", "ftj", "whole")
    assert "METHOD" in table
    assert "Succeeded" in table
    described = cluster.kubectl("describe", "ftj", "whole")
    assert "Succeeded" in described
    assert "Events:" in described

    apply(cluster, finetune_job("whole", tracking={"tensorboard": {}}))
    assert read(cluster, "whole")["metadata"]["generation"] == job["metadata"]["generation"]
    kinds = "pytorchjob,configmap,pod"
    made = {child["kind"] for child in children(cluster, "FineTuneJob", "whole", kinds)}
    assert made == {"PyTorchJob", "ConfigMap", "Pod"}
    cluster.kubectl("delete", "ftj", "whole", "--wait", "--timeout=120s")
    wait_until_childless(cluster, "FineTuneJob", "whole", kinds)
    assert (folder / "model" / "config.json").exists(), "a model outlives the resource that made it"


def test_a_suspended_job_holds_no_pod_and_goes_on_where_it_was_with_fewer_workers(trained_on_sums: Cluster) -> None:
    cluster = trained_on_sums
    apply(cluster, finetune_job("paused", steps=300, checkpoint={"everySteps": 50}))
    wait_until(lambda: has_checkpoint(cluster, "paused"), "training to be under way", timeout_s=180)
    cluster.kubectl("patch", "ftj", "paused", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    wait_until(lambda: conditions(read(cluster, "paused"))["Suspended"][0] == "True", "the job to be suspended")
    wait_until_childless(cluster, "FineTuneJob", "paused", "pod")
    paused = read(cluster, "paused")
    assert paused["status"]["phase"] == "Suspended"

    before = loss_curve(folders_of(cluster, "paused")[0])
    change = '{"spec":{"suspend":false,"compute":{"workers":1}}}'
    cluster.kubectl("patch", "ftj", "paused", "--type=merge", "-p", change)
    job = finished(cluster, "paused")
    assert job["status"]["attempts"] == 1, "a suspension is not a failed attempt"
    assert "lastFailure" not in job["status"]
    result = json.loads((output_folder(cluster, job) / "result.json").read_text())
    assert result["outcome"] == "succeeded"
    curve = loss_curve(output_folder(cluster, job))
    assert list(curve) == list(range(1, 301)), "each step once, in order"
    assert len(before) < 300
    assert {step: curve[step] for step in before} == before
    # As any ten steps are to the ten before them: neither weights nor moments begin anew.
    last, first = list(before.values())[-10:], list(curve.values())[len(before) : len(before) + 10]
    assert sum(first) < 1.5 * sum(last), (last, first)
