"""Log-probabilities that a model gives to answers."""

import inspect
from collections.abc import Iterator, Sequence

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


MOST_LOGITS = 1 << 28
"""Logits that are held at once: 1 GiB in float32, and as much again while they are normalised."""


def sequence_logprobs(
    model: PreTrainedModel,
    sequences: Sequence[Rendered],
    *,
    pad_token_id: int,
    batch_size: int = 16,
    most_logits: int = MOST_LOGITS,
) -> list[Tensor]:
    """For each sequence the log-probabilities of its answer tokens, given all that stands before each.

    batch_size: most sequences that are read at once; fewer, but at least one, where their logits, of which those
    before the first answer are not computed, would be more than most_logits. Returns one (answer tokens,) float32
    tensor on the CPU for each sequence, in order; `.sum()` is the log-likelihood. A sequence's first token, before
    which nothing stands, is never among them.
    """
    scored: list[Tensor] = [torch.empty(0)] * len(sequences)
    for index, logits, targets in _answers(model, sequences, pad_token_id, batch_size, most_logits):
        scored[index] = token_logprobs(logits, targets).cpu()
    return scored


def likelihoods_and_greed(
    model: PreTrainedModel,
    sequences: Sequence[Rendered],
    *,
    pad_token_id: int,
    batch_size: int = 16,
    most_logits: int = MOST_LOGITS,
) -> list[tuple[float, bool]]:
    """For each sequence the log-likelihood of its answer in nats, and whether every token of it is the likeliest one.

    Arguments as of `sequence_logprobs`.
    """
    scored = [(0.0, True)] * len(sequences)
    for index, logits, targets in _answers(model, sequences, pad_token_id, batch_size, most_logits):
        is_greedy = bool((logits.argmax(-1) == targets).all())
        scored[index] = float(token_logprobs(logits, targets).double().sum()), is_greedy
    return scored


@torch.inference_mode()
def _answers(
    model: PreTrainedModel, sequences: Sequence[Rendered], pad_token_id: int, batch_size: int, most_logits: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Each sequence's index, (answer tokens, vocabulary) logits and (answer tokens,) ids, in no particular order."""
    for indices in _batches(sequences, batch_size, most_logits // model.config.get_text_config().vocab_size):
        # The last token is only predicted, never read.
        batch = padded(
            [sequences[index].input_ids[:-1] or sequences[index].input_ids for index in indices], pad_token_id
        )
        on_device = {name: tensor.to(model.device) for name, tensor in batch.items()}
        first = min(_first_place(sequences[index]) for index in indices)
        logits = _logits(model, on_device, first)  # (batch, time - first, vocabulary)
        for row, index in enumerate(indices):
            places = torch.tensor(sequences[index].answer_mask)[1:].nonzero().squeeze(-1)
            targets = torch.tensor(sequences[index].input_ids)[places + 1].to(model.device)
            yield index, logits[row, places.to(model.device) - first], targets


def _batches(sequences: Sequence[Rendered], batch_size: int, most_places: int) -> Iterator[list[int]]:
    """Sequences of like lengths; sequences of a batch times the length of its longest are at most most_places."""
    batch: list[int] = []
    for index in sorted(range(len(sequences)), key=lambda index: len(sequences[index].input_ids)):
        if len(batch) == batch_size or (batch and (len(batch) + 1) * len(sequences[index].input_ids) > most_places):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _first_place(sequence: Rendered) -> int:
    """The place whose logits tell the first answer token; 0 where there is none."""
    return next((place - 1 for place, own in enumerate(sequence.answer_mask) if own and place), 0)


def _logits(model: PreTrainedModel, batch: dict[str, Tensor], first: int) -> Tensor:
    """(batch, time - first, vocabulary) logits from a place on."""
    kept = batch["input_ids"].size(1) - first
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        last: Tensor = model(**batch, use_cache=False, logits_to_keep=kept).logits
        return last
    every: Tensor = model(**batch, use_cache=False).logits
    return every[:, first:]
