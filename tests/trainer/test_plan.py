"""Steps, accumulation and learning rates, worked by hand."""

import pytest

from alidade_crds.blocks import Training
from alidade_trainer.failures import JobFailure
from alidade_trainer.plan import largest_divisor, largest_power_of_two, learning_rate_at, plan_training


def test_a_global_batch_is_shared_out_to_processes_and_passes() -> None:
    plan = plan_training(Training(epochs=2, global_batch_size=64), sequences=1000, processes=4, micro_batch_size=2)

    assert plan.accumulation == 8  # 64 sequences, 16 for each process, 2 at a time
    assert plan.total_steps == 32  # 2 x 1000 / 64 = 31.25
    assert plan.evaluate_every_steps == 16  # once per epoch: 1000 / 64 = 15.6
    assert plan.epoch_at(32) == pytest.approx(2.048)


def test_max_steps_ends_before_the_epochs_do() -> None:
    training = Training(epochs=2, max_steps=5, global_batch_size=4)

    assert plan_training(training, sequences=100, processes=1, micro_batch_size=4).total_steps == 5


def test_a_dataset_smaller_than_one_batch_still_makes_a_step() -> None:
    training = Training(epochs=1, global_batch_size=64)

    assert plan_training(training, sequences=3, processes=1, micro_batch_size=64).total_steps == 1


@pytest.mark.parametrize(
    ("batch", "processes", "micro", "message"),
    [
        (10, 4, 1, "training.globalBatchSize is 10; it must be a multiple of the 4 training processes, such as 8."),
        (
            24,
            2,
            5,
            "which is 12 sequences for each of 2 processes; training.microBatchSize is 5 and must divide that. ",
        ),
        (24, 2, 5, "Use 4."),
    ],
)
def test_batches_that_do_not_divide_are_refused_with_numbers_that_do(
    batch: int, processes: int, micro: int, message: str
) -> None:
    with pytest.raises(JobFailure) as refused:
        plan_training(Training(global_batch_size=batch), sequences=100, processes=processes, micro_batch_size=micro)

    assert message in refused.value.message


@pytest.mark.parametrize(("share", "limit", "expected"), [(64, 10, 8), (12, 100, 4), (7, 100, 1), (8, 0.5, 1)])
def test_an_automatic_micro_batch_is_a_power_of_two_that_divides_the_share(
    share: int, limit: float, expected: int
) -> None:
    assert largest_power_of_two(share, limit) == expected


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        # Ten steps, two of them warm-up; the other eight fall from the peak, which they start with.
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.875, 0.5, 0.125]),
        ("cosine", [0.5, 1.0, 1.0, 0.9619397662556434, 0.5, 0.03806023374435663]),
    ],
)
def test_the_learning_rate_rises_to_its_peak_and_falls_as_scheduled(schedule: str, rates: list[float]) -> None:
    training = Training(
        epochs=1,
        global_batch_size=1,
        learning_rate=1.0,
        warmup_ratio=0.2,
        schedule=schedule,  # type: ignore[arg-type]
    )
    plan = plan_training(training, sequences=10, processes=1, micro_batch_size=1)

    assert [learning_rate_at(step, training, plan) for step in (0, 1, 2, 3, 6, 9)] == pytest.approx(rates)


def test_the_largest_divisor_is_not_above_the_wish() -> None:
    assert [largest_divisor(12, wish) for wish in (1, 5, 8, 12, 40)] == [1, 4, 6, 12, 12]
