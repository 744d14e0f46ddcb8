"""An operator killed at any instant loses nothing and launches nothing twice."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from alidade_operator.api import ALIGNMENT_RUN, EVALUATION, FINE_TUNE_JOB, PYTORCH_JOB, REWARD_MODEL, ApiError, Kind
from tests.operator.builders import failure, success
from tests.operator.conftest import Process, operator_process
from tests.operator.memory import HELPFULNESS, run_spec
from tests.operator.played import Played, now, watch

JOBS = 4


@pytest.fixture
async def killed_again_and_again(
    api_server: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Process]:
    """An operator that is killed at random instants (the seed is the parameter) while the test runs."""
    chance = random.Random(request.param)
    process = operator_process(tmp_path, api_server)

    async def kill_and_start() -> None:
        while True:
            listings = process.text().count("listed every kind")
            process.start()
            # Each life ends in the middle of its first work, some before it.
            early = chance.random() < 0.2
            while not early and process.text().count("listed every kind") == listings:  # noqa: ASYNC110  # a log has no event
                await asyncio.sleep(0.02)
            await asyncio.sleep(chance.uniform(0, 0.5))
            process.kill()

    killing = asyncio.create_task(kill_and_start())
    yield process
    killing.cancel()
    await asyncio.gather(killing, return_exceptions=True)
    process.stop()


@pytest.mark.parametrize("killed_again_and_again", [1, 2], indirect=True)
async def test_every_job_ends_once_after_three_attempts_with_nothing_lost(
    killed_again_and_again: Process, played: Played
) -> None:
    """Each job fails twice and then succeeds; the watch sees every PyTorchJob that was ever made."""
    seen: dict[str, set[str]] = defaultdict(set)
    most_live = 0

    async def look() -> None:
        nonlocal most_live
        live: dict[str, set[str]] = defaultdict(set)
        async for kind, body in watch(played.api, PYTORCH_JOB, played.namespace):
            metadata = body["metadata"]
            job = metadata["labels"]["app.kubernetes.io/instance"]
            seen[metadata["name"]].add(metadata["uid"])
            ended = {item["type"] for item in (body.get("status") or {}).get("conditions") or []}
            if kind == "DELETED" or ended & {"Succeeded", "Failed"}:
                live[job].discard(metadata["uid"])
            else:
                live[job].add(metadata["uid"])
            most_live = max(most_live, len(live[job]))

    looking = asyncio.create_task(look())
    names = [f"job-{number}" for number in range(JOBS)]
    for name in names:
        await played.apply(name)
    await asyncio.gather(*(_play(played, name) for name in names))
    statuses = [await played.phase(name, "Succeeded", timeout_s=120) for name in names]
    looking.cancel()

    for name, status in zip(names, statuses, strict=True):
        assert status["attempts"] == 3
        assert status["lastFailure"]["attempt"] == 2
        assert status["model"]["digest"] == "sha256:abc"
        for attempt in (1, 2, 3):
            assert len(seen[f"{name}-{attempt}"]) == 1, "each attempt is launched once"
        assert f"{name}-4" not in seen
    assert most_live == 1


async def _play(played: Played, name: str) -> None:
    """The training operator: two attempts are killed, the third succeeds."""
    for attempt in (1, 2, 3):
        job = await played.until(
            lambda attempt=attempt: _launched(played, name, attempt), f"{name}-{attempt}", timeout_s=120
        )
        await played.run_pod(job)
        if attempt < 3:
            lost = failure("WorkerLost", retryable=True, message=f"Attempt {attempt} was lost.")
            await played.end_pod(f"{name}-{attempt}", exit_code=75, result=lost)
        else:
            await played.end_pod(f"{name}-{attempt}", result=success())


async def _launched(played: Played, name: str, attempt: int) -> dict[str, Any] | None:
    try:
        return await played.api.get(PYTORCH_JOB, played.namespace, f"{name}-{attempt}")
    except ApiError as error:
        if error.not_found:
            return None
        raise


@pytest.mark.parametrize("killed_again_and_again", [3], indirect=True)
async def test_a_run_makes_every_child_once(killed_again_and_again: Process, played: Played) -> None:
    """The watches see everything that was ever made of SFT, two reward models, the alignment and the evaluation."""
    seen: dict[str, set[str]] = defaultdict(set)

    async def look(kind: Kind) -> None:
        async for _, body in watch(played.api, kind, played.namespace):
            seen[f"{kind.kind}/{body['metadata']['name']}"].add(body["metadata"]["uid"])

    kinds = (FINE_TUNE_JOB, REWARD_MODEL, PYTORCH_JOB, EVALUATION)
    looking = [asyncio.create_task(look(kind)) for kind in kinds]
    safety = {"name": "safety", "template": {"dataset": {"uri": "pvc://data/safety.json"}}}
    suite = {"type": "perplexity", "dataset": "pvc://data/held-out.json"}
    spec = run_spec(rewardModels=[HELPFULNESS, safety], evaluation={"template": {"suites": [suite]}})
    await played.apply_kind(ALIGNMENT_RUN, "demo", spec)
    sft = (await played.child(FINE_TUNE_JOB, "sft", timeout_s=120))["metadata"]["name"]
    await played.train(sft, success(), timeout_s=120)
    for stage in ("helpfulness", "safety"):
        judge = (await played.child(REWARD_MODEL, stage, timeout_s=120))["metadata"]["name"]
        await played.train(judge, success(), timeout_s=120)
    await played.train("demo", success(align_step="1-raft"), timeout_s=120)
    measured = (await played.child(EVALUATION, "evaluation", timeout_s=120))["metadata"]["name"]
    holds = {"status": "True", "reason": "Played", "message": "So it is.", "lastTransitionTime": now()}
    await played.write_status(EVALUATION, measured, {"conditions": [{"type": "Succeeded", **holds}]})
    await played.phase("demo", "Succeeded", kind=ALIGNMENT_RUN, timeout_s=120)
    for task in looking:
        task.cancel()
    made = sorted(name.partition("/")[0] for name in seen)
    assert made == ["Evaluation", "FineTuneJob", *["PyTorchJob"] * 4, *["RewardModel"] * 2]
    assert {name: len(uids) for name, uids in seen.items()} == dict.fromkeys(seen, 1)
