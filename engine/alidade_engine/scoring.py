"""Log-probabilities that a model gives to answers."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alidade_engine.padding import padded
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
        batch = padded([sequences[index].input_ids for index in indices], pad_token_id)
        on_device = {name: tensor.to(model.device) for name, tensor in batch.items()}
        logits = model(**on_device, use_cache=False).logits  # (batch, time, vocabulary)
        for row, index in enumerate(indices):
            places = torch.tensor(sequences[index].answer_mask)[1:].nonzero().squeeze(-1)
            targets = on_device["input_ids"][row, places.to(model.device) + 1]
            scored[index] = token_logprobs(logits[row, places.to(model.device)], targets).cpu()
    return scored
