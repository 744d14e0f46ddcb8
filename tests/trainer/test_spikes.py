"""Loss spikes: what counts as one, and that training goes back, passes over the data and goes on."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alidade_crds.blocks import SpikeRecovery
from alidade_trainer.failures import JobFailure
from alidade_trainer.spikes import LossSpikeError, Rewind, SpikeWatch, next_rewind, passed_over
from tests.trainer.conftest import Run, kill_after_step

MakeJob = Callable[..., Path]
RunJob = Callable[..., Run]

RECOVERY = {"factor": 3, "window": 5, "skipSteps": 2, "maxRewinds": 2}


def test_a_spike_is_above_the_factor_times_the_median_of_a_full_window() -> None:
    watch = SpikeWatch(SpikeRecovery(factor=2, window=5))
    for step, loss in enumerate([9.0, 2.0, 2.0, 1.0, 2.0], 1):
        watch.see(step, loss, 1.0)
    watch.see(6, 4.0, 1.0)  # not above
    with pytest.raises(
        LossSpikeError, match=r"The loss of step 7 is 4.1, above 4: 2 times the median of the 5 steps before"
    ):
        watch.see(7, 4.1, 1.0)


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan)])
def test_what_is_no_number_is_a_spike_at_once(loss: float, norm: float) -> None:
    with pytest.raises(LossSpikeError, match=r"of step 1 is (nan|inf)"):
        SpikeWatch(SpikeRecovery()).see(1, loss, norm)


def test_the_data_from_the_checkpoint_to_beyond_the_spike_is_passed_over() -> None:
    recovery = SpikeRecovery(skip_steps=10)
    first = next_rewind(LossSpikeError(57, "a"), 50, [], recovery)
    assert passed_over([first], 49) == 0
    assert 50 + passed_over([first], 50) == 57 + 10, "step 51 reads what the 68th would have read"
    second = next_rewind(LossSpikeError(80, "b"), 60, [first], recovery)
    assert passed_over([first, second], 59) == 17
    assert passed_over([first, second], 60) == 17 + 30


def test_there_is_an_end_to_going_back() -> None:
    before = [Rewind(5, 4, 3, "a"), Rewind(6, 4, 3, "b")]
    with pytest.raises(JobFailure, match="has gone back 2 times"):
        next_rewind(LossSpikeError(7, "The loss of step 7 is nan."), 4, before, SpikeRecovery(max_rewinds=2))


def poisoned(at: int) -> Callable[[int], None]:
    """Makes the loss of the step that reads the at-th batch of the shuffled row NaN, on the first process."""

    def prepare(rank: int) -> None:
        import alidade_trainer.loop as loop
        from alidade_trainer.batches import BatchStream

        real, read = loop.summed_loss, [0]
        indices = BatchStream.indices

        def noted(self: Any, step: int) -> list[int]:
            read[0] = step + self._passed_over(step)
            return indices(self, step)

        BatchStream.indices = noted  # type: ignore[method-assign]
        loop.summed_loss = lambda *a, **o: (
            real(*a, **o)
            * (  # type: ignore[assignment]
                math.nan if read[0] == at and rank == 0 and a[0].training else 1.0
            )
        )

    return prepare


@pytest.mark.parametrize(("stage", "processes", "precision"), [(0, 1, "fp32"), (2, 2, "bf16"), (3, 2, "fp32")])
def test_training_goes_back_and_on_as_if_the_data_had_never_been_there(
    make_job: MakeJob, run_job: RunJob, stage: int, processes: int, precision: str
) -> None:
    over = {
        "training": {"spikeRecovery": RECOVERY, "maxSteps": 8, "precision": precision},
        "deepspeed": {"zeroStage": stage},
    }
    run = run_job(make_job(over), prepare=poisoned(at=4), processes=processes)

    assert run.result.outcome == "succeeded", run.result.failure
    said = "The loss of step 5 is nan. Training went back to the checkpoint of step 4"
    assert any(warning.startswith(said) for warning in run.result.warnings)
    assert [line["step"] for line in run.lines if "loss" in line] == list(range(1, 9))
    rewinds = json.loads((run.output / "recovery.json").read_text())
    assert [(one["spike"], one["to"], one["passed_over"]) for one in rewinds] == [(5, 4, 3)]
    # One that knew from the start what to leave out.
    told = make_job(over, output="told")
    (told.parent / "told").mkdir()
    (told.parent / "told" / "recovery.json").write_text((run.output / "recovery.json").read_text())
    assert run_job(told, processes=processes).losses == run.losses


def test_a_spike_before_the_first_checkpoint_starts_again(make_job: MakeJob, run_job: RunJob) -> None:
    over = {"training": {"spikeRecovery": RECOVERY}, "checkpoint": {"everySteps": 100}}
    run = run_job(make_job(over), prepare=poisoned(at=1))
    assert run.result.outcome == "succeeded"
    assert len(run.losses) == 6


def test_an_attempt_after_a_rewind_leaves_out_the_same_data(make_job: MakeJob, run_job: RunJob) -> None:
    over = {"training": {"spikeRecovery": RECOVERY, "maxSteps": 8}}
    whole = run_job(make_job(over, output="whole"), prepare=poisoned(at=2))
    job = make_job(over, output="killed")

    def both(rank: int) -> None:
        poisoned(at=2)(rank)
        kill_after_step(6)(rank)

    run_job(job, prepare=both)
    assert run_job(job, prepare=poisoned(at=2)).losses == whole.losses


def test_data_that_spikes_everywhere_fails_the_job_for_good(make_job: MakeJob, run_job: RunJob) -> None:
    def prepare(_rank: int) -> None:
        import alidade_trainer.loop as loop

        real = loop.summed_loss
        loop.summed_loss = lambda *a, **o: real(*a, **o) * math.nan  # type: ignore[assignment]

    run = run_job(make_job({"training": {"spikeRecovery": RECOVERY}}), prepare=prepare)
    assert run.result.failure is not None
    assert run.result.failure.reason == "LossSpikes"
    assert not run.result.failure.retryable


def test_kernels_that_vary_are_refused_when_asked_to(make_job: MakeJob, run_job: RunJob) -> None:
    def prepare(_rank: int) -> None:
        import torch

        import alidade_trainer.training as training

        real = training.start_deepspeed

        def checked(**options: Any) -> None:
            assert torch.are_deterministic_algorithms_enabled()
            real(**options)

        training.start_deepspeed = checked  # type: ignore[assignment]

    run = run_job(make_job({"training": {"deterministic": True, "maxSteps": 1}}), prepare=prepare)
    assert run.result.outcome == "succeeded", run.result.failure
