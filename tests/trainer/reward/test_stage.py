"""Stage `reward` from preferences to a model, in processes of its own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from alidade_crds.contract import ResultDocument
from alidade_engine.reward.network import load_classifier

GOOD, BAD = ["Oslo", "Lima", "Bern"], ["tin", "gold", "fox"]


def preferences(count: int, *, first: int = 0) -> list[dict[str, Any]]:
    """A city is a better answer than a thing; now and then three ranked answers instead of two."""
    records: list[dict[str, Any]] = []
    for number in range(first, first + count):
        prompt = f"What is number {number} of train?"
        good, bad = GOOD[number % 3], BAD[(number // 3) % 3]
        records.append({"prompt": prompt, "chosen": good, "rejected": bad, "margin": 0.5 if number % 2 else 1.0})
    return records


def write(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return f"file://{path}"


@pytest.fixture
def reward_job(make_job: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    def make(over: dict[str, Any] | None = None, *, output: str = "out", records: Any = None) -> Path:
        job: dict[str, Any] = {
            "stage": "reward",
            "dataset": {
                "uri": write(tmp_path / "train.jsonl", preferences(64) if records is None else records),
                "validation": {"uri": write(tmp_path / "held.jsonl", preferences(16, first=64))},
            },
            "training": {"maxSteps": 10, "evaluateEverySteps": 10, "epochs": 9, "learningRate": 0.01},
            "checkpoint": {"everySteps": 10},
            "loss": {"margin": "fromStrength"},
        }
        for block, fields in (over or {}).items():
            job[block] = {**job.get(block, {}), **fields} if isinstance(fields, dict) else fields
        return make_job(job, output=output)

    return make


def failure(result: ResultDocument) -> str:
    assert result.failure is not None
    return f"{result.failure.reason}: {result.failure.message}"


def rewards(model: torch.nn.Module, rows: list[list[int]]) -> list[float]:
    """Each row alone and unpadded, by transformers' own forward."""
    with torch.no_grad():
        return [float(model(input_ids=torch.tensor([row])).logits) for row in rows]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("adapter", [{"type": "none"}, {"type": "lora", "rank": 4}, {"type": "qlora", "rank": 4}])
def test_a_reward_model_learns_the_preference_and_is_loaded_by_transformers_as_it_is(
    reward_job: Callable[..., Path],
    run_job: Callable[..., Any],
    adapter: dict[str, Any],
    documented: Callable[[dict[str, float]], None],
) -> None:
    run = run_job(reward_job({"adapter": adapter}))
    assert run.result.outcome == "succeeded", run.result.failure
    metrics = run.result.metrics
    documented(metrics)
    assert metrics["accuracy"] > 0.9
    assert metrics["meanMargin"] > 0.5
    assert metrics["heldOutPairs"] == 16
    assert {"accuracyByStrength.0.5", "accuracyByStrength.1", "expectedCalibrationError"} <= metrics.keys()
    folder = run.output / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = load_classifier(folder, dtype=torch.float32)
    chats = [
        [{"role": "user", "content": "What is number 70 of train?"}, {"role": "assistant", "content": answer}]
        for answer in ("Oslo", "gold")
    ]
    rows = [tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True)["input_ids"] for chat in chats]
    city, thing = rewards(model, rows)
    assert city > thing
    page = (run.output / "report.html").read_text()
    assert "Rewards of held-out answers" in page


def test_one_and_two_processes_and_zero_stages_train_alike(
    reward_job: Callable[..., Path], run_job: Callable[..., Any]
) -> None:
    short = {"maxSteps": 6, "evaluateEverySteps": 6}
    alone = run_job(reward_job({"training": short, "deepspeed": {"zeroStage": 0}}, output="alone"))
    for stage in (2, 3):
        run = run_job(
            reward_job({"training": short, "deepspeed": {"zeroStage": stage}}, output=f"z{stage}"), processes=2
        )
        assert run.result.outcome == "succeeded", run.result.failure
        assert run.losses == pytest.approx(alone.losses, rel=2e-4)
        assert run.result.metrics["meanMargin"] == pytest.approx(alone.result.metrics["meanMargin"], abs=2e-3)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (
            [{"prompt": "a?", "chosen": "b", "rejected": "b"}],
            "DataEmpty.*have the same answer twice .train.jsonl, line 1",
        ),
        ([{"prompt": "a?", "chosen": "b", "rejected": " "}], "DataEmpty.*an empty answer"),
        ([{"input": "a?", "output": ["b"]}], "DataEmpty.*fewer than two answers"),
        ([{"prompt": "a?", "chosen": "b", "rejected": "c", "margin": "nan"}], "DataMalformed.*`margin` is nan"),
        ([{"input": "a?", "output": "b"}], "DataMalformed.*is no preference"),
        ([{"prompt": "a?", "chosen": "b", "rejected": "c"}] * 9, "ConfigInvalid.*loss.margin is fromStrength"),
    ],
)
def test_preferences_that_cannot_be_learned_from_are_said_with_their_place(
    reward_job: Callable[..., Path], run_job: Callable[..., Any], records: list[dict[str, Any]], said: str
) -> None:
    import re

    run = run_job(reward_job(records=records))
    assert re.search(said, failure(run.result)), failure(run.result)


def test_a_few_unusable_preferences_are_counted_and_named(
    reward_job: Callable[..., Path], run_job: Callable[..., Any]
) -> None:
    records = [*preferences(64), {"prompt": "same?", "chosen": "b", "rejected": "b"}]
    run = run_job(reward_job({"training": {"maxSteps": 1}}, records=records))
    assert any(
        "1 of 65 records are left out: the same answer twice (train.jsonl, line 65)" in w for w in run.result.warnings
    )


def test_a_reward_model_is_not_made_from_nothing(reward_job: Callable[..., Path], run_job: Callable[..., Any]) -> None:
    init = {"hiddenSize": 32, "layers": 1, "heads": 2, "vocabSize": 300, "contextLength": 64}
    run = run_job(reward_job({"model": {"uri": None, "init": init}}))
    assert failure(run.result) == (
        "ConfigInvalid: model.init is set; a reward model starts from a language model; name it in model.uri."
    )
