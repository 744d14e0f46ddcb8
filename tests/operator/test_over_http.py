"""The operator process against an API server; the test is training operator and kubelet."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from alidade_operator.api import CLAIM, CONFIG_MAP, DEPLOYMENT, FINE_TUNE_JOB, JOB, PYTORCH_JOB
from tests.fuzz.applying import Applicant, furnish, mistakes
from tests.operator.builders import MODEL, failure, success
from tests.operator.conftest import CONFIG, Process
from tests.operator.played import Played, connection, now
from tests.operator.security import restricted


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition."""
    return {item["type"]: (item["status"], item["reason"]) for item in status.get("conditions", [])}


async def test_a_job_goes_from_apply_to_its_model(operator: Process, played: Played) -> None:
    await played.apply("whole")
    launched = await played.launched("whole")
    document = {
        "version": "alidade.dev/progress/v1",
        "state": "training",
        "step": 3,
        "totalSteps": 40,
        "updatedAt": now(),
    }
    address = await played.serve_progress(document)
    await played.run_pod(launched, ip=address)

    async def has_step(step: int) -> bool:
        return bool((await played.read("whole")).get("progress", {}).get("step") == step)

    await played.until(lambda: has_step(3), "progress to be read")
    document["step"] = 4
    await played.until(lambda: has_step(4), "progress to move")
    assert (await played.read("whole"))["phase"] == "Running"
    await played.end_pod("whole-1", result=success(metrics={"train_loss": 0.25}))
    status = await played.phase("whole", "Succeeded")
    assert status["model"]["digest"] == MODEL.digest
    assert status["metrics"] == {"train_loss": 0.25}
    assert status["progress"]["step"] == 40
    assert conditions(status) == {
        "Accepted": ("True", "Valid"),
        "Fits": ("Unknown", "SizeUnknown"),
        "Launched": ("True", "Completed"),
        "Succeeded": ("True", "Completed"),
        "Failed": ("False", "NotFailed"),
        "Suspended": ("False", "NotSuspended"),
    }

    async def told() -> bool:
        reasons = sorted(event["reason"] for event in await played.events("whole"))
        return len(reasons) >= 3

    await played.until(told, "events")
    assert sorted(event["reason"] for event in await played.events("whole")) == ["Completed", "JobCreated", "Running"]


async def test_a_failed_attempt_is_followed_by_the_next(operator: Process, played: Played) -> None:
    await played.apply("again", backoffLimit=1)
    await played.run_pod(await played.launched("again"))
    await played.end_pod("again-1", exit_code=75, result=failure("WorkerLost", retryable=True, message="Rank 1 died."))
    second = await played.launched("again", 2)

    async def second_attempt() -> bool:
        return bool((await played.read("again")).get("attempts") == 2)

    await played.until(second_attempt, "the second attempt to be told")
    status = await played.read("again")
    assert status["lastFailure"]["message"] == "Rank 1 died."
    assert sorted(await played.training_jobs("again")) == ["again-1", "again-2"]
    await played.run_pod(second)
    await played.end_pod("again-2", exit_code=137)
    status = await played.phase("again", "Failed")
    assert conditions(status)["Failed"] == ("True", "BackoffLimitExceeded")
    assert sorted(await played.training_jobs("again")) == ["again-1", "again-2"]


async def test_suspending_takes_the_pods_and_resuming_gives_the_same_attempt(operator: Process, played: Played) -> None:
    await played.apply("paused")
    await played.run_pod(await played.launched("paused"), lingers=True)
    await played.phase("paused", "Running")
    await played.apply("paused", suspend=True)
    await played.phase("paused", "Suspended")
    await played.until(lambda: _nothing(played, "paused"), "the PyTorchJob to go")
    await played.apply("paused", suspend=False)
    status = await played.phase("paused", "Waiting")
    assert "Pod paused-1-master-0 of an earlier launch is still running" in str(status["conditions"])
    await played.release_pod("paused-1")
    await played.launched("paused", 1)
    assert (await played.phase("paused", "Starting"))["attempts"] == 1


async def _nothing(played: Played, name: str) -> bool:
    return not await played.training_jobs(name)


async def test_a_training_job_deleted_by_hand_comes_back(operator: Process, played: Played) -> None:
    await played.apply("byhand")
    first = await played.launched("byhand")
    await played.delete(PYTORCH_JOB, "byhand-1")

    async def is_another() -> bool:
        found = (await played.training_jobs("byhand")).get("byhand-1")
        return found is not None and found["metadata"]["uid"] != first["metadata"]["uid"]

    await played.until(is_another, "byhand-1 to come back")
    assert (await played.read("byhand"))["attempts"] == 1


async def test_a_claim_that_appears_lets_the_job_go_on(operator: Process, played: Played) -> None:
    await played.apply("waits", dataset={"uri": "pvc://late/train.json"})
    status = await played.phase("waits", "Waiting")
    assert conditions(status)["Accepted"] == ("False", "VolumeMissing")
    await played.claim("late")
    await played.launched("waits")
    await played.delete(CLAIM, "late")


async def test_a_config_map_that_appears_lets_the_job_go_on(operator: Process, played: Played) -> None:
    await played.apply("waits", dataset={"uri": "configmap://sums/train.json"})
    assert conditions(await played.phase("waits", "Waiting"))["Accepted"] == ("False", "ConfigMapMissing")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sums"}, "data": {"train.json": "[]"}}
    await played.api.create(CONFIG_MAP, played.namespace, body)
    await played.launched("waits")


async def test_a_changed_configuration_lets_the_job_go_on(operator: Process, played: Played) -> None:
    await played.apply("waits", compute={"nodePool": "new"})
    assert conditions(await played.phase("waits", "Waiting"))["Accepted"] == ("False", "NodePoolUnknown")
    path = Path(operator.environment["ALIDADE_CONFIG"])
    await asyncio.to_thread(path.write_text, "nodePools: [{")
    await asyncio.to_thread(operator.wait_for, "configuration refused")
    changed = CONFIG | {"nodePools": [*CONFIG["nodePools"], {"name": "new"}]}
    await asyncio.to_thread(path.write_text, yaml.safe_dump(changed))
    await played.launched("waits")


async def test_a_job_waits_for_the_model_of_another(operator: Process, played: Played) -> None:
    await played.apply("tuned", method="sft", model={"from": {"kind": "FineTuneJob", "name": "base"}})
    assert conditions(await played.phase("tuned", "Waiting"))["Accepted"] == ("Unknown", "ReferencePending")
    await played.apply("base")
    await played.run_pod(await played.launched("base"))
    await played.end_pod("base-1", result=success())
    await played.launched("tuned")
    config_map = await played.api.get(CONFIG_MAP, played.namespace, "tuned-job")
    assert json.loads(config_map["data"]["job.json"])["model"] == {
        "uri": MODEL.uri, "digest": MODEL.digest, "trustRemoteCode": False,
    }  # fmt: skip


async def test_a_finished_resource_goes_after_its_time(operator: Process, played: Played) -> None:
    await played.apply("brief", ttlSecondsAfterFinished=1)
    await played.run_pod(await played.launched("brief"))
    await played.end_pod("brief-1", result=success())

    async def gone() -> bool:
        items, _ = await played.api.list(FINE_TUNE_JOB, namespace=played.namespace)
        return not items

    await played.until(gone, "the resource to be deleted")


async def test_a_training_job_of_somebody_else_is_left_alone(operator: Process, played: Played) -> None:
    template = {"spec": {"containers": [{"name": "pytorch", "image": "x"}]}}
    body = {
        "apiVersion": PYTORCH_JOB.api_version,
        "kind": PYTORCH_JOB.kind,
        "metadata": {"name": "taken-1"},
        "spec": {"pytorchReplicaSpecs": {"Master": {"replicas": 1, "template": template}}},
    }
    theirs = await played.api.create(PYTORCH_JOB, played.namespace, body)
    await played.apply("taken")
    status = await played.phase("taken", "Waiting")
    assert "PyTorchJob taken-1 belongs to an older resource, or to something else" in str(status["conditions"])
    found = await played.api.get(PYTORCH_JOB, played.namespace, "taken-1")
    assert found["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"]


async def test_an_idle_operator_writes_nothing(operator: Process, played: Played) -> None:
    await played.apply("quiet")
    await played.run_pod(await played.launched("quiet"))
    await played.phase("quiet", "Running")
    before = (await played.api.get(FINE_TUNE_JOB, played.namespace, "quiet"))["metadata"]["resourceVersion"]
    # Longer than a resync of this configuration, which would write if anything were written twice.
    await asyncio.sleep(3)
    after = (await played.api.get(FINE_TUNE_JOB, played.namespace, "quiet"))["metadata"]["resourceVersion"]
    assert after == before


async def test_metrics_and_health_are_served(operator: Process, played: Played) -> None:
    await played.apply("measured")
    await played.run_pod(await played.launched("measured"))
    await played.phase("measured", "Running")
    line = next(line for line in operator.text().splitlines() if '"action": "listen"' in line)
    port = json.loads(line)["port"]

    def get(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            assert answer.status == 200
            return str(answer.read().decode())

    assert get("/healthz") == "ok\n"
    assert get("/readyz") == "ok\n"
    metrics = get("/metrics")
    assert 'alidade_operator_reconciles_total{kind="FineTuneJob",outcome="changed"}' in metrics
    assert 'alidade_operator_resources{kind="FineTuneJob",phase="Running"}' in metrics
    gauge = f'alidade_job_attempts{{kind="FineTuneJob",name="measured",namespace="{played.namespace}"}} 1.0'

    async def shown() -> bool:
        return gauge in await asyncio.to_thread(get, "/metrics")

    await played.until(shown, "the gauge of the running job")
    await played.end_pod("measured-1", result=success())
    await played.phase("measured", "Succeeded")

    async def gone() -> bool:
        return gauge not in await asyncio.to_thread(get, "/metrics")

    await played.until(gone, "the gauge of the ended job to go")


async def test_every_line_of_the_log_is_json_and_decisions_say_what_and_why(operator: Process, played: Played) -> None:
    await played.apply("told")
    await played.launched("told")
    await played.phase("told", "Starting")
    await asyncio.to_thread(operator.wait_for, '"told-1: the spec is accepted"')
    lines = [json.loads(line) for line in operator.text().splitlines()]
    told = [line for line in lines if line.get("resource") == "told" and line.get("namespace") == played.namespace]
    assert [(line["action"], line["why"]) for line in told] == [("launch", "told-1: the spec is accepted")]
    assert "Bearer" not in operator.text()


async def test_strange_resources_are_refused_or_told_of_and_make_restricted_pods_only(
    api_server: Path, operator: Process, played: Played
) -> None:
    """A few of those that `make fuzz` sends by the thousand; the seed repeats them."""
    await furnish(played.api, played.namespace)
    link, before = connection(api_server), len(operator.text())
    pods = 0

    async def look() -> None:
        nonlocal pods
        for kind in (PYTORCH_JOB, JOB, DEPLOYMENT):
            for body in (await played.api.list(kind, namespace=played.namespace))[0]:
                for spec in pod_specs(body):
                    assert restricted(spec) == []
                    assert "serviceAccountName" not in spec
                    pods += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=link.ssl)) as session:
        found = await Applicant(played.api, link, session, played.namespace).apply(1, range(90), before_the_end=look)
    assert found.wrong == []
    assert found.taken["valid"] > 10
    assert pods > 2, "some of them are launched"
    assert mistakes(operator.text()[before:]) == []


def pod_specs(body: Any) -> list[dict[str, Any]]:
    """The specs of pods that an object's templates hold."""
    if isinstance(body, dict) and "containers" in body:
        return [body]
    below = body.values() if isinstance(body, dict) else body if isinstance(body, list) else ()
    return [spec for one in below for spec in pod_specs(one)]
