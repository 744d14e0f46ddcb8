"""Rules about an AlignmentRun from its first stage to its end; the cluster is in memory, the decisions are real."""

from __future__ import annotations

import json
from typing import Any

import pytest

from alidade_crds.contract import Failure, JobDocument, ResultDocument
from alidade_crds.status import ModelInfo
from alidade_operator.api import (
    ALIGNMENT_RUN,
    CLAIM,
    CONFIG_MAP,
    EVALUATION,
    FINE_TUNE_JOB,
    MODEL_SERVE,
    PYTORCH_JOB,
    REWARD_MODEL,
    ApiError,
    JsonObject,
)
from alidade_operator.reconcile.plan import Plan
from tests.operator.builders import failure, success
from tests.operator.memory import HELPFULNESS, PROMPTS, SFT, MemoryCluster, true

ALIGNED = ModelInfo(
    uri="pvc://alidade-workspace/aligned/model", digest="sha256:aligned", parameters=1000, trainable_parameters=1000
)
SAFETY = {"name": "safety", "template": {"dataset": {"uri": "pvc://data/safety.json"}}}
PROGRAM = {"name": "exact", "function": "exact_match"}
GPUS = {"nodePool": "a100-80gb", "gpusPerWorker": 8}
EVALUATE = {"template": {"suites": [{"type": "perplexity", "dataset": "pvc://data/held-out.json"}]}}


def done(**values: Any) -> ResultDocument:
    """The result of an alignment that has made its model."""
    fields = {"model": ALIGNED, "align_step": "1-raft", "metrics": {"reward": 1.25, "iterations": 8.0}, "step": 64}
    return success(**(fields | values))


def applied(**blocks: Any) -> MemoryCluster:
    """A cluster with the run `demo`, which has made what it makes first."""
    cluster = MemoryCluster()
    cluster.apply(**blocks)
    cluster.settle()
    return cluster


def with_sft(**blocks: Any) -> MemoryCluster:
    """As applied, and SFT has succeeded."""
    cluster = applied(**blocks)
    cluster.train(name_of(cluster, FINE_TUNE_JOB))
    cluster.settle()
    return cluster


def with_rewards(**blocks: Any) -> MemoryCluster:
    """As with_sft, and every reward model has succeeded: the alignment job has been launched."""
    cluster = with_sft(**blocks)
    for name in cluster.names(REWARD_MODEL):
        cluster.train(name)
    cluster.settle()
    return cluster


def aligned(**blocks: Any) -> MemoryCluster:
    """As with_rewards, and the alignment has succeeded."""
    cluster = with_rewards(**blocks)
    align(cluster)
    return cluster


def align(cluster: MemoryCluster, result: ResultDocument | None = None) -> None:
    """The alignment job of `demo` runs and succeeds."""
    job = newest_job(cluster)
    cluster.run_pod(job)
    cluster.settle()
    cluster.clock(minutes=1)
    cluster.end_pod(job, result or done())
    cluster.settle()


def newest_job(cluster: MemoryCluster) -> str:
    """The PyTorchJob that was made last."""
    return [name for kind, name in cluster.api.made if kind == PYTORCH_JOB.kind][-1]


def name_of(cluster: MemoryCluster, kind: Any, stage: str = "") -> str:
    """Name of the only child of a kind."""
    return str(cluster.of(kind, stage)["metadata"]["name"])


def made(cluster: MemoryCluster) -> list[str]:
    """Kinds of all that was made beside claims and the run itself, in order."""
    skipped = ("PersistentVolumeClaim", "AlignmentRun", "Pod")
    return [kind for kind, _ in cluster.api.made if kind not in skipped]


# The stages before the alignment


def test_a_new_run_makes_its_sft_and_waits() -> None:
    cluster = applied()
    child = cluster.of(FINE_TUNE_JOB)
    metadata, inputs = child["metadata"], child["metadata"]["labels"]["alidade.dev/inputs"]
    assert metadata["name"] == f"demo-sft-{inputs}"
    assert len(inputs) == 8
    assert metadata["labels"]["alidade.dev/kind"] == "AlignmentRun"
    assert metadata["labels"]["app.kubernetes.io/instance"] == "demo"
    assert metadata["labels"]["app.kubernetes.io/component"] == "sft"
    assert metadata["annotations"] == {"alidade.dev/run-generation": "1"}
    uid = cluster.api.objects["AlignmentRun", "demo"]["metadata"]["uid"]
    assert metadata["ownerReferences"] == [
        {
            "apiVersion": "alidade.dev/v1alpha1",
            "kind": "AlignmentRun",
            "name": "demo",
            "uid": uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    assert child["spec"]["suspend"] is False
    assert "activeDeadlineSeconds" not in child["spec"]
    assert child["spec"]["output"] == {
        "uri": f"pvc://alidade-workspace/alignmentruns/demo-{uid[:8]}/sft-{inputs}",
    }
    assert child["spec"]["dataset"]["uri"] == "pvc://data/sft.json"
    assert cluster.names(REWARD_MODEL) == []
    assert cluster.condition("Accepted") == ("True", "Valid", "Nothing in the spec stands against it.")
    assert cluster.condition("SFTReady") == ("False", "StageRunning", f"FineTuneJob demo-sft-{inputs} is new.")
    assert cluster.condition("RewardModelReady") == (
        "False", "Waiting", "Reward helpfulness starts from the model of stage sft.",
    )  # fmt: skip
    assert cluster.condition("Launched")[:2] == ("False", "Waiting")
    assert cluster.condition("Aligned") == ("False", "Waiting", "The alignment job has not been launched yet.")
    assert cluster.stages() == [
        ("sft", "Pending", False), ("helpfulness", "Waiting", False), ("1-raft", "Waiting", False),
    ]  # fmt: skip
    assert (cluster.status()["phase"], cluster.status()["stage"]) == ("Running", "sft")
    assert cluster.status()["steps"] == "raft"


def test_a_stage_tells_how_its_resource_goes() -> None:
    cluster = applied()
    name = name_of(cluster, FINE_TUNE_JOB)
    progress = {"step": 3, "totalSteps": 40, "epoch": 0.1, "loss": 2.5, "updatedAt": "2026-11-21T12:00:00Z"}
    cluster.write_status(FINE_TUNE_JOB, name, phase="Running", progress=progress)
    cluster.settle()
    assert cluster.stage("sft")["metrics"] == {"step": 3.0, "total_steps": 40.0, "loss": 2.5}
    assert cluster.condition("SFTReady")[2] == f"FineTuneJob {name} is Running."
    stuck = {**true("Accepted", "spec.dataset.uri names claim data."), "status": "False", "reason": "VolumeMissing"}
    cluster.write_status(FINE_TUNE_JOB, name, phase="Waiting", conditions=[stuck])
    cluster.settle()
    assert cluster.condition("SFTReady")[2] == f"FineTuneJob {name} is Waiting: spec.dataset.uri names claim data."


def test_reward_models_start_from_the_sft_model_once_it_is_there() -> None:
    cluster = with_sft(rewardModels=[HELPFULNESS, SAFETY])
    sft = name_of(cluster, FINE_TUNE_JOB)
    assert len(cluster.names(REWARD_MODEL)) == 2, "side by side"
    for stage in ("helpfulness", "safety"):
        child = cluster.of(REWARD_MODEL, stage)
        assert child["spec"]["model"] == {"from": {"kind": "FineTuneJob", "name": sft}, "trustRemoteCode": False}
        assert child["spec"]["training"]["epochs"] == 1
        assert "model" not in child["spec"]["dataset"]
    assert cluster.condition("SFTReady") == (
        "True", "Completed", f"FineTuneJob {sft} has succeeded: {cluster.stage('sft')['model']['uri']}.",
    )  # fmt: skip
    assert cluster.names(PYTORCH_JOB) == []


def test_a_reward_model_with_a_model_of_its_own_does_not_wait() -> None:
    own = {"name": "own", "template": {"dataset": {"uri": "pvc://data/p.json"}, "model": {"uri": "hf://org/rm"}}}
    cluster = applied(rewardModels=[own])
    assert cluster.of(REWARD_MODEL)["spec"]["model"]["uri"] == "hf://org/rm"
    assert cluster.names(FINE_TUNE_JOB) != [], "at the same time"


def test_programs_need_no_reward_model() -> None:
    cluster = with_sft(rewardModels=[PROGRAM])
    assert cluster.names(REWARD_MODEL) == []
    assert cluster.condition("RewardModelReady") == ("True", "NotAskedFor", "No reward of the run is a model.")
    assert len(cluster.names(PYTORCH_JOB)) == 1


def test_two_rewards_of_the_same_inputs_are_one_model_and_counted_once() -> None:
    twin = {**HELPFULNESS, "name": "twin"}
    cluster = with_sft(rewardModels=[HELPFULNESS, twin])
    name = name_of(cluster, REWARD_MODEL)
    cluster.train(name, gpuHours=4.0, cost="10.00 USD")
    cluster.settle()
    assert cluster.stages()[1:3] == [("helpfulness", "Succeeded", False), ("twin", "Succeeded", True)]
    assert (cluster.status()["gpuHours"], cluster.status()["cost"]) == (4.0, "10.00 USD")


def test_a_model_at_an_address_is_no_stage() -> None:
    blocks = {
        "sft": {"model": {"uri": "pvc://data/sft"}},
        "rewardModels": [{"name": "rm", "model": {"uri": "hf://org/rm"}}],
    }
    cluster = applied(**blocks)
    assert cluster.names(FINE_TUNE_JOB) == []
    assert cluster.condition("SFTReady") == ("True", "Valid", "It is at pvc://data/sft.")
    document = JobDocument.model_validate_json(cluster.document())
    assert (document.model.uri, document.model.digest) == ("pvc://data/sft", None)
    assert document.alignment is not None
    assert [(one.name, one.uri, one.digest) for one in document.alignment.rewards] == [("rm", "hf://org/rm", None)]


def test_a_referred_resource_is_waited_for() -> None:
    cluster = applied(sft={"ref": {"name": "mine"}}, rewardModels=[{"name": "rm", "ref": {"name": "judge"}}])
    assert cluster.condition("SFTReady") == (
        "False", "ReferencePending", "spec.sft names FineTuneJob mine, which does not exist yet.",
    )  # fmt: skip
    assert cluster.condition("RewardModelReady") == (
        "False", "ReferencePending", "spec.rewardModels[0] names RewardModel judge, which does not exist yet.",
    )  # fmt: skip
    assert cluster.status()["phase"] == "Waiting"
    for kind, name in ((FINE_TUNE_JOB, "mine"), (REWARD_MODEL, "judge")):
        cluster.put(kind, name, spec={})
    cluster.settle()
    assert cluster.condition("SFTReady")[2] == "Waiting for FineTuneJob mine to succeed."
    cluster.train("mine")
    cluster.train("judge")
    cluster.settle()
    assert made(cluster)[2:] == ["ConfigMap", "PyTorchJob"]
    assert cluster.stage("sft")["ref"] == "mine"
    cluster.delete(FINE_TUNE_JOB, "mine")
    assert cluster.settle() == [], "its model was taken"


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (FINE_TUNE_JOB, "mine", "spec.sft names FineTuneJob mine, which has failed: Line 2 is broken."),
        (REWARD_MODEL, "judge", "spec.rewardModels[0] names RewardModel judge, which has failed: Line 2 is broken."),
    ],
)
def test_a_referred_resource_that_failed_fails_the_run(kind: Any, name: str, message: str) -> None:
    cluster = applied(sft={"ref": {"name": "mine"}}, rewardModels=[{"name": "rm", "ref": {"name": "judge"}}])
    cluster.put(kind, name, spec={})
    cluster.fail(name)
    cluster.settle()
    assert cluster.condition("Failed") == ("True", "ReferenceFailed", message)
    assert cluster.condition("Succeeded") == ("False", "ReferenceFailed", message)
    assert cluster.status()["phase"] == "Failed"
    assert cluster.status()["finishedAt"] == "2026-11-21T12:00:00Z"


def test_the_model_that_a_template_starts_from_is_waited_for() -> None:
    chained = {"template": {**SFT["template"], "model": {"from": {"kind": "FineTuneJob", "name": "base"}}}}
    cluster = applied(sft=chained)
    assert cluster.condition("SFTReady")[2] == "spec.sft.template names FineTuneJob base, which does not exist yet."
    cluster.put(FINE_TUNE_JOB, "base", spec={})
    cluster.train("base", digest="sha256:one")
    cluster.settle()
    name = name_of(cluster, FINE_TUNE_JOB, "sft")
    other = applied(sft=chained)
    other.put(FINE_TUNE_JOB, "base", spec={})
    other.train("base", digest="sha256:two")
    other.settle()
    assert name != name_of(other, FINE_TUNE_JOB, "sft"), "another base model is another input"


def test_a_run_can_start_from_what_another_run_has_aligned() -> None:
    cluster = applied(sft={"model": {"from": {"kind": "AlignmentRun", "name": "first"}}}, rewardModels=[PROGRAM])
    assert cluster.condition("SFTReady")[2] == "spec.sft names AlignmentRun first, which does not exist yet."
    cluster.apply("first")
    status = {"model": ALIGNED.to_dict(), "conditions": [true("Succeeded")], "observedGeneration": 1}
    cluster.write_status(ALIGNMENT_RUN, "first", **status)
    cluster.settle()
    document = JobDocument.model_validate_json(cluster.document())
    assert (document.model.uri, document.model.digest) == (ALIGNED.uri, ALIGNED.digest)


def test_a_run_that_refers_to_itself_in_a_circle_is_refused() -> None:
    cluster = MemoryCluster()
    cluster.put(FINE_TUNE_JOB, "mine", spec={"model": {"from": {"kind": "AlignmentRun", "name": "demo"}}})
    cluster.apply(sft={"ref": {"name": "mine"}})
    cluster.settle()
    assert cluster.condition("Accepted") == (
        "False",
        "ReferenceCycle",
        "The run refers to itself in a circle: AlignmentRun/demo → FineTuneJob/mine → AlignmentRun/demo. Let one of "
        "them start from an address.",
    )


def test_a_stage_of_the_runs_own_that_fails_fails_the_run_and_stops_the_others() -> None:
    cluster = with_sft(rewardModels=[HELPFULNESS, SAFETY])
    failed, live = (name_of(cluster, REWARD_MODEL, stage) for stage in ("helpfulness", "safety"))
    cluster.fail(failed)
    cluster.settle()
    assert cluster.condition("Failed") == ("True", "StageFailed", f"RewardModel {failed} has failed: Line 2 is broken.")
    assert cluster.names(REWARD_MODEL) == [failed], f"nobody waits for {live} any more"


def test_a_child_deleted_by_hand_comes_back_and_a_model_that_is_there_is_not_made_again() -> None:
    cluster = applied()
    name = name_of(cluster, FINE_TUNE_JOB)
    cluster.delete(FINE_TUNE_JOB, name)
    cluster.settle()
    assert cluster.names(FINE_TUNE_JOB) == [name]
    cluster.train(name)
    cluster.settle()
    cluster.delete(FINE_TUNE_JOB, name)
    assert cluster.settle() == []


def test_a_reward_model_of_a_deleted_sft_starts_from_its_address() -> None:
    cluster = with_sft()
    uri = cluster.stage("sft")["model"]["uri"]
    cluster.delete(FINE_TUNE_JOB, name_of(cluster, FINE_TUNE_JOB))
    cluster.delete(REWARD_MODEL, name_of(cluster, REWARD_MODEL))
    cluster.settle()
    assert cluster.of(REWARD_MODEL)["spec"]["model"] == {"uri": uri, "trustRemoteCode": False}


def test_a_reward_model_that_waits_for_a_deleted_sft_is_made_anew() -> None:
    cluster = with_sft()
    judge = cluster.of(REWARD_MODEL)["metadata"]
    uri = cluster.stage("sft")["model"]["uri"]
    cluster.delete(FINE_TUNE_JOB, name_of(cluster, FINE_TUNE_JOB))
    assert cluster.settle() == [], "it may have been launched already"
    pending = {**true("Accepted"), "status": "Unknown", "reason": "ReferencePending"}
    cluster.write_status(REWARD_MODEL, judge["name"], phase="Waiting", conditions=[pending])
    plans = cluster.settle()
    assert plans[0].look_again_s is not None
    assert cluster.of(REWARD_MODEL)["metadata"]["uid"] != judge["uid"]
    assert cluster.of(REWARD_MODEL)["spec"]["model"] == {"uri": uri, "trustRemoteCode": False}


def test_the_resource_that_a_template_started_from_may_go() -> None:
    own = {"name": "own", "template": {"dataset": PROMPTS, "model": {"from": {"kind": "FineTuneJob", "name": "base"}}}}
    chained = {"template": {**SFT["template"], "model": {"from": {"kind": "FineTuneJob", "name": "base"}}}}
    cluster = MemoryCluster()
    cluster.put(FINE_TUNE_JOB, "base", spec={})
    cluster.train("base")
    cluster.apply(sft=chained, rewardModels=[own])
    cluster.settle()
    children = [cluster.of(kind)["metadata"]["name"] for kind in (FINE_TUNE_JOB, REWARD_MODEL)]
    cluster.delete(FINE_TUNE_JOB, "base")
    cluster.settle()
    assert [stage[0] for stage in cluster.stages()] == ["sft", "own", "1-raft"]
    for name in children:
        cluster.train(name)
    cluster.settle()
    assert len(cluster.names(PYTORCH_JOB)) == 1


def test_a_child_that_goes_is_waited_for_and_the_message_does_not_call_it_failed() -> None:
    cluster = applied()
    name = name_of(cluster, FINE_TUNE_JOB)
    cluster.api.lingering.add("FineTuneJob")
    cluster.api._delete(cluster.api.objects["FineTuneJob", name])
    cluster.tell_all()
    cluster.settle()
    assert cluster.condition("SFTReady") == (
        "False", "Waiting", f"FineTuneJob {name} is being deleted; it is made anew.",
    )  # fmt: skip


def test_what_an_older_run_of_the_same_name_left_is_waited_for() -> None:
    cluster = applied()
    name = name_of(cluster, FINE_TUNE_JOB)
    left = cluster.api.objects["FineTuneJob", name]
    left["metadata"]["ownerReferences"][0]["uid"] = "another"
    cluster.api._write(left)
    cluster.tell_all()
    cluster.settle()
    assert cluster.condition("SFTReady")[2] == f"FineTuneJob {name} belongs to something else; waiting for it to go."


# The alignment job


def test_the_alignment_job_is_told_all_that_it_needs() -> None:
    cluster = with_rewards(
        rewardModels=[SAFETY, {**HELPFULNESS, "weight": 2.0}],
        combine="gated",
        prompts={**PROMPTS, "validation": {"fraction": 0.1}},
        align=[{"raft": {"iterations": 3}}, {"ppo": {"iterations": 5}}],
        guardrails={"klCeiling": 20},
        generation={"maxNewTokens": 64},
        training={"learningRate": 1e-6},
    )
    job, document = cluster.job(), JobDocument.model_validate_json(cluster.document())
    uid = cluster.api.objects["AlignmentRun", "demo"]["metadata"]["uid"]
    inputs = job.removeprefix("demo-align-").removesuffix("-1")
    assert name_of(cluster, CONFIG_MAP) == f"demo-align-{inputs}-job"
    assert document.stage == "align"
    assert document.owner.kind == "AlignmentRun"
    assert (document.model.uri, document.model.digest) == (
        cluster.stage("sft")["model"]["uri"],
        cluster.stage("sft")["model"]["digest"],
    )
    assert document.dataset.uri == "pvc://data/prompts.json"
    assert document.training.learning_rate == 1e-6
    assert document.output == f"pvc://alidade-workspace/alignmentruns/demo-{uid[:8]}/align-{inputs}"
    alignment = document.alignment
    assert alignment is not None
    assert [(one.name, one.uri, one.digest, one.weight) for one in alignment.rewards] == [
        (name, cluster.stage(name)["model"]["uri"], cluster.stage(name)["model"]["digest"], weight)
        for name, weight in (("safety", 1.0), ("helpfulness", 2.0))
    ]
    assert (alignment.combine, alignment.guardrails.kl_ceiling) == ("gated", 20)
    assert alignment.generation.max_new_tokens == 64
    assert alignment.steps[0].raft is not None
    assert alignment.steps[0].raft.iterations == 3
    assert alignment.steps[1].ppo is not None
    assert cluster.condition("Launched") == ("True", "JobCreated", f"PyTorchJob {job} was created.")


def test_dpo_alone_takes_its_own_preferences_as_the_data() -> None:
    filters = {"filters": {"minTokens": 200}}
    dpo = {"dpo": {"dataset": {"uri": "pvc://data/pairs.json", "format": "preference"} | filters}}
    cluster = with_sft(rewardModels=[], prompts=None, align=[dpo])
    document = JobDocument.model_validate_json(cluster.document())
    assert document.dataset.uri == "pvc://data/pairs.json"
    assert document.dataset.filters is None, "prompts are shorter than preferences"
    assert document.alignment is not None
    assert document.alignment.rewards == []
    assert document.alignment.steps[0].dpo is not None
    assert document.alignment.steps[0].dpo.dataset.filters is not None


def test_an_output_of_the_users_gets_a_folder_for_each_set_of_inputs() -> None:
    cluster = with_rewards(output={"uri": "pvc://data/out/"})
    inputs = cluster.job().removeprefix("demo-align-").removesuffix("-1")
    assert JobDocument.model_validate_json(cluster.document()).output == f"pvc://data/out/{inputs}"


def test_the_newest_metrics_of_a_step_are_shown_while_it_runs() -> None:
    cluster = with_rewards(align=[{"raft": {}}, {"ppo": {}}])
    cluster.run_pod(cluster.job())
    cluster.report(
        cluster.job(), step=4, total_steps=64, align_step="1-raft", iteration=2, total_iterations=8,
        activity="sampling", metrics={"reward": 0.123456, "kl": 0.5},
    )  # fmt: skip
    cluster.settle()
    status = cluster.status()
    assert (status["phase"], status["stage"], status["reward"]) == ("Running", "1-raft", 0.1235)
    assert (status["progress"]["iteration"], status["progress"]["totalIterations"]) == (2, 8)
    assert cluster.stage("1-raft")["metrics"] == {"reward": 0.1235, "kl": 0.5}
    assert cluster.stages()[2:] == [("1-raft", "Running", False), ("2-ppo", "Waiting", False)]
    cluster.clock(seconds=30)
    cluster.report(
        cluster.job(),
        step=40,
        total_steps=64,
        align_step="2-ppo",
        iteration=1,
        total_iterations=5,
        metrics={"evalReward": 0.7},
    )
    cluster.settle()
    assert cluster.stages()[2:] == [("1-raft", "Succeeded", False), ("2-ppo", "Running", False)]
    assert cluster.status()["reward"] == 0.7, "the newest step's, on held-out prompts"
    assert cluster.stage("1-raft")["metrics"] == {"reward": 0.1235, "kl": 0.5}, "what was last read stays"
    assert cluster.stage("2-ppo")["startedAt"] == "2026-11-21T12:00:30Z"


def test_a_run_without_evaluation_and_serving_succeeds_with_its_model() -> None:
    cluster = aligned()
    assert cluster.truths() == {
        "Accepted": "True", "Fits": "Unknown", "SFTReady": "True", "RewardModelReady": "True", "Launched": "True",
        "Aligned": "True", "Evaluated": "True", "GatePassed": "True", "Served": "True", "Succeeded": "True",
        "Failed": "False", "Suspended": "False",
    }  # fmt: skip
    assert cluster.condition("Succeeded") == (
        "True", "Completed", f"The aligned model is at {ALIGNED.uri} (sha256:aligned).",
    )  # fmt: skip
    assert cluster.condition("Aligned")[:2] == ("True", "Completed")
    assert cluster.condition("Evaluated")[1:] == ("NotAskedFor", "The run has no evaluation.")
    assert cluster.status()["model"]["digest"] == "sha256:aligned"
    assert cluster.status()["reward"] == 1.25
    assert "stage" not in cluster.status()
    assert cluster.stage("1-raft")["model"]["digest"] == "sha256:aligned"
    assert cluster.settle() == []


def test_every_transition_is_told_once() -> None:
    cluster = aligned()
    assert [event["reason"] for event in cluster.api.events] == [
        "Completed", "JobCreated", "Completed", "Running", "Completed", "Completed",
    ]  # fmt: skip
    said = [event["message"].split(" ")[0] for event in cluster.api.events]
    assert said == ["FineTuneJob", "PyTorchJob", "RewardModel", "PyTorchJob", "The", "The"]


def test_a_guard_rail_ends_the_alignment_and_the_run_goes_on_with_the_sound_model() -> None:
    stopped = Failure(
        reason="KlCeiling", message="kl is 21 after iteration 3; guardrails.klCeiling is 20.", retryable=False
    )
    cluster = with_rewards(align=[{"raft": {}}, {"ppo": {}}])
    align(cluster, done(stopped=stopped))
    assert cluster.condition("Aligned") == (
        "True",
        "KlCeiling",
        f"kl is 21 after iteration 3; guardrails.klCeiling is 20. The model is at {ALIGNED.uri} (sha256:aligned).",
    )
    assert cluster.condition("Succeeded")[:2] == ("True", "Completed")
    assert cluster.stages()[2:] == [("1-raft", "Succeeded", False), ("2-ppo", "Skipped", False)]


@pytest.mark.parametrize("edit", ["edited", "deleted"])
def test_the_next_attempt_is_told_what_the_first_was_whatever_became_of_its_document(edit: str) -> None:
    cluster = with_rewards()
    first, told = cluster.job(), cluster.document()
    cluster.run_pod(first)
    config_map = cluster.of(CONFIG_MAP)
    if edit == "edited":
        config_map["data"]["job.json"] = "{}"
    else:
        cluster.api.remove(config_map)
    cluster.end_pod(first, failure("WorkerLost", retryable=True), exit_code=75)
    cluster.settle()
    cluster.clock(seconds=10)
    cluster.settle()
    assert newest_job(cluster) != first
    assert cluster.document() == told


def test_a_failed_attempt_of_the_alignment_is_tried_again() -> None:
    cluster = with_rewards()
    first = cluster.job()
    cluster.run_pod(first)
    cluster.settle()
    cluster.end_pod(first, failure("WorkerLost", retryable=True, message="Rank 1 is gone."), exit_code=75)
    cluster.settle()
    assert cluster.status()["phase"] == "Retrying"
    assert cluster.condition("Launched")[:2] == ("False", "Retrying")
    cluster.clock(seconds=10)
    cluster.settle()
    second = newest_job(cluster)
    assert second == f"{first.removesuffix('-1')}-2"
    align(cluster)
    assert cluster.condition("Succeeded")[0] == "True"
    assert cluster.status()["attempts"] == 2


def test_an_alignment_that_fails_for_good_fails_the_run() -> None:
    cluster = with_rewards()
    cluster.run_pod(cluster.job())
    cluster.settle()
    cluster.end_pod(cluster.job(), failure("RewardInvalid", message="Reward helpfulness is NaN."), exit_code=1)
    cluster.settle()
    assert cluster.condition("Failed") == ("True", "RewardInvalid", "Reward helpfulness is NaN.")
    assert cluster.condition("Aligned")[:2] == ("False", "RewardInvalid")
    assert cluster.stage("1-raft")["phase"] == "Failed"
    assert cluster.settle() == []


def test_a_quota_that_refuses_a_child_is_told_and_tried_again() -> None:
    cluster = MemoryCluster()
    cluster.api.refused.add("FineTuneJob")
    cluster.apply()
    for _ in range(2):
        with pytest.raises(ApiError, match="exceeded quota"):
            cluster.step()
    reason, message = cluster.condition("Launched")[1:]
    assert reason == "LaunchRefused"
    assert message.startswith("The API server refused FineTuneJob demo-sft-")
    assert message.endswith("exceeded quota: small. It is tried again.")
    cluster.api.refused.clear()
    cluster.settle()
    assert len(cluster.names(FINE_TUNE_JOB)) == 1


# Time, suspension, money


def test_the_deadline_is_shared_out_over_the_stages() -> None:
    cluster = applied(activeDeadlineSeconds=1000)
    assert cluster.of(FINE_TUNE_JOB)["spec"]["activeDeadlineSeconds"] == 1000
    cluster.train(name_of(cluster, FINE_TUNE_JOB), activeSeconds=300.0)
    cluster.settle()
    assert cluster.of(REWARD_MODEL)["spec"]["activeDeadlineSeconds"] == 700
    cluster.train(name_of(cluster, REWARD_MODEL), activeSeconds=200.0)
    cluster.settle()
    annotations = cluster.of(PYTORCH_JOB)["metadata"]["annotations"]
    assert annotations["alidade.dev/active-seconds-before"] == "500.000", "sft, then the slowest reward model"
    cluster.run_pod(cluster.job())
    cluster.settle()
    assert cluster.look().look_again_s == 500
    cluster.clock(seconds=500)
    cluster.settle()
    assert cluster.condition("Failed") == (
        "True",
        "DeadlineExceeded",
        "The job was active for 1000 s; spec.activeDeadlineSeconds is 1000. Raise it and apply anew.",
    )
    assert cluster.names(PYTORCH_JOB) == []


def test_the_slowest_of_the_reward_models_counts_and_a_templates_own_limit_stands() -> None:
    limited = {**SAFETY, "template": {"dataset": {"uri": "pvc://data/safety.json"}, "activeDeadlineSeconds": 50}}
    cluster = with_sft(activeDeadlineSeconds=1000, rewardModels=[HELPFULNESS, limited])
    assert cluster.of(REWARD_MODEL, "safety")["spec"]["activeDeadlineSeconds"] == 50
    cluster.train(name_of(cluster, REWARD_MODEL, "helpfulness"), activeSeconds=20.0)
    cluster.train(name_of(cluster, REWARD_MODEL, "safety"), activeSeconds=40.0)
    cluster.settle()
    assert cluster.of(PYTORCH_JOB)["metadata"]["annotations"]["alidade.dev/active-seconds-before"] == "140.000"


def test_time_that_others_resources_took_does_not_count() -> None:
    cluster = applied(sft={"ref": {"name": "mine"}}, rewardModels=[PROGRAM], activeDeadlineSeconds=1000)
    cluster.put(FINE_TUNE_JOB, "mine", spec={})
    cluster.train("mine", activeSeconds=5000.0, startedAt="2025-01-01T00:00:00Z")
    cluster.settle()
    assert cluster.of(PYTORCH_JOB)["metadata"]["annotations"]["alidade.dev/active-seconds-before"] == "0.000"
    cluster.run_pod(cluster.job())
    cluster.settle()
    assert cluster.condition("Failed")[0] == "False"
    assert cluster.status()["startedAt"] == "2026-11-21T12:00:00Z", "when the run's own first pod ran"


def test_a_deadline_that_is_taken_back_is_taken_from_the_child() -> None:
    cluster = applied(activeDeadlineSeconds=1000)
    cluster.apply()
    cluster.settle()
    assert "activeDeadlineSeconds" not in cluster.of(FINE_TUNE_JOB)["spec"]


def test_suspending_while_a_stage_runs_suspends_it_and_nothing_else_is_made() -> None:
    cluster = applied()
    cluster.apply(suspend=True)
    cluster.settle()
    child = cluster.of(FINE_TUNE_JOB)
    assert child["spec"]["suspend"] is True
    assert child["metadata"]["annotations"]["alidade.dev/run-generation"] == "2"
    assert cluster.condition("Suspended")[:2] == ("True", "SuspendedByUser")
    assert cluster.status()["phase"] == "Suspended"
    cluster.train(child["metadata"]["name"])
    cluster.settle()
    assert cluster.names(REWARD_MODEL) == [], "not made while suspended"
    cluster.apply()
    cluster.settle()
    assert len(cluster.names(REWARD_MODEL)) == 1
    assert cluster.condition("Suspended")[:2] == ("False", "NotSuspended")


def test_a_run_applied_suspended_makes_nothing() -> None:
    cluster = applied(suspend=True)
    assert made(cluster) == []
    assert cluster.condition("SFTReady")[:2] == ("False", "SuspendedByUser")
    cluster.apply()
    cluster.settle()
    assert made(cluster) == ["FineTuneJob"]


def test_suspending_the_alignment_takes_its_pods_and_resuming_goes_on_with_the_same_attempt() -> None:
    cluster = with_rewards()
    job = cluster.job()
    cluster.run_pod(job)
    cluster.settle()
    cluster.apply(suspend=True)
    cluster.settle()
    assert cluster.names(PYTORCH_JOB) == []
    assert cluster.status()["phase"] == "Suspended"
    cluster.apply()
    cluster.settle()
    assert cluster.names(PYTORCH_JOB) == [job]
    assert made(cluster).count("FineTuneJob") == 1


def test_a_run_that_is_refused_can_still_be_suspended() -> None:
    cluster = with_rewards()
    cluster.run_pod(cluster.job())
    cluster.settle()
    cluster.apply(suspend=True, compute={"nodePool": "unknown"})
    cluster.settle()
    assert cluster.condition("Accepted")[:2] == ("False", "NodePoolUnknown")
    assert cluster.names(PYTORCH_JOB) == []


def test_gpu_hours_and_cost_are_those_of_the_runs_own_stages() -> None:
    cluster = applied(compute=GPUS, sft={"ref": {"name": "mine"}})
    cluster.put(FINE_TUNE_JOB, "mine", spec={})
    cluster.train("mine", gpuHours=100.0, cost="250.00 USD")
    cluster.settle()
    cluster.train(name_of(cluster, REWARD_MODEL), gpuHours=2.0, cost="5.00 USD")
    cluster.settle()
    assert (cluster.status()["gpuHours"], cluster.status()["cost"]) == (2.0, "5.00 USD")
    cluster.run_pod(cluster.job())
    cluster.settle()
    cluster.clock(hours=1)
    cluster.end_pod(cluster.job(), done())
    cluster.settle()
    assert (cluster.status()["gpuHours"], cluster.status()["cost"]) == (10.0, "25.00 USD")


# The end of the resource


def test_a_finished_run_is_deleted_when_its_time_has_come() -> None:
    cluster = aligned(ttlSecondsAfterFinished=60)
    assert cluster.look().look_again_s == 60
    cluster.clock(seconds=60)
    cluster.step()
    assert cluster.names(ALIGNMENT_RUN) == []
    assert cluster.names(FINE_TUNE_JOB) == [], "what it owns goes with it"


def test_a_run_that_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    cluster = with_rewards()
    cluster.api.lingering.add("AlignmentRun")
    cluster.api._delete(cluster.api.objects["AlignmentRun", "demo"])
    cluster.tell_all()
    assert cluster.look() == Plan()


# Other runs with the same inputs


def test_a_second_run_of_the_same_inputs_takes_over_what_the_first_has_made() -> None:
    cluster = aligned()
    cluster.apply("second")
    cluster.settle("second")
    assert made(cluster).count("FineTuneJob") == 1
    assert made(cluster).count("RewardModel") == 1
    assert made(cluster).count("PyTorchJob") == 1
    assert cluster.stages("second") == [
        ("sft", "Succeeded", True), ("helpfulness", "Succeeded", True), ("1-raft", "Succeeded", True),
    ]  # fmt: skip
    sft = name_of(cluster, FINE_TUNE_JOB)
    uri = cluster.stage("sft")["model"]["uri"]
    assert cluster.condition("SFTReady", "second") == ("True", "Reused", f"FineTuneJob {sft} has succeeded: {uri}.")
    assert cluster.condition("Aligned", "second") == (
        "True", "Reused", f"AlignmentRun demo has aligned the same model from the same inputs: {ALIGNED.uri}.",
    )  # fmt: skip
    assert cluster.condition("Succeeded", "second")[0] == "True"
    assert cluster.status("second")["model"]["digest"] == "sha256:aligned"
    assert "gpuHours" not in cluster.status("second")
    assert cluster.settle("second") == []


def test_a_stage_that_another_run_is_at_is_waited_for_and_not_begun_beside_it() -> None:
    cluster = applied()
    cluster.apply("second")
    cluster.settle("second")
    name = name_of(cluster, FINE_TUNE_JOB)
    assert cluster.stages("second")[0] == ("sft", "Pending", True)
    cluster.fail(name)
    cluster.settle("second")
    own = [one for one in cluster.names(FINE_TUNE_JOB) if one.startswith("second-")]
    assert len(own) == 1, "a failure is no result: it makes its own"
    assert cluster.stages("second")[0] == ("sft", "Pending", False)


def test_a_stage_of_a_run_that_is_deleted_is_made_by_the_one_that_waits() -> None:
    cluster = applied()
    cluster.apply("second")
    cluster.settle("second")
    cluster.delete(ALIGNMENT_RUN, "demo")
    cluster.settle("second")
    assert cluster.names(FINE_TUNE_JOB)[0].startswith("second-sft-")


def test_an_alignment_under_way_is_not_left_for_another_runs() -> None:
    cluster = with_rewards()
    cluster.apply("second")
    cluster.settle("second")
    second = newest_job(cluster)
    assert second.startswith("second-align-")
    cluster.run_pod(second)
    cluster.settle("second")
    first = next(name for name in cluster.names(PYTORCH_JOB) if name.startswith("demo-"))
    cluster.run_pod(first)
    cluster.settle()
    cluster.end_pod(first, done())
    cluster.settle()
    assert cluster.settle("second") == []
    assert second in cluster.names(PYTORCH_JOB)
    assert cluster.status("second")["phase"] == "Running"


# A spec that changes


def test_a_change_that_no_result_depends_on_runs_nothing_again() -> None:
    cluster = aligned()
    before = made(cluster)
    compute = {"nodePool": "local", "cpu": "4", "memory": "8Gi"}
    cluster.apply(backoffLimit=7, checkpoint={"everySteps": 5}, compute=compute)
    cluster.settle()
    assert made(cluster) == before
    assert cluster.condition("Succeeded")[0] == "True"
    assert cluster.status()["observedGeneration"] == 2


def test_a_change_of_the_prompts_runs_the_alignment_again_and_only_that() -> None:
    cluster = aligned()
    cluster.apply(prompts={"uri": "pvc://data/other.json"})
    cluster.step()
    assert cluster.truths()["Succeeded"] == "False"
    assert cluster.truths()["Aligned"] == "False"
    assert cluster.truths()["Evaluated"] == "False"
    assert made(cluster).count("FineTuneJob") == 1
    assert made(cluster).count("RewardModel") == 1
    assert made(cluster).count("PyTorchJob") == 2
    align(cluster, done(model=ALIGNED.model_copy(update={"digest": "sha256:again"})))
    assert cluster.condition("Succeeded")[0] == "True"
    assert cluster.status()["model"]["digest"] == "sha256:again"


def test_a_change_of_the_sft_stops_all_that_was_made_from_the_old_one() -> None:
    cluster = with_rewards()
    cluster.run_pod(cluster.job())
    cluster.settle()
    changed = {"template": {**SFT["template"], "training": {"epochs": 1}}}
    cluster.apply(sft=changed)
    cluster.settle()
    assert cluster.names(PYTORCH_JOB) == [], "the alignment of the old model"
    assert made(cluster).count("FineTuneJob") == 2
    assert cluster.stages() == [
        ("sft", "Pending", False), ("helpfulness", "Waiting", False), ("1-raft", "Waiting", False),
    ]  # fmt: skip
    assert "model" not in cluster.status()
    assert "progress" not in cluster.status()


def test_the_alignment_of_the_old_spec_goes_before_that_of_the_new_one_comes() -> None:
    cluster = with_rewards()
    old = cluster.job()
    cluster.run_pod(old)
    cluster.settle()
    cluster.api.lingering.add("PyTorchJob")
    cluster.apply(prompts={"uri": "pvc://data/other.json"})
    changed = cluster.step()
    assert not changed.children
    assert changed.look_again_s is not None
    assert cluster.condition("Launched") == (
        "False", "Waiting", f"PyTorchJob {old} of an older spec is still there; waiting for it to go.",
    )  # fmt: skip
    cluster.settle()
    assert newest_job(cluster) == old
    cluster.delete(PYTORCH_JOB, old)
    cluster.settle()
    assert newest_job(cluster) != old


def test_stages_of_the_old_spec_that_still_run_are_deleted() -> None:
    cluster = with_sft(rewardModels=[HELPFULNESS, SAFETY])
    safety = name_of(cluster, REWARD_MODEL, "safety")
    changed = {**HELPFULNESS, "template": {"dataset": {"uri": "pvc://data/better.json"}}}
    old = name_of(cluster, REWARD_MODEL, "helpfulness")
    cluster.apply(rewardModels=[changed, SAFETY])
    cluster.settle()
    assert old not in cluster.names(REWARD_MODEL)
    assert safety in cluster.names(REWARD_MODEL)
    assert len(cluster.names(REWARD_MODEL)) == 2


def test_a_change_that_is_refused_at_first_is_carried_out_once_it_is_accepted() -> None:
    cluster = aligned()
    elsewhere = {"template": {**SFT["template"], "dataset": {"uri": "pvc://corpus/sft.json"}}}
    cluster.apply(sft=elsewhere)
    cluster.settle()
    assert cluster.condition("Accepted")[:2] == ("False", "VolumeMissing")
    assert cluster.truths()["Succeeded"] == "False"
    cluster.put(CLAIM, "corpus")
    cluster.settle()
    assert made(cluster).count("FineTuneJob") == 2, "the data of the new spec, not the model of the old"
    assert cluster.condition("SFTReady")[0] == "False"


def test_a_failed_run_starts_again_where_it_failed_when_its_spec_changes() -> None:
    cluster = applied()
    name = name_of(cluster, FINE_TUNE_JOB)
    cluster.fail(name)
    cluster.settle()
    assert cluster.status()["phase"] == "Failed"
    cluster.apply(backoffLimit=5)
    cluster.settle()
    assert cluster.names(FINE_TUNE_JOB) == [name]
    assert made(cluster) == ["FineTuneJob", "FineTuneJob"], "made anew"
    assert cluster.truths()["Failed"] == "False"
    assert "finishedAt" not in cluster.status()


def test_a_failed_alignment_gets_another_attempt_when_the_spec_changes() -> None:
    cluster = with_rewards(backoffLimit=0)
    job = cluster.job()
    cluster.run_pod(job)
    cluster.settle()
    cluster.end_pod(job, exit_code=137)
    cluster.settle()
    assert cluster.condition("Failed")[1] == "BackoffLimitExceeded"
    cluster.clock(minutes=1)
    cluster.apply(backoffLimit=1)
    cluster.settle()
    assert newest_job(cluster) == f"{job.removesuffix('-1')}-2"
    assert cluster.truths()["Failed"] == "False"
    align(cluster)
    assert cluster.condition("Succeeded")[0] == "True"


def test_an_alignment_that_failed_is_tried_again_when_a_run_comes_back_to_its_spec() -> None:
    cluster = with_rewards(backoffLimit=0)
    job = cluster.job()
    cluster.run_pod(job)
    cluster.settle()
    cluster.end_pod(job, exit_code=137)
    cluster.settle()
    assert cluster.condition("Failed")[0] == "True"
    cluster.apply(backoffLimit=0, rewardModels=[SAFETY])
    cluster.settle()
    assert job not in cluster.names(PYTORCH_JOB), "what it came to is not the new spec's"
    cluster.apply(backoffLimit=0)
    cluster.settle()
    assert cluster.truths()["Failed"] == "False"
    align(cluster)
    assert cluster.condition("Succeeded")[0] == "True"


@pytest.mark.parametrize("result", [failure(), failure("WorkerLost", retryable=True)])
def test_an_alignment_that_failed_while_the_spec_was_refused_is_tried_again(result: ResultDocument) -> None:
    """Nobody had heard of the failure when the corrected spec came: it is not that spec's."""
    cluster = with_rewards(backoffLimit=0)
    job = cluster.job()
    cluster.run_pod(job)
    cluster.settle()
    cluster.apply(backoffLimit=0, compute={"nodePool": "nowhere"})
    cluster.settle()
    assert cluster.condition("Accepted")[1] == "NodePoolUnknown"
    cluster.end_pod(job, result, exit_code=1)
    cluster.settle()
    cluster.apply(backoffLimit=0)
    cluster.settle()
    assert cluster.truths()["Failed"] == "False"
    assert cluster.status()["lastFailure"]["attempt"] == 1
    cluster.clock(minutes=1)
    cluster.settle()
    assert newest_job(cluster) == f"{job.removesuffix('-1')}-2"
    align(cluster)
    assert cluster.condition("Succeeded")[0] == "True"


def test_an_alignment_that_failed_before_the_spec_that_has_it_was_accepted_is_tried_again() -> None:
    """As above, but the spec stays, and what it waited for comes."""
    cluster = with_rewards(backoffLimit=0)
    job = cluster.job()
    cluster.run_pod(job)
    cluster.settle()
    cluster.apply(backoffLimit=0, output={"uri": "pvc://nowhere/run"})
    cluster.settle()
    assert cluster.condition("Accepted")[1] == "VolumeMissing"
    cluster.end_pod(job, failure(), exit_code=1)
    cluster.settle()
    cluster.put(CLAIM, "nowhere")
    cluster.settle()
    cluster.clock(minutes=1)
    cluster.settle()
    assert cluster.truths()["Failed"] == "False"
    align(cluster)
    assert cluster.condition("Succeeded")[0] == "True"


def test_a_failure_of_the_new_spec_counts_though_the_first_was_of_the_old_one() -> None:
    cluster = with_rewards(backoffLimit=0)
    job = cluster.job()
    cluster.run_pod(job)
    cluster.settle()
    cluster.end_pod(job, failure(), exit_code=1)
    cluster.apply(backoffLimit=1)
    cluster.settle()
    cluster.clock(minutes=1)
    cluster.settle()
    second = newest_job(cluster)
    assert second != job
    cluster.run_pod(second)
    cluster.settle()
    cluster.end_pod(second, failure(), exit_code=1)
    cluster.settle()
    assert cluster.condition("Failed")[:2] == ("True", "DataMalformed")


def test_a_corrected_spec_is_called_accepted_while_the_alignment_goes_on() -> None:
    cluster = with_rewards()
    job = cluster.job()
    cluster.run_pod(job)
    cluster.settle()
    cluster.apply(compute={"nodePool": "nowhere"})
    cluster.settle()
    assert cluster.condition("Accepted")[1] == "NodePoolUnknown"
    cluster.apply()
    cluster.settle()
    assert cluster.job() == job, "it has gone on"
    assert cluster.condition("Accepted")[:2] == ("True", "Valid")
    assert cluster.condition("Launched")[0] == "True"


def test_a_deadline_that_was_exceeded_can_be_raised() -> None:
    cluster = with_rewards(activeDeadlineSeconds=300)
    cluster.run_pod(cluster.job())
    cluster.settle()
    cluster.clock(seconds=300)
    cluster.settle()
    assert cluster.condition("Failed")[1] == "DeadlineExceeded"
    cluster.apply(activeDeadlineSeconds=3000)
    cluster.settle()
    assert len(cluster.names(PYTORCH_JOB)) == 1
    assert cluster.status()["phase"] == "Starting"


def test_a_change_of_where_a_stage_runs_reaches_the_running_one() -> None:
    cluster = applied()
    before = cluster.of(FINE_TUNE_JOB)
    frozen = {name: before["spec"][name] for name in ("output", "checkpoint", "dataset", "training")}
    moved = {"compute": {"cpu": "2"}, "backoffLimit": 9, "checkpoint": {"everySteps": 7}}
    cluster.apply(sft={"template": {**SFT["template"], **moved}})
    cluster.settle()
    child = cluster.of(FINE_TUNE_JOB)
    assert child["metadata"]["uid"] == before["metadata"]["uid"]
    assert (child["spec"]["compute"]["cpu"], child["spec"]["backoffLimit"]) == ("2", 9)
    assert {name: child["spec"][name] for name in frozen} == frozen, "what a running job cannot take up"


def test_data_that_changes_is_taken_up_with_the_next_change_of_the_spec() -> None:
    def content(text: str) -> JsonObject:
        return {"data": {"train.json": text}}

    cluster = MemoryCluster()
    cluster.put(CONFIG_MAP, "sums", **content("[1]"))
    told = {"template": {**SFT["template"], "dataset": {"uri": "configmap://sums/train.json"}}}
    cluster.apply(sft=told)
    cluster.settle()
    name = name_of(cluster, FINE_TUNE_JOB)
    assert [one["uri"] for one in cluster.status()["data"]] == ["configmap://sums/train.json"]
    cluster.api.objects["ConfigMap", "sums"] |= content("[2]")
    assert cluster.settle() == [], "a run under way is not begun anew"
    cluster.apply(sft=told, backoffLimit=1)
    cluster.settle()
    assert cluster.names(FINE_TUNE_JOB) != [name]
    assert len(cluster.names(FINE_TUNE_JOB)) == 1


# Evaluation and serving


def test_a_change_of_the_evaluation_alone_measures_again() -> None:
    cluster = aligned(evaluation=EVALUATE)
    first = name_of(cluster, EVALUATION)
    other = {"template": {"suites": [{"type": "perplexity", "dataset": "pvc://data/other.json"}]}}
    cluster.apply(evaluation=other)
    cluster.settle()
    assert len(cluster.names(EVALUATION)) == 1, f"{first} measured for a spec that is no more"
    second = name_of(cluster, EVALUATION)
    measure(cluster, second)
    assert cluster.condition("Succeeded")[0] == "True"
    cluster.apply(evaluation=EVALUATE)
    cluster.settle()
    assert cluster.names(EVALUATION) == sorted([first, second])
    measure(cluster, first)
    assert cluster.condition("Succeeded")[0] == "True"
    cluster.apply(evaluation=other)
    cluster.settle()
    assert cluster.condition("Succeeded")[0] == "True", "the results are there already"
    assert made(cluster).count("Evaluation") == 3


def measure(cluster: MemoryCluster, name: str, *results: JsonObject) -> None:
    """An Evaluation gets its results."""
    cluster.write_status(EVALUATION, name, conditions=[true("Succeeded")], results=list(results))
    cluster.settle()


def test_a_job_of_the_document_is_json_with_everything_by_name() -> None:
    document = json.loads(with_rewards().document())
    assert document["version"] == "alidade.dev/job/v1"
    assert set(document["alignment"]) == {"steps", "rewards", "combine", "generation", "guardrails"}


def test_a_model_serve_is_made_of_the_aligned_model_only() -> None:
    cluster = aligned(serve={"template": {"replicas": 2}})
    assert cluster.of(MODEL_SERVE)["spec"]["model"]["uri"] == ALIGNED.uri


def test_a_model_that_cannot_be_served_ends_the_run_in_the_words_of_its_model_serve() -> None:
    cluster = aligned(serve={"template": {"replicas": 2}})
    failed = {"type": "Failed", "status": "True", "reason": "PerplexityTooHigh", "message": "Perplexity rose by 9 %."}
    cluster.write_status(
        MODEL_SERVE, cluster.of(MODEL_SERVE)["metadata"]["name"], conditions=[failed], observedGeneration=1
    )
    cluster.settle()
    assert cluster.condition("Failed") == ("True", "StageFailed", "ModelServe demo has failed: Perplexity rose by 9 %.")
    assert cluster.condition("Served")[:2] == ("False", "StageFailed")
    assert cluster.status()["model"]["uri"] == ALIGNED.uri


def test_the_model_of_a_deleted_sft_is_found_on_a_claim_that_nothing_else_names() -> None:
    cluster = MemoryCluster()
    cluster.put(CLAIM, "elsewhere")
    cluster.apply(sft={"template": {**SFT["template"], "output": {"uri": "pvc://elsewhere/sft"}}})
    cluster.settle()
    name = name_of(cluster, FINE_TUNE_JOB)
    cluster.train(name)
    cluster.settle()
    cluster.delete(FINE_TUNE_JOB, name)
    cluster.train(name_of(cluster, REWARD_MODEL))
    cluster.settle()
    assert cluster.condition("Launched")[:2] == ("True", "JobCreated"), cluster.condition("Accepted")
