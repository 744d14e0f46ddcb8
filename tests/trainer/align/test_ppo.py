"""PPO in processes of its own, on a model whose optimum is known."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alidade_engine.reward.network import load_classifier
from alidade_engine.tokenization import load_tokenizer
from alidade_trainer.reward.heads import init_head

PPO = {
    "iterations": 5,
    "rolloutBatchSize": 64,
    "miniBatchSize": 32,
    "epochs": 4,
    "kl": {"coefficient": 0.01},
    "missingEosPenalty": 1.0,
}
Iterations = Callable[[Path], list[dict[str, float]]]


def test_ppo_reaches_the_known_optimum(
    align_job: Callable[..., Path], run_job: Callable[..., Any], iterations: Iterations
) -> None:
    over = {
        "training": {"learningRate": 0.001, "microBatchSize": 32},
        "alignment": {"guardrails": {"minDiversityRatio": 0}},
    }
    run = run_job(align_job([{"ppo": {**PPO, "iterations": 8}}], over))
    assert run.result.outcome == "succeeded", run.result.failure
    rows = iterations(run.output)
    assert rows[0]["evalReward"] < 0.5
    first = rows[1]
    assert first["reward"] < 0.4
    assert rows[-1]["reward"] > 0.85
    assert first["kl"] == pytest.approx(0.0, abs=1e-4)  # nothing has been learned yet
    assert first["firstRatio"] == pytest.approx(1.0, abs=1e-4)
    assert 0 <= first["clipFraction"] < 0.5
    assert rows[-1]["kl"] > first["kl"]
    assert rows[-1]["entropy"] < first["entropy"]


def test_the_critic_starts_from_a_reward_model_that_reads_the_same_tokens(
    align_job: Callable[..., Path],
    run_job: Callable[..., Any],
    iterations: Iterations,
    guessing_model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    child = multiprocessing.get_context("fork").Process(
        target=_write_reward_model, args=(guessing_model, tmp_path / "rm")
    )
    child.start()
    child.join()
    assert child.exitcode == 0
    rewards = [{"name": "learned", "uri": f"file://{tmp_path}/rm"}]
    step = {"ppo": {**PPO, "iterations": 1, "rolloutBatchSize": 16, "miniBatchSize": 16, "epochs": 1}}
    run = run_job(align_job([step], {"alignment": {"rewards": rewards}}))
    assert run.result.outcome == "succeeded", run.result.failure
    assert "The critic starts from the reward model learned." in capfd.readouterr().out
    assert iterations(run.output)[1]["reward"] != 0


def _write_reward_model(base: Path, folder: Path) -> None:
    torch.manual_seed(0)
    load_classifier(base, dtype=torch.float32, new_head=init_head).save_pretrained(folder)
    load_tokenizer(base).save_pretrained(folder)
