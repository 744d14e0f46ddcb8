"""The next token of every row of a batch, drawn from its logits with random numbers of the row's own."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Likeliest tokens that are looked at first for a nucleus: of a trained model they nearly always reach top_p, and
# finding them costs a tenth of sorting a vocabulary. Rows for which they do not reach it are sorted whole.
_FIRST_CANDIDATES = 128


@dataclass(frozen=True)
class SamplingParams:
    """How answers are drawn.

    max_new_tokens: longest answer, with the token that ends it. temperature: divides the logits; 0 takes the likeliest
    token each time. top_k: only that many likeliest tokens; 0 for all. top_p: then only the likeliest tokens that
    together reach this probability (Holtzman et al. 2020). repetition_penalty: logits of tokens that the prompt or the
    answer already holds are divided by it where positive and multiplied where negative (Keskar et al. 2019).
    stop_token_ids: what ends an answer; None for the tokenizer's and its template's own end. logprobs: whether the
    log-probability of each token drawn is wanted.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    stop_token_ids: tuple[int, ...] | None = None
    logprobs: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError, which names the field, its value and its limits."""
        for fine, name, limit in (
            (self.max_new_tokens >= 0, "max_new_tokens", "at least 0"),
            (0 <= self.temperature < float("inf"), "temperature", "0 or a positive number"),
            (0 < self.top_p <= 1, "top_p", "above 0 and at most 1"),
            (self.top_k >= 0, "top_k", "at least 0, where 0 takes all tokens"),
            (0 < self.repetition_penalty < float("inf"), "repetition_penalty", "a positive number; 1 is none"),
        ):
            if not fine:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {limit}.")


def uniforms(seed: int, prompt: int, sample: int, count: int) -> NDArray[np.float64]:
    """(count,) numbers in [0, 1) that depend on the seed, the prompt's key and the sample's number and nothing else.

    A longer stream begins with the shorter one. NumPy's SeedSequence mixes the three, so that neighbouring streams are
    independent.
    """
    return np.random.default_rng([seed, prompt, sample]).random(count)


@torch.inference_mode()
def draw(
    logits: Tensor, params: SamplingParams, positions: Tensor, seen: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The next token of each row, and its log-probability when params ask for it.

    logits: (rows, vocabulary). positions: (rows,) float64 in [0, 1), where in the cumulative distribution of its row
    the token lies; a row's draw depends on nothing but its own logits and position. seen: (rows, vocabulary) True for
    tokens under the repetition penalty. Returns (rows,) ids and (rows,) float32 natural logarithms of the model's own
    distribution at the temperature (1 where it is 0), before penalty, top_k and top_p: what a policy gradient needs.
    """
    wide = logits.float()
    scaled = wide / params.temperature if params.temperature > 0 else wide
    own = scaled if params.logprobs else None
    if seen is not None:
        penalised = torch.where(scaled < 0, scaled * params.repetition_penalty, scaled / params.repetition_penalty)
        scaled = torch.where(seen, penalised, scaled)
    if params.temperature > 0:
        tokens = _draw(scaled.softmax(-1), params, positions)
    else:
        tokens = scaled.argmax(-1)
    if own is None:
        return tokens, None
    return tokens, own.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - own.logsumexp(-1)


def _draw(probabilities: Tensor, params: SamplingParams, positions: Tensor) -> Tensor:
    vocabulary = probabilities.shape[-1]
    if params.top_k:
        values, ids = probabilities.topk(min(params.top_k, vocabulary))
        values = values / values.sum(-1, keepdim=True)
        return _pick(_nucleus(values, params.top_p), positions, ids)
    if params.top_p == 1:
        return _pick(probabilities, positions)
    values, ids = probabilities.topk(min(_FIRST_CANDIDATES, vocabulary))
    tokens = _pick(_nucleus(values, params.top_p), positions, ids)
    if values.shape[-1] < vocabulary:
        wide = (values.sum(-1, dtype=torch.float64) < params.top_p).nonzero().squeeze(-1)
        if len(wide):
            values, ids = probabilities[wide].sort(-1, descending=True)
            tokens[wide] = _pick(_nucleus(values, params.top_p), positions[wide], ids)
    return tokens


def _nucleus(ordered: Tensor, top_p: float) -> Tensor:
    """(rows, candidates) descending probabilities, with those behind the first that reach top_p set to 0."""
    before = ordered.cumsum(-1, dtype=torch.float64) - ordered
    return ordered.masked_fill(before >= top_p, 0.0)


def _pick(weights: Tensor, positions: Tensor, ids: Tensor | None = None) -> Tensor:
    """(rows,) entries at the positions in the cumulative sums of (rows, candidates) weights, as ids where given.

    The sums are in float64: in float32 the likelihood of rare tokens of a large vocabulary would be lost in rounding.
    """
    sums = weights.cumsum(-1, dtype=torch.float64)
    total = sums[:, -1:]
    # Rounding could take the product up to the total, behind the last candidate that has any weight.
    at = torch.minimum(positions.unsqueeze(-1) * total, torch.nextafter(total, torch.zeros_like(total)))
    found = torch.searchsorted(sums, at, right=True).clamp(max=weights.shape[-1] - 1)
    return (found if ids is None else ids.gather(-1, found)).squeeze(-1)
