"""Rules about the stages after an alignment: evaluation, gate, serving."""

from __future__ import annotations

from typing import Any

import pytest

from alidade_crds.evaluation import EvaluationSpec
from alidade_crds.modelserve import ModelServeSpec
from alidade_operator.api import EVALUATION, FINE_TUNE_JOB, MODEL_SERVE, PYTORCH_JOB, REWARD_MODEL, JsonObject
from tests.operator.memory import HELPFULNESS, MemoryCluster, true
from tests.operator.test_alignmentrun import (
    ALIGNED,
    EVALUATE,
    PROGRAM,
    align,
    aligned,
    applied,
    done,
    made,
    measure,
    name_of,
)

REWARD_SUITE = {"type": "reward", "dataset": "pvc://data/held-out.json"}
GATED: dict[str, Any] = {
    "evaluation": EVALUATE,
    "gate": [{"metric": "perplexity", "atMost": {"baseline": "sft", "times": 1.2}}],
    "serve": {"template": {"replicas": 2}},
}


def perplexity(model: str, value: float) -> JsonObject:
    """A result."""
    return {"suite": "perplexity", "metric": "perplexity", "model": model, "value": value, "n": 10}


def evaluation(cluster: MemoryCluster) -> EvaluationSpec:
    """The spec of the run's Evaluation, as the schema reads it."""
    return EvaluationSpec.model_validate(cluster.of(EVALUATION)["spec"])


def serving(cluster: MemoryCluster) -> None:
    """The run's ModelServe answers."""
    generation = cluster.of(MODEL_SERVE)["metadata"]["generation"]
    cluster.write_status(MODEL_SERVE, "demo", conditions=[true("Available")], observedGeneration=generation)
    cluster.settle()


# Evaluation


def test_an_evaluation_is_made_of_the_start_model_and_the_aligned_one_and_the_templates() -> None:
    further = {"name": "base", "model": {"uri": "hf://org/base"}}
    cluster = aligned(evaluation={"template": {"suites": [REWARD_SUITE], "models": [further]}})
    child = cluster.of(EVALUATION)
    sft, judge = name_of(cluster, FINE_TUNE_JOB), name_of(cluster, REWARD_MODEL)
    assert child["metadata"]["labels"]["app.kubernetes.io/component"] == "evaluation"
    assert child["metadata"]["annotations"] == {"alidade.dev/run-generation": "1"}
    assert [(one["name"], one["model"]) for one in child["spec"]["models"]] == [
        ("sft", {"from": {"kind": "FineTuneJob", "name": sft}, "trustRemoteCode": False}),
        ("aligned", {"uri": ALIGNED.uri, "trustRemoteCode": False}),
        ("base", {"uri": "hf://org/base", "trustRemoteCode": False}),
    ]
    suite = evaluation(cluster).suites[0]
    assert suite.reward_model is not None
    assert suite.reward_model.from_ is not None
    assert (suite.reward_model.from_.kind, suite.reward_model.from_.name) == ("RewardModel", judge)
    inputs = child["metadata"]["labels"]["alidade.dev/inputs"]
    assert child["metadata"]["name"] == f"demo-eval-{inputs}"
    assert child["spec"]["output"]["uri"].endswith(f"/evaluation-{inputs}")
    assert cluster.condition("Evaluated") == (
        "False", "StageRunning", f"Evaluation demo-eval-{inputs} has no results yet.",
    )  # fmt: skip
    assert cluster.status()["stage"] == "evaluation"
    assert cluster.truths()["Aligned"] == "True"


def test_a_reward_suite_keeps_its_own_reward_model() -> None:
    suite = REWARD_SUITE | {"rewardModel": {"uri": "hf://org/judge"}}
    measured = evaluation(aligned(evaluation={"template": {"suites": [suite]}}))
    assert measured.suites[0].reward_model is not None
    assert measured.suites[0].reward_model.uri == "hf://org/judge"


def test_a_reward_suite_takes_the_first_reward_at_an_address_too() -> None:
    rewards = [{"name": "judge", "model": {"uri": "hf://org/judge"}}, HELPFULNESS]
    measured = evaluation(aligned(rewardModels=rewards, evaluation={"template": {"suites": [REWARD_SUITE]}}))
    assert measured.suites[0].reward_model is not None
    assert measured.suites[0].reward_model.uri == "hf://org/judge"


def test_a_reward_suite_takes_a_program_too() -> None:
    measured = evaluation(
        aligned(rewardModels=[PROGRAM, HELPFULNESS], evaluation={"template": {"suites": [REWARD_SUITE]}})
    )
    assert measured.suites[0].reward_model is None
    assert measured.suites[0].function == PROGRAM["function"]


def test_the_leak_check_takes_what_the_run_trains_on_unless_it_is_told_otherwise() -> None:
    told = {"suites": [REWARD_SUITE], "leakCheck": {"trainingData": ["pvc://data/other.json"]}}
    own, other = (evaluation(aligned(evaluation={"template": one})).leak_check for one in (EVALUATE["template"], told))
    assert own is not None
    assert other is not None
    assert own.training_data, "the run's own"
    assert "pvc://data/other.json" not in own.training_data
    assert other.training_data == ["pvc://data/other.json"]


def test_the_start_model_at_an_address_is_measured_at_its_address() -> None:
    cluster = applied(sft={"model": {"uri": "hf://org/sft"}}, rewardModels=[PROGRAM], evaluation=EVALUATE)
    align(cluster)
    assert evaluation(cluster).models[0].model.uri == "hf://org/sft"


def test_the_start_model_of_a_resource_that_is_gone_is_measured_at_its_address() -> None:
    cluster = aligned()
    uri = cluster.stage("sft")["model"]["uri"]
    cluster.delete(FINE_TUNE_JOB, name_of(cluster, FINE_TUNE_JOB))
    cluster.apply(evaluation=EVALUATE)
    cluster.settle()
    assert evaluation(cluster).models[0].model.uri == uri


def test_results_end_a_run_without_a_gate() -> None:
    cluster = aligned(evaluation=EVALUATE)
    name = name_of(cluster, EVALUATION)
    measure(cluster, name, perplexity("sft", 10), perplexity("aligned", 11.5))
    assert cluster.condition("Evaluated") == ("True", "Completed", f"Evaluation {name} has succeeded.")
    assert cluster.condition("GatePassed") == ("True", "NotAskedFor", "The run has no gate.")
    assert cluster.condition("Succeeded")[0] == "True"
    assert cluster.stage("evaluation")["metrics"] == {"perplexity_perplexity": 11.5}


def test_an_evaluation_without_a_controller_is_waited_for_with_its_words() -> None:
    cluster = aligned(evaluation=EVALUATE)
    refused = {**true("Accepted", "This release does not act on it."), "status": "False"}
    cluster.write_status(EVALUATION, name_of(cluster, EVALUATION), conditions=[refused])
    cluster.settle()
    assert cluster.condition("Evaluated")[2].endswith(
        " has no results yet. It is not accepted: This release does not act on it."
    )


def test_an_evaluation_that_fails_fails_the_run_and_is_made_anew_when_the_spec_changes() -> None:
    cluster = aligned(evaluation=EVALUATE)
    name = name_of(cluster, EVALUATION)
    cluster.write_status(EVALUATION, name, conditions=[true("Failed", "No such file.")])
    cluster.settle()
    assert cluster.condition("Failed") == ("True", "StageFailed", f"Evaluation {name} has failed: No such file.")
    assert cluster.condition("Evaluated")[:2] == ("False", "StageFailed")
    cluster.api.lingering.add("Evaluation")
    cluster.apply(evaluation=EVALUATE, backoffLimit=5)
    plans = cluster.settle()
    assert plans[0].look_again_s is not None
    assert cluster.condition("Evaluated")[2] == (
        f"Evaluation {name} has failed before the spec was changed; it is made anew."
    )
    assert cluster.truths()["Failed"] == "False", "it is on its way out"
    cluster.delete(EVALUATION, name)
    cluster.settle()
    assert made(cluster).count("Evaluation") == 2
    assert made(cluster).count("PyTorchJob") == 1


def test_an_evaluation_is_suspended_and_resumed_with_the_run() -> None:
    cluster = aligned(evaluation=EVALUATE)
    cluster.apply(evaluation=EVALUATE, suspend=True)
    cluster.settle()
    assert cluster.of(EVALUATION)["spec"]["suspend"] is True
    assert cluster.status()["phase"] == "Suspended"
    cluster.apply(evaluation=EVALUATE)
    cluster.settle()
    assert cluster.of(EVALUATION)["spec"]["suspend"] is False
    assert cluster.status()["phase"] == "Running"
    assert made(cluster).count("Evaluation") == 1


def test_a_suspended_run_begins_no_evaluation_and_serves_nothing_new() -> None:
    cluster = aligned()
    cluster.apply(suspend=True, **GATED)
    cluster.settle()
    assert cluster.names(EVALUATION) == []
    assert cluster.condition("Evaluated")[1] == "SuspendedByUser"
    cluster.apply(suspend=True, serve=GATED["serve"])
    cluster.settle()
    assert cluster.names(MODEL_SERVE) == []
    assert cluster.condition("Served") == (
        "False", "SuspendedByUser", "ModelServe demo is not given the aligned model yet.",
    )  # fmt: skip
    assert cluster.status()["phase"] == "Suspended"


def test_an_evaluation_that_is_no_longer_asked_for_is_stopped() -> None:
    cluster = aligned(evaluation=EVALUATE)
    cluster.apply()
    cluster.settle()
    assert cluster.names(EVALUATION) == []
    assert cluster.condition("Succeeded")[0] == "True"


def test_an_evaluation_of_the_old_model_is_stopped_when_the_alignment_begins_anew() -> None:
    cluster = aligned(evaluation=EVALUATE)
    cluster.apply(evaluation=EVALUATE, prompts={"uri": "pvc://data/other.json"})
    cluster.settle()
    assert cluster.names(EVALUATION) == []
    assert cluster.condition("Evaluated")[:2] == ("False", "Waiting")


# The gate


def test_a_run_that_passes_its_gate_is_served_then_succeeds() -> None:
    cluster = aligned(**GATED)
    assert cluster.names(MODEL_SERVE) == [], "not before the gate"
    measure(cluster, name_of(cluster, EVALUATION), perplexity("sft", 10), perplexity("aligned", 11.5))
    assert cluster.condition("GatePassed") == (
        "True", "Completed", "perplexity is 11.5 and passes: it has to be at most 12 (sft 10 x 1.2).",
    )  # fmt: skip
    child = cluster.of(MODEL_SERVE)
    spec = ModelServeSpec.model_validate(child["spec"])
    assert child["metadata"]["name"] == "demo"
    assert (spec.model.uri, spec.replicas) == (ALIGNED.uri, 2)
    assert cluster.condition("Served") == (
        "False", "StageRunning", "ModelServe demo does not answer with the aligned model yet.",
    )  # fmt: skip
    serving(cluster)
    assert cluster.condition("Served") == ("True", "Completed", "ModelServe demo answers with the aligned model.")
    assert cluster.condition("Succeeded")[0] == "True"
    assert [stage[:2] for stage in cluster.stages()[3:]] == [
        ("evaluation", "Succeeded"), ("gate", "Passed"), ("serve", "Serving"),
    ]  # fmt: skip


def test_a_run_that_does_not_pass_stops_there_with_the_numbers() -> None:
    cluster = aligned(**GATED)
    measure(cluster, name_of(cluster, EVALUATION), perplexity("sft", 10), perplexity("aligned", 12.5))
    numbers = "perplexity is 12.5 and does not pass: it has to be at most 12 (sft 10 x 1.2)."
    assert cluster.condition("GatePassed") == ("False", "MetricOutOfBounds", numbers)
    assert cluster.condition("Failed") == (
        "True",
        "MetricOutOfBounds",
        f"The gate stops the run: {numbers} What was served before stays served.",
    )
    assert cluster.truths()["Served"] == "False"
    assert cluster.names(MODEL_SERVE) == []
    assert cluster.status()["model"]["digest"] == "sha256:aligned", "the model is there all the same"


def test_a_gate_that_is_changed_judges_the_same_results_anew() -> None:
    cluster = aligned(**GATED)
    measure(cluster, name_of(cluster, EVALUATION), perplexity("sft", 10), perplexity("aligned", 12.5))
    cluster.apply(**(GATED | {"gate": [{"metric": "perplexity", "atMost": {"value": 13}}]}))
    cluster.settle()
    assert cluster.condition("GatePassed")[0] == "True"
    assert made(cluster).count("Evaluation") == 1
    assert made(cluster).count("PyTorchJob") == 1
    serving(cluster)
    assert cluster.condition("Succeeded")[0] == "True"


def test_what_was_served_stays_served_when_the_next_model_does_not_pass() -> None:
    cluster = aligned(**GATED)
    measure(cluster, name_of(cluster, EVALUATION), perplexity("sft", 10), perplexity("aligned", 11))
    serving(cluster)
    before = cluster.of(MODEL_SERVE)
    cluster.apply(**(GATED | {"prompts": {"uri": "pvc://data/other.json"}}))
    cluster.settle()
    worse = ALIGNED.model_copy(update={"digest": "sha256:worse", "uri": "pvc://alidade-workspace/worse/model"})
    align(cluster, done(model=worse))
    newest = next(name for kind, name in reversed(cluster.api.made) if kind == EVALUATION.kind)
    measure(cluster, newest, perplexity("sft", 10), perplexity("aligned", 99))
    assert cluster.condition("Failed")[1] == "MetricOutOfBounds"
    assert cluster.of(MODEL_SERVE) == before


# Serving


def test_a_new_model_takes_over_and_counts_as_served_once_the_endpoint_has_seen_it() -> None:
    cluster = aligned(serve=GATED["serve"])
    serving(cluster)
    assert cluster.condition("Succeeded")[0] == "True"
    cluster.apply(serve=GATED["serve"], prompts={"uri": "pvc://data/other.json"})
    cluster.settle()
    better = ALIGNED.model_copy(update={"digest": "sha256:better", "uri": "pvc://alidade-workspace/better/model"})
    align(cluster, done(model=better))
    assert cluster.of(MODEL_SERVE)["spec"]["model"]["uri"] == better.uri
    assert cluster.condition("Served")[0] == "False", "what answers is still the old one"
    serving(cluster)
    assert cluster.condition("Succeeded")[0] == "True"


def test_a_model_serve_of_somebody_else_is_left_alone() -> None:
    cluster = MemoryCluster()
    cluster.put(MODEL_SERVE, "demo", spec={"model": {"uri": "hf://their/model"}})
    theirs = dict(cluster.api.objects["ModelServe", "demo"])
    cluster.apply(sft={"model": {"uri": "hf://org/sft"}}, rewardModels=[PROGRAM], serve=GATED["serve"])
    cluster.settle()
    align(cluster)
    assert cluster.api.objects["ModelServe", "demo"] == theirs
    assert cluster.condition("Served") == (
        "False",
        "Waiting",
        "ModelServe demo belongs to something else; delete it, or apply the run under another name.",
    )
    cluster.delete(MODEL_SERVE, "demo")
    cluster.settle()
    assert cluster.of(MODEL_SERVE)["spec"]["model"]["uri"] == ALIGNED.uri


@pytest.mark.parametrize("kind", [EVALUATION, MODEL_SERVE])
def test_what_was_made_and_is_deleted_by_hand_comes_back(kind: Any) -> None:
    cluster = aligned(**GATED)
    if kind is MODEL_SERVE:
        measure(cluster, name_of(cluster, EVALUATION), perplexity("sft", 10), perplexity("aligned", 11))
    name = name_of(cluster, kind)
    cluster.delete(kind, name)
    cluster.settle()
    assert cluster.names(kind) == [name]
    assert len(cluster.names(PYTORCH_JOB)) == 1


def test_a_run_tells_what_its_present_stage_has_done_in_steps_or_in_iterations() -> None:
    cluster = MemoryCluster()
    cluster.apply()
    cluster.settle()
    name = cluster.names(FINE_TUNE_JOB)[0]
    done = {"step": 54, "totalSteps": 600, "epoch": 0.5, "updatedAt": "2026-11-21T12:00:00Z"}
    cluster.write_status(FINE_TUNE_JOB, name, phase="Running", progress=done)
    cluster.settle()
    assert (cluster.status()["stage"], cluster.status()["done"]) == ("sft", "54/600")
    cluster.train(name)
    cluster.settle()
    assert "done" not in cluster.status(), "the reward model has not said anything yet"
