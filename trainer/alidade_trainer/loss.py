"""The training loss: cross-entropy of the learned tokens, normalised by their number over all processes."""

import inspect
from collections.abc import Mapping, Sequence

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


class LossTally:
    """The loss of each of several datasets, summed over the batches of a step."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.start()

    def start(self) -> None:
        """Begins anew."""
        self._sums = torch.zeros(2, len(self.names), dtype=torch.float64)  # (losses and tokens, datasets)

    def add(self, losses: Tensor, learned: Tensor, datasets: Tensor) -> None:
        """Counts tokens, each with its loss, 0 where it is not learned, and the number of its dataset."""
        values = torch.stack([losses.detach().flatten().double(), learned.flatten().double()])
        sums = values.new_zeros(self._sums.shape).index_add_(1, datasets.flatten(), values)
        self._sums = self._sums.to(sums.device) + sums  # read once a step: to read it waits for the device

    def sums(self) -> list[float]:
        """Of each dataset the loss, then of each the learned tokens; those of several processes can be added."""
        found: list[float] = self._sums.flatten().tolist()
        return found

    def means(self, sums: Sequence[float]) -> dict[str, float]:
        """Loss per learned token of each dataset that had one, by its name. sums: over all processes."""
        losses, tokens = sums[: len(self.names)], sums[len(self.names) :]
        return {name: loss / count for name, loss, count in zip(self.names, losses, tokens, strict=True) if count}


def summed_loss(
    model: nn.Module, batch: Mapping[str, Tensor], *, selects_positions: bool, tally: LossTally | None = None
) -> Tensor:
    """The sum of the learned tokens' cross-entropy, a float32 scalar in nats.

    A sum and not a mean, so that the caller can divide by the learned tokens of the whole step, over micro-batches and
    processes: then every token weighs the same whichever batch it came to lie in.
    selects_positions: whether the model can be told the positions it shall compute logits for. Prompts are most of an
    instruction dataset; leaving them out of the vocabulary-wide projection saves most of its time and memory.
    tally: counts the loss of each dataset, where the batch says which tokens are of which.
    """
    labels = batch["labels"]  # (batch, time)
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "datasets")}
    targets = labels[:, 1:]  # (batch, time - 1): what the positions before predict
    positions = torch.arange(targets.size(1), device=targets.device)
    if not selects_positions:
        logits = model(**inputs, use_cache=False).logits[:, :-1]  # (batch, time - 1, vocab)
    else:
        positions = (targets != IGNORED).any(dim=0).nonzero().squeeze(-1)  # (kept,) learned in at least one row
        if len(positions) == 0:
            positions = positions.new_zeros(1)  # every process has to take part in every pass
        targets = targets[:, positions]  # (batch, kept)
        logits = model(**inputs, use_cache=False, logits_to_keep=positions).logits  # (batch, kept, vocab)
    flat = logits.float().flatten(0, 1), targets.flatten()
    if tally is None or "datasets" not in batch:
        return functional.cross_entropy(*flat, ignore_index=IGNORED, reduction="sum")
    losses = functional.cross_entropy(*flat, ignore_index=IGNORED, reduction="none")  # (batch * kept,)
    tally.add(losses, flat[1] != IGNORED, batch["datasets"][:, 1:][:, positions])
    return losses.sum()


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
