"""The training loop: steps until the plan is done, a stop is asked for, or patience is over."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import deepspeed
import torch
from torch import Tensor

from alidade_crds.blocks import Training
from alidade_crds.reasons import FailureReason
from alidade_trainer.batches import BatchStream, MicroBatch
from alidade_trainer.failures import JobFailure
from alidade_trainer.loss import LossTally, summed_loss
from alidade_trainer.noise import PassNorms, noise_estimates
from alidade_trainer.peers import Peers
from alidade_trainer.plan import TrainingPlan, learning_rate_at
from alidade_trainer.progress import StepMetrics
from alidade_trainer.spikes import SpikeWatch
from alidade_trainer.zero import take_step


class LoopEnd(StrEnum):
    """Why the loop ended."""

    DONE = "done"
    STOP_REQUESTED = "stop requested"
    PATIENCE_OVER = "patience over"


@dataclass(frozen=True)
class AfterStep:
    """What happens between two steps, each on every process."""

    record: Callable[[StepMetrics], None]
    evaluate: Callable[[int], bool]
    """Measures the loss on held-out data after so many steps; tells whether patience is over."""
    save: Callable[[int], None]
    """Writes a checkpoint."""


@dataclass(frozen=True)
class TrainingLoop:
    """Trains one engine along one plan."""

    engine: deepspeed.DeepSpeedEngine
    training: Training
    plan: TrainingPlan
    stream: BatchStream
    peers: Peers
    checkpoint_every_steps: int
    selects_positions: bool
    """Whether the model can leave out logits that no loss needs."""
    norms: PassNorms | None
    """Sees the gradient of each pass, where a step has several."""
    watch: SpikeWatch | None = None
    """Notices loss spikes."""
    tally: LossTally | None = None
    """Counts the loss of each dataset, where there are several."""

    def run(self, start: int, after: AfterStep, stop_requested: Callable[[], bool]) -> LoopEnd:
        """Trains from so many steps done to the end. A checkpoint is written at the end, too, unless start was the end.

        Raises LossSpikeError where one is watched for; the engine's weights and states are of no use then.
        """
        for step in range(start, self.plan.total_steps):
            metrics, stop = self._step(step, stop_requested)
            after.record(metrics)
            done = metrics.step
            is_last = done == self.plan.total_steps
            impatient = (is_last or done % self.plan.evaluate_every_steps == 0) and after.evaluate(done)
            ends = is_last or impatient or stop
            if ends or done % self.checkpoint_every_steps == 0:
                after.save(done)
            if impatient:
                return LoopEnd.PATIENCE_OVER
            if stop and not is_last:
                return LoopEnd.STOP_REQUESTED
        return LoopEnd.DONE

    def _step(self, step: int, stop_requested: Callable[[], bool]) -> tuple[StepMetrics, bool]:
        """One optimizer step, counted from 0; also whether any process was asked to stop."""
        started = time.monotonic()
        # Dropout and noise depend on the step alone, so an attempt that resumes here draws the same.
        torch.manual_seed(step_seed(self.training.seed, step, self.peers.rank))
        self.engine.train()
        batches = self.stream.step(step)
        learned, tokens = self.peers.sums(
            [sum(batch.learned for batch in batches), sum(batch.tokens for batch in batches)]
        )
        loss_sum, weighted_norms = self._backward(batches, learned)
        passes = sum(batch.learned > 0 for batch in batches)
        by_dataset = self.tally.sums() if self.tally is not None else []
        total, weighted, all_passes, stops, *by_dataset = self.peers.sums(
            [loss_sum, weighted_norms, passes, float(stop_requested()), *by_dataset]
        )
        loss = total / max(learned, 1)
        if self.watch is None:
            refuse_not_finite(loss, "loss", step + 1)
        learning_rate = learning_rate_at(step, self.training, self.plan)
        grad_norm = take_step(self.engine, learning_rate)
        if self.watch is None:
            refuse_not_finite(grad_norm, "norm of the gradient", step + 1)
        else:
            self.watch.see(step + 1, loss, grad_norm)
        noise = noise_estimates(
            weighted_norms=weighted,
            passes=int(all_passes),
            learned=learned,
            grad_norm=grad_norm,
            global_batch_size=self.plan.global_batch_size,
        )
        metrics = StepMetrics(
            step=step + 1,
            epoch=self.plan.epoch_at(step + 1),
            loss=loss,
            learning_rate=learning_rate,
            grad_norm=grad_norm,
            tokens=int(tokens),
            seconds=time.monotonic() - started,
            losses=self.tally.means(by_dataset) if self.tally is not None else {},
            gradient_variance=noise[0] if noise else None,
            gradient_signal=noise[1] if noise else None,
        )
        return metrics, stops > 0

    def _backward(self, batches: list[MicroBatch], learned: float) -> tuple[float, float]:
        """Adds up the step's gradients.

        Returns this process's sum of token losses, and the squared norms of its passes' mean gradients, each times the
        tokens that it is the mean of, 0 where none are taken. learned: the step's learned tokens over all processes.
        """
        # DeepSpeed averages gradients over the processes; the factor makes of that average the sum it has to be.
        scale = self.peers.count / max(learned, 1)
        sums = torch.zeros(2, dtype=torch.float32, device=self.peers.device)
        if self.tally is not None:
            self.tally.start()
        for number, batch in enumerate(batches, 1):
            self.engine.set_gradient_accumulation_boundary(number == len(batches))
            tensors = {name: tensor.to(self.peers.device) for name, tensor in batch.tensors.items()}
            loss = self._summed_loss(tensors)
            self.engine.backward(loss * scale, scale_wrt_gas=False)
            sums[0] += loss.detach()
            if self.norms is not None:
                sums[1] += self.norms.squared() / (scale**2 * max(batch.learned, 1))
        loss_sum, weighted_norms = sums.tolist()
        return loss_sum, weighted_norms

    def _summed_loss(self, tensors: dict[str, Tensor]) -> Tensor:
        """The sum of what a batch teaches, a scalar; the loop divides it by the step's learned tokens."""
        return summed_loss(self.engine, tensors, selects_positions=self.selects_positions, tally=self.tally)


def step_seed(seed: int, step: int, rank: int) -> int:
    """A seed of 64 bits for one process in one step; neighbours share nothing (SplitMix64, Steele et al. 2014)."""
    mixed = (seed + 0x9E3779B97F4A7C15 * (step * 65536 + rank + 1)) % 2**64
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
    return mixed ^ (mixed >> 31)


def refuse_not_finite(value: float, name: str, step: int) -> None:
    """Raises JobFailure (LossNotFinite) for NaN and infinity, before weights that would carry it are saved."""
    if not math.isfinite(value):
        raise JobFailure(
            FailureReason.LOSS_NOT_FINITE,
            f"The {name} is {value} in step {step}; training has diverged. Lower training.learningRate, raise "
            "training.warmupRatio, or look for broken records near that step; the newest checkpoint is from before it.",
        )


@dataclass(frozen=True)
class HeldOutLoss:
    """The loss on held-out data."""

    loss: float
    """Mean over all learned tokens, in nats per token; of a reward model over prompts."""
    losses: dict[str, float] = field(default_factory=dict)
    """The same of each dataset, by its name, where several are told apart."""


def evaluation_loss(
    engine: deepspeed.DeepSpeedEngine,
    batches: Iterable[MicroBatch],
    peers: Peers,
    *,
    selects_positions: bool,
    tally: LossTally | None = None,
) -> HeldOutLoss:
    """The loss on held-out data over all processes, which each bring their own batches.

    tally: new, of the datasets that are told apart.
    """
    engine.eval()
    loss_sum = torch.zeros((), dtype=torch.float64, device=peers.device)
    mine = 0
    with torch.no_grad():
        for batch in batches:
            mine += batch.learned
            tensors = {name: tensor.to(peers.device) for name, tensor in batch.tensors.items()}
            loss_sum += summed_loss(engine, tensors, selects_positions=selects_positions, tally=tally)
    total, learned, *by_dataset = peers.sums([float(loss_sum), mine, *(tally.sums() if tally is not None else [])])
    return HeldOutLoss(total / max(learned, 1), tally.means(by_dataset) if tally is not None else {})
