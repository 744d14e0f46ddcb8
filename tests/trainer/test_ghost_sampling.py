"""Ghost attention in whole runs: sampled by all processes, kept, and the same in every attempt."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.conftest import kill_after_step

RULE = "Name a metal."
TALKS = 160
Make = Callable[..., Path]


@pytest.fixture
def ghost_job(make_job: Make, tmp_path: Path) -> Make:
    """A job over conversations of two turns; its start model is random, so that a few answers end by chance."""
    turns = [("user", "What is number {}?"), ("assistant", "tin"), ("user", "And after {}?"), ("assistant", "gold")]
    records = [
        {"messages": [{"role": role, "content": text.format(number)} for role, text in turns]}
        for number in range(TALKS)
    ]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    def make(over: dict[str, Any] | None = None, *, output: str = "out") -> Path:
        ghost = {"instructions": [RULE], "maxNewTokens": 60, **(over or {}).pop("ghostAttention", {})}
        data = {"uri": f"file://{tmp_path}/talks.jsonl", "maxLength": 128, "validation": None}
        training = {"epochs": 50, "evaluateEverySteps": None}
        job = {"dataset": data, "training": training, "ghostAttention": ghost, **(over or {})}
        return make_job(job, output=output)

    return make


def answers(output: Path) -> list[dict[str, Any]]:
    _, *rows = (output / "ghost-attention.jsonl").read_text().removesuffix("\n").split("\n")
    return [json.loads(row) for row in rows]


def test_one_and_two_processes_sample_and_learn_the_same(
    ghost_job: Make, run_job: Callable[..., Any], documented: Callable[[dict[str, float]], None]
) -> None:
    alone = run_job(ghost_job(output="alone"))
    assert alone.result.outcome == "succeeded", alone.result.failure
    documented(alone.result.metrics)
    two = run_job(ghost_job(output="two"), processes=2)
    assert two.result.outcome == "succeeded", two.result.failure
    rows = answers(alone.output)
    assert rows == answers(two.output)
    assert two.losses == pytest.approx(alone.losses, rel=2e-4)
    assert len(rows) == TALKS
    for row in rows:
        users = [turn["content"] for turn in row["messages"] if turn["role"] == "user"]
        assert [RULE in text for text in users] == [True, False]
    ended = sum(row["sampled"]["finished"] for row in rows)
    assert 4 < ended < TALKS
    assert len({tuple(row["sampled"]["answer_ids"]) for row in rows}) > 20  # each draws for itself
    data = json.loads((alone.output / "report.json").read_text())["data"]
    assert data["ghost_attention"]["kept"] == data["train"]["samples"] <= ended
    assert any("does not end within ghostAttention.maxNewTokens" in warning for warning in alone.result.warnings)
    assert "ghost attention" in (alone.output / "report.html").read_text()


def test_a_killed_attempt_is_followed_by_one_that_trains_on_the_same_answers(
    ghost_job: Make, run_job: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    whole = run_job(ghost_job(output="whole"))
    job = ghost_job(output="cut")
    assert run_job(job, prepare=kill_after_step(3)).exit_codes == [-signal.SIGKILL]
    again = run_job(job)
    assert again.result.outcome == "succeeded", again.result.failure
    assert f"{TALKS} answers of an earlier attempt are taken" in capfd.readouterr().out
    assert again.lines == whole.lines
    assert again.result.model.digest == whole.result.model.digest


def test_an_attempt_stopped_while_it_samples_keeps_what_it_has(
    ghost_job: Make, run_job: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    def stop_at_first_answer(_rank: int) -> None:
        from alidade_trainer import ghost_sampling

        write = ghost_sampling.KeptDraws.write
        sampler = ghost_sampling.Sampler.sample

        def sample(self: Any, *arguments: Any, **named: Any) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            return sampler(self, *arguments, **named)

        def written(self: Any, drawn: Any) -> None:
            print(f"{len(drawn)} answers are kept", flush=True)
            write(self, drawn)

        ghost_sampling.Sampler.sample = sample  # type: ignore[method-assign]
        ghost_sampling.KeptDraws.write = written  # type: ignore[method-assign]

    whole = run_job(ghost_job(output="whole"))
    job = ghost_job(output="cut")
    stopped = run_job(job, prepare=stop_at_first_answer)
    assert stopped.result.outcome == "terminated"
    assert "1 answers are kept" in capfd.readouterr().out
    assert (stopped.output / "draws" / "rank-0.json").is_file()
    assert not (stopped.output / "ghost-attention.jsonl").exists()
    again = run_job(job)
    assert answers(again.output) == answers(whole.output)
    assert not (again.output / "draws").exists()


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"stage": "pretrain"}, "ghostAttention is set; it samples answers from the start model"),
        ({"ghostAttention": {"field": "rule"}}, "exactly one of its instructions and field"),
        ({"ghostAttention": {"instructions": [], "field": "rule"}}, "ghostAttention.field is rule, but no record"),
        (
            {"ghostAttention": {"maxNewTokens": 1}},
            f"none of the {TALKS} records can be learned from; {TALKS} have",
        ),
    ],
)
def test_what_cannot_be_sampled_is_said_in_a_sentence(
    ghost_job: Make, run_job: Callable[..., Any], over: dict[str, Any], said: str
) -> None:
    run = run_job(ghost_job(over))
    assert run.result.failure is not None
    assert said in run.result.failure.message
