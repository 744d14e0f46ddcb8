"""RAFT in processes of its own, on a model whose optimum is known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RAFT = {"iterations": 4, "promptsPerIteration": 16, "samplesPerPrompt": 6, "temperature": 1.0, "epochsPerIteration": 2}


def test_raft_reaches_the_known_optimum(
    align_job: Callable[..., Path],
    run_job: Callable[..., Any],
    iterations: Callable[[Path], list[dict[str, float]]],
    documented: Callable[[dict[str, float]], None],
) -> None:
    run = run_job(align_job([{"raft": RAFT}]))
    assert run.result.outcome == "succeeded", run.result.failure
    documented(run.result.metrics)
    rows = iterations(run.output)
    assert rows[0]["evalReward"] < 0.5
    assert rows[1]["reward"] < 0.4
    assert rows[-1]["reward"] > 0.85
    assert rows[-1]["evalReward"] > rows[0]["evalReward"]
    assert rows[-1]["heldOut"] > rows[0]["heldOut"]  # greedy answers to held-out prompts that are those of the data
    assert rows[1]["acceptance"] == pytest.approx(1 / 6)
    assert run.result.metrics["evalReward"] == rows[-1]["evalReward"]
    assert run.result.metrics["evalRewardAtStart"] == rows[0]["evalReward"]
    page = (run.output / "report.html").read_text()
    assert "<h2>1-raft</h2>" in page
    assert "<th>Before</th>" in page
