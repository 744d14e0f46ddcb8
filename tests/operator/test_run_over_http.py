"""AlignmentRuns and RewardModels by the operator process against an API server; the test plays everybody else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from alidade_crds.contract import ResultDocument
from alidade_operator.api import (
    ALIGNMENT_RUN,
    CONFIG_MAP,
    EVALUATION,
    FINE_TUNE_JOB,
    MODEL_SERVE,
    PYTORCH_JOB,
    REWARD_MODEL,
    Kind,
)
from tests.operator.builders import MODEL, evaluated, success
from tests.operator.builders import measured as told_of
from tests.operator.collector import Collector, Received
from tests.operator.conftest import Process
from tests.operator.memory import HELPFULNESS, run_spec
from tests.operator.played import Played, now
from tests.operator.test_over_http import conditions

SAFETY = {"name": "safety", "template": {"dataset": {"uri": "pvc://data/safety.json"}}}


def made(name: str, **values: Any) -> ResultDocument:
    """The result of a job whose model has a digest of its own."""
    model = MODEL.model_copy(update={"digest": f"sha256:{name}", "uri": f"pvc://alidade-workspace/{name}/model"})
    return success(model=model, **values)


async def names(played: Played, kind: Kind) -> list[str]:
    """Names of what there is of a kind."""
    return sorted(body["metadata"]["name"] for body in (await played.api.list(kind, namespace=played.namespace))[0])


async def say(played: Played, kind: Kind, name: str, condition: str, **fields: Any) -> None:
    """A controller says that a condition of its resource holds, for the newest spec."""
    generation = (await played.api.get(kind, played.namespace, name))["metadata"]["generation"]
    holds = {
        "type": condition, "status": "True", "reason": "Played", "message": "So it is.", "lastTransitionTime": now(),
    }  # fmt: skip
    before = (await played.read(name, kind)).get("conditions", [])
    kept = [item for item in before if item["type"] != condition]
    status = {"conditions": [*kept, holds], "observedGeneration": generation} | fields
    await played.write_status(kind, name, status)


async def test_a_run_goes_from_apply_to_a_served_model(operator: Process, played: Played, traces: Collector) -> None:
    await from_apply_to_a_served_model(operator, played)
    await the_trace_is_whole(played, traces)


async def from_apply_to_a_served_model(operator: Process, played: Played) -> None:
    """A run with two rewards, an evaluation, a gate and a server."""
    suite = {"type": "reward", "dataset": "pvc://data/held-out.json"}
    spec = run_spec(
        rewardModels=[HELPFULNESS, SAFETY],
        evaluation={"template": {"suites": [suite]}},
        gate=[{"metric": "reward_mean", "atLeast": {"baseline": "sft", "plus": 0.1}}],
        serve={"template": {"engine": "embedded"}},
    )
    await played.apply_kind(ALIGNMENT_RUN, "demo", spec)
    sft = (await played.child(FINE_TUNE_JOB, "sft"))["metadata"]["name"]
    await played.train(sft, made("sft"))
    for stage in ("helpfulness", "safety"):
        judge = (await played.child(REWARD_MODEL, stage))["metadata"]["name"]
        await played.train(judge, made(stage, metrics={"accuracy": 0.75}))
    await played.train("demo", made("aligned", align_step="1-raft", metrics={"reward": 1.5}))
    measured = await played.child(EVALUATION, "evaluation")
    assert [one["name"] for one in measured["spec"]["models"]] == ["sft", "aligned"]
    assert measured["spec"]["suites"][0]["rewardModel"]["from"]["kind"] == "RewardModel"
    numbers = [
        told_of(model, suite="reward", metric="mean", value=value) for model, value in (("sft", 0.5), ("aligned", 0.75))
    ]
    await played.evaluate(measured["metadata"]["name"], evaluated(*numbers))
    await played.child(MODEL_SERVE, "serve")
    await played.roll_out("demo")
    status = await played.phase("demo", "Succeeded", kind=ALIGNMENT_RUN)
    assert {kind: truth for kind, (truth, _) in conditions(status).items()} == {
        "Accepted": "True", "Fits": "Unknown", "SFTReady": "True", "RewardModelReady": "True", "Launched": "True",
        "Aligned": "True", "Evaluated": "True", "GatePassed": "True", "Served": "True", "Succeeded": "True",
        "Failed": "False", "Suspended": "False",
    }  # fmt: skip
    assert [(stage["name"], stage["phase"]) for stage in status["stages"]] == [
        ("sft", "Succeeded"), ("helpfulness", "Succeeded"), ("safety", "Succeeded"), ("1-raft", "Succeeded"),
        ("evaluation", "Succeeded"), ("gate", "Passed"), ("serve", "Serving"),
    ]  # fmt: skip
    assert status["model"]["digest"] == "sha256:aligned"
    assert (status["reward"], status["steps"]) == (1.5, "raft")
    assert len(await names(played, FINE_TUNE_JOB)) == 1
    assert len(await names(played, REWARD_MODEL)) == 2
    document = next(name for name in await names(played, CONFIG_MAP) if name.startswith("demo-align-"))
    told = json.loads((await played.api.get(CONFIG_MAP, played.namespace, document))["data"]["job.json"])
    assert [one["digest"] for one in told["alignment"]["rewards"]] == ["sha256:helpfulness", "sha256:safety"]
    assert told["model"]["digest"] == "sha256:sft"


async def the_trace_is_whole(played: Played, traces: Collector) -> None:
    """One trace has the run, what it has made, and their attempts; nothing is there twice."""

    def own() -> list[Received]:
        return [span for span in traces.spans if span.attributes["k8s.namespace.name"] == played.namespace]

    async def is_told() -> bool:
        return any(span.name == "AlignmentRun" for span in own())

    await played.until(is_told, "the run's span")
    spans = {span.id: span for span in own()}
    assert len(spans) == len(own())
    assert len({span.trace for span in spans.values()}) == 1
    parts: dict[str, list[str]] = {}
    for span in spans.values():
        if span.name != "pods starting":  # where they did not start within the second of the launch
            parts.setdefault(spans[span.parent].name if span.parent else "", []).append(span.name)
    assert parts == {
        "": ["AlignmentRun"],
        "FineTuneJob": ["attempt"],
        "RewardModel": ["attempt", "attempt"],
        "Evaluation": ["attempt"],
        "AlignmentRun": [
            "FineTuneJob", "RewardModel", "RewardModel", "attempt", "Evaluation", "1-raft", "gate", "serve",
        ],
    }  # fmt: skip
    assert all(span.end_s >= span.start_s for span in spans.values())


async def test_two_runs_applied_at_once_share_their_stages(operator: Process, played: Played) -> None:
    await asyncio.gather(*(played.apply_kind(ALIGNMENT_RUN, name, run_spec()) for name in ("one", "two")))

    async def both_wait() -> bool:
        statuses = [await played.read(name, ALIGNMENT_RUN) for name in ("one", "two")]
        return all(status.get("stages") for status in statuses)

    await played.until(both_wait, "both to have their first stage")
    [sft] = await names(played, FINE_TUNE_JOB)
    await played.train(sft, made("sft"))

    async def judges() -> list[str]:
        return await names(played, REWARD_MODEL)

    [judge] = await played.until(judges, "a reward model")
    await played.train(judge, made("judge"))

    async def both_align() -> bool:
        return all([await played.training_jobs(name) for name in ("one", "two")])

    await played.until(both_align, "both to align")
    assert await names(played, FINE_TUNE_JOB) == [sft]
    assert await names(played, REWARD_MODEL) == [judge]
    stages = [(await played.read(name, ALIGNMENT_RUN))["stages"][:2] for name in ("one", "two")]
    made_by = [sorted(stage["reused"] for stage in same) for same in zip(*stages, strict=True)]
    assert made_by == [[False, True], [False, True]], "whichever comes first makes a stage"


async def test_a_change_reaches_the_stage_that_runs_and_leaves_what_is_frozen(
    operator: Process, played: Played
) -> None:
    await played.apply_kind(ALIGNMENT_RUN, "demo", run_spec(activeDeadlineSeconds=900))
    before = await played.child(FINE_TUNE_JOB, "sft")
    assert before["spec"]["activeDeadlineSeconds"] == 900
    template = {**run_spec()["sft"]["template"], "compute": {"cpu": "2"}, "checkpoint": {"everySteps": 5}}
    # A user's own field manager gives up the deadline by leaving it out.
    await played.apply_kind(ALIGNMENT_RUN, "demo", run_spec(sft={"template": template}, suspend=True))

    async def suspended() -> dict[str, Any] | None:
        body = await played.child(FINE_TUNE_JOB, "sft")
        return body if body["spec"]["suspend"] else None

    after = await played.until(suspended, "the stage to be suspended")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["annotations"]["alidade.dev/run-generation"] == "2"
    assert after["spec"]["compute"]["cpu"] == "2"
    assert "activeDeadlineSeconds" not in after["spec"]
    assert after["spec"]["checkpoint"] == before["spec"]["checkpoint"]
    await played.phase(after["metadata"]["name"], "Suspended")
    await played.phase("demo", "Suspended", kind=ALIGNMENT_RUN)
    await played.apply_kind(ALIGNMENT_RUN, "demo", run_spec(sft={"template": template}, suspend=False))
    await played.launched(after["metadata"]["name"])


async def test_what_a_run_has_made_goes_with_it(operator: Process, played: Played) -> None:
    await played.apply_kind(ALIGNMENT_RUN, "demo", run_spec())
    sft = (await played.child(FINE_TUNE_JOB, "sft"))["metadata"]["name"]
    await played.train(sft, made("sft"))
    judge = (await played.child(REWARD_MODEL, "helpfulness"))["metadata"]["name"]
    await played.launched(judge)
    await played.delete(ALIGNMENT_RUN, "demo")

    async def gone() -> bool:
        kinds = (FINE_TUNE_JOB, REWARD_MODEL, PYTORCH_JOB)
        return not any([await names(played, kind) for kind in kinds])

    await played.until(gone, "all that the run owned to go")


async def test_a_failed_stage_is_made_anew_at_once_when_the_spec_changes(operator: Process, played: Played) -> None:
    await played.apply_kind(ALIGNMENT_RUN, "demo", run_spec())
    first = await played.child(FINE_TUNE_JOB, "sft")
    await played.run_pod(await played.launched(first["metadata"]["name"]))
    broken = ResultDocument.model_validate(
        {"outcome": "failed", "failure": {"reason": "DataEmpty", "message": "No record.", "retryable": False}}
    )
    await played.end_pod(f"{first['metadata']['name']}-1", exit_code=1, result=broken)
    status = await played.phase("demo", "Failed", kind=ALIGNMENT_RUN)
    assert conditions(status)["Failed"] == ("True", "StageFailed")
    await played.apply_kind(ALIGNMENT_RUN, "demo", run_spec(backoffLimit=1))

    async def anew() -> bool:
        found, _ = await played.api.list(FINE_TUNE_JOB, namespace=played.namespace)
        return [body["metadata"]["uid"] for body in found] not in ([], [first["metadata"]["uid"]])

    await played.until(anew, "the stage to be made anew")


async def test_a_reward_model_goes_from_apply_to_its_accuracy(operator: Process, played: Played) -> None:
    spec = {
        "model": {"uri": "hf://org/sft"},
        "dataset": {"uri": "pvc://data/p.json"},
        "loss": {"margin": "fromStrength"},
    }
    await played.apply_kind(REWARD_MODEL, "judge", spec)
    await played.train("judge", success(metrics={"accuracy": 0.75, "meanMargin": 1.5}))
    status = await played.phase("judge", "Succeeded", kind=REWARD_MODEL)
    assert status["metrics"] == {"accuracy": 0.75, "meanMargin": 1.5}
    told = json.loads((await played.api.get(CONFIG_MAP, played.namespace, "judge-job"))["data"]["job.json"])
    assert told["stage"] == "reward"
    assert told["loss"] == {"type": "ranking", "margin": "fromStrength", "center": 0.01}
    assert told["owner"]["kind"] == "RewardModel"
    assert told["training"]["epochs"] == 1
    assert told["output"].startswith("pvc://alidade-workspace/rewardmodels/judge-")


async def test_a_function_is_a_reward_to_the_api_server_too(operator: Process, played: Played) -> None:
    reward = {"name": "exact", "function": "exact_match"}
    await played.apply_kind(
        ALIGNMENT_RUN, "demo", run_spec(rewardModels=[reward], sft={"model": {"uri": "hf://org/sft"}})
    )
    await played.train("demo", made("aligned", align_step="1-raft"))
    await played.phase("demo", "Succeeded", kind=ALIGNMENT_RUN)
