"""The operator process where training jobs are TrainJobs; the test is Kubeflow Trainer, Kueue and kubelet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from alidade_operator.api import POD, PYTORCH_JOB, TRAIN_JOB, TRAINING_RUNTIME, Api
from tests.operator.builders import MODEL, failure, success
from tests.operator.conftest import CONFIG, Process, at_work, operator_process, played_namespace
from tests.operator.played import TRAIN_JOB_KINDS, connection, install_kinds
from tests.operator.playedtrainer import PlayedTrainer


@pytest.fixture(scope="module")
def with_trainer(api_server: Path) -> Path:
    """The API server, which knows TrainJobs as well."""

    async def install() -> None:
        api = Api(lambda: connection(api_server), connections=2)
        await install_kinds(api, [TRAIN_JOB_KINDS])
        await api.close()

    asyncio.run(install())
    return api_server


@pytest.fixture(scope="module")
def trainjob_operator(with_trainer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """An operator whose training jobs are TrainJobs but for those of one pool."""
    pools = [*CONFIG["nodePools"], {"name": "older", "trainingBackend": "PyTorchJob"}]
    folder = tmp_path_factory.mktemp("operator")
    process = operator_process(folder, with_trainer, trainingBackend="TrainJob", nodePools=pools)
    with at_work(process):
        yield process


@pytest.fixture
async def trainer(with_trainer: Path, request: pytest.FixtureRequest) -> AsyncIterator[PlayedTrainer]:
    """A namespace of its own in which the test is Trainer, Kueue and kubelet."""
    async with played_namespace(PlayedTrainer, with_trainer, request) as part:
        yield part


async def runtimes(trainer: PlayedTrainer) -> list[dict[str, Any]]:
    return (await trainer.api.list(TRAINING_RUNTIME, namespace=trainer.namespace))[0]


async def test_a_trainjob_goes_from_apply_to_its_model(trainjob_operator: Process, trainer: PlayedTrainer) -> None:
    await trainer.apply("whole")
    launched = await trainer.launched("whole")
    (runtime,) = await runtimes(trainer)
    assert launched["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert int(runtime["metadata"]["resourceVersion"]) < int(launched["metadata"]["resourceVersion"])
    await trainer.run_pod(launched)
    running = await trainer.phase("whole", "Running")
    assert running["jobRef"] == {"kind": "TrainJob", "name": "whole-1"}
    await trainer.end_pod("whole-1", result=success(metrics={"train_loss": 0.25}))
    status = await trainer.phase("whole", "Succeeded")
    assert status["model"]["digest"] == MODEL.digest
    assert status["metrics"] == {"train_loss": 0.25}
    reasons = {event["reason"] for event in await trainer.events("whole")}
    assert "Running" in reasons
    assert not [event for event in await trainer.events("whole") if event["type"] == "Warning"]


async def test_a_failed_attempt_is_followed_by_the_next_with_the_same_runtime(
    trainjob_operator: Process, trainer: PlayedTrainer
) -> None:
    await trainer.apply("again", backoffLimit=1)
    await trainer.run_pod(await trainer.launched("again"))
    before = await runtimes(trainer)
    await trainer.end_pod("again-1", exit_code=75, result=failure("WorkerLost", retryable=True, message="Rank 1 died."))
    await trainer.run_pod(await trainer.launched("again", 2))
    assert await runtimes(trainer) == before
    assert (await trainer.phase("again", "Running"))["lastFailure"]["message"] == "Rank 1 died."
    await trainer.end_pod("again-2", exit_code=137)
    status = await trainer.phase("again", "Failed")
    failed = next(one for one in status["conditions"] if one["type"] == "Failed")
    assert failed["reason"] == "BackoffLimitExceeded"
    assert sorted(await trainer.training_jobs("again")) == ["again-1", "again-2"]


async def test_a_queue_holds_a_trainjob_back_lets_it_in_and_takes_its_room_back(
    trainjob_operator: Process, trainer: PlayedTrainer
) -> None:
    await trainer.apply("queued", compute={"queue": "team-a"})
    held = await trainer.launched("queued")
    assert held["spec"]["suspend"] is True
    assert held["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    await trainer.job_status("queued-1", "Suspended")
    status = await trainer.phase("queued", "Queued")
    assert "Queue team-a has not admitted TrainJob queued-1" in str(status["conditions"])
    await trainer.admit("queued-1", nodeSelector={"pool": "spot"})
    await trainer.run_pod(held)
    await trainer.phase("queued", "Running")
    await trainer.evict("queued-1")
    await trainer.delete(POD, trainer.pod_name("queued-1"))
    await trainer.job_status("queued-1", "Suspended")
    await trainer.phase("queued", "Queued")
    await trainer.admit("queued-1", nodeSelector={"pool": "reserved"})
    await trainer.run_pod(held)
    await trainer.end_pod("queued-1", result=success())
    status = await trainer.phase("queued", "Succeeded")
    assert status["attempts"] == 1
    last = (await trainer.training_jobs("queued"))["queued-1"]
    assert last["metadata"]["uid"] == held["metadata"]["uid"]
    assert "reserved" in str(last["spec"]["runtimePatches"]), "what Kueue has written is left alone"


async def test_an_operator_that_starts_again_takes_up_a_trainjob_where_it_is(
    trainjob_operator: Process, trainer: PlayedTrainer
) -> None:
    await trainer.apply("resumed")
    first = await trainer.launched("resumed")
    await trainer.run_pod(first)
    await trainer.phase("resumed", "Running")
    listings = trainjob_operator.text().count("listed every kind")
    trainjob_operator.kill()
    await trainer.end_pod("resumed-1", result=success())
    trainjob_operator.start()
    assert (await trainer.phase("resumed", "Succeeded"))["attempts"] == 1
    assert trainjob_operator.text().count("listed every kind") == listings + 1
    (job,) = (await trainer.training_jobs("resumed")).values()
    assert job["metadata"]["uid"] == first["metadata"]["uid"]


async def test_suspending_takes_the_trainjob_and_resuming_waits_for_its_pods(
    trainjob_operator: Process, trainer: PlayedTrainer
) -> None:
    await trainer.apply("paused")
    await trainer.run_pod(await trainer.launched("paused"), lingers=True)
    await trainer.phase("paused", "Running")
    await trainer.apply("paused", suspend=True)
    await trainer.phase("paused", "Suspended")
    await trainer.apply("paused", suspend=False)
    status = await trainer.phase("paused", "Waiting")
    assert "Pod paused-1-node-0-0-abcde of an earlier launch is still running" in str(status["conditions"])
    await trainer.release_pod("paused-1")
    await trainer.launched("paused")
    assert (await trainer.phase("paused", "Starting"))["attempts"] == 1


async def test_a_pool_may_have_its_own_kind_of_training_job(trainjob_operator: Process, trainer: PlayedTrainer) -> None:
    await trainer.apply("older", compute={"nodePool": "older"})

    async def launched() -> list[dict[str, Any]]:
        return (await trainer.api.list(PYTORCH_JOB, namespace=trainer.namespace))[0]

    (job,) = await trainer.until(launched, "a PyTorchJob")
    assert job["metadata"]["name"] == "older-1"
    assert (await trainer.api.list(TRAIN_JOB, namespace=trainer.namespace))[0] == []
    assert await runtimes(trainer) == []
