"""DPO in processes of its own, on a model whose optimum is known."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alidade_trainer.align.dpo import pairs_of
from alidade_trainer.reward.comparisons import Comparison


def test_what_two_answers_begin_with_in_common_is_their_prompt() -> None:
    one = Comparison([[1, 2, 3, 4], [1, 2, 5], [1, 6]], [(0, 1), (0, 2)], [None, None], key=0)
    first, second = pairs_of([one])
    assert (first.chosen, first.rejected) == (([1, 2], [3, 4]), ([1, 2], [5]))
    assert (second.chosen, second.rejected) == (([1], [2, 3, 4]), ([1], [6]))
    assert len(first) == 4


@pytest.fixture
def dpo_job(align_job: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    records = [
        {"prompt": f"What is number {number}?", "chosen": "Oslo", "rejected": ["red", "Lima", "tin"][number % 3]}
        for number in range(16)
    ]
    records.append(records[0])
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    data = {"uri": f"file://{tmp_path}/pairs.jsonl", "maxLength": 64, "deduplication": {"method": "exact"}}
    step = {"dpo": {"beta": 0.1, "dataset": data}}

    def make(**named: Any) -> Path:
        over = {"training": {"epochs": 6, "learningRate": 0.003, "globalBatchSize": 8}, "alignment": {"rewards": []}}
        return align_job([step], over, **named)

    return make


def test_dpo_learns_the_preference_without_a_reward_and_goes_on_where_it_was_killed(
    dpo_job: Callable[..., Path],
    run_job: Callable[..., Any],
    iterations: Any,
    documented: Callable[[dict[str, float]], None],
) -> None:
    whole = run_job(dpo_job(output="whole"))
    assert whole.result.outcome == "succeeded", whole.result.failure
    documented(whole.result.metrics)
    assert any(said.startswith("DPO: ") and "1 of 17 records are left out" in said for said in whole.result.warnings)
    data = json.loads((whole.output / "model" / "lineage.json").read_text())["alignment"][0]["data"]
    assert data["uri"].endswith("pairs.jsonl")
    assert data["digest"].startswith("sha256:")
    assert data["digest"] in (whole.output / "report.html").read_text()
    rows = iterations(whole.output)
    assert rows[1]["dpoLoss"] == pytest.approx(0.6931, abs=0.06)  # log 2 before anything is learned
    assert rows[-1]["accuracy"] > 0.9
    assert rows[-1]["margin"] > 0.5 > rows[1]["margin"]

    def die(_rank: int) -> None:
        from alidade_trainer.align.run import AlignmentRun

        record = AlignmentRun._record_step

        def record_and_die(self: Any, metrics: Any) -> None:
            record(self, metrics)
            if metrics.step == 5:
                os.kill(os.getpid(), signal.SIGKILL)

        AlignmentRun._record_step = record_and_die  # type: ignore[method-assign]

    job = dpo_job(output="cut")
    assert run_job(job, prepare=die).exit_codes == [-signal.SIGKILL]
    assert run_job(job).lines == whole.lines


def test_the_implicit_reward_is_of_the_whole_answer() -> None:
    """Cutting a common beginning off changes neither loss nor margin: its tokens are as likely in both answers."""
    from alidade_trainer.align.losses import dpo_loss

    common, reference_common = torch.tensor([-3.0]), torch.tensor([-2.0])
    chosen, rejected, ref_chosen, ref_rejected = (torch.tensor([value]) for value in (-1.0, -4.0, -2.0, -2.5))
    short = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=0.1)
    whole = dpo_loss(
        chosen + common, rejected + common, ref_chosen + reference_common, ref_rejected + reference_common, beta=0.1
    )
    torch.testing.assert_close(short.loss, whole.loss)
