"""Prompts with answers as batches, whose rows begin together, or whose answers do."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alidade_engine.padding import padded, positions_of


@dataclass(frozen=True)
class AnswerBatch:
    """input_ids, attention_mask, position_ids: (rows, time). places: (width,) in order, of the time, where answers are
    looked at. answer_mask: (rows, width) bool, where an answer's token stands, with the one that ends it."""

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    places: Tensor
    answer_mask: Tensor

    @property
    def answer_width(self) -> int:
        """Places that are looked at."""
        return self.answer_mask.size(1)

    @property
    def arguments(self) -> dict[str, Tensor]:
        """What networks are called with."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
            "places": self.places,
        }


def answer_batch(
    rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad_token_id: int, device: torch.device
) -> AnswerBatch:
    """A batch of (prompt ids, answer ids): prompts padded on the left and answers on the right, so that answers begin
    together and a place is the same token of each."""
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
        torch.arange(left, left + right, device=device),
        attention_mask[:, left:].bool().to(device),
    )


def narrow_batch(
    rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad_token_id: int, device: torch.device
) -> AnswerBatch:
    """A batch of (prompt ids, answer ids) for sums over whole answers: no wider than the longest row, where that of
    `answer_batch` is as wide as the longest prompt and the longest answer together."""
    batch = padded([[*prompt, *answer] for prompt, answer in rows], pad_token_id)
    # Nothing stands before a row's first token to tell it by.
    begins = torch.tensor([max(1, len(prompt)) for prompt, _ in rows]).unsqueeze(1)
    is_answer = batch["attention_mask"].bool() & (torch.arange(batch["input_ids"].size(1)) >= begins)
    places = is_answer.any(0).nonzero().squeeze(1)
    return AnswerBatch(
        batch["input_ids"].to(device),
        batch["attention_mask"].to(device),
        positions_of(batch["attention_mask"]).to(device),
        places.to(device),
        is_answer[:, places].to(device),
    )
