"""Perplexity by length of context: what a model makes of more text before the tokens that it predicts.

The stride method (Press et al. 2022, appendix B; Peng et al. 2023, section 4.3): a window of so many tokens moves over
held-out text, and only the tokens of its last stride count. Here windows of every length end at the same places, so all
lengths are measured on the same tokens and nothing differs but how much stands before them.
"""

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from alidade_engine.perplexity import perplexity_of
from alidade_engine.scoring import token_logprobs
from alidade_trainer.data.sequences import TokenDataset
from alidade_trainer.peers import Peers

SHORTEST = 512
"""The first length, where the base's context is not shorter."""
STRIDE = 256
"""Tokens at the end of each window that count (Peng et al. 2023)."""
MOST_WINDOWS = 16
"""Windows: with them 4,096 tokens count."""


@dataclass(frozen=True)
class Windows:
    """Where perplexity by length is measured."""

    lengths: list[int]
    stride: int
    tokens: list[NDArray[np.int32]]
    """Windows of the longest length, (length,) ids each."""
    within_texts: bool
    """Whether each window lies within one text; else the texts were joined one after the other."""


def plan_windows(held_out: TokenDataset | None, *, original: int, target: int) -> Windows | None:
    """Windows over held-out samples: within those that are long enough, else over all of them joined.

    original, target: the model's context before and after. Lengths double up to the target, or to what there is of
    text. None without enough held-out text for the first length.
    """
    if held_out is None:
        return None
    samples = held_out.samples
    texts = [samples.tokens[samples.offsets[one] : samples.offsets[one + 1]] for one in np.sort(held_out.members)]
    long = [text for text in texts if len(text) >= target]
    parts = long or [np.concatenate(texts)]
    lengths = [length for length in doubling(min(SHORTEST, original), target) if length <= max(map(len, parts))]
    if not lengths:
        return None
    stride = min(STRIDE, lengths[0] // 2)
    ends = [(part, end) for part in parts for end in range(lengths[-1], len(part) + 1, stride)]
    chosen = [ends[place] for place in evenly(len(ends), MOST_WINDOWS)]
    return Windows(lengths, stride, [part[end - lengths[-1] : end] for part, end in chosen], bool(long))


def doubling(first: int, last: int) -> list[int]:
    """first, twice that, and so on, and last."""
    return [first * 2**power for power in range(math.ceil(math.log2(last / first)))] + [last]


def evenly(count: int, most: int) -> list[int]:
    """At most `most` places among `count`, evenly apart, the first among them."""
    return [place * count // min(count, most) for place in range(min(count, most))]


def perplexities(model: PreTrainedModel, windows: Windows, peers: Peers) -> list[float]:
    """Perplexity of the counted tokens at each length. Every process calls it, and reads its share of the windows."""
    was_training = model.training
    model.eval()
    keeps = {"logits_to_keep": windows.stride + 1} if _keeps_logits(model) else {}
    found = []
    with torch.no_grad():
        for length in windows.lengths:
            total = sum(
                weight * _loss(model, window[-length:], windows.stride, keeps, peers.device)
                for window, weight in _share(windows.tokens, peers)
            )
            [summed] = peers.sums([total])
            found.append(perplexity_of(summed / (windows.stride * len(windows.tokens))))
    model.train(was_training)
    return found


def _share(windows: Sequence[NDArray[np.int32]], peers: Peers) -> Iterator[tuple[NDArray[np.int32], float]]:
    """This process's windows; every process gets as many, since under ZeRO-3 they compute together."""
    for first in range(0, len(windows), peers.count):
        place = first + peers.rank
        yield (windows[place], 1.0) if place < len(windows) else (windows[0], 0.0)


def _loss(
    model: PreTrainedModel, window: NDArray[np.int32], stride: int, keeps: dict[str, int], device: torch.device
) -> float:
    """Summed loss in nats of a window's last `stride` tokens."""
    ids = torch.from_numpy(window.astype(np.int64)).to(device)
    logits = model(input_ids=ids[None], use_cache=False, **keeps).logits[0, -stride - 1 : -1]  # (stride, vocabulary)
    return -float(token_logprobs(logits, ids[-stride:]).double().sum())


def _keeps_logits(model: PreTrainedModel) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters


@contextmanager
def rotating_as(model: nn.Module, config: PretrainedConfig) -> Iterator[None]:
    """Within it the model's positions are those of another configuration, such as its own before they were stretched.

    Only for kinds whose angles depend on nothing but the position.
    """
    rotations: list[Any] = [one for one in model.modules() if hasattr(one, "inv_freq") and hasattr(one, "config")]
    kept = [(one, one.inv_freq.clone(), one.attention_scaling) for one in rotations]
    try:
        for one in rotations:
            other = type(one)(config)
            one.inv_freq.copy_(other.inv_freq)
            one.attention_scaling = other.attention_scaling
        yield
    finally:
        for one, frequencies, scaling in kept:
            one.inv_freq.copy_(frequencies)
            one.attention_scaling = scaling
