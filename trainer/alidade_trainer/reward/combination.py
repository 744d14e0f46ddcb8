"""Several rewards made one."""

from collections.abc import Sequence

import torch
from torch import Tensor

SAFETY_THRESHOLD = 0.15
"""Below this safety score an answer is judged by safety alone (Llama 2, section 3.2.3): precision 0.89, recall 0.55."""
_CLOSEST = 1e-6  # to 0 and 1 that a score may come before its logit is taken: ±13.8


def weighted_sum(scores: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """(answers,) sum of each reward's (answers,) scores times its weight."""
    return torch.stack([score.float() * weight for score, weight in zip(scores, weights, strict=True)]).sum(0)


def gated(safety: Tensor, helpfulness: Tensor, tagged: Tensor) -> Tensor:
    """Llama 2's reward (section 3.2.3): safety where it matters, helpfulness elsewhere, whitened after the logit.

    Arguments as of `gate`. The scores of each answer's own judge are brought back to logits and whitened over the
    batch, so that the two scales do not differ and the divergence penalty keeps its weight.
    """
    return whitened(torch.logit(gate(safety, helpfulness, tagged), eps=_CLOSEST))


def gate(safety: Tensor, helpfulness: Tensor, tagged: Tensor) -> Tensor:
    """(answers,) score from 0 to 1 of each answer's own judge, which compares between batches as `gated` does not.

    safety, helpfulness: (answers,) raw rewards, whose sigmoid is the score that the threshold means. tagged: (answers,)
    bool, whether the prompt may elicit unsafe answers.
    """
    safety_score, helpfulness_score = safety.float().sigmoid(), helpfulness.float().sigmoid()
    by_safety = tagged | (safety_score < SAFETY_THRESHOLD)
    return torch.where(by_safety, safety_score, helpfulness_score)


def whitened(values: Tensor) -> Tensor:
    """(answers,) with mean 0 and variance 1; a constant becomes 0."""
    centred = values - values.mean()
    return centred * torch.rsqrt(values.var(unbiased=False) + 1e-8)
