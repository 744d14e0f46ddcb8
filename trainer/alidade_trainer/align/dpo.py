"""DPO: preferences without a reward model and without sampling (Rafailov et al. 2023)."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from alidade_crds.alignmentrun import DpoStep
from alidade_crds.reasons import FailureReason
from alidade_trainer.align.answers import narrow_batch
from alidade_trainer.align.iterations import Iteration, IterationResult
from alidade_trainer.align.losses import DpoLoss, dpo_loss
from alidade_trainer.align.policy import Policy, Row
from alidade_trainer.align.prompts import drawn_prompts
from alidade_trainer.dealing import Group, dealt
from alidade_trainer.failures import JobFailure
from alidade_trainer.loop import step_seed
from alidade_trainer.progress import StepMetrics
from alidade_trainer.reward.comparisons import Comparison

MEASURES = ("dpoLoss", "accuracy", "margin", "chosenReward", "rejectedReward")
"""Metrics of an iteration: means over its pairs."""
PARTS = 10
"""Iterations that a step is cut into: so often it is evaluated, and there it can be resumed."""


@dataclass(frozen=True)
class Pair:
    """Chosen and rejected answer to one prompt."""

    chosen: Row
    rejected: Row

    def __len__(self) -> int:
        return max(len(prompt) + len(answer) for prompt, answer in (self.chosen, self.rejected))


def pairs_of(comparisons: Sequence[Comparison]) -> list[Pair]:
    """All ranked pairs; what two answers begin with in common counts as their prompt.

    The loss knows only differences between the two, to which tokens that both have, after the same tokens, add nothing.
    """
    pairs = []
    for comparison in comparisons:
        for better, worse in comparison.pairs:
            one, other = comparison.answers[better], comparison.answers[worse]
            cut = next(place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
            pairs.append(Pair((one[:cut], one[cut:]), (other[:cut], other[cut:])))
    return pairs


@dataclass
class Dpo:
    """One DPO step of an alignment; reference: what the start model said of each pair, part of a checkpoint."""

    spec: DpoStep
    policy: Policy
    pairs: Sequence[Pair]
    data_digest: str
    epochs: float
    global_batch_size: int
    seed: int
    reference: list[tuple[float, float]] = field(default_factory=list)

    @property
    def _bounds(self) -> list[int]:
        """Optimizer steps at which iterations begin and end."""
        total = max(1, math.ceil(self.epochs * len(self.pairs) / self.global_batch_size))
        parts = min(PARTS, total)
        return [total * part // parts for part in range(parts + 1)]

    @property
    def iterations(self) -> int:
        """In all."""
        return len(self._bounds) - 1

    @property
    def steps_per_iteration(self) -> int:
        """Optimizer steps of an iteration."""
        return math.ceil(self._bounds[-1] / self.iterations)

    def state(self) -> dict[str, Any]:
        """For a checkpoint, beside the engine's weights."""
        return {"reference": self.reference, "data": self.data_digest}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave. Raises JobFailure when the preferences have changed since."""
        if state["data"] != self.data_digest:
            raise JobFailure(
                FailureReason.CONFIG_INVALID,
                f"The preferences at {self.spec.dataset.uri} have changed since the checkpoint was written. Put the "
                "old ones back, or give this job an output.uri of its own.",
            )
        self.reference = [(chosen, rejected) for chosen, rejected in state["reference"]]

    def run(self, iteration: Iteration) -> IterationResult:
        """One iteration: some optimizer steps."""
        if not self.reference:
            iteration.enter("scoring")
            self.reference = self._reference()
        iteration.enter("training")
        sums = torch.zeros(len(MEASURES), device=self.policy.peers.device)
        count = 0
        first, last = list(pairwise(self._bounds))[iteration.number]
        for step in range(first, last):
            size = min(self.global_batch_size, len(self.pairs))
            places = drawn_prompts(len(self.pairs), size, step, self.seed)
            self._step(places, iteration, step, sums)
            count += size
        totals = self.policy.peers.sums(sums.tolist())
        return IterationResult({name: total / count for name, total in zip(MEASURES, totals, strict=True)})

    def _reference(self) -> list[tuple[float, float]]:
        """Log-probabilities of all pairs under the policy before any training, so that no second model is held."""
        self.policy.engine.eval()
        mine: dict[int, tuple[float, float]] = {}
        for group in self._groups(self.pairs):
            with torch.no_grad():
                chosen, rejected = self._logprobs(group.items)
            if not group.is_filler:
                mine |= dict(zip(group.places, zip(chosen.tolist(), rejected.tolist(), strict=True), strict=True))
        found = {place: values for part in self.policy.peers.gather(mine) for place, values in part.items()}
        return [found[place] for place in range(len(self.pairs))]

    def _groups(self, pairs: Sequence[Pair]) -> list[Group[Pair]]:
        return dealt(
            pairs,
            len,
            group_size=self.policy.micro_batch_size,
            rank=self.policy.peers.rank,
            processes=self.policy.peers.count,
        )

    def _logprobs(self, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """(pairs,) each: of the chosen and of the rejected answers, in one pass."""
        rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
        batch = narrow_batch(rows, self.policy.pad_token_id, self.policy.peers.device)
        sums = (self.policy.statistics(batch)["logprobs"] * batch.answer_mask).sum(-1)
        chosen, rejected = sums.chunk(2)
        return chosen, rejected

    def _step(self, places: list[int], iteration: Iteration, step: int, sums: Tensor) -> None:
        """sums: of MEASURES, on the device, to which those of this process's pairs are added."""
        started = time.monotonic()
        chosen_pairs = [self.pairs[place] for place in places]
        torch.manual_seed(step_seed(self.seed, iteration.optimizer_steps, self.policy.peers.rank))
        self.policy.engine.train()

        def loss_of(group: Group[Any]) -> Tensor:
            chosen, rejected = self._logprobs(group.items)
            reference = torch.tensor([self.reference[places[one]] for one in group.places], device=chosen.device)
            found = dpo_loss(chosen, rejected, reference[:, 0], reference[:, 1], beta=self.spec.beta)
            if not group.is_filler:
                sums.add_(_measures(found))
            return found.loss.sum()

        loss, grad_norm = self.policy.update(
            self._groups(chosen_pairs),
            [loss_of],
            divisor=len(places),
            learning_rate=iteration.learning_rate,
            step=iteration.optimizer_steps + 1,
        )
        iteration.record(
            StepMetrics(
                step=iteration.optimizer_steps + 1,
                epoch=(step + 1) * len(places) / len(self.pairs),
                loss=loss,
                learning_rate=iteration.learning_rate,
                grad_norm=grad_norm,
                tokens=sum(len(p) + len(a) for pair in chosen_pairs for p, a in (pair.chosen, pair.rejected)),
                seconds=time.monotonic() - started,
            )
        )


def _measures(found: DpoLoss) -> Tensor:
    """(measures,) sums over pairs, in the order of MEASURES."""
    margins = found.chosen_reward - found.rejected_reward
    values = (found.loss, (margins > 0).float(), margins, found.chosen_reward, found.rejected_reward)
    return torch.stack(values).detach().sum(1)
