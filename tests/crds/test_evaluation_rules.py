"""What the schema of Evaluation lets through and what it refuses, as an API server reads it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.crds.schemas import errors as errors_of

DATA = "pvc://data/a.json"
ONE = {"name": "one", "model": {"uri": "hf://org/one"}}
OTHER = {"name": "other", "model": {"from": {"kind": "FineTuneJob", "name": "tuned"}}}
PERPLEXITY = {"type": "perplexity", "dataset": DATA}
GENERATION = {"type": "generation", "dataset": DATA}
ENDPOINT = {"url": "http://models.example"}
REWARD = {"uri": "pvc://models/reward"}
JUDGE = {"url": "https://judge.example/v1"}


def evaluation(*suites: dict[str, Any], **blocks: Any) -> dict[str, Any]:
    return {"models": [ONE, OTHER], "suites": list(suites) or [PERPLEXITY]} | blocks


def errors(spec: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    return errors_of("Evaluation", spec, old)


@pytest.mark.parametrize(
    "spec",
    [
        evaluation(),
        evaluation(GENERATION, PERPLEXITY, baseline="other"),
        evaluation({"type": "questions", "questions": [{"ask": "1+1?", "expect": ["2"]}]}),
        evaluation({"type": "custom", "dataset": DATA, "entryPoint": "mine.measures:score"}),
        evaluation({"type": "harness", "tasks": ["arc_easy"], "fewShot": 0}),
        evaluation({"type": "arena", "dataset": DATA, "judge": JUDGE}),
        evaluation({"type": "reward", "dataset": DATA, "function": "regex", "pattern": "a+"}),
        evaluation(GENERATION, GENERATION | {"name": "again", "template": "{{ messages[0].content }}"}),
        {"endpoint": ENDPOINT, "suites": [GENERATION]},
        {"endpoint": {"modelServe": "served"}, "suites": [{"type": "diversity", "dataset": DATA}]},
    ],
)
def test_what_makes_sense_is_let_through(spec: dict[str, Any]) -> None:
    assert errors(spec) == []


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (evaluation(endpoint=ENDPOINT), "exactly one of models, endpoint"),
        (evaluation(models=[]), "exactly one of models, endpoint"),
        (evaluation(baseline="third"), "baseline must be the name of one of the models"),
        (evaluation(models=[ONE, ONE]), "models need names of their own"),
        (evaluation(models=[{"name": "new", "model": {"init": {}}}]), "init"),
        (evaluation(GENERATION, GENERATION), "suites need names of their own"),
        (evaluation({"type": "generation"}), "dataset is needed by every suite but harness and questions"),
        (evaluation({"type": "harness"}), "tasks is needed by the harness suite"),
        (evaluation(GENERATION | {"tasks": ["arc_easy"]}), "tasks is for the harness suite"),
        (evaluation({"type": "questions"}), "questions is needed by, and only for, type questions"),
        (evaluation({"type": "custom", "dataset": DATA}), "entryPoint is needed by, and only for, type custom"),
        (evaluation({"type": "reward", "dataset": DATA}), "rewardModel or function is needed by the reward suite"),
        (evaluation({"type": "arena", "dataset": DATA}), "rewardModel, function or judge is needed by the arena suite"),
        (evaluation(GENERATION | {"judge": JUDGE}), "judge is for the arena suite"),
        (
            evaluation(GENERATION | {"rewardModel": REWARD}),
            "rewardModel and function are for the suites reward and arena",
        ),
        (
            evaluation({"type": "arena", "dataset": DATA, "judge": JUDGE, "rewardModel": REWARD}),
            "at most one of rewardModel, function, judge",
        ),
        (
            evaluation({"type": "arena", "dataset": DATA, "judge": JUDGE}, models=[ONE]),
            "the arena suite needs at least two models",
        ),
        (evaluation({"type": "reward", "dataset": DATA, "function": "regex"}), "pattern is set with function regex"),
        (evaluation(GENERATION | {"template": "vicuna"}), "template must be auto, alpaca, llama2, chatml, none"),
        (evaluation({"type": "arena", "dataset": DATA, "judge": {"url": "judge.example"}}), "url must start with http"),
        ({"endpoint": ENDPOINT, "suites": [PERPLEXITY]}, "log-probabilities that an endpoint does not give"),
        ({"endpoint": {"url": "ftp://x"}, "suites": [GENERATION]}, "url must start with http"),
        ({"endpoint": {}, "suites": [GENERATION]}, "exactly one of modelServe, url"),
        (evaluation({"type": "bleu", "dataset": DATA}), "Unsupported value"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(spec: dict[str, Any], said: str) -> None:
    found = errors(spec)
    assert any(said in error for error in found), found


def test_what_is_measured_cannot_change_but_how_long_and_where_may() -> None:
    old = evaluation()
    assert errors(evaluation(suspend=True, compute={"workers": 3}), old) == []
    for change in ({"seed": 1}, {"baseline": "other"}, {"models": [ONE]}, {"leakCheck": {}}, {"precision": "bf16"}):
        assert any("cannot change after creation" in error for error in errors(evaluation(**change), old)), change
