"""Alignments that are killed, stopped, or spread over processes."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RAFT = {"raft": {"iterations": 2, "promptsPerIteration": 8, "samplesPerPrompt": 4, "klCoefficient": 0.01}}
PPO = {
    "ppo": {
        "iterations": 2,
        "rolloutBatchSize": 16,
        "miniBatchSize": 8,
        "epochs": 2,
        "kl": {"coefficient": 0.05, "target": 1.0},
    }
}
FREE = {"alignment": {"guardrails": {"minDiversityRatio": 0, "minLengthRatio": 0}}}
Prepare = Callable[[int], None]


def kill_at_step(step: int) -> Prepare:
    """The first process dies as by a power cut when so many optimizer steps are recorded."""

    def prepare(rank: int) -> None:
        from alidade_trainer.align.run import AlignmentRun

        record = AlignmentRun._record_step

        def record_and_die(self: Any, metrics: Any) -> None:
            record(self, metrics)
            if metrics.step == step:
                os.kill(os.getpid(), signal.SIGKILL)

        AlignmentRun._record_step = record_and_die  # type: ignore[method-assign]

    return prepare


def stop_while_sampling(iteration: int) -> Prepare:
    """SIGTERM arrives when the samples of one iteration begin to come."""

    def prepare(rank: int) -> None:
        from alidade_trainer.align.sampling import PolicySampler

        draw = PolicySampler.draw

        def draw_and_stop(self: Any, *arguments: Any, **named: Any) -> Any:
            if (named.get("name") or "").endswith(f"-{iteration}"):
                os.kill(os.getpid(), signal.SIGTERM)
            return draw(self, *arguments, **named)

        PolicySampler.draw = draw_and_stop  # type: ignore[method-assign]

    return prepare


def test_a_chain_killed_and_stopped_ends_with_the_metrics_of_one_that_was_not(
    align_job: Callable[..., Path], run_job: Callable[..., Any]
) -> None:
    """RAFT, then PPO with an adaptive coefficient: killed within the training of either, stopped while sampling."""
    whole = run_job(align_job([RAFT, PPO], FREE, output="whole"))
    assert whole.result.outcome == "succeeded", whole.result.failure
    job = align_job([RAFT, PPO], FREE, output="cut")
    assert run_job(job, prepare=kill_at_step(2)).exit_codes == [-signal.SIGKILL]
    stopped = run_job(job, prepare=stop_while_sampling(1))
    assert stopped.result.outcome == "terminated"
    assert run_job(job, prepare=kill_at_step(5)).exit_codes == [-signal.SIGKILL]
    again = run_job(job)
    assert again.result.outcome == "succeeded", again.result.failure
    assert again.lines == whole.lines
    assert again.result.model is not None
    assert again.result.model.digest == whole.result.model.digest
    assert not (again.output / "draws").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("step", "killed_at"), [(RAFT, 2), (PPO, 5)], ids=["raft", "ppo"])
def test_two_processes_under_zero_2_and_3_do_what_one_does_also_when_one_goes_on_with_it(
    align_job: Callable[..., Path], run_job: Callable[..., Any], iterations: Any, step: dict[str, Any], killed_at: int
) -> None:
    alone = iterations(run_job(align_job([step], FREE, output="alone")).output)
    for stage in (2, 3):
        over = {**FREE, "deepspeed": {"zeroStage": stage}}
        job = align_job([step], over, output=f"zero{stage}")
        if stage == 2:
            run_job(job, processes=2, prepare=kill_at_step(killed_at))
            assert (job.with_suffix("") / "checkpoints").is_dir()
        run = run_job(job, processes=1 if stage == 2 else 2)
        assert run.result.outcome == "succeeded", run.result.failure
        rows = iterations(run.output)
        assert rows[:2] == [pytest.approx(row, rel=2e-2, abs=2e-3) for row in alone[:2]]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("step", [RAFT, PPO], ids=["raft", "ppo"])
def test_lora_aligns_its_additions_and_the_merged_model_comes_out(
    align_job: Callable[..., Path], run_job: Callable[..., Any], iterations: Any, step: dict[str, Any]
) -> None:
    defaults = {"precision": "bf16", "gradientCheckpointing": True, "microBatchSize": "auto"}
    over = {**FREE, "adapter": {"type": "lora", "rank": 4}, "training": defaults, "deepspeed": {"zeroStage": 2}}
    run = run_job(align_job([step], over))
    assert run.result.outcome == "succeeded", run.result.failure
    assert run.result.model.trainable_parameters < run.result.model.parameters / 2
    assert iterations(run.output)[0]["evalKl"] == pytest.approx(0.0, abs=1e-4)
    assert iterations(run.output)[-1]["evalKl"] != 0.0
    assert (run.output / "adapter" / "adapter_model.safetensors").is_file()
