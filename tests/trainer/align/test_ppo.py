"""PPO in processes of its own, on a model whose optimum is known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
        "training": {"learningRate": 0.003, "microBatchSize": 32},
        "alignment": {"guardrails": {"minDiversityRatio": 0}},
    }
    run = run_job(align_job([{"ppo": PPO}], over))
    assert run.result.outcome == "succeeded", run.result.failure
    rows = iterations(run.output)
    assert rows[0]["evalReward"] < 0.5
    first = rows[1]
    assert first["reward"] < 0.4
    assert rows[-1]["reward"] > 0.8
    assert first["kl"] == pytest.approx(0.0, abs=1e-4)  # nothing has been learned yet
    assert first["firstRatio"] == pytest.approx(1.0, abs=1e-4)
    assert 0 <= first["clipFraction"] < 0.5
    assert rows[-1]["kl"] > first["kl"]
    assert rows[-1]["entropy"] < first["entropy"]
