"""Log-probabilities that a model gives to answers."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alidade_engine.templates import Rendered


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of each target under the logits at its place, in float32 whatever the logits are.

    logits: (..., vocabulary); targets: (...) ids. Returns (...) in nats. The softmax is computed in float32 since
    bfloat16's 8 bits of mantissa would lose what differs between two answers.
    """
    wide = logits.float()
    chosen = wide.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return chosen - wide.logsumexp(-1)


@torch.inference_mode()
def sequence_logprobs(
    model: PreTrainedModel, sequences: Sequence[Rendered], *, pad_token_id: int, batch_size: int = 16
) -> list[Tensor]:
    """For each sequence the log-probabilities of its answer tokens, given all that stands before each.

    Returns one (answer tokens,) float32 tensor on the CPU for each sequence, in order; `.sum()` is the log-likelihood.
    A sequence's first token, before which nothing stands, is never among them.
    """
    scored: list[Tensor] = [torch.empty(0)] * len(sequences)
    by_length = sorted(range(len(sequences)), key=lambda index: len(sequences[index].input_ids))
    for start in range(0, len(by_length), batch_size):
        indices = by_length[start : start + batch_size]
        width = len(sequences[indices[-1]].input_ids)
        ids = torch.full((len(indices), width), pad_token_id)
        attention = torch.zeros_like(ids)
        for row, index in enumerate(indices):
            length = len(sequences[index].input_ids)
            ids[row, :length] = torch.tensor(sequences[index].input_ids)
            attention[row, :length] = 1
        logits = model(
            input_ids=ids.to(model.device), attention_mask=attention.to(model.device), use_cache=False
        ).logits  # (batch, time, vocabulary)
        for row, index in enumerate(indices):
            places = torch.tensor(sequences[index].answer_mask)[1:].nonzero().squeeze(-1)
            targets = ids[row, places + 1].to(model.device)
            scored[index] = token_logprobs(logits[row, places.to(model.device)], targets).cpu()
    return scored
