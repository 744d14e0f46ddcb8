"""The training loss: cross-entropy of the learned tokens, normalised by their number over all processes."""

import inspect
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

IGNORED = -100
"""Label of tokens that are read but not learned."""


def count_learned(labels: Tensor) -> int:
    """Tokens whose prediction is learned: the first of a row has nothing before it to be predicted from.

    labels: (batch, time).
    """
    return int((labels[:, 1:] != IGNORED).sum())


def summed_loss(model: nn.Module, batch: Mapping[str, Tensor], *, selects_positions: bool) -> Tensor:
    """The sum of the learned tokens' cross-entropy, a float32 scalar in nats.

    A sum and not a mean, so that the caller can divide by the learned tokens of the whole step, over micro-batches and
    processes: then every token weighs the same whichever batch it came to lie in.
    selects_positions: whether the model can be told the positions it shall compute logits for. Prompts are most of an
    instruction dataset; leaving them out of the vocabulary-wide projection saves most of its time and memory.
    """
    labels = batch["labels"]  # (batch, time)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    targets = labels[:, 1:]  # (batch, time - 1): what the positions before predict
    if not selects_positions:
        logits = model(**inputs, use_cache=False).logits[:, :-1]  # (batch, time - 1, vocab)
    else:
        positions = (targets != IGNORED).any(dim=0).nonzero().squeeze(-1)  # (kept,) learned in at least one row
        if len(positions) == 0:
            positions = positions.new_zeros(1)  # every process has to take part in every pass
        targets = targets[:, positions]  # (batch, kept)
        logits = model(**inputs, use_cache=False, logits_to_keep=positions).logits  # (batch, kept, vocab)
    return functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def can_select_positions(model: nn.Module) -> bool:
    """Whether the model's forward takes `logits_to_keep`; nearly all causal models of transformers do."""
    return "logits_to_keep" in inspect.signature(type(model).forward).parameters


def add_embedding_noise(embeddings: nn.Module, alpha: float) -> None:
    """Adds uniform noise to the embeddings' output while training (NEFTune, Jain et al. 2023, algorithm 1).

    Its bound is alpha / sqrt(time * width), where time is the padded length of the row.
    """

    def with_noise(module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        if not module.training:
            return output
        bound = alpha / (output.size(1) * output.size(2)) ** 0.5
        return output + torch.empty_like(output).uniform_(-bound, bound)

    embeddings.register_forward_hook(with_noise)
