"""Guard rails in whole runs: what is stopped, and which model is kept."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

STEADY = {"promptsPerIteration": 16, "samplesPerPrompt": 6, "temperature": 1.0}


def test_a_step_that_goes_too_far_ends_with_the_model_of_its_newest_sound_iteration(
    align_job: Callable[..., Path], run_job: Callable[..., Any], iterations: Any
) -> None:
    slow = {"training": {"learningRate": 0.0015}, "alignment": {"guardrails": {"klCeiling": 1000}}}
    free = run_job(align_job([{"raft": {"iterations": 5, **STEADY}}], slow, output="free"))
    distances = [row["evalKl"] for row in iterations(free.output)]
    # A ceiling just below the last iteration that was farther away than all before it: that one trips.
    trips = max(number for number in range(2, 6) if distances[number] > max(distances[:number]))
    ceiling = (max(distances[:trips]) + distances[trips]) / 2
    over = {**slow, "alignment": {"guardrails": {"klCeiling": ceiling}}}
    stopped = run_job(align_job([{"raft": {"iterations": 5, **STEADY}}], over, output="stopped"))
    assert stopped.result.outcome == "succeeded", stopped.result.failure
    assert stopped.result.stopped.reason == "KlCeiling"
    assert f"the model is that of iteration {trips - 1}, the newest sound one" in stopped.result.stopped.message
    assert stopped.result.metrics["iterations"] == trips - 1
    assert stopped.result.metrics["evalKl"] == distances[trips - 1]
    short = run_job(align_job([{"raft": {"iterations": trips - 1, **STEADY}}], over, output="short"))
    assert short.result.stopped is None
    assert stopped.result.model.digest == short.result.model.digest


def test_a_first_iteration_that_trips_leaves_no_model(
    align_job: Callable[..., Path], run_job: Callable[..., Any]
) -> None:
    over = {"alignment": {"guardrails": {"klCeiling": 1e-6}}}
    run = run_job(align_job([{"raft": {"iterations": 3, **STEADY}}], over))
    assert run.result.outcome == "failed"
    assert run.result.failure.reason == "KlCeiling"
    assert "No iteration was sound" in run.result.failure.message
    assert not (run.output / "model").exists()


@pytest.fixture
def flawed_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A reward that likes the right answer and likes a wrong one better."""
    (tmp_path / "flawed_rewards.py").write_text(
        "def judge(prompts, answers, references):\n"
        "    return [2.0 if a == 'tin' else 1.0 if a == r else 0.0 for a, r in zip(answers, references)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "flawed_rewards:judge"
    sys.modules.pop("flawed_rewards", None)


def test_a_policy_that_exploits_a_flawed_reward_is_stopped_by_the_score_that_is_not_trained_on(
    align_job: Callable[..., Path], run_job: Callable[..., Any], iterations: Any, flawed_reward: str
) -> None:
    """The case of Gao et al. 2022 in small: the reward rises while exact match on held-out prompts falls."""
    good = run_job(align_job([{"raft": {"iterations": 4, "epochsPerIteration": 2, **STEADY}}], output="good"))
    over = {
        "model": {"uri": f"file://{good.output}/model"},
        "alignment": {
            "rewards": [{"name": "flawed", "entryPoint": flawed_reward}],
            "guardrails": {"minDiversityRatio": 0, "overOptimization": {"tolerance": 0.3, "patience": 1}},
        },
        "training": {"learningRate": 0.003},
    }
    greedy = {"iterations": 12, "promptsPerIteration": 32, "samplesPerPrompt": 12, "temperature": 1.5}
    raft = {**greedy, "acceptance": "globalTop", "acceptanceRatio": 0.05}
    run = run_job(align_job([{"raft": raft}], over, output="flawed"))
    rows = iterations(run.output)
    verdict = run.result.stopped or run.result.failure
    assert verdict is not None, rows
    assert verdict.reason == "RewardOverOptimized", verdict.message
    assert "exact_match on held-out prompts fell from" in verdict.message
    assert rows[-1]["evalReward"] > rows[0]["evalReward"]
    assert rows[-1]["heldOut"] < rows[0]["heldOut"] - 0.3
    assert len(rows) < 13


def test_a_stop_is_remembered_by_an_attempt_that_comes_after_it(
    align_job: Callable[..., Path], run_job: Callable[..., Any]
) -> None:
    """Killed between the verdict and the export, the next attempt exports and does not train on."""

    def die_before_export(_rank: int) -> None:
        from alidade_trainer.align.run import AlignmentRun

        AlignmentRun._finish = lambda *_: os._exit(9)  # type: ignore[assignment, method-assign]

    step = {"ppo": {"iterations": 9, "rolloutBatchSize": 16, "miniBatchSize": 16, "epochs": 4, "stopAtKl": 0.05}}
    over = {"alignment": {"guardrails": {"minDiversityRatio": 0, "minLengthRatio": 0}}}
    job = align_job([step], over)
    assert run_job(job, prepare=die_before_export).exit_codes == [9]
    metrics = Path(json.loads(job.read_text())["output"].removeprefix("file://")) / "metrics.jsonl"
    lines = metrics.read_text()
    run = run_job(job)
    assert run.result.outcome == "succeeded", run.result.failure
    assert metrics.read_text() == lines
    assert run.result.metrics["iterations"] < 9
