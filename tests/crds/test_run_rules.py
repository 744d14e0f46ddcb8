"""What the schemas of AlignmentRun and RewardModel let through and what they refuse, as an API server reads them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.crds.schemas import errors

NEW = {"init": {"hiddenSize": 64, "layers": 2, "heads": 4, "vocabSize": 512}}
DATA = {"uri": "pvc://data/a.json"}
PROGRAM = {"name": "exact", "function": "exact_match"}
TRAINED = {"name": "r", "template": {"dataset": DATA}}
RUN: dict[str, Any] = {
    "sft": {"model": {"uri": "hf://org/sft"}},
    "rewardModels": [PROGRAM],
    "prompts": DATA,
    "align": [{"raft": {}}],
}
REWARD: dict[str, Any] = {"model": {"uri": "hf://org/sft"}, "dataset": DATA}
EVALUATION = {"template": {"suites": [{"type": "perplexity", "dataset": "pvc://data/b.json"}]}}


def changed(**blocks: Any) -> dict[str, Any]:
    """The spec of a run with other blocks; None leaves one out."""
    return {name: value for name, value in (RUN | blocks).items() if value is not None}


@pytest.mark.parametrize(
    "spec",
    [
        RUN,
        changed(sft={"ref": {"name": "mine"}}),
        changed(sft={"template": {"model": NEW, "dataset": DATA, "method": "pretrain"}}),
        changed(rewardModels=[TRAINED, {"name": "s", "ref": {"name": "t"}}], combine="gated"),
        changed(rewardModels=[{"name": "r", "function": "regex", "pattern": "a+"}]),
        changed(rewardModels=[{"name": "r", "entryPoint": "team.rewards:polite"}]),
        changed(rewardModels=[], prompts=None, align=[{"dpo": {"dataset": DATA}}]),
        changed(align=[{"raft": {"samplesPerPrompt": 1, "acceptance": "globalTop"}}, {"ppo": {}}]),
        changed(prompts=DATA | {"validation": {"uri": "pvc://data/b.json"}}, guardrails={"overOptimization": {}}),
        changed(evaluation=EVALUATION, gate=[{"metric": "a", "atLeast": {"value": 0}}]),
        changed(evaluation={"template": {"suites": [{"type": "reward", "dataset": "pvc://data/b.json"}]}}),
        changed(serve={"template": {"replicas": 2}}),
    ],
)  # fmt: skip
def test_a_run_that_makes_sense_is_let_in(spec: dict[str, Any]) -> None:
    assert errors("AlignmentRun", spec) == []


def test_a_run_may_change_in_everything() -> None:
    """Stages of other inputs are run anew; nothing of a run is frozen, inside its templates neither."""
    old = changed(sft={"template": {"model": {"uri": "hf://a/b"}, "dataset": DATA}}, output={"uri": "pvc://a/b"})
    new = changed(
        sft={"template": {"model": {"uri": "hf://c/d"}, "dataset": {"uri": "pvc://data/c.json"}}}, align=[{"ppo": {}}]
    )
    assert errors("AlignmentRun", new, old) == []


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        (changed(gate=[{"metric": "a", "atLeast": {"value": 0}}]), "spec", "gate needs evaluation"),
        (changed(combine="gated"), "spec", "combine gated needs exactly two rewardModels"),
        (changed(rewardModels=[]), "spec", "raft and ppo need rewardModels and prompts"),
        (changed(prompts=None), "spec", "raft and ppo need rewardModels and prompts"),
        (changed(rewardModels=[PROGRAM, PROGRAM]), "spec", "rewardModels need names of their own"),
        (changed(guardrails={"overOptimization": {}}), "spec", "guardrails.overOptimization needs prompts.validation"),
        (changed(training={"earlyStopping": {}}), "spec", "training.earlyStopping is for training jobs"),
        (changed(prompts=DATA | {"mix": [{"uri": "pvc://data/b", "weight": 1}]}), "spec", "prompts.mix cannot be used"),
        (changed(sft={}), "spec.sft", "exactly one of template, ref, model must be set"),
        (
            changed(sft={"ref": {"name": "a"}, "model": {"uri": "hf://a/b"}}),
            "spec.sft",
            "exactly one of template, ref, model must be set",
        ),
        (
            changed(sft={"model": NEW}),
            "spec.sft",
            "sft.model.init has learned nothing yet",
        ),
        (
            changed(rewardModels=[{"name": "r", "function": "regex"}]),
            "spec.rewardModels[0]",
            "pattern is set with function regex, and only then",
        ),
        (
            changed(rewardModels=[{"name": "r", "function": "length", "pattern": "a"}]),
            "spec.rewardModels[0]",
            "pattern is set with function regex, and only then",
        ),
        (
            changed(rewardModels=[{"name": "r"}]),
            "spec.rewardModels[0]",
            "exactly one of template, ref, model, function, entryPoint must be set",
        ),
        (
            changed(rewardModels=[PROGRAM | {"ref": {"name": "a"}}]),
            "spec.rewardModels[0]",
            "exactly one of template, ref, model, function, entryPoint must be set",
        ),
        (
            changed(rewardModels=[{"name": "r", "model": NEW}]),
            "spec.rewardModels[0]",
            "a reward model needs trained weights",
        ),
        (
            changed(rewardModels=[{"name": "r", "template": {"dataset": DATA, "model": NEW}}]),
            "spec.rewardModels[0].template",
            "model.init has learned nothing yet",
        ),
        (
            changed(rewardModels=[{"name": "r", "template": {"dataset": DATA, "training": {"earlyStopping": {}}}}]),
            "spec.rewardModels[0].template",
            "training.earlyStopping needs dataset.validation",
        ),
        (changed(rewardModels=[PROGRAM | {"name": "No"}]), "spec.rewardModels[0].name", "should match"),
        (
            changed(rewardModels=[{"name": "r", "entryPoint": "rewards"}]),
            "spec.rewardModels[0].entryPoint",
            "should match",
        ),
        (changed(align=[]), "spec.align", "at least 1"),
        (changed(align=[{}]), "spec.align[0]", "exactly one of raft, ppo, dpo must be set"),
        (changed(align=[{"raft": {}, "ppo": {}}]), "spec.align[0]", "exactly one of raft, ppo, dpo must be set"),
        (
            changed(align=[{"raft": {"samplesPerPrompt": 1}}]),
            "spec.align[0].raft",
            "acceptance bestOfK needs samplesPerPrompt of at least 2",
        ),
        (
            changed(align=[{"ppo": {"rolloutBatchSize": 100}}]),
            "spec.align[0].ppo",
            "rolloutBatchSize must be a multiple of miniBatchSize",
        ),
        (changed(align=[{"ppo": {"clip": 1}}]), "spec.align[0].ppo.clip", "less than 1"),
        (
            changed(evaluation=EVALUATION, gate=[{"metric": "a"}]),
            "spec.gate[0]",
            "at least one of atLeast, atMost must be set",
        ),
        (
            changed(evaluation=EVALUATION, gate=[{"metric": "a", "atLeast": {}}]),
            "spec.gate[0].atLeast",
            "exactly one of value, baseline must be set",
        ),
        (
            changed(evaluation=EVALUATION, gate=[{"metric": "a", "atMost": {"value": 1, "baseline": "sft"}}]),
            "spec.gate[0].atMost",
            "exactly one of value, baseline must be set",
        ),
        (changed(evaluation={"template": {"suites": []}}), "spec.evaluation.template.suites", "at least 1"),
        (
            changed(serve={"template": {"replicas": 1, "autoscaling": {"max": 2}}}),
            "spec.serve.template",
            "at most one of replicas, autoscaling may be set",
        ),
        (changed(combine="product"), "spec.combine", "Unsupported value"),
    ],
)  # fmt: skip
def test_a_run_that_makes_none_is_refused_with_the_field(spec: dict[str, Any], field: str, words: str) -> None:
    [found] = errors("AlignmentRun", spec)
    assert found.startswith(f"{field}: ")
    assert words in found


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        (
            REWARD | {"model": NEW},
            "spec",
            "model.init has learned nothing yet",
        ),
        (REWARD | {"training": {"earlyStopping": {}}}, "spec", "training.earlyStopping needs dataset.validation"),
        (REWARD | {"model": {}}, "spec.model", "exactly one of uri, from, init must be set"),
        (REWARD | {"loss": {"center": -1}}, "spec.loss.center", "greater than or equal to 0"),
        (REWARD | {"loss": {"margin": "wide"}}, "spec.loss.margin", "Unsupported value"),
        ({"dataset": DATA}, "spec.model", "Required"),
    ],
)
def test_a_reward_model_that_makes_no_sense_is_refused_with_the_field(
    spec: dict[str, Any], field: str, words: str
) -> None:
    [found] = errors("RewardModel", spec)
    assert found.startswith(f"{field}: ")
    assert words in found


def test_a_reward_model_is_let_in_and_keeps_what_a_running_job_could_not_change() -> None:
    assert errors("RewardModel", REWARD) == []
    assert errors("RewardModel", REWARD | {"compute": {"cpu": "2"}, "suspend": True}, REWARD) == []
    [found] = errors("RewardModel", REWARD | {"dataset": {"uri": "pvc://data/b.json"}}, REWARD)
    assert "dataset cannot change after creation: delete the resource first, or apply it under a new name" in found


@pytest.mark.parametrize("kind", ["AlignmentRun", "RewardModel"])
def test_a_name_leaves_room_for_those_of_pods(kind: str) -> None:
    spec = RUN if kind == "AlignmentRun" else REWARD
    assert errors(kind, spec, name="a" * 45) == []
    [found] = errors(kind, spec, name="a" * 46)
    assert "metadata.name may have at most 45 characters" in found
