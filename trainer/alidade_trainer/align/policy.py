"""A policy under training: its engine, its reference, its judge, and what is computed with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import deepspeed
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from alidade_trainer.align.answers import AnswerBatch
from alidade_trainer.align.judging import Judge
from alidade_trainer.align.network import FrozenReference
from alidade_trainer.align.sampling import PolicySampler
from alidade_trainer.dealing import Group, dealt
from alidade_trainer.loop import refuse_not_finite
from alidade_trainer.peers import Peers
from alidade_trainer.zero import take_step

Row = tuple[list[int], list[int]]
"""Prompt and answer, as token ids."""


@dataclass
class Policy:
    """Every method is called by all processes."""

    engine: deepspeed.DeepSpeedEngine
    tokenizer: PreTrainedTokenizerBase
    peers: Peers
    judge: Judge
    sampler: PolicySampler
    uses_adapter: bool
    reference: FrozenReference | deepspeed.DeepSpeedEngine | None
    """A frozen copy of the start model; with an adapter none is needed."""
    micro_batch_size: int
    pad_token_id: int = field(init=False)

    def __post_init__(self) -> None:
        self.pad_token_id = int(self.tokenizer.pad_token_id)

    @property
    def has_reference(self) -> bool:
        """Whether the divergence from the start model can be told."""
        return self.uses_adapter or self.reference is not None

    @property
    def trains_apart(self) -> bool:
        """Whether policy and critic can be led back one after the other, and so hold less at a time.

        Not where values are read from the policy's own states; and not under ZeRO-3, whose gradients come out wrong
        when a backward pass leaves weights out (measured: the critic's, DeepSpeed 0.19).
        """
        return self.engine.module.critic is not None and self.engine.zero_optimization_stage() < 3

    def statistics(self, batch: AnswerBatch, **options: Any) -> dict[str, Tensor]:
        """As PolicyNetwork.forward."""
        found: dict[str, Tensor] = self.engine(**batch.arguments, **options)
        return found

    @torch.no_grad()
    def reference_logprobs(self, batch: AnswerBatch, *, temperature: float) -> Tensor:
        """(rows, answer width) of the start model: the same weights with the adapter off, or the frozen copy."""
        if self.uses_adapter:
            return self.statistics(batch, temperature=temperature, as_reference=True)["logprobs"]
        assert self.reference is not None
        found: Tensor = self.reference(**batch.arguments, temperature=temperature)
        return found

    def groups(self, rows: Sequence[Row]) -> list[Group[Row]]:
        """This process's share of prompts with answers, in passes of micro-batch size."""
        return dealt(
            rows,
            lambda row: len(row[0]) + len(row[1]),
            group_size=self.micro_batch_size,
            rank=self.peers.rank,
            processes=self.peers.count,
        )

    def update(
        self,
        groups: Sequence[Group[Any]],
        summed_losses: Sequence[Callable[[Group[Any]], Tensor]],
        *,
        divisor: float,
        learning_rate: float,
        step: int,
    ) -> tuple[float, float]:
        """One optimizer step. Returns loss and norm of the gradient, over all processes.

        summed_losses: of a group, sums over tokens or pairs; each is computed and led back before the next one.
        divisor: number of those over all processes; so each weighs the same whichever group and process it comes to
        lie in.
        """
        # DeepSpeed averages gradients over the processes; the factor makes of that average the sum it has to be.
        scale = self.peers.count / max(divisor, 1.0)
        total = torch.zeros((), device=self.peers.device)
        passes = [(group, summed_loss) for group in groups for summed_loss in summed_losses]
        for number, (group, summed_loss) in enumerate(passes, 1):
            self.engine.set_gradient_accumulation_boundary(number == len(passes))
            loss = summed_loss(group) * (0.0 if group.is_filler else 1.0)
            self.engine.backward(loss * scale, scale_wrt_gas=False)
            total += loss.detach()
        mean = self.peers.sums([float(total)])[0] / max(divisor, 1.0)
        refuse_not_finite(mean, "loss", step)
        grad_norm = take_step(self.engine, learning_rate)
        refuse_not_finite(grad_norm, "norm of the gradient", step)
        return mean, grad_norm
