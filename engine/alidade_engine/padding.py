"""Rows of different lengths as one tensor, and where in it each ends."""

from collections.abc import Sequence

import torch
from torch import Tensor


def last_token(attention_mask: Tensor) -> Tensor:
    """(rows,) place of the last real token of each row, whichever side is padded.

    attention_mask: (rows, time), 1 for real tokens. The mask is asked and never the tokens: where padding and
    end-of-sequence share an id, looking for the padding's id finds the token before the end.
    """
    places = torch.arange(attention_mask.size(1), device=attention_mask.device)
    return (attention_mask.bool() * places).argmax(dim=1)


def positions_of(attention_mask: Tensor) -> Tensor:
    """(rows, time) position of each token, from 0 at the first real one, so that padding on the left shifts nothing."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def pooled(values: Tensor, attention_mask: Tensor) -> Tensor:
    """(rows, ...) what stands at each row's last real token in (rows, time, ...)."""
    rows = torch.arange(values.size(0), device=values.device)
    return values[rows, last_token(attention_mask)]


def padded(rows: Sequence[Sequence[int]], pad_token_id: int) -> dict[str, Tensor]:
    """input_ids and attention_mask, (rows, time) int64, padded on the right to the longest."""
    width = max(map(len, rows))
    input_ids = torch.full((len(rows), width), pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for place, row in enumerate(rows):
        input_ids[place, : len(row)] = torch.tensor(row)
        attention_mask[place, : len(row)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}
