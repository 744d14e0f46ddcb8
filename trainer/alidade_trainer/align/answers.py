"""Prompts with answers as batches: prompts padded on the left, answers on the right, so that answers begin together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alidade_engine.padding import positions_of


@dataclass(frozen=True)
class AnswerBatch:
    """input_ids, attention_mask, position_ids: (rows, prompt width + answer width). answer_mask: (rows, answer width)
    bool, the answer's tokens, with the one that ends it."""

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    answer_mask: Tensor

    @property
    def answer_width(self) -> int:
        """Tokens of the longest answer."""
        return self.answer_mask.size(1)

    @property
    def arguments(self) -> dict[str, Tensor | int]:
        """What networks are called with."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
            "answer_width": self.answer_width,
        }


def answer_batch(
    rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad_token_id: int, device: torch.device
) -> AnswerBatch:
    """A batch of (prompt ids, answer ids)."""
    left = max(len(prompt) for prompt, _ in rows)
    right = max(1, max(len(answer) for _, answer in rows))
    input_ids = torch.full((len(rows), left + right), pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for place, (prompt, answer) in enumerate(rows):
        first, end = left - len(prompt), left + len(answer)
        input_ids[place, first:end] = torch.tensor([*prompt, *answer])
        attention_mask[place, first:end] = 1
    return AnswerBatch(
        input_ids.to(device),
        attention_mask.to(device),
        positions_of(attention_mask).to(device),
        attention_mask[:, left:].bool().to(device),
    )
