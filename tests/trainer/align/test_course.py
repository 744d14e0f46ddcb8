"""What an alignment's result says of its start, of each of its steps, and of its end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alidade_crds.contract import TERMINATION_MESSAGE_LIMIT
from alidade_engine.digests import model_digest
from alidade_trainer.align.course import course_of, measures_of

PREFERENCES = {"uri": "pvc://d/preferences.jsonl", "digest": "sha256:aa"}


def line(index: int, iteration: int, step: int, **metrics: float) -> dict[str, Any]:
    return {"step_index": index, "iteration": iteration, "step": step, "metrics": metrics}


LINES = [
    line(0, 0, 0, evalReward=0.1, perplexity=9.0),
    line(0, 1, 4, reward=0.2),
    line(0, 2, 8, reward=0.4, evalReward=0.5, perplexity=8.0),
    line(1, 0, 8, evalReward=0.5, perplexity=8.0),
    line(1, 1, 11, dpoLoss=0.6, evalReward=0.6, perplexity=7.0),
    line(1, 2, 14, dpoLoss=0.5, evalReward=0.9, perplexity=99.0),
]


def test_each_step_is_told_from_its_start_to_the_last_iteration_that_counts() -> None:
    raft, dpo = course_of(LINES, ["1-raft", "2-dpo"], iterations=1, preferences={1: PREFERENCES})
    assert raft == {
        "step": "1-raft",
        "iterations": 2,
        "optimizerSteps": 8,
        "start": {"evalReward": 0.1, "perplexity": 9.0},
        "metrics": {"reward": 0.4, "evalReward": 0.5, "perplexity": 8.0},
    }
    assert (dpo["iterations"], dpo["optimizerSteps"], dpo["data"]) == (1, 3, PREFERENCES)
    assert dpo["metrics"] == {"dpoLoss": 0.6, "evalReward": 0.6, "perplexity": 7.0}


def test_the_measures_name_the_start_and_each_step_before_the_last() -> None:
    course = course_of(LINES, ["1-raft", "2-dpo"], iterations=1, preferences={1: PREFERENCES})
    assert measures_of(course) == {
        "evalRewardAtStart": 0.1,
        "perplexityAtStart": 9.0,
        "1-raft.evalReward": 0.5,
        "1-raft.perplexity": 8.0,
        "dpoLoss": 0.6,
        "evalReward": 0.6,
        "perplexity": 7.0,
    }
    assert measures_of(course_of(LINES[:1], ["1-raft"], iterations=0, preferences={})) == {
        "evalRewardAtStart": 0.1,
        "perplexityAtStart": 9.0,
        "evalReward": 0.1,
        "perplexity": 9.0,
    }


def test_a_chain_ends_with_what_it_started_from_and_every_step_in_result_lineage_and_report(
    align_job: Callable[..., Path],
    run_job: Callable[..., Any],
    guessing_model: Path,
    documented: Callable[[dict[str, float]], None],
) -> None:
    steps = [
        {"raft": {"iterations": 2, "promptsPerIteration": 16, "samplesPerPrompt": 4, "klCoefficient": 0.01}},
        {"ppo": {"iterations": 1, "rolloutBatchSize": 16, "miniBatchSize": 8}},
    ]
    rails = {"minDiversityRatio": 0, "minLengthRatio": 0}
    run = run_job(align_job(steps, {"alignment": {"guardrails": rails}}))
    assert run.result.outcome == "succeeded", run.result.failure
    metrics = run.result.metrics
    for measure in ("evalReward", "heldOut", "perplexity", "evalKl", "distinct2", "evalLength"):
        assert {f"{measure}AtStart", f"1-raft.{measure}", measure} <= metrics.keys()
    assert metrics["evalKlAtStart"] == 0
    documented(metrics)
    assert len(run.result.to_termination_message().encode()) < TERMINATION_MESSAGE_LIMIT / 2
    lineage = json.loads((run.output / "model" / "lineage.json").read_text())
    assert [(entry["step"], entry["iterations"]) for entry in lineage["alignment"]] == [("1-raft", 2), ("2-ppo", 1)]
    assert lineage["alignment"][0]["start"]["evalReward"] == metrics["evalRewardAtStart"]
    assert lineage["alignment"][1]["metrics"]["valueLoss"] == metrics["valueLoss"]
    assert sum(entry["optimizerSteps"] for entry in lineage["alignment"]) == lineage["steps"] == run.result.step
    digest = model_digest(guessing_model)
    assert lineage["parents"] == [{"role": "base", "uri": f"file://{guessing_model}", "digest": digest}]
    assert lineage["base"]["digest"] == digest
    assert lineage["seed"] == 3
    page = (run.output / "report.html").read_text()
    before, after = metrics["evalRewardAtStart"], metrics["evalReward"]
    assert f"<b>{before:.3g} → {after:.3g}</b><span>Reward, held-out prompts</span>" in page
    for shown in (
        "<h2>1-raft</h2>",
        "<h2>2-ppo</h2>",
        "<th>Before</th><th>After</th>",
        digest,
        "alignment.steps[1].ppo",
    ):
        assert shown in page
