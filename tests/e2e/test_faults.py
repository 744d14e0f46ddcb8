"""What is killed comes back, and the result is the one it would have been."""

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.jobs import (
    Cluster,
    apply,
    conditions,
    finetune_job,
    finished,
    has_checkpoint,
    listed,
    loss_curve,
    output_folder,
    wait_until,
)  # fmt: skip

pytestmark = pytest.mark.slow
STEPS = 300
CHECKPOINT = {"everySteps": 40}


def processes(argument: str, **environment: str) -> list[psutil.Process]:
    """Processes with a word in their command line and these variables in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if argument in " ".join(process.cmdline()) and environment.items() <= process.environ().items():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def kill_a_trainer(job: str, rank: str) -> None:
    """SIGKILL to one training process of a job."""
    workers = [
        process
        for process in processes("alidade_trainer", RANK=rank)
        if job in process.environ().get("MASTER_ADDR", "") + process.environ().get("ALIDADE_JOB", "")
        or job in process.environ().get("HOSTNAME", "")
    ]
    assert workers, f"{job} has no process of rank {rank}"
    workers[-1].kill()


def test_a_killed_worker_costs_one_attempt_and_changes_nothing_of_the_loss_curve(trained_on_sums: Cluster) -> None:
    cluster = trained_on_sums
    apply(cluster, finetune_job("undisturbed", steps=STEPS, checkpoint=CHECKPOINT))
    undisturbed = finished(cluster, "undisturbed")
    apply(cluster, finetune_job("killed", steps=STEPS, checkpoint=CHECKPOINT))
    wait_until(lambda: has_checkpoint(cluster, "killed"), "a checkpoint to resume from", timeout_s=180)
    kill_a_trainer("killed", rank="1")
    job = finished(cluster, "killed")

    assert job["status"]["attempts"] == 2
    assert job["status"]["lastFailure"]["attempt"] == 1
    assert loss_curve(output_folder(cluster, job)) == loss_curve(output_folder(cluster, undisturbed))
    assert job["status"]["model"]["digest"] == undisturbed["status"]["model"]["digest"]
    reasons = {event["reason"] for event in events(cluster, "killed")}
    assert "Retrying" in reasons, reasons


def test_a_job_whose_node_goes_saves_its_work_and_goes_on_elsewhere_at_no_attempts_cost(
    trained_on_sums: Cluster,
) -> None:
    cluster = trained_on_sums
    # It has no failure to spare, and without what it saves at SIGTERM it would begin at step 200 again.
    apply(cluster, finetune_job("spot", steps=400, checkpoint={"everySteps": 200}, backoffLimit=0))
    wait_until(lambda: has_checkpoint(cluster, "spot"), "training to be under way", timeout_s=180)
    launchers = [
        process
        for process in processes("alidade-trainer run")
        if "spot" in process.environ().get("HOSTNAME", "") + process.environ().get("ALIDADE_JOB", "")
    ]
    assert launchers
    launchers[0].terminate()
    job = finished(cluster, "spot")

    status = job["status"]
    assert (status["attempts"], status["interruptions"]) == (2, 1)
    assert (status["lastFailure"]["reason"], status["lastFailure"]["interrupted"]) == ("Interrupted", True)
    assert conditions(job)["Succeeded"] == ("True", "Completed")
    assert "its work was saved at step" in status["lastFailure"]["message"]
    assert list(loss_curve(output_folder(cluster, job))) == list(range(1, 401)), "each step once, in order"


def test_an_operator_killed_at_random_launches_nothing_twice_and_loses_nothing(
    trained_on_sums: Cluster, tmp_path: Path
) -> None:
    cluster = trained_on_sums
    chance = random.Random(20)
    apply(cluster, finetune_job("steady", steps=STEPS, checkpoint=CHECKPOINT))
    for _ in range(20):
        wait_until(lambda: operators(cluster), "an operator to kill", timeout_s=120)
        for process in operators(cluster):
            os.kill(process.pid, signal.SIGKILL)
        pause_until = chance.uniform(0.05, 1.5)
        wait_until(_after(pause_until), "the random instant")
    job = finished(cluster, "steady")

    assert job["status"]["attempts"] == 1
    launched = listed(cluster, "pytorchjob", "app.kubernetes.io/instance=steady")
    assert [entry["metadata"]["name"] for entry in launched] == ["steady-1"]
    assert conditions(job)["Succeeded"] == ("True", "Completed")
    curve = loss_curve(output_folder(cluster, job))
    assert list(curve) == list(range(1, STEPS + 1))


def operators(cluster: Cluster) -> list[psutil.Process]:
    """The operator processes of this cluster."""
    return processes("alidade_operator", KUBECONFIG=str(cluster.kubeconfig))


def events(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    """Events about a resource."""
    text = cluster.kubectl("get", "events", "--field-selector", f"involvedObject.name={name}", "-o", "json")
    items: list[dict[str, Any]] = json.loads(text)["items"]
    return items


def _after(seconds: float) -> Any:
    import time

    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end
