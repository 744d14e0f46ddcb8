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
    folders_of,
    has_checkpoint,
    listed,
    loss_curve,
    output_folder,
    read,
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


def test_a_job_whose_node_goes_saves_its_work_and_goes_on_with_as_many_workers_as_find_room_at_no_attempts_cost(
    trained_on_sums: Cluster,
) -> None:
    cluster = trained_on_sums
    # It has no failure to spare, and without what it saves at SIGTERM it would begin at step 200 again.
    elastic = {"minWorkers": 1, "patienceSeconds": 10}
    apply(cluster, finetune_job("spot", steps=600, checkpoint={"everySteps": 200}, backoffLimit=0, elastic=elastic))
    wait_until(lambda: has_checkpoint(cluster, "spot"), "training to be under way", timeout_s=180)
    ask_for_memory(cluster, "spot", of_the_node=0.6)
    take_the_node_of_a_pod("spot")
    wait_until(lambda: trained_with(cluster, "spot", workers=1, step=400), "one worker to go on", timeout_s=120)
    described = cluster.kubectl("describe", "ftj", "spot")
    ask_for_memory(cluster, "spot", of_the_node=0.2)
    take_the_node_of_a_pod("spot")
    job = finished(cluster, "spot")

    assert "PyTorchJob spot-2 is running with 1 of 2 workers (spec.elastic)." in described
    told = {event["reason"]: event["message"] for event in events(cluster, "spot")}
    assert "Insufficient memory" in told["PodsPending"]
    assert told["FewerWorkers"] == (
        "PyTorchJob spot-2 has no room for all of its 2 workers and goes on with 1 (spec.elastic). The next attempt "
        "tries all again."
    )
    status = job["status"]
    assert (status["attempts"], status["interruptions"]) == (3, 2)
    assert (status["lastFailure"]["reason"], status["lastFailure"]["interrupted"]) == ("Interrupted", True)
    assert conditions(job)["Succeeded"] == ("True", "Completed")
    assert "its work was saved at step" in status["lastFailure"]["message"]
    assert "Worker" in read(cluster, "spot-3", "pytorchjob")["spec"]["pytorchReplicaSpecs"], "all, beside the master"
    assert list(loss_curve(output_folder(cluster, job))) == list(range(1, 601)), "each step once, in order"


def take_the_node_of_a_pod(job: str) -> None:
    """SIGTERM to a launcher of a job, as it gets it when its node goes."""
    launchers = [
        process
        for process in processes("alidade-trainer run")
        if job in process.environ().get("HOSTNAME", "") + process.environ().get("ALIDADE_JOB", "")
    ]
    assert launchers
    launchers[0].terminate()


def ask_for_memory(cluster: Cluster, job: str, *, of_the_node: float) -> None:
    """Lets each worker of the attempts to come ask for a share of the node's memory."""
    [node] = listed(cluster, "node")
    memory = int(node["status"]["allocatable"]["memory"].removesuffix("Ki")) * of_the_node
    change = {"spec": {"compute": {"memory": f"{memory:.0f}Ki"}}}
    cluster.kubectl("patch", "ftj", job, "--type=merge", "-p", json.dumps(change))


def trained_with(cluster: Cluster, job: str, *, workers: int, step: int) -> bool:
    """Whether a job has a checkpoint of a step, and so many workers where there was no room for all."""
    has_step = any((folder / "checkpoints" / f"step-{step}").is_dir() for folder in folders_of(cluster, job))
    return has_step and read(cluster, job)["status"].get("workers") == workers


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
