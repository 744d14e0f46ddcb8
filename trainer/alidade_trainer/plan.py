"""The course of a training, decided before it starts: steps, accumulation, learning rate. Pure functions."""

import math
from dataclasses import dataclass

from alidade_crds.blocks import Schedule, Training
from alidade_crds.reasons import FailureReason
from alidade_trainer.failures import JobFailure


@dataclass(frozen=True)
class TrainingPlan:
    """How many sequences go where. A step reads the next `global_batch_size` sequences of the shuffled, endless "
    "dataset."""

    sequences: int
    """Sequences of the training data."""
    global_batch_size: int
    """Sequences per optimizer step over all processes."""
    micro_batch_size: int
    """Sequences per forward pass and process."""
    accumulation: int
    """Forward and backward passes per process and step."""
    total_steps: int
    warmup_steps: int
    evaluate_every_steps: int
    """Steps between two evaluations on held-out data."""

    def epoch_at(self, step: int) -> float:
        """Passes over the dataset done after so many steps."""
        return step * self.global_batch_size / self.sequences


def plan_training(training: Training, *, sequences: int, processes: int, micro_batch_size: int) -> TrainingPlan:
    """The plan for a dataset of so many sequences.

    Raises JobFailure (ConfigInvalid) when the batch sizes do not divide evenly.
    """
    share = share_of_process(training, processes)
    if share % micro_batch_size:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"training.globalBatchSize is {training.global_batch_size}, which is {share} sequences for each of "
            f"{processes} "
            f"processes; training.microBatchSize is {micro_batch_size} and must divide that. Use "
            f"{largest_divisor(share, micro_batch_size)}.",
        )
    total_steps = max(1, math.ceil(training.epochs * sequences / training.global_batch_size))
    if training.max_steps is not None:
        total_steps = min(total_steps, training.max_steps)
    return TrainingPlan(
        sequences=sequences,
        global_batch_size=training.global_batch_size,
        micro_batch_size=micro_batch_size,
        accumulation=share // micro_batch_size,
        total_steps=total_steps,
        warmup_steps=math.ceil(training.warmup_ratio * total_steps),
        evaluate_every_steps=training.evaluate_every_steps or max(1, math.ceil(sequences / training.global_batch_size)),
    )


def share_of_process(training: Training, processes: int) -> int:
    """Sequences of a step for each process. Raises JobFailure (ConfigInvalid) when they do not divide evenly."""
    share, rest = divmod(training.global_batch_size, processes)
    if rest:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"training.globalBatchSize is {training.global_batch_size}; it must be a multiple of the {processes} "
            "training "
            f"processes, such as {max(1, round(training.global_batch_size / processes)) * processes}.",
        )
    return share


def largest_divisor(share: int, wish: int) -> int:
    """The largest divisor of share that is not above the wish."""
    return next(size for size in range(min(wish, share), 0, -1) if share % size == 0)


def largest_power_of_two(share: int, limit: float) -> int:
    """The largest power of two that divides share and is not above limit; at least 1."""
    size = 1
    while share % (size * 2) == 0 and size * 2 <= limit:
        size *= 2
    return size


def learning_rate_at(step: int, training: Training, plan: TrainingPlan) -> float:
    """The learning rate of one step, counted from 0.

    It rises linearly over the warm-up and reaches the peak with its last step; then stays, falls linearly to 0, or
    along half a cosine (Loshchilov & Hutter 2017) to 0, which the step after the last would have.
    """
    if step < plan.warmup_steps:
        return training.learning_rate * (step + 1) / plan.warmup_steps
    done = (step - plan.warmup_steps) / max(1, plan.total_steps - plan.warmup_steps)
    match training.schedule:
        case Schedule.CONSTANT:
            return training.learning_rate
        case Schedule.LINEAR:
            return training.learning_rate * (1 - done)
        case Schedule.COSINE:
            return training.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
