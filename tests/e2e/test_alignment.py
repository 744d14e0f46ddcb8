"""From one AlignmentRun to an aligned model, through every part; and the same with everything killed on the way."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.jobs import (
    Cluster,
    alignment_run,
    apply,
    conditions,
    finished,
    listed,
    message,
    output_folder,
    read,
    wait_until,
    wrong_sums,
)  # fmt: skip
from tests.e2e.test_faults import events, operators, processes

pytestmark = pytest.mark.slow
KILLS = 10
OTHER = "disturbed"


@pytest.fixture(scope="module")
def undisturbed(trained_on_sums: Cluster) -> dict[str, Any]:
    """A run that nobody disturbed, once it has succeeded."""
    apply(trained_on_sums, wrong_sums(), alignment_run("whole"))
    return finished(trained_on_sums, "whole", "alignmentrun")


def stages(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The stages of a run by name."""
    return {stage["name"]: stage for stage in run["status"]["stages"]}


def test_a_run_goes_from_apply_to_an_aligned_model(trained_on_sums: Cluster, undisturbed: dict[str, Any]) -> None:
    cluster, status = trained_on_sums, undisturbed["status"]
    assert {name for name, (truth, _) in conditions(undisturbed).items() if truth == "True"} >= {
        "Accepted", "SFTReady", "RewardModelReady", "Launched", "Aligned", "Succeeded",
    }  # fmt: skip
    assert list(stages(undisturbed)) == ["sft", "right", "1-raft", "2-ppo"]
    assert {stage["phase"] for stage in status["stages"]} == {"Succeeded"}
    assert not any(stage["reused"] for stage in status["stages"])
    assert stages(undisturbed)["right"]["metrics"]["accuracy"] > 0.5
    assert {"reward", "acceptance", "responseLength", "evalReward", "perplexity"} <= set(
        stages(undisturbed)["1-raft"]["metrics"]
    )
    assert {"reward", "kl", "entropy", "clipFraction", "responseLength"} <= set(stages(undisturbed)["2-ppo"]["metrics"])
    assert (status["progress"]["iteration"], status["progress"]["totalIterations"]) == (3, 3)

    lineage = json.loads((output_folder(cluster, undisturbed) / "model" / "lineage.json").read_text())
    assert lineage["base"]["digest"] == stages(undisturbed)["sft"]["model"]["digest"]
    page = (output_folder(cluster, undisturbed) / "report.html").read_text()
    assert all(f"<h2>{step}</h2>" in page for step in ("1-raft", "2-ppo"))
    assert "Divergence from the start model" in page

    table = cluster.kubectl("get", "ar", "whole").split()
    assert {"raft,ppo", "Succeeded"} <= set(table)
    reasons = {event["reason"] for event in events(cluster, "whole")}
    assert {"JobCreated", "Running", "Completed"} <= reasons


def test_the_command_line_follows_a_run(trained_on_sums: Cluster, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    def alidade(*words: str) -> str:
        environment = {**os.environ, "KUBECONFIG": str(trained_on_sums.kubeconfig)}
        command = [str(Path(sys.executable).parent / "alidade"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    assert undisturbed["status"]["model"]["digest"] in alidade("wait", "ar/whole", "--timeout", "10")
    assert "iteration 3/3" in alidade("logs", "ar/whole")
    alidade("report", "ar/whole", "--save", str(tmp_path / "report.html"))
    assert "AlignmentRun default/whole" in (tmp_path / "report.html").read_text()
    assert alidade("chat", "ar/whole", "--prompt", "What is 1 plus 1?").strip()


def test_what_another_run_has_made_is_taken_and_said_to_be(
    trained_on_sums: Cluster, undisturbed: dict[str, Any]
) -> None:
    """The same SFT and reward model; the alignment is another one, and its spec changes afterwards."""
    cluster = trained_on_sums
    steps = [{"raft": {"iterations": 1, "promptsPerIteration": 16, "samplesPerPrompt": 2}}]
    apply(cluster, alignment_run("second", align=steps))
    second = finished(cluster, "second", "alignmentrun")
    assert {name: stage["reused"] for name, stage in stages(second).items()} == {
        "sft": True, "right": True, "1-raft": False,
    }  # fmt: skip
    assert stages(second)["sft"]["ref"] == stages(undisturbed)["sft"]["ref"]
    assert conditions(second)["SFTReady"] == ("True", "Reused")

    apply(cluster, alignment_run("second"))
    wait_until(lambda: read(cluster, "second", "alignmentrun")["status"].get("steps") == "raft,ppo", "the new spec")
    again = finished(cluster, "second", "alignmentrun")
    assert {stage["reused"] for stage in again["status"]["stages"]} == {True}
    assert again["status"]["model"]["digest"] == undisturbed["status"]["model"]["digest"]
    cluster.kubectl("delete", "ar", "second")
    wait_until(lambda: len(listed(cluster, "alignmentrun")) == 1, "the run to be gone")
    assert output_folder(cluster, second).is_dir(), "models outlive their resources"


def test_a_run_that_is_killed_everywhere_ends_as_it_would_have(
    trained_on_sums: Cluster, undisturbed: dict[str, Any]
) -> None:
    """Ten kills at random instants, of the operator and of training processes: every stage is run once, to the same
    models."""
    cluster, chance = trained_on_sums, random.Random(3)
    prepare_namespace(cluster)
    killed_run = alignment_run("killed", backoffLimit=KILLS)
    for template in (killed_run["spec"]["sft"]["template"], killed_run["spec"]["rewardModels"][0]["template"]):
        template["backoffLimit"] = KILLS
    apply(cluster, wrong_sums(), killed_run, namespace=OTHER)
    killed: list[str] = []
    while len(killed) < KILLS:
        instant = time.monotonic() + chance.uniform(0.5, 8)
        wait_until(lambda instant=instant: time.monotonic() >= instant, "the random instant")
        if read(cluster, "killed", "alignmentrun", OTHER).get("status", {}).get("phase") == "Succeeded":
            break
        killed += kill(chance.choice((operators, trainers)), cluster, chance)
    run = finished(cluster, "killed", "alignmentrun", OTHER, timeout_s=500)

    assert len(killed) >= KILLS // 2, killed
    for kind in ("finetunejob", "rewardmodel"):
        assert len(listed(cluster, kind, namespace=OTHER)) == 1, f"every {kind} is made once"
    made = {name: stage["model"]["digest"] for name, stage in stages(run).items() if "model" in stage}
    assert made == {name: stage["model"]["digest"] for name, stage in stages(undisturbed).items() if "model" in stage}
    curves = [iterations(output_folder(cluster, one)) for one in (run, undisturbed)]
    assert curves[0] == curves[1]


def prepare_namespace(cluster: Cluster) -> None:
    """A namespace with the workspace volume and the data, so that nothing of the other one is reused."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "alidade-workspace"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    data = read(cluster, "sums", "configmap")
    sums = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sums"}, "data": data["data"]}
    apply(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OTHER}})
    apply(cluster, claim, sums, namespace=OTHER)


def trainers(cluster: Cluster) -> list[psutil.Process]:
    """The training processes of the disturbed run."""
    volumes = str(cluster.kubeconfig.parent)
    found = [process for process in processes("alidade_trainer") if "RANK" in _environment(process)]
    return [one for one in found if volumes in " ".join(_environment(one).values())]


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return {}


def kill(find: Callable[[Cluster], list[psutil.Process]], cluster: Cluster, chance: random.Random) -> list[str]:
    """SIGKILL to one of the processes, if there is any; says which kind it was."""
    found = find(cluster)
    if not found:
        return []
    os.kill(chance.choice(found).pid, signal.SIGKILL)
    return [find.__name__]


def iterations(folder: Path) -> list[dict[str, Any]]:
    """What was measured of each iteration."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "iteration" in line]


def test_a_run_waits_for_a_reference_and_fails_with_one_that_fails(
    trained_on_sums: Cluster, undisturbed: dict[str, Any]
) -> None:
    cluster = trained_on_sums
    rewards = [{"name": "right", "ref": {"name": "not-there"}}]
    apply(cluster, alignment_run("waiting", rewardModels=rewards))
    sentence = "spec.rewardModels[0] names RewardModel not-there, which does not exist yet."
    wait_until(
        lambda: message(read(cluster, "waiting", "alignmentrun"), "RewardModelReady") == sentence, "what it waits for"
    )
    broken = {
        "apiVersion": "alidade.dev/v1alpha1",
        "kind": "RewardModel",
        "metadata": {"name": "not-there"},
        "spec": {
            "model": {"uri": undisturbed["status"]["model"]["uri"]},
            "dataset": {"uri": "configmap://sums/train.json", "maxLength": 64},
        },
    }
    apply(cluster, broken)
    wait_until(
        lambda: conditions(read(cluster, "waiting", "alignmentrun")).get("Failed") == ("True", "ReferenceFailed"),
        "the run to fail",
        timeout_s=120,
    )
    told = message(read(cluster, "waiting", "alignmentrun"), "Failed")
    assert told.startswith("spec.rewardModels[0] names RewardModel not-there, which has failed: ")
    cluster.kubectl("delete", "ar", "waiting")
    cluster.kubectl("delete", "rm", "not-there")
